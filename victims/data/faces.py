"""Procedural portraits: a data set of faces that needs no download and holds no real person.

Every picture is painted back to front with tensor operations over the pixel grid. Two rules make the bytes of
a photo independent of batch, order and number of threads: each parameter is a hash of (seed, photo or person,
parameter), and pixels are touched only by operations that IEEE 754 rounds exactly (no exp, sin, lerp, whose
vector and scalar code differ in the last bit; matrix products only of values that need no rounding).

Face coordinates: v = -1 at the crown, about 0 at the eyes and about 1 at the chin; u to the right of the
picture, in the same unit. "Person" is what an identity fixes, "Shot" what a single photo adds.
"""

import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from hashlib import sha256
from typing import Annotated, ClassVar, Generic, Self, TypeVar
from zlib import crc32

import torch
from annotated_types import Gt
from torch import Tensor

from splitleak.victims.data.base import Catalog, Labels, Pixels, Source
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.settings import doc

REVISION = 1
"""To be raised whenever the pixels of a photo change; part of the fingerprint."""

Number = TypeVar("Number", float, Tensor)

EXPRESSIONS = ("neutral", "happy", "surprised", "angry")
NO_YES = ("no", "yes")
GLASSES_SHARE = 0.3
MASK_SHARE = 0.35
CHUNK_PIXELS = 64 * 64 * 64
"""Pixels rendered at a time: a plane of them (1 MiB) stays in the cache."""

SCALE = (0.53, 0.64)
"""Range of half the head's height, where the picture is 2 high."""
ROLL = 0.15
"""Largest sine of the head's in-plane rotation about the chin."""
SHIFT = 0.08
"""Largest displacement of the chin from its usual place, (0, CHIN)."""
CHIN = 0.56

SKIN = ((0.97, 0.84, 0.75), (0.92, 0.73, 0.60), (0.80, 0.58, 0.43), (0.60, 0.40, 0.28), (0.40, 0.26, 0.19))
HAIR = (
    (0.07, 0.06, 0.07),
    (0.17, 0.11, 0.08),
    (0.30, 0.18, 0.11),
    (0.40, 0.19, 0.11),
    (0.52, 0.35, 0.19),
    (0.62, 0.32, 0.16),
    (0.80, 0.64, 0.38),
    (0.66, 0.65, 0.65),
    (0.88, 0.86, 0.83),
)
IRIS = ((0.20, 0.11, 0.06), (0.38, 0.22, 0.10), (0.40, 0.40, 0.20), (0.25, 0.47, 0.62), (0.45, 0.52, 0.56))
CLOTH = ((0.58, 0.78, 0.88), (0.93, 0.94, 0.94), (0.13, 0.14, 0.17), (0.55, 0.72, 0.60), (0.82, 0.55, 0.60))
"""Colours of masks: surgical blue, white, black, green, pink."""


@dataclass(frozen=True)
class HairStyle:
    """A way to wear hair, in face units (v for heights); a value out of the picture switches a part off."""

    top: float  # volume over the crown
    side: float  # volume over the temples
    end: float  # v at which the hair beside the face ends
    line: float  # v of the hairline above the nose
    opening: float  # half width of the face's opening, in half widths of the head
    part: float = 0.0  # slant of the hairline
    fringe: float = -3.0  # v down to which hair covers the forehead
    curl: float = 0.012  # how far locks stick out of the outline
    bun: float = 0.0  # radius of a bun on the crown
    back: float = 0.0  # half width of the hair behind the neck, in half widths of the head
    back_end: float = -3.0  # v at which that hair ends


HAIR_STYLES = (
    HairStyle(top=0.0, side=0.0, end=-3.0, line=-3.0, opening=2.0),  # bald
    HairStyle(top=0.02, side=0.00, end=-0.05, line=-0.62, opening=0.86, curl=0.005),  # cropped
    HairStyle(top=0.12, side=0.05, end=0.12, line=-0.58, opening=0.90, curl=0.03),  # short
    HairStyle(top=0.17, side=0.06, end=0.08, line=-0.60, opening=0.86, part=0.32, curl=0.015),  # side parting
    HairStyle(top=0.12, side=0.10, end=1.25, line=-0.66, opening=0.80, back=1.18, back_end=1.75),  # long
    HairStyle(0.14, 0.14, 1.10, -0.66, 0.80, part=-0.28, curl=0.045, back=1.35, back_end=1.45),  # long, wavy
    HairStyle(0.12, 0.13, 0.72, -0.60, 0.84, fringe=-0.33, back=1.22, back_end=0.95),  # bob with bangs
    HairStyle(0.36, 0.40, 0.42, -0.55, 0.90, curl=0.05, back=1.35, back_end=0.6),  # afro
    HairStyle(top=0.07, side=0.02, end=0.05, line=-0.68, opening=0.86, bun=0.27, back_end=0.3),  # bun
    HairStyle(0.10, 0.05, 0.10, -0.60, 0.88, fringe=-0.36, curl=0.02),  # short fringe
)


