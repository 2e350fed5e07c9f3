"""Figures: leakage against utility, and what the reconstructions look like."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image

from experiments.judge.statistics import Interval
from experiments.report.matrix import FORMATS, number
from experiments.report.results import Cell, DefenceRow, Family, Results

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999933", "#8C6BB1")
"""Told apart with any colour vision: Okabe & Ito, Color Universal Design, 2008, without its black and its
yellow (illegible on white); olive and violet make up the eight."""

GREY = "#8A8F98"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "d")

INK = "#1B1F24"
PAPER = "#FDFDFE"
"""Unlike any other colour here, so that a page can exchange these two for its own."""

DPI = 150

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure everywhere
    "font.size": 9.5,
    "text.parse_math": False,  # a label may hold dollar signs
    "svg.hashsalt": "splitleak",  # the same file for the same data
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
}


@dataclass(frozen=True)
class Point:
    """A defence setting in a tradeoff figure."""

    leakage: Interval
    benefit: Interval
    text: str = ""


@dataclass(frozen=True)
class Scale:
    """The vertical axis of a tradeoff figure: utility in per cent, or bytes where the victim has no task."""

    name: str
    better: str
    utility: bool

    def point(self, row: DefenceRow, metric: str) -> Point | None:
        """The setting under its strongest attack; None where one of the two was not measured."""
        strongest = row.strongest(metric)
        if strongest is None:
            return None
        leakage, text = strongest.scores[metric], row.defence.strength_text
        if self.utility and row.utility:
            return Point(leakage, Interval(*(100 * value for value in row.utility)), text)
        if not self.utility and row.bytes is not None:
            return Point(leakage, Interval(row.bytes, row.bytes, row.bytes), text)
        return None


def vertical_scale(results: Results) -> Scale:
    """Utility, or bytes without a task."""
    if results.utility_name:
        return Scale(
            f"{results.utility_name} (%)", f"↖ better: less leakage, more {results.utility_name}", True
        )
    return Scale("bytes sent per photo", "↙ better: less leakage, fewer bytes", False)


def tradeoff(results: Results, metric: str) -> Figure | None:
    """Leakage of the strongest attack against utility: a curve per defence, a point per strength.

    Bars are 95 % intervals. None where nothing was measured.
    """
    scale = vertical_scale(results)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.8, 5.2), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        name, unit, _ = FORMATS[metric]
        axes.set_xlabel(
            f"{name} of the strongest attack{f' ({unit.strip()})' if unit else ''}, higher leaks more"
        )
        axes.set_ylabel(scale.name)
        axes.set_title(scale.better, loc="left", fontsize=9.5, fontweight="bold")
        drawn = _draw_families(axes, results.families, scale, metric)
        reference = results.undefended and scale.point(results.undefended, metric)
        if reference:
            drawn.append(_draw_reference(axes, reference))
        if not drawn:
            return None
        if not scale.utility:
            _logarithmic_if_wide(axes, [point.benefit.mean for curve in drawn for point in curve.points])
        axes.margins(0.09)
        obstacles = _draw_baselines(figure, axes, results, scale, metric)
        figure.legend(
            [curve.handle for curve in drawn],
            [textwrap.fill(curve.label, 40) for curve in drawn],
            loc="outside lower center",
            ncols=2,
            frameon=False,
            fontsize=8.5,
        )
        _label_points(figure, axes, drawn, obstacles)
    return figure


@dataclass(frozen=True)
class _Curve:
    label: str
    colour: str
    points: tuple[Point, ...]
    handle: Artist


def _draw_families(axes: Axes, families: Sequence[Family], scale: Scale, metric: str) -> list[_Curve]:
    curves: list[_Curve] = []
    for family in families:
        points = [point for row in family.rows if (point := scale.point(row, metric))]
        if not points:
            continue
        colour = PALETTE[len(curves)] if len(curves) < len(PALETTE) else GREY
        marker = MARKERS[len(curves) % len(MARKERS)]
        _draw_bars(axes, points, colour)
        (handle,) = axes.plot(
            [point.leakage.mean for point in points],
            [point.benefit.mean for point in points],
            color=colour,
            marker=marker,
            markersize=5.5,
            markeredgecolor=PAPER,
            markeredgewidth=0.6,
            linewidth=1.4,
            zorder=3,
        )
        curves.append(_Curve(family.label, colour, tuple(points), handle))
    return curves


def _draw_reference(axes: Axes, point: Point) -> _Curve:
    """No defence: a star, with guides to compare every other point with."""
    axes.axvline(point.leakage.mean, color=INK, linewidth=0.5, alpha=0.45, zorder=1)
    axes.axhline(point.benefit.mean, color=INK, linewidth=0.5, alpha=0.45, zorder=1)
    _draw_bars(axes, [point], INK)
    (handle,) = axes.plot(
        point.leakage.mean, point.benefit.mean, linestyle="", marker="*", markersize=14, color=INK, zorder=4
    )
    return _Curve("none (undefended)", INK, (point,), handle)


def _draw_bars(axes: Axes, points: Sequence[Point], colour: str) -> None:
    axes.errorbar(
        [point.leakage.mean for point in points],
        [point.benefit.mean for point in points],
        xerr=_reach([point.leakage for point in points]),
        yerr=_reach([point.benefit for point in points]),
        fmt="none",
        ecolor=colour,
        elinewidth=0.8,
        alpha=0.55,
        zorder=2,
    )


def _reach(intervals: Sequence[Interval]) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    """(2, n): how far an interval reaches below and above its mean."""
    reach = np.array([[one.mean - one.low, one.high - one.mean] for one in intervals]).T
    return reach.clip(min=0)


def _logarithmic_if_wide(axes: Axes, values: Sequence[float]) -> None:
    if min(values) > 0 and max(values) > 10 * min(values):
        axes.set_yscale("log")


def _draw_baselines(figure: Figure, axes: Axes, results: Results, scale: Scale, metric: str) -> list[Bbox]:
    """What leaks without looking, and what guessing gets. Returns the places of their labels."""
    floor, labels = results.floor(metric), []
    if floor:
        axes.axvline(floor.mean, color=INK, linewidth=1.0, linestyle="--", zorder=1)
        left, right = axes.get_xlim()
        axes.set_xlim(min(left, floor.mean - 0.08 * (right - left)), right)  # room for the label
        text = f"floor (mean image) {number(metric, floor.mean)}"
        labels.append(
            axes.annotate(
                text,
                (floor.mean, 0.5),
                xycoords=("data", "axes fraction"),
                xytext=(-3, 0),
                textcoords="offset points",
                rotation=90,
                ha="right",
                va="center",
                fontsize=8,
            )
        )
    if scale.utility and results.chance is not None:
        height = 100 * results.chance
        axes.axhline(height, color=INK, linewidth=1.0, linestyle=":", zorder=1)
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, height - 0.06 * (high - low)), high)
        labels.append(
            axes.annotate(
                f"chance {height:.3g} %",
                (1.0, height),
                xycoords=("axes fraction", "data"),
                xytext=(0, 2),
                textcoords="offset points",
                ha="right",
                fontsize=8,
            )
        )
    figure.draw_without_rendering()
    return [label.get_window_extent() for label in labels]


PLACES = (
    (0, 6, "center", "bottom"),
    (0, -6, "center", "top"),
    (6, 0, "left", "center"),
    (-6, 0, "right", "center"),
    (5, 4, "left", "bottom"),
    (-5, 4, "right", "bottom"),
    (5, -4, "left", "top"),
    (-5, -4, "right", "top"),
)
"""Where the label of a point may stand, best first: offset in points and alignment."""


def _label_points(figure: Figure, axes: Axes, curves: Sequence[_Curve], obstacles: list[Bbox]) -> None:
    """Write each point's strength beside it, clear of markers, curves and other labels.

    A label that would have to cover a marker or another label is left out; the matrix names every setting.
    """
    figure.draw_without_rendering()  # the layout decides where the points are
    inside, lines = axes.get_window_extent(), []
    solid = list(obstacles)
    for curve in curves:
        places = axes.transData.transform(
            [(point.leakage.mean, point.benefit.mean) for point in curve.points]
        )
        solid += [_box(x, y, 0.03 * DPI) for x, y in places]
        for (x0, y0), (x1, y1) in pairwise(places):
            steps = np.linspace(0, 1, 2 + int(np.hypot(x1 - x0, y1 - y0) / 5))
            lines += [_box(x0 + step * (x1 - x0), y0 + step * (y1 - y0), 1.5) for step in steps]
    for curve in curves:
        for point in curve.points:
            if not point.text:
                continue
            at = (point.leakage.mean, point.benefit.mean)
            note = axes.annotate(
                point.text, at, textcoords="offset points", xytext=(0, 0), fontsize=7, color=curve.colour
            )
            for avoid in (solid + lines, solid):
                box = _place(note, inside, avoid)
                if box:
                    solid.append(box)
                    break
            else:
                note.remove()


def _place(note: mpl.text.Annotation, inside: Bbox, avoid: Sequence[Bbox]) -> Bbox | None:
    """Move the label to the first place that is free."""
    for across, up, horizontal, vertical in PLACES:
        note.set_position((across, up))
        note.set(ha=horizontal, va=vertical)
        box = note.get_window_extent()
        held = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
        if held and not any(box.overlaps(other) for other in avoid):
            return box
    return None


def _box(x: float, y: float, radius: float) -> Bbox:
    return Bbox.from_extents(x - radius, y - radius, x + radius, y + radius)


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
        strips = [_strip(run, cell, cell.column) for cell in cells if cell]
        found.append(Grid("undefended", "Undefended, by attack", tuple(strips)))
    for index, family in enumerate(results.families, 1):
        strips = []
        for row in family.rows:
            strongest = row.strongest("psnr")
            cell = strongest and _shown(run, strongest.cells)
            if cell:
                defence = row.defence
                setting = (
                    f"{defence.strength} = {defence.strength_text}" if defence.strength else defence.label
                )
                strips.append(_strip(run, cell, f"{setting}, {cell.column}"))
        found.append(
            Grid(f"{index:02d}_{_file_name(family.rows[0].defence.name)}", family.label, tuple(strips))
        )
    return tuple(grid for grid in found if grid.strips)


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def _shown(run: Path, cells: Sequence[Cell]) -> Cell | None:
    return next((cell for cell in cells if cell.ok and _strip_path(run, cell).exists()), None)


def _strip_path(run: Path, cell: Cell) -> Path:
    return run / "cells" / f"{cell.id}.png"


def _strip(run: Path, cell: Cell, what: str) -> Strip:
    score = cell.metrics.get("psnr")
    return Strip(f"{what}: {number('psnr', score.mean)}" if score else what, _strip_path(run, cell))


def grid_figure(targets: Path, grid: Grid) -> Figure:
    """The targets on top, each strip below with its label above it."""
    strips = (Strip("the photos", targets), *grid.strips)
    pixels = [np.asarray(Image.open(strip.path).convert("RGB")) for strip in strips]
    width = 7.0
    heights = [width * rows.shape[0] / rows.shape[1] for rows in pixels]
    gap = 0.24
    total = sum(heights) + gap * len(strips) + 0.35
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width + 0.2, total), dpi=DPI)
        FigureCanvasAgg(figure)
        figure.text(0.1 / (width + 0.2), 1 - 0.1 / total, grid.title, fontweight="bold", va="top")
        top = total - 0.3
        for strip, rows, height in zip(strips, pixels, heights, strict=True):
            top -= gap + height
            axes = figure.add_axes((0.1 / (width + 0.2), top / total, width / (width + 0.2), height / total))
            axes.imshow(rows, interpolation="nearest", aspect="auto")
            axes.set_axis_off()
            axes.set_title(strip.label, loc="left", fontsize=8.5, pad=3)
    return figure


def save(figure: Figure, stem: Path) -> None:
    """Write ``stem.png`` at 150 dpi and ``stem.svg``."""
    with mpl.rc_context(STYLE):
        figure.savefig(stem.with_suffix(".png"), dpi=DPI)
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
