"""Send only some of the feature maps: the mitigation that the seed study proposed."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Gt, Le
from torch import Tensor

from defenses.base import Calibration, CalibrationBatch, Channel, Defense, channel_axis
from victims.errors import InvalidInputError
from victims.settings import doc

Selection = Literal["first", "random", "variance", "saliency"]


@dataclass(frozen=True)
class ChannelSubset(Defense):
    """Keep a share of the channels; the others never leave the edge.

    The cloud puts what arrives where the tail expects it and fills the gaps with each channel's mean over the
    train part; the tail is fine-tuned on that. Selections: ``first`` in the network's order, ``random`` (drawn
    once per seed), ``variance`` (largest over the train part), ``saliency``: the first-order Taylor estimate of
    how much the task's loss moves when a channel is removed, |mean over places of activation x gradient|.
    """

    paper: ClassVar[str] = (
        "proposed in P. Nagasubramaniam, Image Reconstruction Attacks in Distributed DL Systems using Autoencoders, "
        "2023; saliency: Molchanov et al., Pruning Convolutional Neural Networks, ICLR 2017"
    )
    strength: ClassVar[str] = "keep"
    strengths: ClassVar[tuple[float, ...]] = (1.0, 0.5, 0.25, 0.1)

    keep: Annotated[float, Gt(0), Le(1), doc("share of the channels that is sent")] = 0.5
    selection: Annotated[Selection, doc("how the channels to send are chosen")] = "saliency"

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
            if self.selection == "saliency":
                saliency = saliency + self._saliency(batch, calibration).cpu()
        mean = total / places
        self.fill.copy_(mean.view_as(self.fill))
        scores = {
            "first": torch.arange(len(mean), 0, -1),
            "random": torch.rand(len(mean)),
            "variance": square / places - mean.square(),
            "saliency": saliency,
        }[self.selection]
        self.kept.copy_(scores.topk(len(self.kept)).indices.sort().values)

    def _saliency(self, batch: CalibrationBatch, calibration: Calibration) -> Tensor:
        if batch.labels is None:
            raise InvalidInputError("channel_subset.selection = 'saliency' needs a victim with a task")
        with torch.enable_grad():
            features = batch.features.detach().requires_grad_()
            loss = F.cross_entropy(calibration.tail(features), batch.labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, features)
        effect = (batch.features * gradient).movedim(self.axis, -1)
        return effect.flatten(1, -2).mean(1).abs().sum(0, dtype=torch.float64)

    def send(self, features: Tensor) -> Tensor:
        return features.index_select(self.axis, self.kept)

    def receive(self, release: Tensor) -> Tensor:
        shape = list(release.shape)
        shape[self.axis] = self.fill.shape[self.axis]
        return self.fill.expand(shape).clone().index_copy_(self.axis, self.kept, release)