@dataclass(frozen=True)
class Look(Generic[Number]):
    """What an expression does to the face; heights and widths in face units.

    Of floats, one expression; of tensors (n, 1, 1, 1), the expressions of n photos.
    """

    brow_lift: Number  # how far the brows rise
    brow_slope: Number  # how much lower their inner ends are
    brow_arch: Number
    lid_up: Number  # half openings of the eye above and below its corners, in eye widths
    lid_low: Number
    eye_slant: Number  # how much lower the inner corners are
    cheek: Number  # raised cheeks and laughter lines
    furrow: Number  # folds above the nose
    wrinkle: Number  # folds across the forehead
    mouth_width: Number  # relative to the person's
    mouth_curve: Number  # how much higher its corners are
    open_up: Number  # half openings above and below the line between the corners
    open_low: Number
    roundness: Number  # 0: pointed corners, 1: oval
    teeth: Number  # share of the opening they fill
    lip: Number  # thickness relative to the person's


NEUTRAL = Look(0.0, 0.0, 0.03, 0.40, 0.26, -0.02, 0, 0, 0, 1.0, 0.0, 0.0, 0.0, 0, 0, 1.0)
HAPPY = Look(0.03, -0.06, 0.045, 0.44, -0.16, -0.02, 1, 0, 0, 1.40, 0.12, 0.0, 0.15, 0, 0.65, 0.75)
SURPRISED = Look(0.17, -0.04, 0.10, 0.66, 0.50, -0.02, 0, 0, 1, 0.68, 0.0, 0.11, 0.15, 1, 0.0, 0.80)
ANGRY = Look(-0.075, 0.20, 0.01, 0.20, 0.20, 0.07, 0, 1, 0, 0.90, -0.10, 0.0, 0.0, 0, 0, 0.55)
LOOKS = (NEUTRAL, HAPPY, SURPRISED, ANGRY)


@dataclass(frozen=True)
class Batch:
    """Tensors (or batches) that all have photos as their first dimension."""

    def __getitem__(self, photos: Tensor | slice) -> Self:
        return type(self)(**{field.name: getattr(self, field.name)[photos] for field in fields(self)})


@dataclass(frozen=True)
class Person(Batch):
    """What an identity fixes. Each float32 (n, 1, 1, 1), a colour (n, 3, 1, 1), waves (n, k, 3)."""

    skin: Tensor
    hair: Tensor
    iris: Tensor
    lips: Tensor
    style: Tensor  # hair style: a column per field of HairStyle, (n, fields)
    strands: Tensor  # waves of the hair's texture
    pores: Tensor  # waves of the skin's texture
    head_width: Tensor
    chin: Tensor
    taper: Tensor
    square: Tensor
    neck: Tensor
    eye_gap: Tensor
    eye_width: Tensor
    eye_open: Tensor
    brow_height: Tensor
    brow_thick: Tensor
    brow_arch: Tensor
    nose_width: Tensor
    nose_end: Tensor
    mouth_height: Tensor
    mouth_width: Tensor
    lip: Tensor
    freckles: Tensor
    beard: Tensor
    frame: Tensor  # size of the glasses
    frame_square: Tensor
    frame_thick: Tensor


@dataclass(frozen=True)
class Shot(Batch):
    """What a photo adds. Labels int64 (n,); the rest as in Person."""

    expression: Tensor
    glasses: Tensor
    mask: Tensor
    strength: Tensor  # of the expression
    scale: Tensor
    roll: Tensor
    left: Tensor
    down: Tensor
    yaw: Tensor
    light_x: Tensor
    light_y: Tensor
    ambient: Tensor  # (n, 3, 1, 1): light from everywhere
    lamp: Tensor  # (n, 3, 1, 1): light from (light_x, light_y)
    near: Tensor  # background colours
    far: Tensor
    gradient: Tensor
    wall: Tensor  # waves of the background
    wall_colour: Tensor
    wall_edge: Tensor
    clothes: Tensor
    collar: Tensor
    cloth: Tensor  # colour of the mask
    metal: Tensor  # colour of the glasses


@dataclass(frozen=True)
class Portrait(Batch):
    """All there is to know about n photos; ``render`` makes the pixels."""

    person: Person
    shot: Shot


