"""Inside an attack: the maps that were sent of one photo, and the picture after each stage of a decoder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from experiments.report.figures.style import SCREEN, Style
from experiments.report.results import Cell, DefenceRow, Results

MAPS_HEIGHT = 0.45
"""Of the maps' row, as a share of the width."""
NARROWEST, LABEL_LINES = 0.8, 4
"""Of a stage's picture, in inches, and what stands above it in lines of small type."""


def inside_figure(run: Path, results: Results, row: DefenceRow, style: Style = SCREEN) -> Figure | None:
    """One row with the photo and the most active maps of its release, then one for each decoder.

    None where no decoder of the run can be looked into behind this defence.
    """
    found = [next((cell for cell in group.finished if cell.inside), None) for group in row.groups.values()]
    cells = [cell for cell in found if cell]
    if not cells or not (run / "targets.png").exists():
        return None
    columns = min(max(len(cell.inside.stages) for cell in cells if cell.inside), int(style.wide / NARROWEST))
    side, label = style.wide / columns, LABEL_LINES * style.small_size / 72
    heights = [MAPS_HEIGHT * style.wide + label, *[side + label] * len(cells)]
    with style.drawing():
        figure = style.figure(style.wide, sum(heights), layout="constrained")
        upper, *lower = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
        _draw_release(upper.subplots(1, 2, width_ratios=(1, 1.4)), run, cells[0], style)
        for part, cell in zip(lower, cells, strict=True):
            part.suptitle(cell.column, fontsize=style.type_size, x=0.01, ha="left")
            _draw_stages(part.subplots(1, columns, squeeze=False)[0], run, cell, style)
    return figure


def _draw_release(panels: Sequence[Axes], run: Path, cell: Cell, style: Style) -> None:
    photo, maps = _pixels(run / "targets.png"), _pixels(run / "cells" / f"{cell.id}.maps.png")
    _show(panels[0], photo[:, : photo.shape[0]], "the photo", style)
    assert cell.inside is not None
    title = f"the most active maps of {_shape(cell.inside.release)}, as sent"
    _show(panels[1], maps, style.wrapped(title, 0.5 * style.wide), style)


def _draw_stages(panels: Sequence[Axes], run: Path, cell: Cell, style: Style) -> None:
    """The last stage always, of the others as many as there is room for."""
    assert cell.inside is not None
    count = len(cell.inside.stages)
    strip = _pixels(run / "cells" / f"{cell.id}.stages.png")
    pictures = np.split(strip, count, axis=1)
    captions = [*(_shape(shape) for shape in cell.inside.stages[:-1]), "answer"]
    for axes in panels:
        axes.set_axis_off()
    shown = np.linspace(0, count - 1, min(count, len(panels))).round().astype(int)
    for axes, index in zip(panels, shown, strict=False):
        _show(axes, pictures[index], captions[index], style)


def _shape(shape: Sequence[int]) -> str:
    """Such as ``112 x 20 x 20``."""
    return " x ".join(map(str, shape))


def _show(axes: Axes, pixels: np.ndarray, title: str, style: Style) -> None:
    axes.imshow(pixels, interpolation="none")
    axes.set_axis_off()
    axes.set_title(title, fontsize=style.small_size, loc="left", pad=2)


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))
