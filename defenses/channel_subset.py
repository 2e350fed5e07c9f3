"""Send only some of the feature maps: the mitigation that the seed study proposed."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Gt, Le
from torch import Tensor

from splitleak.defenses.base import (
    Calibration,
    CalibrationBatch,
    Channel,
    Defense,
    channel_axis,
    labels_of,
    needs_task,
)
from splitleak.victims.settings import doc

Selection = Literal["first", "random", "variance", "saliency", "leakage"]
BY_TASK: tuple[Selection, ...] = ("saliency", "leakage")

PATCH = 4
"""Side in pixels of what a linear inversion rebuilds of each cell: the coarse picture has most of the energy."""
RIDGE = 1e-3
"""Of that inversion, as a share of the mean variance of a channel."""


@dataclass(frozen=True)
class ChannelSubset(Defense):
    """Keep a share of the channels; the others never leave the edge.

    The cloud puts what arrives where the tail expects it and fills the gaps with each channel's mean over the
    train part; the tail is fine-tuned on that. Selections: ``first`` in the network's order, ``random`` (drawn
    once per seed), ``variance`` (largest over the train part), ``saliency``: the first-order Taylor estimate of
    how much the task's loss moves when a channel is removed, |mean over places of activation x gradient|;
    ``leakage``: one after another the channel is given up that helps a linear inversion of the features most for the
    saliency that goes with it. What a channel helps depends on the others that are still sent, so it is computed
    anew after each.
    """

    paper: ClassVar[str] = (
        "proposed in P. Nagasubramaniam, Image Reconstruction Attacks in Distributed DL Systems using Autoencoders, "
        "2023; saliency: Molchanov et al., Pruning Convolutional Neural Networks, ICLR 2017; leakage: ours"
    )
    strength: ClassVar[str] = "keep"
    strengths: ClassVar[tuple[float, ...]] = (1.0, 0.5, 0.25, 0.1)

    keep: Annotated[float, Gt(0), Le(1), doc("share of the channels that is sent")] = 0.5
    selection: Annotated[Selection, doc("how the channels to send are chosen")] = "saliency"

    def inapplicable(self, shape: tuple[int, ...], task: str | None) -> str | None:
        """Saliency is of the task, and leakage weighs against it."""
        what = f"selects channels by '{self.selection}', which asks what the task needs"
        return needs_task(self.name, what, task) if self.selection in BY_TASK else None

    def channel(self, shape: tuple[int, ...]) -> Channel:
        """At least one channel is always sent."""
        return _SubsetChannel(shape, max(1, round(self.keep * shape[channel_axis(shape)])), self.selection)


class _SubsetChannel(Channel):
    kept: Tensor
    fill: Tensor

    def __init__(self, shape: tuple[int, ...], count: int, selection: Selection) -> None:
        super().__init__()
        self.selection: Selection = selection
        self.axis = channel_axis(shape) + 1  # behind the batch
        channels = shape[self.axis - 1]
        self.register_buffer("kept", torch.arange(count))
        self.register_buffer(
            "fill", torch.zeros([channels if axis == self.axis else 1 for axis in range(len(shape) + 1)])
        )

    def calibrate(self, calibration: Calibration) -> None:
        total = square = saliency = torch.zeros((), dtype=torch.float64)
        places = 0
        for batch in calibration.batches():
            values = batch.features.movedim(self.axis, -1).flatten(0, -2).double()
            total, square = total + values.sum(0).cpu(), square + values.square().sum(0).cpu()
            places += len(values)
            if self.selection in BY_TASK:
                saliency = saliency + self._saliency(batch, calibration).cpu()
        mean = total / places
        self.fill.copy_(mean.view_as(self.fill))
        if self.selection == "leakage":
            self.kept.copy_(least_leaking(*self._inversion(calibration), saliency, len(self.kept)))
            return
        scores = {
            "first": torch.arange(len(mean), 0, -1),
            "random": torch.rand(len(mean)),
            "variance": square / places - mean.square(),
            "saliency": saliency,
        }[self.selection]
        self.kept.copy_(scores.topk(len(self.kept)).indices.sort().values)

    def _saliency(self, batch: CalibrationBatch, calibration: Calibration) -> Tensor:
        labels = labels_of(batch, "channel_subset.selection = 'saliency'")
        with torch.enable_grad():
            features = batch.features.detach().requires_grad_()
            loss = F.cross_entropy(calibration.tail(features), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, features)
        effect = (batch.features * gradient).movedim(self.axis, -1)
        return _places(effect).mean(1).abs().sum(0, dtype=torch.float64)

    def _inversion(self, calibration: Calibration) -> tuple[Tensor, Tensor]:
        """Covariance of the channels (c, c), and with the pixels of the cell's patch (c, p)."""
        total = products = torch.zeros((), dtype=torch.float64)
        count = 0
        for batch in calibration.batches():
            inputs, patches = cells_and_patches(batch.features, batch.images, self.axis)
            both = torch.cat([inputs, patches], 1).cpu()
            total, products, count = total + both.sum(0), products + both.T @ both, count + len(both)
        covariance = products / count - torch.outer(total / count, total / count)
        channels = inputs.shape[1]
        return covariance[:channels, :channels], covariance[:channels, channels:]

    def send(self, features: Tensor) -> Tensor:
        return features.index_select(self.axis, self.kept)

    def receive(self, release: Tensor) -> Tensor:
        shape = list(release.shape)
        shape[self.axis] = self.fill.shape[self.axis]
        return self.fill.to(release.dtype).expand(shape).clone().index_copy_(self.axis, self.kept, release)


