"""The pictures of one's own photos: what each attack makes of them, and the inside of decoders meanwhile."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from splitleak.experiments.report.figures import SCREEN, Decoded, opened_figure
from splitleak.experiments.report.tables.matrix import number
from splitleak.experiments.stages.inside import Opened, mosaic

SIDE, LABEL_HEIGHT, HEADING_HEIGHT, NAME_WIDTH, GAP = 1.25, 0.2, 0.55, 1.5, 0.08
"""Inches: of a picture, of the number below it, of the attacks' names, of the defences' names, between pictures."""
LETTERS = 18
"""Of a name before it is broken."""


@dataclass(frozen=True)
class Rebuilt:
    """What one attack made of n photos under one defence setting: uint8 (n, 3, h, w), and the PSNR of each."""

    images: Tensor
    psnr: tuple[float, ...]


class Asked(Protocol):
    """Photos, uint8 (n, 3, h, w), and what was to answer for them, by label."""

    @property
    def photos(self) -> Tensor:
        """The true ones."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the photos."""

    @property
    def defenses(self) -> tuple[str, ...]:
        """In the plan's order."""

    @property
    def attacks(self) -> tuple[str, ...]:
        """In the plan's order."""


def reconstructed_figure(question: Asked, rebuilt: Mapping[tuple[str, str], Rebuilt]) -> Figure:
    """Each photo with its rows below one another; what an attack did not try is left empty."""
    rows = [(photo, defense) for photo in range(len(question.photos)) for defense in question.defenses]
    width = NAME_WIDTH + (1 + len(question.attacks)) * (SIDE + GAP)
    height = HEADING_HEIGHT + len(rows) * (SIDE + LABEL_HEIGHT + GAP)
    with SCREEN.drawing():
        figure = SCREEN.figure(width, height)
        for column, name in enumerate(["the photo", *question.attacks]):
            left = (NAME_WIDTH + column * (SIDE + GAP) + SIDE / 2) / width
            figure.text(left, 1 - HEADING_HEIGHT / 2 / height, _broken(name), ha="center", va="center", fontsize=8)
        for row, (photo, defense) in enumerate(rows):
            bottom = height - HEADING_HEIGHT - (row + 1) * (SIDE + LABEL_HEIGHT + GAP) + LABEL_HEIGHT
            figure.text(GAP / width, (bottom + SIDE / 2) / height, _broken(defense), va="center", fontsize=8)

            def place(column: int, bottom: float = bottom) -> Axes:
                left = NAME_WIDTH + column * (SIDE + GAP)
                return figure.add_axes((left / width, bottom / height, SIDE / width, SIDE / height))

            _show(place(0), question.photos[photo], question.names[photo])
            for column, attack in enumerate(question.attacks, 1):
                if answer := rebuilt.get((defense, attack)):
                    _show(place(column), answer.images[photo], number("psnr", answer.psnr[photo]))
    return figure


def opened_decoders(question: Asked, opened: Mapping[str, Opened]) -> Figure:
    """The only photo, its release, and the picture after each stage of each decoder."""
    decoders = [
        Decoded(attack, inside.shapes, [_channels_last(stage) for stage in inside.stages])
        for attack, inside in opened.items()
    ]
    first = next(iter(opened.values()))
    return opened_figure(
        _channels_last(question.photos[0]), _channels_last(mosaic(first.maps)), first.release, decoders
    )


def _channels_last(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


def _show(axes: Axes, image: Tensor, label: str) -> None:
    axes.imshow(_channels_last(image), interpolation="nearest")
    axes.set_axis_off()
    axes.text(0.5, -0.03, label, transform=axes.transAxes, ha="center", va="top", fontsize=7)


def _broken(name: str) -> str:
    return "\n".join(textwrap.wrap(name, LETTERS))
