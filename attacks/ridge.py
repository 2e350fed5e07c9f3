"""Ridge regression from feature cells to the image patch under them, or from all features to the whole image."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from splitleak.attacks.base import Reconstruction, Reconstructor
from splitleak.attacks.grid import as_grid
from splitleak.attacks.knowledge import BlackBox
from splitleak.victims.settings import doc

PENALTIES = tuple(10.0**power for power in range(-6, 2))
"""Tried in turn, as multiples of the features' mean variance."""
SUMMED, SUMMED_AT_MOST = 4096, 9216
"""Features up to which the normal equations are summed over the auxiliary part; beyond, its rows are kept. The larger
number counts where not all rows could be kept: a minute and 2 GiB, rather than most photos left out."""
KEPT_ROWS, KEPT_BYTES = 4096, 2**30
"""No more of them, and no more memory, are kept."""

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Ridge(Reconstruction[BlackBox]):
    """The linear attack: a least-squares map in closed form, of a feature window or of the whole release.

    A window's map is the same for every place of the image, which makes many examples of each photo. The whole
    release's map is not: it may use any feature for any pixel, and needs more photos.

    The normal equations are summed over batches, so memory does not grow with the auxiliary part. More than 4,096
    features are solved in their dual form, over as many rows as fit 1 GiB, 4,096 at most; up to 9,216 features are
    summed where that would leave rows out. The penalty with the least squared error on the validation part is kept.
    It has no learning rate to get wrong: what it recovers is the least that any attack should.
    """

    paper: ClassVar[str] = "Hoerl & Kennard, Ridge Regression, Technometrics 1970; as an inversion attack: ours"

    window: Annotated[
        Literal[1, 3, "whole"],
        doc("side of the square of feature cells that a patch is predicted from, or the whole release"),
    ] = 1

    def fit(self, knows: BlackBox) -> Reconstructor:
        """Take in the auxiliary pairs, then choose the penalty on the validation pairs."""
        height, width = knows.image_shape[1:]
        sums: _LeastSquares | None = None
        for release, images in knows.pairs(batch_size=64, shuffle=False):
            cells = self._cells(release)
            sums = sums or _least_squares(cells, len(knows.images["auxiliary"]))
            if sums.full:
                break
            sums.add(cells.flatten(0, 1), _to_patches(images, self._grid(release)).flatten(0, 1))
        assert sums is not None, "an auxiliary part is never empty"
        validation = list(knows.pairs("validation", batch_size=64, shuffle=False))

        def predict(linear: Map, release: Tensor) -> Tensor:
            patches = linear(self._cells(release).flatten(0, 1)).unflatten(0, (len(release), -1))
            return _to_images(patches, self._grid(release), height, width).clamp(0, 1)

        best, kept = math.inf, sums.mean()
        for penalty in PENALTIES:
            linear = sums.solve(penalty)
            if linear is None:
                continue
            errors = [F.mse_loss(predict(linear, release), images) * len(images) for release, images in validation]
            error = float(sum(errors)) / sum(len(images) for _, images in validation)
            knows.log({"penalty": penalty, "validation_loss": error})
            if error < best:
                best, kept = error, linear
        return lambda release: predict(kept, release)

    def _grid(self, release: Tensor) -> tuple[int, int]:
        if self.window == "whole":
            return 1, 1
        rows, columns = as_grid(release).shape[2:]
        return rows, columns

    def _cells(self, release: Tensor) -> Tensor:
        """(n, cells, features of one): each cell with its neighbours, zero beyond the border."""
        if self.window == "whole":
            return release.flatten(1)[:, None]
        return F.unfold(as_grid(release), self.window, padding=self.window // 2).transpose(1, 2)


class _LeastSquares(Protocol):
    """Takes in rows and solves for any penalty; neither the intercept nor the rows' offset is penalised."""

    @property
    def full(self) -> bool:
        """More rows would not be used."""

    def add(self, inputs: Tensor, outputs: Tensor) -> None:
        """Add rows: inputs (m, d), outputs (m, p)."""

    def mean(self) -> Map:
        """The solution under an infinite penalty."""

    def solve(self, penalty: float) -> Map | None:
        """The map of (m, d) to (m, p).

        None where rounding makes the matrix indefinite: the penalty is too small for these features.
        """


class _NormalEquations:
    """Sums that the solution needs: float64, while each batch's products stay in float32."""

    full = False

    def __init__(self) -> None:
        self.count = 0
        self.gram, self.cross, self.inputs, self.outputs = (torch.zeros(()) for _ in range(4))

    def add(self, inputs: Tensor, outputs: Tensor) -> None:
        if not self.count:
            # Products of values near a common offset lose digits; any fixed offset leaves the solution as it is.
            self.offset = inputs.mean(0)
        shifted = inputs - self.offset
        self.count += len(inputs)
        self.gram = self.gram.to(inputs.device) + (shifted.T @ shifted).double()
        self.cross = self.cross.to(inputs.device) + (shifted.T @ outputs).double()
        self.inputs = self.inputs.to(inputs.device) + shifted.sum(0, dtype=torch.float64)
        self.outputs = self.outputs.to(inputs.device) + outputs.sum(0, dtype=torch.float64)

    def mean(self) -> Map:
        average = (self.outputs / self.count).float()
        return lambda rows: average.expand(len(rows), -1)

    def solve(self, penalty: float) -> Map | None:
        input_mean, output_mean = self.inputs / self.count, self.outputs / self.count
        gram = self.gram / self.count - torch.outer(input_mean, input_mean)
        cross = self.cross / self.count - torch.outer(input_mean, output_mean)
        factor = _factor(gram, penalty, float(gram.diagonal().mean()))
        if factor is None:
            return None
        weights = torch.cholesky_solve(cross, factor)
        intercept = (output_mean - (input_mean + self.offset.double()) @ weights).float()
        factors = weights.float()
        return lambda rows: rows @ factors + intercept


class _KeptRows:
    """The dual form, for more features than rows: an answer is a weighted mean of the outputs that were taken in."""

    def __init__(self) -> None:
        self.count = 0
        self.inputs, self.outputs = torch.empty(0), torch.empty(0)

    @property
    def full(self) -> bool:
        return 0 < self.count == len(self.inputs)

    def add(self, inputs: Tensor, outputs: Tensor) -> None:
        if not self.count:
            room = min(KEPT_ROWS, KEPT_BYTES // (inputs[0].nbytes + outputs[0].nbytes))
            # pages that are never written take no memory
            self.inputs, self.outputs = (part.new_empty(room, part.shape[1]) for part in (inputs, outputs))
        taken = min(len(inputs), len(self.inputs) - self.count)
        rows = slice(self.count, self.count + taken)
        self.inputs[rows], self.outputs[rows] = inputs[:taken], outputs[:taken]
        self.count += taken

    def mean(self) -> Map:
        average = self._taken[3]
        return lambda rows: average.expand(len(rows), -1)

    def solve(self, penalty: float) -> Map | None:
        rows, input_mean, outputs, output_mean = self._taken
        factor = _factor(self._gram, penalty, float(self._gram.diagonal().sum()) / rows.shape[1])
        if factor is None:
            return None

        def linear(inputs: Tensor) -> Tensor:
            weights = torch.cholesky_solve((rows @ (inputs - input_mean).T).double(), factor).T.float()
            # of outputs less their mean, of which no copy is made
            return output_mean * (1 - weights.sum(1, keepdim=True)) + weights @ outputs

        return linear

    @cached_property
    def _taken(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Centred inputs (m, d) and their mean; outputs (m, p) and their mean."""
        rows, outputs = self.inputs[: self.count], self.outputs[: self.count]
        input_mean = rows.mean(0)
        return rows.sub_(input_mean), input_mean, outputs, outputs.mean(0)

    @cached_property
    def _gram(self) -> Tensor:
        """The products of all pairs of rows, (m, m)."""
        rows = self._taken[0]
        return (rows @ rows.T).double()


def _least_squares(cells: Tensor, photos: int) -> _LeastSquares:
    """What takes in so many photos' cells (n, cells, features) best."""
    rows, features = photos * cells.shape[1], cells.shape[2]
    if features <= SUMMED or (rows > KEPT_ROWS and features <= SUMMED_AT_MOST):
        return _NormalEquations()
    return _KeptRows()


def _factor(gram: Tensor, penalty: float, scale: float) -> Tensor | None:
    """Cholesky's of gram + penalty * scale * I; None where rounding makes that indefinite."""
    regular = gram.clone()
    regular.diagonal().add_(penalty * max(scale, torch.finfo(torch.float32).tiny))
    factor, failed = torch.linalg.cholesky_ex(regular)
    return None if failed else factor


def _patch_size(grid: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    return -(-height // grid[0]), -(-width // grid[1])


def _to_patches(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """(n, cells, 3 * patch^2); images whose side is no multiple of the grid's are stretched to the next one."""
    patch = _patch_size(grid, *images.shape[2:])
    stretched = _resize(images, grid[0] * patch[0], grid[1] * patch[1])
    return F.unfold(stretched, patch, stride=patch).transpose(1, 2)


def _to_images(patches: Tensor, grid: tuple[int, int], height: int, width: int) -> Tensor:
    patch = _patch_size(grid, height, width)
    full = (grid[0] * patch[0], grid[1] * patch[1])
    return _resize(F.fold(patches.transpose(1, 2), full, patch, stride=patch), height, width)


def _resize(images: Tensor, height: int, width: int) -> Tensor:
    if images.shape[2:] == (height, width):
        return images
    return F.interpolate(images, (height, width), mode="bilinear", antialias=True)
