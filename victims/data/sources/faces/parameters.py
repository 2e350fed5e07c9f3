"""What a portrait is made of: "Person" is what an identity fixes, "Shot" what a single photo adds.

Face coordinates: v = -1 at the crown, about 0 at the eyes and about 1 at the chin; u to the right of the
picture, in the same unit.
"""

from dataclasses import dataclass, fields
from typing import Generic, Self, TypeVar

import torch
from torch import Tensor

Number = TypeVar("Number", float, Tensor)

EXPRESSIONS = ("neutral", "happy", "surprised", "angry")
NO_YES = ("no", "yes")
PARTS = ("background", "skin", "hair", "eyes", "mouth", "glasses", "mask", "body")
"""Of a picture. Ears, neck, nose, brows and beard are skin; behind glasses everything is glasses."""

SCALE = (0.53, 0.64)
"""Range of half the head's height, where the picture is 2 high."""
ROLL = 0.15
"""Largest sine of the head's in-plane rotation about the chin."""
SHIFT = 0.08
"""Largest displacement of the chin from its usual place, (0, CHIN)."""
CHIN = 0.56


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


def style_of(rows: Tensor, setting: str) -> Tensor:
    """A field, (n, 1, 1, 1), of hair styles given as rows (n, fields)."""
    column = [field.name for field in fields(HairStyle)].index(setting)
    return rows[:, column, None, None, None]


def look_of(shot: Shot) -> Look[Tensor]:
    """The expressions, each as strong as drawn, as one Look of tensors (n, 1, 1, 1)."""
    rows = torch.tensor([[getattr(look, field.name) for field in fields(look)] for look in LOOKS])
    mixed = rows[0] + (rows[shot.expression] - rows[0]) * shot.strength[:, :, 0, 0]
    return Look(*mixed[:, :, None, None, None].unbind(1))
