"""Parameters drawn at random, each a hash of (seed, photo or person, parameter): the same in any company."""

from collections.abc import Sequence
from dataclasses import fields
from zlib import crc32

import torch
from torch import Tensor

from splitleak.victims.data.sources.faces.parameters import (
    CHIN,
    EXPRESSIONS,
    HAIR_STYLES,
    ROLL,
    SCALE,
    SHIFT,
    Person,
    Shot,
    style_of,
)

GLASSES_SHARE = 0.3
MASK_SHARE = 0.35

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
