"""Retrieval: the photos of the adversary whose releases are the nearest to the intercepted one."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt
from torch import Tensor

from splitleak.attacks.base import Reconstruction, Reconstructor
from splitleak.attacks.knowledge import BlackBox
from splitleak.victims.settings import doc
from splitleak.victims.tensors import to_float

NEIGHBORS = (1, 2, 4, 8, 16, 32)
"""Tried on validation photos where no number is given."""
CHUNK = 128
"""Auxiliary releases that are compared at once."""
HALF = torch.finfo(torch.half)


@dataclass(frozen=True)
class NearestNeighbor(Reconstruction[BlackBox]):
    """Answers with the auxiliary photo whose release is the nearest, or with the mean of the nearest few.

    Nearest in Euclidean distance; where entries did not arrive, in the mean squared difference over those that
    arrived in both releases, and a photo whose release shares none with the intercepted one is the farthest. Each
    auxiliary photo is sent once, with its own draw of a channel that is random. Nothing is learned: what this
    rebuilds tells how alike the photos are as much as what a release gives away.

    Memory: two bytes for each entry of the auxiliary releases, on the device (215 MB for 10 000 releases of
    672 x 4 x 4), and while distances are computed about 20 bytes for each entry of 128 of them (28 MB).
    """

    paper: ClassVar[str] = (
        "Cover & Hart, Nearest Neighbor Pattern Classification, IEEE Transactions on Information Theory 1967; "
        "as an inversion attack: ours"
    )

    neighbors: Annotated[
        int | None, Gt(0), doc("photos averaged; 1: the nearest itself; none: the best number on validation photos")
    ] = None

    def fit(self, knows: BlackBox) -> Reconstructor:
        """Keep the auxiliary releases; choose the number of neighbours where none is given."""
        gallery = Gallery.of(knows)
        neighbors = self.neighbors or _best_number(gallery, knows)

        def reconstruct(release: Tensor) -> Tensor:
            return _mean_photo(gallery.nearest(release, knows.arrived(release), neighbors), knows)

        return reconstruct


@dataclass(frozen=True)
class Gallery:
    """Releases in half precision: chunks (m, entries), in ``unit``, NaN where an entry did not arrive."""

    unit: "_Unit"
    chunks: list[Tensor]

    @classmethod
    def of(cls, knows: BlackBox) -> "Gallery":
        """The releases of the auxiliary photos, in their order."""
        unit, chunks = None, []
        for release, _ in knows.pairs(batch_size=CHUNK, shuffle=False):
            values = _blanked(release, knows.arrived(release))
            unit = unit or _Unit.of(values)
            chunks.append(unit(values).half())
        assert unit is not None, "there are no auxiliary photos"
        return cls(unit, chunks)

    def nearest(self, release: Tensor, arrived: Tensor, count: int) -> Tensor:
        """Positions of the ``count`` nearest, (n, count), the nearest first; of equals the first one."""
        values = self.unit(_blanked(release, arrived))
        distances = torch.cat([_mean_squared_differences(values, chunk.float()) for chunk in self.chunks], 1)
        return distances.sort(dim=1, stable=True).indices[:, :count]


@dataclass(frozen=True)
class _Unit:
    """Shift and scale after which values fit half precision; neither changes which release is the nearest."""

    shift: Tensor
    scale: Tensor

    @classmethod
    def of(cls, values: Tensor) -> "_Unit":
        shift = values.nanmean(0).nan_to_num()
        scale, overall = (
            (values - mean).square().nanmean().sqrt().nan_to_num() for mean in (shift, values.nanmean())
        )
        # where every entry arrived once only, nothing is left of the first
        return cls(shift, torch.maximum(scale, overall / 1000).clamp_min(torch.finfo().tiny))

    def __call__(self, values: Tensor) -> Tensor:
        return ((values - self.shift) / self.scale).clamp(HALF.min, HALF.max)


def _blanked(release: Tensor, arrived: Tensor) -> Tensor:
    """(n, entries) with NaN in place of what did not arrive."""
    return release.float().masked_fill(~arrived, torch.nan).flatten(1)


def _mean_squared_differences(a: Tensor, b: Tensor) -> Tensor:
    """(n, entries), (m, entries) -> (n, m), over the entries where neither is NaN; infinite where there are none."""
    known_a, known_b = (values.isnan().logical_not().float() for values in (a, b))
    # a zero in place of NaN adds nothing to any of these products
    a, b = a.nan_to_num(), b.nan_to_num()
    total = a.square() @ known_b.T + known_a @ b.square().T - 2 * a @ b.T
    compared = known_a @ known_b.T
    return (total / compared).masked_fill(compared == 0, torch.inf)


def _best_number(gallery: Gallery, knows: BlackBox) -> int:
    """The number of neighbours whose mean has the least squared error on the validation photos."""
    candidates = [number for number in NEIGHBORS if number <= len(knows.images["auxiliary"])]
    errors = [0.0] * len(candidates)
    for release, images in knows.pairs("validation", shuffle=False):
        nearest = gallery.nearest(release, knows.arrived(release), candidates[-1])
        for position, number in enumerate(candidates):
            errors[position] += float((_mean_photo(nearest[:, :number], knows) - images).square().sum())
    for number, error in zip(candidates, errors, strict=True):
        knows.log({"neighbors": float(number), "validation_loss": error / knows.images["validation"].numel()})
    return candidates[errors.index(min(errors))]


def _mean_photo(positions: Tensor, knows: BlackBox) -> Tensor:
    """Auxiliary photos averaged along the second axis of ``positions`` (n, count) -> (n, 3, h, w)."""
    photos = knows.images["auxiliary"]
    # one at a time: all of them as floats would be many times what the answer takes
    total = torch.zeros(len(positions), *knows.image_shape, device=knows.device)
    for column in positions.T.to(photos.device):
        total += to_float(photos[column].to(knows.device))
    return total / positions.shape[1]