class Draws:
    """Uniform numbers that are a function of (seed, index, parameter) and of nothing else."""

    def __init__(self, seed: int, stream: str, index: Tensor) -> None:
        self._stream = stream
        self._key = _scrambled(_scrambled(torch.full_like(index, seed & 0x7FFFFFFFFFFFFFFF)) + index)

    def many(self, parameter: str, count: int) -> Tensor:
        """Float32 (n, count) in [0, 1)."""
        start = crc32(f"{self._stream} {parameter}".encode())
        bits = _scrambled(self._key[:, None] ^ _scrambled(torch.arange(count) + (start << 16)))
        return (bits >> 40 & 0xFFFFFF).float() / 0x1000000

    def one(self, parameter: str, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Float32 (n, 1, 1, 1) in [low, high)."""
        return self.many(parameter, 1)[:, :, None, None] * (high - low) + low

    def colour(self, parameter: str, low: float, high: float) -> Tensor:
        """Float32 (n, 3, 1, 1) in [low, high)."""
        return self.many(parameter, 3)[:, :, None, None] * (high - low) + low

    def choice(self, parameter: str, count: int) -> Tensor:
        """Int64 (n,) in 0..count-1."""
        return (self.many(parameter, 1)[:, 0] * count).long()

    def waves(self, parameter: str, count: int, across: float, along: float) -> Tensor:
        """Float32 (n, count, 3): of each wave, cycles per unit along x and y, and phase."""
        unit = self.many(parameter, 3 * count).view(-1, count, 3) * 2 - 1
        # from coarse to fine, so that the texture has detail at every size of picture
        octave = torch.linspace(0.25, 1.0, count)[:, None]
        return torch.cat((unit[..., :2] * torch.tensor((across, along)) * octave, unit[..., 2:]), dim=-1)


def _scrambled(x: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) on int64, which wraps around."""
    x = x + -0x61C8864680B583EB
    x = (x ^ (x >> 30 & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    x = (x ^ (x >> 27 & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return x ^ (x >> 31 & 0x1FFFFFFFF)


def _blend(palette: Sequence[Sequence[float]], position: Tensor) -> Tensor:
    """The colour (n, 3, 1, 1) at ``position`` (n, 1, 1, 1) in [0, 1] along a palette."""
    colours = torch.tensor(palette)
    place = position.flatten() * (len(palette) - 1)
    first = place.long().clamp_(max=len(palette) - 2)
    rest = (place - first)[:, None]
    return (colours[first] * (1 - rest) + colours[first + 1] * rest)[:, :, None, None]


def style_of(rows: Tensor, setting: str) -> Tensor:
    """A field, (n, 1, 1, 1), of hair styles given as rows (n, fields)."""
    column = [field.name for field in fields(HairStyle)].index(setting)
    return rows[:, column, None, None, None]


def draw_person(seed: int, identity: Tensor) -> Person:
    """The people with the given numbers (int64 (n,))."""
    draw = Draws(seed, "person", identity)
    tone = draw.one("tone")
    skin = (_blend(SKIN, tone) + draw.colour("skin", -0.025, 0.025)).clamp_(0.05, 1.0)
    # dark skin mostly goes with dark hair
    hair = _blend(HAIR, draw.one("hair") * (1.15 - tone).clamp_(0.25, 1.0)) + draw.colour("hair tint", -0.02, 0.02)
    styles = torch.tensor([[getattr(style, field.name) for field in fields(style)] for style in HAIR_STYLES])
    style = draw.choice("style", len(HAIR_STYLES))
    curly = style_of(styles[style], "curl")[..., 0] > 0.025
    straight = draw.waves("strands", 12, across=9.0, along=1.2)
    locks = draw.waves("locks", 12, across=3.8, along=3.8)
    return Person(
        skin=skin,
        hair=hair.clamp_(0.03, 1.0),
        iris=_blend(IRIS, draw.one("iris")),
        lips=skin * _blend(((0.92, 0.70, 0.68), (0.88, 0.50, 0.50), (0.86, 0.34, 0.40)), draw.one("lips")),
        style=styles[style],
        strands=torch.where(curly, locks, straight),
        pores=draw.waves("pores", 10, across=13.0, along=13.0),
        head_width=draw.one("head width", 0.68, 0.84),
        chin=draw.one("chin", 0.94, 1.06),
        taper=draw.one("taper", 0.0, 0.22),
        square=draw.one("square", 0.0, 0.45),
        neck=draw.one("neck", 0.36, 0.50),
        eye_gap=draw.one("eye gap", 0.30, 0.37),
        eye_width=draw.one("eye width", 0.165, 0.205),
        eye_open=draw.one("eye open", 0.88, 1.12),
        brow_height=draw.one("brow height", -0.25, -0.19),
        brow_thick=draw.one("brow thick", 0.025, 0.065),
        brow_arch=draw.one("brow arch", 0.0, 0.04),
        nose_width=draw.one("nose width", 0.10, 0.19),
        nose_end=draw.one("nose end", 0.27, 0.39),
        mouth_height=draw.one("mouth height", 0.56, 0.63),
        mouth_width=draw.one("mouth width", 0.24, 0.32),
        lip=draw.one("lip", 0.035, 0.075),
        freckles=(draw.one("freckled") < 0.2) * draw.one("freckles", 0.15, 0.4),
        beard=(draw.one("bearded") < 0.25) * draw.one("beard", 0.35, 0.95),
        frame=draw.one("frame", 0.23, 0.28),
        frame_square=draw.one("frame square", 0.0, 0.8),
        frame_thick=draw.one("frame thick", 0.016, 0.034),
    )


def draw_labels(seed: int, photo: Tensor) -> dict[str, Tensor]:
    """Task -> int64 (n,), for the photos with the given numbers (int64 (n,))."""
    draw = Draws(seed, "labels", photo)
    return {
        "expression": draw.choice("expression", len(EXPRESSIONS)),
        "glasses": (draw.many("glasses", 1)[:, 0] < GLASSES_SHARE).long(),
        "mask": (draw.many("mask", 1)[:, 0] < MASK_SHARE).long(),
    }


def draw_shot(seed: int, photo: Tensor) -> Shot:
    """The circumstances of the photos with the given numbers (int64 (n,))."""
    draw = Draws(seed, "shot", photo)
    exposure = draw.one("exposure", 0.92, 1.18)
    fill = draw.one("fill", 0.36, 0.64)
    tint = _blend(((1.05, 0.99, 0.88), (1.0, 1.0, 1.0), (0.92, 0.99, 1.06)), draw.one("tint"))
    near = draw.one("brightness", 0.15, 0.85)
    return Shot(
        **draw_labels(seed, photo),
        strength=draw.one("strength", 0.75, 1.15),
        scale=draw.one("scale", *SCALE),
        roll=(draw.one("roll a") - draw.one("roll b")) * ROLL,
        left=draw.one("left", -SHIFT, SHIFT),
        down=draw.one("down", CHIN - SHIFT, CHIN + SHIFT),
        yaw=draw.one("yaw", -1.0, 1.0),
        light_x=draw.one("light x", -0.65, 0.65),
        light_y=draw.one("light y", -0.60, 0.05),
        ambient=fill * exposure * (draw.colour("shade", 0.92, 1.02)),
        lamp=(1 - fill) * exposure * tint,
        near=(near + draw.colour("near", -0.18, 0.18)).clamp_(0.03, 0.97),
        far=(near + draw.one("contrast", -0.3, 0.3) + draw.colour("far", -0.16, 0.16)).clamp_(0.03, 0.97),
        gradient=draw.colour("gradient", -0.6, 0.6)[:, :2],
        wall=draw.waves("wall", 10, across=2.6, along=2.6),
        wall_colour=draw.one("wall contrast", 0.02, 0.16) + draw.colour("wall colour", -0.05, 0.05),
        wall_edge=draw.one("wall edge", 0.5, 1.8),
        clothes=(draw.one("cloth", 0.08, 0.80) + draw.colour("clothes", -0.2, 0.2)).clamp_(0.03, 0.97),
        collar=draw.one("collar", 0.30, 0.62),
        cloth=_blend(CLOTH, draw.choice("mask", len(CLOTH))[:, None, None, None] / (len(CLOTH) - 1)),
        metal=_blend(((0.04, 0.04, 0.05), (0.26, 0.13, 0.07), (0.50, 0.08, 0.10), (0.60, 0.58, 0.55)), draw.one("m")),
    )


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

    def crop(self, left: float, top: float, right: float, bottom: float) -> "View":
        """The pixels that can hold the given box of face coordinates, whatever the pose allows."""
        rows, columns = _window(self.u.shape[-1], left, top, right, bottom)
        planes = {
            field.name: getattr(self, field.name)[:, :, rows, columns]
            for field in fields(self)
            if field.name != "pixel"
        }
        return View(**planes, pixel=self.pixel)

    def of(self, photos: Tensor) -> "View":
        """A copy of the given photos."""
        return View(**{field.name: getattr(self, field.name)[photos] for field in fields(self)})

    def paint(self, cover: Tensor, colour: Tensor | float) -> None:
        """Lay a colour (n, 3, 1, 1) over the picture where ``cover`` (n, 1, H, W; 0 to 1) says so."""
        self.albedo.add_((colour - self.albedo).mul_(cover))

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


def draw_stage(portrait: Portrait, size: int) -> View:
    """The background, and the coordinates on which the rest is painted."""
    person, shot = portrait.person, portrait.shot
    grid = (torch.arange(size) + 0.5) / size * 2 - 1
    column, row = grid[None, None, None, :], grid[None, None, :, None]
    x, y = (column - shot.left) / shot.scale, (row - shot.down) / shot.scale
    level = (1 - shot.roll.square()).sqrt()
    u = level * x + shot.roll * y
    v = (level * y + 1) - shot.roll * x
    beside = u - 0.13 * shot.yaw
    pixel = 2 / size / shot.scale

    def on_head(waves: Tensor) -> Tensor:
        c, s = level[:, 0, 0], shot.roll[:, 0, 0]
        along_x, along_y = waves[..., 0] * c - waves[..., 1] * s, waves[..., 0] * s + waves[..., 1] * c
        return texture(x[:, 0], y[:, 0], along_x, along_y, waves[..., 2], pixel[:, 0, 0])

    n = len(shot.scale)
    wall = texture(
        column[0].expand(n, -1, -1),
        row[0].expand(n, -1, -1),
        shot.wall[..., 0],
        shot.wall[..., 1],
        shot.wall[..., 2],
        torch.full((n, 1), 2 / size),
    )
    wall = wall.mul_(shot.wall_edge).clamp_(-1, 1)
    slope = shot.gradient[:, :1] * column + (shot.gradient[:, 1:] * row + 0.5)
    albedo = (shot.far - shot.near) * slope + shot.near
    return View(
        albedo=albedo.add_(wall * shot.wall_colour),
        light=torch.full_like(u, 0.8),
        u=u,
        v=v,
        face=(beside * (0.22 * shot.yaw)).add_(1).mul_(beside),
        dome=draw_dome(u, v, person, shot),
        skin=on_head(person.pores),
        hair=on_head(person.strands),
        pixel=pixel,
    )


def draw_dome(u: Tensor, v: Tensor, person: Person, shot: Shot) -> Tensor:
    """Lambert's cosine on a flattened ball around the head."""
    across, down = u * (0.88 / person.head_width), v * 0.82
    front = (across.square() + down.square()).neg_().add_(1).clamp_(min=0.04).sqrt_()
    light_z = (1 - shot.light_x.square() - shot.light_y.square()).sqrt()
    lit = across.mul_(shot.light_x).add_(down.mul_(shot.light_y)).add_(front.mul_(light_z))
    return lit.clamp_(0.10, 1.0)


def draw_body(view: View, person: Person, shot: Shot) -> None:
    """Shoulders, collar and neck, with the shadow of the chin."""
    shoulders = cover(ellipse(view.u, view.v - 2.36, 2.9 * person.neck + 0.35, torch.tensor(1.0)), view.pixel)
    side = view.u * (0.35 * shot.light_x)
    view.paint(shoulders, shot.clothes)
    view.relight(shoulders, side + view.hair * 0.07 + 0.78)
    hem = ellipse(view.u, view.v - 1.22, shot.collar, torch.tensor(0.40))
    column = (view.u.abs() - person.neck).maximum((view.v - 0.95).abs_().sub_(0.45))
    skin = cover(torch.minimum(hem, column), view.pixel)
    view.paint(skin, person.skin)
    below = (view.v - 1.02).mul_(1.1).clamp_(0.0, 0.34)
    view.relight(skin, side.add_(below).add_(0.44).add_(view.skin * 0.025))


def draw_back_hair(view: View, portrait: Portrait) -> None:
    """Hair behind the neck, and a bun."""
    person = portrait.person
    # where there is none, it hides behind the head
    width = (style_of(person.style, "back") * person.head_width).clamp(min=0.5)
    half = (style_of(person.style, "back_end") + 0.7) / 2
    box = rounded(view.u / width, (view.v - (half - 0.7)) / half, torch.tensor(0.6)).mul_(width)
    bun = style_of(person.style, "bun")
    ball = ellipse(view.u, view.v + (1.0 + 0.7 * bun), bun.clamp(min=0.01), (bun * 0.9).clamp(min=0.01))
    edge = torch.minimum(box, ball).add_(view.hair * style_of(person.style, "curl"))
    hair = cover(edge, view.pixel)
    view.paint(hair, person.hair)
    view.relight(hair, view.dome * 0.55 + view.hair * 0.2 + 0.18)


def head_distance(view: View, person: Person, look: Look[Tensor]) -> Tensor:
    """Signed distance to the outline of the head; a round mouth lowers the jaw."""
    below = view.v.clamp(min=0)
    drop = below / (person.chin + look.roundness * 0.08)
    across = (view.u / person.head_width).mul_(below.mul(person.taper).add_(1)).square_().clamp_(max=1.8)
    drop = drop.square_().clamp_(max=1.8)
    # a circle squared (Fernandez Guasti, 1992) below the eyes only
    corner = (across * person.square).mul_(drop)
    down = view.v.clamp(max=0).square_().add_(drop)
    return across.add_(down).sub_(corner).sqrt_().sub_(1).mul_(person.head_width)


def draw_head(view: View, person: Person, look: Look[Tensor]) -> None:
    """Ears and the bare head."""
    ear = ellipse(view.u.abs() - person.head_width, view.v - 0.10, torch.tensor(0.11), torch.tensor(0.19))
    hollow = (ear + 0.07).mul_(5).clamp_(-0.3, 0.0)
    ear = cover(ear, view.pixel)
    view.paint(ear, person.skin * torch.tensor((0.97, 0.88, 0.86))[:, None, None])
    view.relight(ear, view.dome * 0.7 + 0.15 + hollow)
    head = cover(head_distance(view, person, look), view.pixel)
    gloss = (view.dome - 0.9).clamp_(min=0).square_().mul_(14)
    view.paint(head, person.skin)
    view.relight(head, gloss.add_(view.dome).add_(view.skin * 0.03))


def draw_relief(view: View, person: Person, look: Look[Tensor]) -> None:
    """The shading of sockets, nose, cheeks and folds; freckles."""
    mirror = view.face.abs()
    sockets = blob(mirror - person.eye_gap, view.v, 0.30, 0.26)
    cheeks = blob(mirror - 0.40, view.v - 0.33, 0.26, 0.22)
    view.light.sub_(sockets.mul_(0.20))
    view.light.add_(cheeks * (0.07 + 0.10 * look.cheek))
    view.paint(cheeks * (0.10 + 0.25 * look.cheek), person.skin * torch.tensor((1.0, 0.62, 0.58))[:, None, None])
    spots = (view.skin - 0.35).clamp_(0, 0.5).mul_(blob(view.face, view.v - 0.24, 0.62, 0.34))
    view.light.sub_(spots.mul_(person.freckles))
    # laughter lines: arcs from the nose to beside the mouth
    fold = mirror - (view.v - 0.12).mul_(0.55) - 0.12
    reach = blob(torch.zeros_like(fold), view.v - 0.40, 1.0, 0.20)
    view.light.sub_(
        between(fold, torch.tensor(-0.025), torch.tensor(0.025), view.pixel).mul_(reach * look.cheek * 0.3)
    )
    frown = between(mirror - 0.075, torch.tensor(-0.02), torch.tensor(0.02), view.pixel)
    view.light.sub_(frown.mul_(blob(mirror, view.v + 0.22, 0.4, 0.16)).mul_(0.45 * look.furrow))
    crease = ((view.v + 0.52) * 6).frac().abs().sub_(0.5).abs().mul_(-4).add_(1).clamp_(min=0)
    crease.mul_(blob(view.face, view.v + 0.55, 0.48, 0.20))
    view.light.sub_(crease.mul_(0.28 * look.wrinkle))


def draw_nose(view: View, person: Person, shot: Shot) -> None:
    """Bridge, tip, nostrils and the shadow below."""
    nose = view.face - 0.05 * shot.yaw
    high = view.v - person.nose_end
    width = person.nose_width
    below = blob(nose, high - 0.10, width * 1.2, 0.10)
    view.light.sub_(below.mul_(0.30))
    # a ridge: lit on the side of the lamp, dark on the other, wider toward the tip
    spread = (high + 0.45).clamp_(0, 0.45).mul_(1.3).add_(0.45).mul_(width)
    slant = nose / spread
    ridge = (1 - slant.square()).clamp_(min=0).mul_(slant)
    envelope = blob(torch.zeros_like(high), high + 0.15, 1.0, 0.36)
    view.light.add_(ridge.mul_(envelope).mul_(shot.light_x * 0.75 + 0.12 * shot.light_x.sign()))
    view.light.add_(blob(nose, high + 0.03, width * 0.6, 0.09).mul_(0.16))
    wings = blob(nose.abs() - width * 0.85, high, width * 0.35, 0.07)
    view.light.sub_(wings.mul_(0.22))
    nostrils = cover(ellipse(nose.abs() - width * 0.48, high - 0.055, width * 0.26, torch.tensor(0.026)), view.pixel)
    view.paint(nostrils.mul_(0.75), person.skin * 0.28)


def draw_eyes(view: View, person: Person, look: Look[Tensor]) -> None:
    """Whites, irises, pupils, lids and lashes of both eyes (the face is mirrored at u = 0)."""
    pixel = view.pixel
    width = person.eye_width
    across = (view.face.abs() - person.eye_gap) / width
    down = view.v + across * look.eye_slant
    arch = (1 - across.square()).clamp_(min=-0.5)
    upper = arch * (-width * look.lid_up * person.eye_open)
    lower = arch * (width * look.lid_low * person.eye_open)
    # a crease above the lid, and the bag of a squeezed eye below
    fold = between(down, upper - 0.075, upper - 0.05, pixel).mul_(arch.clamp(min=0))
    view.light.sub_(fold.mul_(0.28))
    opening = between(down, upper, lower, pixel)
    view.paint(opening, torch.tensor((0.95, 0.94, 0.92))[:, None, None])
    view.relight(opening, 0.88 - between(down, upper, upper + 0.045, pixel) * 0.28)
    radius = (across * width).square_().add_((down + 0.012).square_()).sqrt_()
    iris = cover(radius - 0.078, pixel).mul_(opening)
    view.paint(iris, person.iris)
    view.paint(cover(radius - 0.036, pixel).mul_(opening), 0.03)
    glint = cover(ellipse(across * width - 0.028, down + 0.045, torch.tensor(0.022), torch.tensor(0.022)), pixel)
    view.paint(glint.mul_(opening), 1.3)
    lashes = between(down, upper - 0.030, upper + 0.012, pixel).mul_((arch * 6).clamp_(0, 1))
    view.paint(lashes.mul_(0.9), person.hair * 0.15 + 0.03)
    rim = between(down, lower - 0.004, lower + 0.016, pixel).mul_((arch * 4).clamp_(0, 1))
    view.paint(rim.mul_(0.45), person.skin * 0.35)


def draw_brows(view: View, person: Person, look: Look[Tensor]) -> None:
    """Brows: tapered arcs of hair."""
    across = (view.face.abs() - person.eye_gap - 0.02) / 0.24
    arch = 1 - across.square()
    middle = across * -look.brow_slope - arch * (look.brow_arch + person.brow_arch)
    middle.add_(person.brow_height - look.brow_lift)
    # thick at the inner end
    half = arch.clamp(min=0).mul_(1 - 0.35 * across).mul_(person.brow_thick)
    brow = between(view.v + view.hair * 0.008, middle - half, middle + half, view.pixel)
    view.paint(brow.mul_(0.92), person.hair * 0.62)


def draw_mouth(view: View, person: Person, look: Look[Tensor]) -> None:
    """Lips, and what an open mouth shows."""
    pixel = view.pixel
    across = view.face / (person.mouth_width * look.mouth_width)
    square = across.square()
    point = (1 - square).clamp_(min=-0.3)
    oval = point.clamp(min=0).sqrt_()
    arch = point + (oval - point).mul_(look.roundness.clamp(max=1))
    down = (view.v - person.mouth_height).add_(square.clamp_(max=1.2).mul_(look.mouth_curve))
    down.sub_(0.5 * look.mouth_curve)
    top, bottom = arch * -look.open_up, arch * look.open_low
    # the bow of the upper lip
    bow = 0.55 + 0.45 * blob(across.abs() - 0.28, torch.zeros_like(across), 0.55, 1.0)
    lip = person.lip * look.lip
    shadow = blob(across, view.v - (person.mouth_height + look.open_low + 0.17), 0.9, 0.08)
    view.light.sub_(shadow.mul_(0.20))
    lips = between(down, top - arch * lip * bow, bottom + arch * lip * 1.15, pixel)
    view.paint(lips, person.lips)
    view.light.add_(blob(across, down - look.open_low - lip * 0.6, 0.5, lip * 0.6).mul_(0.12))
    inside = between(down, top - 0.010, bottom + 0.010, pixel).mul_((arch * 5).clamp_(0, 1))
    view.paint(inside, torch.tensor((0.24, 0.06, 0.07))[:, None, None])
    teeth = between(down, top, top + (bottom - top) * look.teeth, pixel).mul_((arch * 4).clamp_(0, 1))
    view.paint(teeth, torch.tensor((0.95, 0.93, 0.88))[:, None, None])
    view.relight(teeth, 0.86)
    tongue = blob(across, down - look.open_low, 0.7, 0.09).mul_(inside).mul_(1 - look.teeth)
    view.paint(tongue.mul_(0.8), torch.tensor((0.72, 0.30, 0.30))[:, None, None])


def draw_beard(view: View, portrait: Portrait) -> None:
    """Hair on jaw and upper lip, around the mouth."""
    person = portrait.person
    head = head_distance(view, person, look_of(portrait.shot))
    side = view.face.abs()
    line = 0.30 + 0.45 * blob(side, torch.zeros_like(side), 0.62, 1.0)
    jaw = (line - view.v).maximum(head)
    moustache = (side - 0.30).maximum((view.v - person.mouth_height - 0.02).abs_().sub_(0.16))
    edge = torch.minimum(jaw, moustache.maximum(person.nose_end + 0.06 - view.v))
    beard = cover(edge.add_(view.hair * 0.03), view.pixel + 0.06).mul_(person.beard)
    view.paint(beard, person.hair * 0.9)
    view.light.add_(view.hair * beard * 0.12)


def draw_mask(view: View, portrait: Portrait) -> None:
    """A pleated mask over nose, mouth and chin, and its straps."""
    person, shot, pixel = portrait.person, portrait.shot, view.pixel
    head = head_distance(view, person, look_of(shot))
    side = view.face.abs()
    strap = (view.v - 0.30) - (0.62 - side).mul_(0.25)
    straps = between(strap, torch.tensor(-0.018), torch.tensor(0.018), pixel).mul_(cover(head - 0.06, pixel))
    view.paint(straps.mul_((side > 0.45).float()), shot.cloth * 0.95)
    top = 0.36 - 0.22 * blob(side, torch.zeros_like(side), 0.62, 1.0)
    edge = (top - view.v).maximum(head - 0.025).maximum(side - 0.66)
    rim = (edge + 0.035).clamp_(0, 0.035).mul_(-5)
    mask = cover(edge, pixel)
    view.paint(mask, shot.cloth)
    pleats = ((view.v - 0.12 * side.square()) * 5.5).frac().sub_(0.5).abs().mul_(0.30)
    nose = blob(view.face - 0.05 * shot.yaw, view.v - person.nose_end, 0.26, 0.30)
    ridge = nose * view.face * (shot.light_x * 1.6)
    light = view.dome * 0.75 + 0.15 + pleats + rim + nose * 0.12 + ridge + view.skin * 0.02
    view.relight(mask, light)


def draw_glasses(view: View, portrait: Portrait) -> None:
    """Two rims, a bridge and temples; lenses that reflect the room a little."""
    person, shot, pixel = portrait.person, portrait.shot, view.pixel
    side = view.face.abs()
    middle, thick = person.eye_gap + 0.02, person.frame_thick
    across, down = (side - middle) / person.frame, (view.v - 0.03) / (person.frame * 0.82)
    edge = rounded(across, down, person.frame_square).mul_(person.frame)
    lens = cover(edge.clone(), pixel)
    view.paint(lens * 0.10, shot.ambient * 0.8)
    gleam = (across + down).mul_(2).add_(0.9).abs_().neg_().add_(0.45).clamp_(0, 0.35).mul_(lens)
    view.paint(gleam.mul_(0.6), 1.0)
    ring = between(edge, -thick, thick, pixel)
    level = (view.v + 0.03).abs_() - thick
    beyond = (side - middle).abs_()
    bars = cover(level.maximum(person.frame - beyond), pixel).mul_(cover(side - person.head_width * 1.02, pixel))
    ring = ring.maximum(bars)
    view.paint(ring, shot.metal)
    view.relight(ring, view.dome * 0.8 + 0.2)


def draw_front_hair(view: View, person: Person) -> None:
    """Hair over skull, forehead and temples: an outline less the opening for the face."""
    curl = view.hair * style_of(person.style, "curl")
    end = style_of(person.style, "end")
    top, side = 1 + style_of(person.style, "top"), person.head_width + style_of(person.style, "side")
    below = end.clamp(min=0.3) * 1.35
    height = view.v.clamp(max=0).div_(top).add_(view.v.clamp(min=0).div_(below))
    outside = (view.u / side).square_().add_(height.square_()).sqrt_().sub_(1).mul_(side)
    outside = outside.maximum(view.v - end)
    line, half = style_of(person.style, "line"), style_of(person.style, "opening") * person.head_width
    middle = torch.tensor(0.30)
    slanted = view.face + (view.v - middle) * style_of(person.style, "part")
    inside = ellipse(slanted, (view.v - middle).clamp_(max=0), half, middle - line)
    inside = inside.maximum((style_of(person.style, "fringe") - view.v).add_(view.hair * 0.035))
    edge = outside.add_(curl).maximum(inside.add_(curl * 0.4).neg_())
    # the shadow hair casts on the forehead
    shadow = (outside + 0.05).maximum(-0.04 - inside)
    view.light.sub_(cover(shadow, view.pixel + 0.10).mul_(0.28))
    hair = cover(edge, view.pixel)
    view.paint(hair, person.hair)
    sheen = blob(torch.zeros_like(view.v), view.v + 0.72 - 0.2 * view.u.square(), 1.0, 0.16).mul_(view.dome)
    view.relight(hair, view.dome * 0.72 + view.hair * 0.24 + 0.26 + sheen.mul_(0.5))


def look_of(shot: Shot) -> Look[Tensor]:
    """The expressions, each as strong as drawn, as one Look of tensors (n, 1, 1, 1)."""
    rows = torch.tensor([[getattr(look, field.name) for field in fields(look)] for look in LOOKS])
    mixed = rows[0] + (rows[shot.expression] - rows[0]) * shot.strength[:, :, 0, 0]
    return Look(*mixed[:, :, None, None, None].unbind(1))


def draw_on(view: View, portrait: Portrait, which: Tensor, draw: Callable[[View, Portrait], None]) -> None:
    """Apply ``draw`` to those photos only for which ``which`` (bool, (n,)) holds."""
    photos = which.nonzero().flatten()
    if len(photos):
        part = view.of(photos)
        draw(part, portrait[photos])
        view.albedo[photos] = part.albedo
        view.light[photos] = part.light


def render(portrait: Portrait, size: int) -> Tensor:
    """Paint n portraits: uint8 (n, 3, size, size)."""
    person, shot, look = portrait.person, portrait.shot, look_of(portrait.shot)
    view = draw_stage(portrait, size)
    long_hair = (style_of(person.style, "back_end") > 0).flatten()
    draw_on(view.crop(-1.4, -1.6, 1.4, 1.9), portrait, long_hair, draw_back_hair)
    draw_body(view.crop(-9, 0.75, 9, 9), person, shot)
    draw_head(view.crop(-1.0, -1.05, 1.0, 1.2), person, look)
    draw_relief(view.crop(-0.75, -0.8, 0.75, 0.65), person, look)
    draw_nose(view.crop(-0.35, -0.25, 0.35, 0.6), person, shot)
    draw_on(view.crop(-0.95, 0.0, 0.95, 1.2), portrait, person.beard.flatten() > 0, draw_beard)
    draw_mouth(view.crop(-0.6, 0.3, 0.6, 1.0), person, look)
    draw_eyes(view.crop(-0.7, -0.3, 0.7, 0.3), person, look)
    draw_brows(view.crop(-0.7, -0.65, 0.7, 0.1), person, look)
    draw_on(view.crop(-0.95, 0.0, 0.95, 1.2), portrait, shot.mask > 0, draw_mask)
    draw_on(view.crop(-0.95, -0.4, 0.95, 0.45), portrait, shot.glasses > 0, draw_glasses)
    draw_front_hair(view.crop(-1.5, -1.6, 1.5, 1.5), person)
    lit = (view.light * shot.lamp).add_(shot.ambient).mul_(view.albedo)
    return lit.mul_(255).add_(0.5).clamp_(0, 255).to(torch.uint8)


@contextmanager
def one_thread_each() -> Iterator[Executor]:
    """A pool of as many threads as torch may use, each of which runs its operations alone.

    Chunks side by side need no barrier after every operation, which costs little on an idle machine and
    nearly everything on one whose cores are shared.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Faces(Source):
    """Procedural portraits of people who do not exist; photo i is the same however many are asked for.

    Tasks: "expression" (neutral, happy, surprised, angry: a quarter each), "glasses" (30 %), "mask" (35 %).
    Consecutive photos show the same person.
    """

    summary: ClassVar[str] = "procedural portraits: expression, glasses, mask, identity; nothing to download"

    seed: Annotated[int, doc("another seed, other people")] = 0
    photos: Annotated[int, Gt(0), doc("number of photos")] = 10_000
    photos_per_identity: Annotated[int, Gt(0), doc("photos of each person")] = 5

    def fingerprint(self) -> str:
        """Digest of the settings and of the renderer's revision."""
        return sha256(json.dumps([self.name, REVISION, self.to_mapping()]).encode()).hexdigest()

    def catalog(self) -> Catalog:
        """Names, labels and identities; draws no pixel."""
        photo = torch.arange(self.photos)
        classes = {"expression": EXPRESSIONS, "glasses": NO_YES, "mask": NO_YES}
        labels = {task: Labels(values, classes[task]) for task, values in draw_labels(self.seed, photo).items()}
        names = tuple(f"face_{number:06d}" for number in range(self.photos))
        return Catalog(names, labels, identity=photo // self.photos_per_identity)

    def portraits(self, chosen: Sequence[int]) -> Portrait:
        """All parameters of the chosen photos."""
        photo = torch.as_tensor(chosen, dtype=torch.int64)
        person = draw_person(self.seed, photo // self.photos_per_identity)
        return Portrait(person, draw_shot(self.seed, photo))

    def read(self, chosen: Sequence[int], size: int) -> Pixels:
        """Render the chosen photos; none is ever corrupt.

        Raises:
            InvalidInputError: a photo that the catalogue does not have, or a size below 1.
        """
        if size < 1:
            raise InvalidInputError(f"faces cannot be rendered at {size} pixels; give a size of at least 1")
        for number in chosen:
            if not 0 <= number < self.photos:
                raise InvalidInputError(f"faces has the photos 0 to {self.photos - 1}, not {number}")
        portraits = self.portraits(chosen)
        step = max(1, CHUNK_PIXELS // (size * size))
        chunks = [portraits[start : start + step] for start in range(0, len(chosen), step)]
        with one_thread_each() as pool:
            images = list(pool.map(render, chunks, itertools.repeat(size)))
        return Pixels(torch.cat([torch.empty(0, 3, size, size, dtype=torch.uint8), *images]))
