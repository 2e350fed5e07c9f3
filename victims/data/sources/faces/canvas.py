"""The pixel grid with its coordinates, and the shapes and textures that are painted on it."""

import itertools
import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from splitleak.victims.data.sources.faces.parameters import CHIN, PARTS, ROLL, SCALE, SHIFT


def _sine(turns: Tensor) -> Tensor:
    """Sine of 2 pi ``turns`` to 0.1 %, by parabolas: exactly rounded steps only."""
    x = turns - (turns + 0.5).floor()
    y = x * (8 - 16 * x.abs())
    return y * (0.775 + 0.225 * y.abs())


def texture(x: Tensor, y: Tensor, along_x: Tensor, along_y: Tensor, phase: Tensor, pixel: Tensor) -> Tensor:
    """Sum of k plane waves, about in [-1, 1].

    Args:
        x, y: coordinates of columns (n, 1, W) and rows (n, H, 1).
        along_x, along_y, phase: cycles per unit and offset in turns of each wave (n, k).
        pixel: size of a pixel (n, 1), same unit; a wave fades as its mean over a pixel does.

    Returns:
        Float32 (n, 1, H, W).
    """
    count = along_x.shape[1]
    # 1 - 1.6 f^2 is sin(pi f) / (pi f), the mean of a wave of f cycles per pixel, to 6 % below f = 0.6
    fade_x, fade_y = (1 - 1.6 * (along * pixel).square() for along in (along_x, along_y))
    fade = fade_x.clamp_(min=0) * fade_y.clamp_(min=0)
    across = x * along_x[:, :, None]
    down = y * along_y[:, None, :] + phase[:, None, :]
    columns = torch.cat((_sine(across), _sine(across + 0.25)), dim=1)
    rows = torch.cat((_sine(down + 0.25), _sine(down)), dim=2) * torch.cat((fade, fade), dim=1)[:, None, :]
    # whole numbers up to 128: their products and sums are exact in any order and at any matmul precision
    product = torch.bmm((rows * 128).round_(), (columns * 128).round_())
    scale = 1.6 / (128 * 128 * math.sqrt(count))
    return (product * scale)[:, None]


@dataclass(frozen=True)
class View:
    """A rectangle of the pictures and its coordinates; what is painted on it is painted on the whole."""

    albedo: Tensor  # (n, 3, H, W) colour under white light
    light: Tensor  # (n, 1, H, W) how much of the lamp arrives
    u: Tensor  # (n, 1, H, W) head, straight
    v: Tensor
    face: Tensor  # (n, 1, H, W) u of the features: 0 on the bridge of the nose, foreshortened by yaw
    dome: Tensor  # (n, 1, H, W) cosine between the lamp and a sphere in the head's place
    skin: Tensor  # textures
    hair: Tensor
    pixel: Tensor  # (n, 1, 1, 1) size of a pixel in face units
    parts: Tensor | None = None  # (n, len(PARTS), H, W) shares of each pixel, where somebody asks for them

    def crop(self, left: float, top: float, right: float, bottom: float) -> "View":
        """The pixels that can hold the given box of face coordinates, whatever the pose allows."""
        rows, columns = _window(self.u.shape[-1], left, top, right, bottom)
        planes = {
            field.name: getattr(self, field.name)[:, :, rows, columns]
            for field in fields(self)
            if field.name != "pixel" and getattr(self, field.name) is not None
        }
        return View(**planes, pixel=self.pixel)

    def of(self, photos: Tensor) -> "View":
        """A copy of the given photos."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return View(**{name: value[photos] for name, value in given.items() if value is not None})

    def paint(self, cover: Tensor, colour: Tensor | float) -> None:
        """Lay a colour (n, 3, 1, 1) over the picture where ``cover`` (n, 1, H, W; 0 to 1) says so."""
        self.albedo.add_((colour - self.albedo).mul_(cover))

    def mark(self, cover: Tensor, part: str) -> None:
        """Note that what is there now is of one of ``PARTS``; it changes no pixel."""
        if self.parts is not None:
            self.parts.mul_(1 - cover)
            self.parts[:, PARTS.index(part)].add_(cover[:, 0])

    def relight(self, cover: Tensor, light: Tensor | float) -> None:
        """Replace the light there."""
        self.light.add_((light - self.light).mul_(cover))


def _window(size: int, left: float, top: float, right: float, bottom: float) -> tuple[slice, slice]:
    """Rows and columns that hold a box of face coordinates in every pose."""
    xs, ys = [], []
    for u, v, scale, roll in itertools.product((left, right), (top, bottom), SCALE, (-ROLL, 0.0, ROLL)):
        level = (1 - roll * roll) ** 0.5
        xs.append(scale * (level * u - roll * (v - 1)))
        ys.append(CHIN + scale * (roll * u + level * (v - 1)))

    def span(low: float, high: float) -> slice:
        first = int((low - SHIFT + 1) / 2 * size) - 1
        return slice(max(first, 0), min(int((high + SHIFT + 1) / 2 * size) + 2, size))

    return span(min(ys), max(ys)), span(min(xs), max(xs))


def cover(distance: Tensor, pixel: Tensor) -> Tensor:
    """Share of a pixel on the negative side of an edge at signed ``distance``; overwrites ``distance``."""
    return distance.div_(-pixel).add_(0.5).clamp_(0, 1)


def between(x: Tensor, low: Tensor, high: Tensor, pixel: Tensor) -> Tensor:
    """Share of a pixel where low < x < high; right for bands thinner than a pixel, too."""
    return cover(low - x, pixel).sub_(cover(high - x, pixel)).clamp_(min=0)


def ellipse(x: Tensor, y: Tensor, width: Tensor, height: Tensor) -> Tensor:
    """Signed distance (near enough) to an ellipse at the origin with the given half axes."""
    radius = (x / width).square_().add_((y / height).square_()).sqrt_()
    return radius.sub_(1).mul_(torch.minimum(width, height))


def rounded(x: Tensor, y: Tensor, square: Tensor) -> Tensor:
    """Distance from the unit circle (``square`` 0) to almost a square (0.8); Fernandez Guasti, 1992."""
    box = torch.maximum(x.abs(), y.abs()).sub_(1)
    # the formula folds back far outside, where the distance to the square takes over
    x, y = x.square().clamp_(max=1.4), y.square().clamp_(max=1.4)
    return (x + y).sub_((x * y).mul_(square)).sqrt_().sub_(1).maximum(box)


def blob(x: Tensor, y: Tensor, width: Tensor | float, height: Tensor | float) -> Tensor:
    """A soft bump: 1 at the origin, 0 outside the ellipse with the given half axes."""
    inside = (x / width).square_().add_((y / height).square_()).neg_().add_(1).clamp_(min=0)
    return inside.square_()
