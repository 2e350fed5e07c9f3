"""Ridge regression from a window of feature cells to the image patch under its centre."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from attacks.base import BlackBox, Reconstruction, Reconstructor
from attacks.grid import as_grid
from victims.settings import doc

PENALTIES = tuple(10.0**power for power in range(-6, 2))
"""Tried in turn, as multiples of the features' mean variance."""


@dataclass(frozen=True)
class Ridge(Reconstruction[BlackBox]):
    """The linear attack: one least-squares map, the same for every place of the image, in closed form.

    The normal equations are summed over batches, so memory does not grow with the auxiliary part; they are
    solved by Cholesky for each penalty, and the penalty with the least squared error on the validation part
    is kept. It has no learning rate to get wrong: what it recovers is the least that any attack should.
    """

    paper: ClassVar[str] = "Hoerl & Kennard, Ridge Regression, Technometrics 1970; as an inversion attack: ours"

    window: Annotated[Literal[1, 3], doc("side of the square of feature cells that a patch is predicted from")] = 1

    def fit(self, knows: BlackBox) -> Reconstructor:
        """Sum the normal equations over the auxiliary pairs, then choose the penalty on the validation pairs."""
        height, width = knows.image_shape[1:]
        sums = _NormalEquations()
        for release, images in knows.pairs(batch_size=64, shuffle=False):
            cells = self._cells(release)
            sums.add(cells.flatten(0, 1), _to_patches(images, self._grid(release)).flatten(0, 1))
        validation = list(knows.pairs("validation", batch_size=64, shuffle=False))

        def predict(weights: Tensor, release: Tensor) -> Tensor:
            patches = self._cells(release) @ weights[:-1] + weights[-1]
            return _to_images(patches, self._grid(release), height, width).clamp(0, 1)

        best, kept = math.inf, sums.intercept_only()
        for penalty in PENALTIES:
            weights = sums.solve(penalty)
            if weights is None:
                continue
            errors = [F.mse_loss(predict(weights, release), images) * len(images) for release, images in validation]
            error = float(sum(errors)) / sum(len(images) for _, images in validation)
            knows.log({"penalty": penalty, "validation_loss": error})
            if error < best:
                best, kept = error, weights
        return lambda release: predict(kept, release)

    def _grid(self, release: Tensor) -> tuple[int, int]:
        rows, columns = as_grid(release).shape[2:]
        return rows, columns

    def _cells(self, release: Tensor) -> Tensor:
        """(n, cells, channels * window^2): each cell with its neighbours, zero beyond the border."""
        return F.unfold(as_grid(release), self.window, padding=self.window // 2).transpose(1, 2)


class _NormalEquations:
    """Sums that the least-squares solution needs: float64, while each batch's products stay in float32."""

    def __init__(self) -> None:
        self.count = 0
        self.gram, self.cross, self.inputs, self.outputs = (torch.zeros(()) for _ in range(4))

    def add(self, inputs: Tensor, outputs: Tensor) -> None:
        """Add rows: inputs (m, d), outputs (m, p)."""
        if not self.count:
            # Products of values near a common offset lose digits; any fixed offset leaves the solution as it is.
            self.offset = inputs.mean(0)
        shifted = inputs - self.offset
        self.count += len(inputs)
        self.gram = self.gram.to(inputs.device) + (shifted.T @ shifted).double()
        self.cross = self.cross.to(inputs.device) + (shifted.T @ outputs).double()
        self.inputs = self.inputs.to(inputs.device) + shifted.sum(0, dtype=torch.float64)
        self.outputs = self.outputs.to(inputs.device) + outputs.sum(0, dtype=torch.float64)

    def intercept_only(self) -> Tensor:
        """The solution under an infinite penalty, (d + 1, p)."""
        weights = torch.zeros(len(self.inputs) + 1, len(self.outputs), device=self.outputs.device)
        weights[-1] = self.outputs / self.count
        return weights

    def solve(self, penalty: float) -> Tensor | None:
        """Weights (d + 1, p); the last row is the intercept, which is not penalised.

        None where rounding makes the matrix indefinite: the penalty is too small for these features.
        """
        input_mean, output_mean = self.inputs / self.count, self.outputs / self.count
        gram = self.gram / self.count - torch.outer(input_mean, input_mean)
        cross = self.cross / self.count - torch.outer(input_mean, output_mean)
        scale = gram.diagonal().mean().clamp_min(torch.finfo(torch.float32).tiny)
        gram.diagonal().add_(penalty * scale)
        factor, failed = torch.linalg.cholesky_ex(gram)
        if failed:
            return None
        weights = torch.cholesky_solve(cross, factor)
        intercept = output_mean - (input_mean + self.offset.double()) @ weights
        return torch.cat([weights, intercept[None]]).float()


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