def _places(values: Tensor) -> Tensor:
    """Values (n, ..., c) as (n, places, c), a single place where there is nothing between."""
    return values.reshape(len(values), -1, values.shape[-1])


def cells_and_patches(features: Tensor, images: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Aligned rows, float64: the channels of each cell of the maps (m, c), and the picture there (m, 3 * 4 * 4).

    Features that are no maps are one cell: the mean over their tokens.
    """
    if features.ndim == 4:
        rows, columns = features.shape[2:]
        inputs = features.permute(0, 2, 3, 1).flatten(0, 2)
    else:
        rows = columns = 1
        inputs = _places(features.movedim(axis, -1)).mean(1)
    coarse = F.interpolate(images, (PATCH * rows, PATCH * columns), mode="area")
    patches = F.unfold(coarse, PATCH, stride=PATCH).transpose(1, 2).flatten(0, 1)
    return inputs.double(), patches.double()


LEAST_REVEALED = 1e-6
"""Of what channels reveal on average: one that is always the same reveals nothing, and would be kept for that."""


def least_leaking(covariance: Tensor, cross: Tensor, saliency: Tensor, count: int) -> Tensor:
    """The channels that are left when the most revealing ones for their saliency are given up, one by one.

    Without channel i the squared error of the best linear map from the others rises by |w_i|^2 / P_ii, with P the
    inverse of the (ridged) covariance and w = P cross the map's weights; both are downdated as channels go.

    Args:
        covariance: of the channels, (c, c).
        cross: of the channels with what is rebuilt, (c, p).
        saliency: what the task loses with each, (c,), not negative.
        count: how many to keep.

    Returns:
        int64 (count,), ascending.
    """
    size = len(covariance)
    ridge = RIDGE * covariance.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
    inverse = torch.linalg.inv(covariance + ridge * torch.eye(size, dtype=covariance.dtype))
    weights = inverse @ cross
    worth = saliency.double() + 1e-12 * saliency.double().mean().clamp_min(1e-300)
    kept = torch.ones(size, dtype=torch.bool)
    for _ in range(size - count):
        diagonal = inverse.diagonal().clamp_min(torch.finfo(torch.float64).tiny)
        revealed = weights.square().sum(1) / diagonal
        revealed = revealed + LEAST_REVEALED * revealed.mean()
        gone = int(torch.where(kept, revealed / worth, -torch.inf).argmax())
        column, row = inverse[:, gone] / inverse[gone, gone], weights[gone].clone()
        inverse = inverse - torch.outer(column, inverse[gone])
        weights = weights - torch.outer(column, row)
        kept[gone] = False
    return kept.nonzero().flatten()
