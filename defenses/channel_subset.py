"""Send only some of the feature maps: the mitigation that the seed study proposed."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Gt, Le
from torch import Tensor

from splitleak.defenses.base import (
    Calibration,
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
"""Of that inversion, as a share of a channel's variance."""


@dataclass(frozen=True)
class ChannelSubset(Defense):
    """Keep a share of the channels; the others never leave the edge.

    The cloud puts what arrives where the tail expects it and fills the gaps with each channel's mean over the
    train part; the tail is fine-tuned on that. Selections: ``first`` in the network's order, ``random`` (drawn
    once per seed), ``variance`` (largest over the train part), ``saliency``: the first-order Taylor estimate of
    how much the task's loss moves when a channel is removed, |mean over places of activation x gradient|;
    ``leakage``: one after another the channel is given up that helps a linear inversion of the features most for the
    saliency that goes with it. What a channel helps depends on the others that are still sent, so it is computed
    anew after each. It does not depend on the channel's unit: who learns from releases sees small values as well as
    large ones.

    A channel that is the same in all photos of the train part is never sent by ``variance``, ``saliency`` and
    ``leakage`` while another one is given up: it costs bytes, and its mean tells as much.
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
        mean, variance = self._moments(calibration)
        self.fill.copy_(mean.view_as(self.fill))
        saliency = self._saliency(calibration) if self.selection in BY_TASK else torch.zeros_like(mean)
        if self.selection == "leakage":
            self.kept.copy_(least_leaking(*self._inversion(calibration), saliency, len(self.kept)))
            return
        scores = {
            "first": torch.arange(len(mean), 0, -1),
            "random": torch.rand(len(mean)),
            "variance": variance,
            "saliency": saliency.where(varies(variance), -1.0),
        }[self.selection]
        self.kept.copy_(scores.topk(len(self.kept)).indices.sort().values)

    def _moments(self, calibration: Calibration) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel, (c,), float64; the variance of what never varies is exactly 0."""
        origin: Tensor | None = None
        total = square = torch.zeros((), dtype=torch.float64)
        places = 0
        for batch in calibration.batches():
            values = batch.features.movedim(self.axis, -1).flatten(0, -2).double()
            origin = values[0] if origin is None else origin
            values = values - origin
            total, square = total + values.sum(0).cpu(), square + values.square().sum(0).cpu()
            places += len(values)
        assert origin is not None, "the train part is empty"
        return origin.cpu() + total / places, square / places - (total / places).square()

    def _saliency(self, calibration: Calibration) -> Tensor:
        """Of each channel, (c,), float64, summed over the train part."""
        total = torch.zeros(self.fill.numel(), dtype=torch.float64)
        for batch in calibration.batches():
            labels = labels_of(batch, f"channel_subset.selection = '{self.selection}'")
            with torch.enable_grad():
                features = batch.features.detach().requires_grad_()
                loss = len(labels) * calibration.loss(calibration.tail(features), labels)
                (gradient,) = torch.autograd.grad(loss, features)
            effect = (batch.features * gradient).movedim(self.axis, -1)
            total += _places(effect).mean(1).abs().sum(0, dtype=torch.float64).cpu()
        return total

    def _inversion(self, calibration: Calibration) -> tuple[Tensor, Tensor]:
        """Covariance of the channels (c, c), and with the pixels of the cell's patch (c, p)."""
        total = products = torch.zeros((), dtype=torch.float64)
        count = 0
        for batch in calibration.batches():
            inputs, patches = cells_and_patches(batch.features - self.fill, batch.images, self.axis)
            both = torch.cat([inputs, patches], 1).cpu()
            total, products, count = total + both.sum(0), products + both.T @ both, count + len(both)
        covariance = products / count - torch.outer(total / count, total / count)
        channels = inputs.shape[1]
        return covariance[:channels, :channels], covariance[:channels, channels:]

    def send(self, features: Tensor) -> Tensor:
        return features.index_select(self.axis, self.kept)

    def carried(self, arrived: Tensor) -> Tensor:
        """Where a kept channel stands in the release."""
        return arrived.index_select(self.axis, self.kept)

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
"""Of what channels reveal on average: one that reveals nothing and serves nothing would be kept for the former."""
LEAST_VARIANCE = 1e-12
"""Of the mean variance of a channel: less is rounding."""


def varies(variance: Tensor) -> Tensor:
    """Which channels (c,) differ at all between photos or places, by their variance."""
    return variance > LEAST_VARIANCE * variance.mean()


def least_leaking(covariance: Tensor, cross: Tensor, saliency: Tensor, count: int) -> Tensor:
    """The channels that are left when the most revealing ones for their saliency are given up, one by one.

    Without channel i the squared error of the best linear map from the others rises by |w_i|^2 / P_ii, with P the
    inverse of the (ridged) covariance and w = P cross the map's weights; both are downdated as channels go. Channels
    are taken in units of their standard deviations. Those that do not vary go first; of equals, the least salient.

    Args:
        covariance: of the channels, (c, c).
        cross: of the channels with what is rebuilt, (c, p).
        saliency: what the task loses with each, (c,), not negative.
        count: how many to keep.

    Returns:
        int64 (count,), ascending.
    """
    size = len(covariance)
    alive = varies(covariance.diagonal())
    unit = torch.where(alive, covariance.diagonal(), 1.0).sqrt()
    ridge = RIDGE * torch.eye(size, dtype=covariance.dtype)
    inverse = torch.linalg.inv(covariance / torch.outer(unit, unit) + ridge)
    weights = inverse @ (cross / unit[:, None])
    worth = saliency.double() + 1e-12 * saliency.double().mean().clamp_min(1e-300)
    kept = torch.ones(size, dtype=torch.bool)
    for _ in range(size - count):
        diagonal = inverse.diagonal().clamp_min(torch.finfo(torch.float64).tiny)
        revealed = weights.square().sum(1) / diagonal
        revealed = revealed + LEAST_REVEALED * revealed.mean()
        cost = torch.where(alive, revealed / worth, torch.inf).where(kept, -torch.inf)
        gone = int(worth.where(cost == cost.max(), torch.inf).argmin())
        column, row = inverse[:, gone] / inverse[gone, gone], weights[gone].clone()
        inverse = inverse - torch.outer(column, inverse[gone])
        weights = weights - torch.outer(column, row)
        kept[gone] = False
    return kept.nonzero().flatten()
