"""Ridge regression from feature cells to the image patch under them, or from all features to the whole image."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from splitleak.attacks.base import Reconstruction, Reconstructor
from splitleak.attacks.grid import as_grid
from splitleak.attacks.knowledge import BlackBox
from splitleak.attacks.linear import Map, linear_map
from splitleak.victims.settings import doc


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
        validation = list(knows.pairs("validation", batch_size=64, shuffle=False))
        rows = len(knows.images["auxiliary"]) * self._cells(validation[0][0]).shape[1]

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for release, images in knows.pairs(batch_size=64, shuffle=False):
                patches = _to_patches(images, self._grid(release))
                yield self._cells(release).flatten(0, 1), patches.flatten(0, 1)

        def predict(linear: Map, release: Tensor) -> Tensor:
            patches = linear(self._cells(release).flatten(0, 1)).unflatten(0, (len(release), -1))
            return _to_images(patches, self._grid(release), height, width).clamp(0, 1)

        def error(linear: Map) -> float:
            errors = [F.mse_loss(predict(linear, release), images) * len(images) for release, images in validation]
            return float(sum(errors)) / sum(len(images) for _, images in validation)

        linear = linear_map(batches(), rows, error, knows.log)
        return lambda release: predict(linear, release)

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
