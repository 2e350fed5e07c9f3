"""Inside an attack: the maps that were sent of one photo, and the picture after each stage of a decoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from splitleak.experiments.report.figures.style import SCREEN, Style
from splitleak.experiments.results.group import DefenceRow
from splitleak.experiments.results.record import Record
from splitleak.experiments.results.results import Results

MAPS_HEIGHT = 0.45
"""Of the maps' row, as a share of the width."""
NARROWEST, LABEL_LINES = 0.8, 4
"""Of a stage's picture, in inches, and what stands above it in lines of small type."""


@dataclass(frozen=True)
class Decoded:
    """What the stages of a decoder made of a release: pictures (h, w, 3), the answer last, and their shapes."""

    name: str
    shapes: Sequence[Sequence[int]]
    pictures: Sequence[np.ndarray]


def inside_figure(run: Path, results: Results, row: DefenceRow, style: Style = SCREEN) -> Figure | None:
    """Of the first target photo; None where no decoder of the run can be looked into behind this defence."""
    found = [next((cell for cell in group.finished if cell.inside), None) for group in row.groups.values()]
    cells = [cell for cell in found if cell]
    if not cells or not (run / "targets.png").exists():
        return None
    photo, maps = _pixels(run / "targets.png"), _pixels(run / "cells" / f"{cells[0].id}.maps.png")
    assert cells[0].inside is not None
    decoders = [_decoded(run, cell) for cell in cells]
    return opened_figure(photo[:, : photo.shape[0]], maps, cells[0].inside.release, decoders, style)


def _decoded(run: Path, cell: Record) -> Decoded:
    assert cell.inside is not None
    strip = _pixels(run / "cells" / f"{cell.id}.stages.png")
    return Decoded(cell.column, cell.inside.stages, np.split(strip, len(cell.inside.stages), axis=1))


def opened_figure(
    photo: np.ndarray,
    maps: np.ndarray,
    release: Sequence[int],
    decoders: Sequence[Decoded],
    style: Style = SCREEN,
) -> Figure:
    """One row with the photo and the most active maps of its release, then one for each decoder."""
    columns = min(max(len(decoder.pictures) for decoder in decoders), int(style.wide / NARROWEST))
    side, label = style.wide / columns, LABEL_LINES * style.small_size / 72
    heights = [MAPS_HEIGHT * style.wide + label, *[side + label] * len(decoders)]
    with style.drawing():
        figure = style.figure(style.wide, sum(heights), layout="constrained")
        upper, *lower = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
        left, right = upper.subplots(1, 2, width_ratios=(1, 1.4))
        _show(left, photo, "the photo", style)
        title = f"the most active maps of {_shape(release)}, as sent"
        _show(right, maps, style.wrapped(title, 0.5 * style.wide), style)
        for part, decoder in zip(lower, decoders, strict=True):
            part.suptitle(decoder.name, fontsize=style.type_size, x=0.01, ha="left")
            _draw_stages(part.subplots(1, columns, squeeze=False)[0], decoder, style)
    return figure


def _draw_stages(panels: Sequence[Axes], decoder: Decoded, style: Style) -> None:
    """The last stage always, of the others as many as there is room for."""
    count = len(decoder.pictures)
    captions = [*(_shape(shape) for shape in decoder.shapes[:-1]), "answer"]
    for axes in panels:
        axes.set_axis_off()
    shown = np.linspace(0, count - 1, min(count, len(panels))).round().astype(int)
    for axes, index in zip(panels, shown, strict=False):
        _show(axes, decoder.pictures[index], captions[index], style)


def _shape(shape: Sequence[int]) -> str:
    """Such as ``112 x 20 x 20``."""
    return " x ".join(map(str, shape))


def _show(axes: Axes, pixels: np.ndarray, title: str, style: Style) -> None:
    axes.imshow(pixels, interpolation="none")
    axes.set_axis_off()
    axes.set_title(title, fontsize=style.small_size, loc="left", pad=2)


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))
