"""What the reconstructions look like: rows of the same few targets."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from splitleak.experiments.report.figures.style import SCREEN, Style
from splitleak.experiments.report.tables.matrix import number
from splitleak.experiments.report.tables.table import FLAG
from splitleak.experiments.results.record import Record
from splitleak.experiments.results.results import Results

MARGIN, LINE = 0.1, 0.018
"""Of a grid, in inches, and the height of a line of text for each point of its type."""


@dataclass(frozen=True)
class Strip:
    """A row of reconstructions of the same few targets, with what it shows."""

    label: str
    path: Path


@dataclass(frozen=True)
class Grid:
    """Strips under one another; ``name`` is fit for a file."""

    name: str
    title: str
    strips: tuple[Strip, ...]


def grids(run: Path, results: Results) -> tuple[Grid, ...]:
    """Undefended: a strip per attack. Each defence: a strip per strength, of its strongest attack.

    Shows the first seed that has images; the PSNR is that seed's, over all its targets.
    """
    found = []
    if results.undefended:
        cells = [_shown(run, group.cells) for group in results.undefended.groups.values()]
        strips = [_strip(run, results, cell, cell.column) for cell in cells if cell]
        found.append(Grid("undefended", "Undefended, by attack", tuple(strips)))
    for index, family in enumerate(results.families, 1):
        strips = []
        for row in family.rows:
            strongest = row.strongest("psnr")
            cell = strongest and _shown(run, strongest.cells)
            if cell:
                defence = row.defence
                setting = f"{defence.strength} = {defence.strength_text}" if defence.strength else defence.label
                strips.append(_strip(run, results, cell, f"{setting}, {cell.column}"))
        found.append(Grid(f"{index:02d}_{_file_name(family.rows[0].defence.name)}", family.label, tuple(strips)))
    return tuple(grid for grid in found if grid.strips)


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def _shown(run: Path, cells: Sequence[Record]) -> Record | None:
    return next((cell for cell in cells if cell.ok and _strip_path(run, cell).exists()), None)


def _strip_path(run: Path, cell: Record) -> Path:
    return run / "cells" / f"{cell.id}.png"


def _strip(run: Path, results: Results, cell: Record, what: str) -> Strip:
    score, flags = cell.metrics.get("psnr"), results.raised(cell.defence, cell.column)
    label = f"{what}: {number('psnr', score.mean)}" if score else what
    return Strip(f"{label} ({FLAG} {', '.join(flags)})" if flags else label, _strip_path(run, cell))


def grid_figure(targets: Path, grid: Grid, style: Style = SCREEN) -> Figure:
    """The targets on top, each strip below with its label above it."""
    strips = (Strip("the photos", targets), *grid.strips)
    pixels = [np.asarray(Image.open(strip.path).convert("RGB")) for strip in strips]
    width = style.wide - 2 * MARGIN
    labels = [style.wrapped(strip.label, width) for strip in strips]
    gaps = [MARGIN + LINE * style.small_size * (1 + label.count("\n")) for label in labels]
    heights = [width * rows.shape[0] / rows.shape[1] for rows in pixels]
    total = sum(heights) + sum(gaps) + MARGIN + (0.3 if style.titled else 0)
    with style.drawing():
        figure = style.figure(style.wide, total)
        top = total
        if style.titled:
            figure.text(MARGIN / style.wide, 1 - MARGIN / total, grid.title, fontweight="bold", va="top")
            top -= 0.3
        for label, rows, height, gap in zip(labels, pixels, heights, gaps, strict=True):
            top -= gap + height
            axes = figure.add_axes((MARGIN / style.wide, top / total, width / style.wide, height / total))
            axes.imshow(rows, interpolation="none", aspect="auto")
            axes.set_axis_off()
            axes.set_title(label, loc="left", fontsize=style.small_size, pad=3)
    return figure
