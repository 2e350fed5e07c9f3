"""The answers of several attacks, weighed for each pixel."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from splitleak.attacks.base import Reconstructor
from splitleak.attacks.decoder import ByDecoder
from splitleak.attacks.knowledge import About, BlackBox, Memo
from splitleak.attacks.nearest_neighbor import NearestNeighbor
from splitleak.attacks.ridge import Ridge
from splitleak.victims.settings import doc
from splitleak.victims.tensors import BATCH

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, math.inf)
"""Tried in turn, as multiples of the answers' mean variance; without end, all pixels share their weights."""
SHARED_PENALTY = 1e-6
"""Of the weights that all pixels share."""
FOLDS = 5
"""Of the validation photos, to choose the penalty by."""
GREY = 0.5
"""Subtracted before anything is summed: products of values near a common offset lose digits."""


@dataclass(frozen=True)
class Stack(ByDecoder[BlackBox]):
    """Weigh a linear map of feature cells, one of the whole release, retrieval and decoders of several trainings.

    Each colour of each pixel is a weighted sum of the attacks' answers there and an offset, by ridge regression over
    the validation photos, which none of them was fitted to (they chose penalties and epochs by them). Both are drawn
    towards those that all pixels together would have; how strongly is chosen by cross-validation. What
    attacks get wrong independently of one another so averages out. It is a gain in squared error and in that only:
    averages are smoother than what they are made of.

    On the validation photos it looks a little better than it is, by about the weights' number over the photos'.
    """

    paper: ClassVar[str] = "ours; Wolpert, Stacked Generalization, Neural Networks 1992"

    trainings: Annotated[int, Ge(1), doc("decoders, which differ in their start and in the order of photos")] = 2

    def fit(self, knows: BlackBox) -> Reconstructor:
        """Fit the attacks, recalling decoders that are there, then weigh them on the validation pairs."""
        linear = (Ridge(), Ridge(window="whole"))
        attacks = [*(one.fit(knows) for one in linear), NearestNeighbor().fit(knows)]
        attacks += [self.decoder.fit(_another_time(knows, training)) for training in range(self.trainings)]
        sums = PixelSums(len(attacks), FOLDS)
        with torch.no_grad():
            for number, (release, images) in enumerate(knows.pairs("validation", BATCH // FOLDS, shuffle=False)):
                sums.add(_answers(attacks, release), images, number % FOLDS)
        weights = sums.weights(knows.log)
        return lambda release: weights(_answers(attacks, release))


def _another_time(knows: BlackBox, training: int) -> BlackBox:
    """The same adversary, to whom nothing comes to mind of the trainings before this one."""

    def memory(what: str, module: str, about: About, build: Callable[[], Memo]) -> Memo:
        return knows.memory(f"{what}, training {training + 1}" if training else what, module, about, build)

    return replace(knows, memory=memory)


def _answers(attacks: list[Reconstructor], release: Tensor) -> Tensor:
    """(n, attacks, 3, h, w)."""
    return torch.stack([attack(release) for attack in attacks], 1)


@dataclass(frozen=True)
class PixelWeights:
    """Answers (n, m, 3, h, w) -> images (n, 3, h, w): ``weights`` (3hw, m) and ``offsets`` (3hw,)."""

    weights: Tensor
    offsets: Tensor

    def __call__(self, answers: Tensor) -> Tensor:
        """Weigh."""
        mixed = torch.einsum("nmp,pm->np", answers.flatten(2) - GREY, self.weights.float()) + self.offsets.float()
        return (mixed + GREY).view_as(answers[:, 0]).clamp(0, 1)


class PixelSums:
    """Each pixel's normal equations, summed by fold: of the answers there, a one for the offset, and the truth."""

    def __init__(self, attacks: int, folds: int) -> None:
        self.attacks, self.folds = attacks, folds
        self.products = torch.zeros(())

    def add(self, answers: Tensor, images: Tensor, fold: int) -> None:
        """Take in answers (n, m, 3, h, w) to photos (n, 3, h, w) of one fold."""
        told, true = answers.flatten(2).double() - GREY, images.flatten(1).double() - GREY
        row = torch.cat([told, torch.ones_like(true)[:, None], true[:, None]], 1)
        products = torch.einsum("nip,njp->pij", row, row)
        if not self.products.ndim:
            self.products = products.new_zeros(self.folds, *products.shape)
        self.products[fold] += products

    def weights(self, log: Callable[[dict[str, float]], None]) -> PixelWeights:
        """Under the penalty with the least squared error on each fold of what the other folds make."""
        full = self.products.sum(0)
        used = [fold for fold in self.products if float(fold[0, -2, -2]) > 0]
        best, kept = math.inf, math.inf
        for penalty in PENALTIES if len(used) > 1 else ():
            error = sum(_squared_error(_solved(full - fold, penalty), fold) for fold in used)
            error /= float(full[:, -2, -2].sum())
            log({"penalty": penalty if penalty < math.inf else -1.0, "validation_loss": error})
            if error < best:
                best, kept = error, penalty
        return _solved(full, kept)


def _solved(products: Tensor, penalty: float) -> PixelWeights:
    """From sums (pixels, m + 2, m + 2): least squares plus the penalty on what sets a pixel's weights and offset
    apart from those that all pixels share, in units of the answers' deviation.

    Answers and truth count from the answers' mean at that pixel: what all attacks know of it needs no offset.
    """
    moments = products / products[:, -2:-1, -2:-1]
    centre = moments[:, :-2, -2].mean(1)
    shift = torch.eye(moments.shape[1], dtype=moments.dtype, device=moments.device).repeat(len(moments), 1, 1)
    shift[:, :-2, -2] -= centre[:, None]
    shift[:, -1, -2] -= centre
    moments = shift @ moments @ shift.mT
    told, truth = moments[:, :-1, :-1], moments[:, :-1, -1]
    unit = told.diagonal(dim1=1, dim2=2)[:, :-1].mean().clamp_min(torch.finfo(torch.float32).tiny)
    scale = torch.diag(torch.cat([unit.expand(told.shape[1] - 1), torch.ones_like(unit)[None]]))
    # attacks that answer alike could have any weights; equal ones are then the least
    shared = torch.linalg.solve(told.mean(0) + SHARED_PENALTY * scale, truth.mean(0))
    if penalty < math.inf:
        solved = torch.linalg.solve(told + penalty * scale, truth + penalty * scale @ shared)
    else:
        solved = shared.expand(len(told), -1)
    weights = solved[:, :-1]
    return PixelWeights(weights, solved[:, -1] + centre * (1 - weights.sum(1)))


def _squared_error(solved: PixelWeights, products: Tensor) -> float:
    """Over all pixels and photos that were summed."""
    offsets = solved.offsets[:, None]
    told = torch.cat([solved.weights, offsets, -torch.ones_like(offsets)], 1)
    return float(torch.einsum("pi,pij,pj->", told, products, told))
