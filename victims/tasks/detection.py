"""Which things are on a photo, and where."""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import ClassVar

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from splitleak.victims.data.base import Form
from splitleak.victims.tasks.base import Task

EDGES = 4
"""Columns of a box."""
LEAST_IOU = 0.5
"""Intersection over union from which on a box counts as found, as in Pascal VOC (Everingham et al., 2010)."""
LEAST_SCORE = 0.5
"""Of a box that counts as said."""
MOST = 40
"""Boxes that are kept of a photo."""


@dataclass(frozen=True)
class Detection(Task):
    """A box around each thing; utility is F1 at an IoU of 0.5, of the boxes that are likelier than not.

    Per photo: likeliest first, a box is right if a thing of its class that no box before it found overlaps it so
    much. F1 is twice the right ones over all boxes and all things. Loss and decisions are those of torchvision's SSD.
    """

    form: ClassVar[Form] = "boxes"
    metric: ClassVar[str] = "F1"

    def outputs(self, classes: int, size: int) -> tuple[int | None, ...]:
        """For each default box its edges, how to move them, and the logits of nothing and of each class."""
        return None, 2 * EDGES + 1 + classes

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """SSD's: Liu et al., SSD: Single Shot MultiBox Detector, ECCV 2016."""
        anchors, said = _read(outputs)
        things = [_things(row) for row in targets]
        matched = [
            _ssd().proposal_matcher(box_iou(of["boxes"], own))
            if len(of["boxes"])
            else torch.full((len(own),), -1, device=own.device)
            for of, own in zip(things, anchors, strict=True)
        ]
        losses = _ssd().compute_loss(things, said, list(anchors), matched)
        total: Tensor = losses["bbox_regression"] + losses["classification"]
        return total

    def predict(self, outputs: Tensor) -> Tensor:
        """Boxes, the likeliest first, (n, MOST, 6): after edges and class (see ``Form``) how likely each is."""
        anchors, said = _read(outputs.float())
        found = _ssd().postprocess_detections(said, list(anchors), [(1, 1)] * len(outputs))
        rows = outputs.new_full((len(outputs), MOST, EDGES + 2), -1.0, dtype=torch.float32)
        for row, of in zip(rows, found, strict=True):
            count = len(of["boxes"])
            row[:count] = torch.cat([of["boxes"], of["labels"][:, None] - 1, of["scores"][:, None]], 1)
        return rows

    def utility(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """F1 of each photo; 1 where nothing is said and nothing there. Without a column of scores all boxes count."""
        said, there = predictions[..., EDGES] >= 0, targets[..., EDGES] >= 0
        if predictions.shape[-1] > EDGES + 1:
            said = said & (predictions[..., EDGES + 1] >= LEAST_SCORE)
        alike = predictions[..., None, EDGES] == targets[:, None, :, EDGES]
        overlap = torch.where(alike & said[..., None] & there[:, None], _overlaps(predictions, targets), 0)
        free, right = there.clone(), torch.zeros(len(targets), dtype=torch.float64)
        for column in range(int(said.sum(1).max()) if said.numel() else 0):
            best, thing = overlap[:, column].where(free, 0).max(1)
            hit = best >= LEAST_IOU
            free[hit, thing[hit]] = False
            right += hit
        count = said.sum(1) + there.sum(1)
        return torch.where(count > 0, 2 * right / count.clamp_min(1), 1.0)

    def summary(self, predictions: Tensor, targets: Tensor) -> dict[str, float]:
        """mAP over IoUs of 0.5 to 0.95, as COCO has it, and at 0.5; nothing without the extra ``detection``."""
        if find_spec("faster_coco_eval") is None:
            return {}
        from torchmetrics.detection import MeanAveragePrecision

        metric = MeanAveragePrecision(backend="faster_coco_eval")
        said = [{**_things(row), "scores": row[row[:, EDGES] >= 0, EDGES + 1]} for row in predictions]
        metric.update(said, [_things(row) for row in targets])
        found = metric.compute()
        return {"mAP": max(0.0, float(found["map"])), "mAP at IoU 0.5": max(0.0, float(found["map_50"]))}


@cache
def _ssd() -> SSD:
    """torchvision's code with the settings of its SSDLite; its network is nowhere."""
    nothing, generator = nn.Identity(), DefaultBoxGenerator([[2, 3]])
    return SSD(nothing, generator, (1, 1), 2, head=nothing, nms_thresh=0.55, detections_per_img=MOST)


def _read(outputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Default boxes (n, anchors, 4), and what is said of them as SSD calls it."""
    anchors, moves, logits = outputs.split((EDGES, EDGES, outputs.shape[2] - 2 * EDGES), 2)
    return anchors, {"bbox_regression": moves.contiguous(), "cls_logits": logits.contiguous()}


def _things(rows: Tensor) -> dict[str, Tensor]:
    """The boxes (k, 4) and classes (k,), from 1 on, of rows that are not left over."""
    known = rows[rows[:, EDGES] >= 0]
    return {"boxes": known[:, :EDGES], "labels": known[:, EDGES].long() + 1}


def _overlaps(one: Tensor, other: Tensor) -> Tensor:
    """IoU of boxes (n, k, >= 4) with boxes (n, m, >= 4) of the same photo, (n, k, m)."""
    a, b = one[:, :, None, :EDGES], other[:, None, :, :EDGES]
    sides = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp_min(0)
    both = sides.prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).prod(-1) for box in (a, b)]
    return both / (areas[0] + areas[1] - both).clamp_min(1e-12)
