"""Figures: leakage against utility, and what the reconstructions look like."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from experiments.judge.statistics import Array, Interval
from experiments.report.matched import matched_rows
from experiments.report.matrix import FORMATS, number
from experiments.report.results import Cell, DefenceRow, Family, Results
from experiments.report.table import FLAG

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999933", "#8C6BB1")
"""Told apart with any colour vision: Okabe & Ito, Color Universal Design, 2008, without its black and its
yellow (illegible on white); olive and violet make up the eight."""

GREY = "#8A8F98"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")

INK = "#1B1F24"
PAPER = "#FDFDFE"
"""Unlike any other colour here, so that a page can exchange these two for its own."""

DPI = 150


STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure everywhere
    "font.size": 9,
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
    flagged: bool = False


@dataclass(frozen=True)
class Scale:
    """The vertical axis of a tradeoff figure: utility in per cent, or bytes where the victim has no task."""

    name: str
    better: str
    utility: bool

    def point(self, results: Results, row: DefenceRow, metric: str) -> Point | None:
        """The setting under its strongest attack; None where one of the two was not measured."""
        strongest = row.strongest(metric)
        if strongest is None:
            return None
        leakage, text = strongest.scores[metric], row.defence.strength_text
        flagged = bool(results.raised(row.defence, strongest.column))
        if self.utility and row.utility:
            return Point(leakage, Interval(*(100 * value for value in row.utility)), text, flagged)
        if not self.utility and row.bytes is not None:
            return Point(leakage, Interval(row.bytes, row.bytes, row.bytes), text, flagged)
        return None


def vertical_scale(results: Results) -> Scale:
    """Utility, or bytes without a task."""
    if results.utility_name:
        return Scale(f"{results.utility_name} (%)", f"↖ better: less leakage, more {results.utility_name}", True)
    return Scale("bytes sent per photo", "↙ better: less leakage, fewer bytes", False)


def tradeoff(results: Results, metric: str) -> Figure | None:
    """Leakage of the strongest attack against utility: a curve per defence, a point per strength.

    Bars are 95 % intervals. None where no defence was measured.
    """
    if not results.families:
        return None
    scale = vertical_scale(results)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 5.6), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        name, unit = FORMATS[metric].name, FORMATS[metric].unit
        axes.set_xlabel(f"{name} of the strongest attack{f' ({unit.strip()})' if unit else ''}, higher leaks more")
        axes.set_ylabel(scale.name)
        axes.set_title(scale.better, loc="left", fontsize=9, fontweight="bold")
        drawn = _draw_families(axes, results, scale, metric)
        reference = results.undefended and scale.point(results, results.undefended, metric)
        if reference:
            drawn.append(_draw_reference(axes, reference))
        if not drawn:
            return None
        if not scale.utility:
            _logarithmic_if_wide(axes, [point.benefit.mean for curve in drawn for point in curve.points])
        axes.margins(0.09)
        notes = _draw_baselines(axes, results, scale, metric)
        figure.legend(
            *_legend(drawn),
            loc="outside lower center",
            ncols=2,
            frameon=False,
            fontsize=8,
        )
        _place_labels(figure, axes, drawn, notes)
    return figure


@dataclass(frozen=True)
class _Curve:
    label: str
    colour: str
    points: tuple[Point, ...]
    handle: Line2D

    @property
    def marker_radius(self) -> float:
        """In pixels."""
        return self.handle.get_markersize() / 2 * DPI / 72


@dataclass(frozen=True)
class _Note:
    """A text with the places where it may stand, best first; one that is ``needed`` stays if none is free."""

    text: Text
    places: tuple[dict[str, Any], ...]
    needed: bool = False

    def settle(self, inside: Bbox, *avoids: Sequence[Bbox]) -> Bbox | None:
        """Move to the first place clear of the first ``avoids``, or else of the next; None if none is."""
        for avoid in avoids:
            for place in self.places:
                self.text.set(**place)
                box = self.text.get_window_extent()
                held = inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1)
                if held and not any(box.overlaps(other) for other in avoid):
                    return box
        if self.needed:
            self.text.set(**self.places[0])
            return self.text.get_window_extent()
        self.text.remove()
        return None


def coloured_first(results: Results) -> tuple[Family, ...]:
    """In the order of the plan; where there are more than colours, those that leak least at equal utility first."""
    if len(results.families) <= len(PALETTE):
        return results.families
    best = [row.family for row in matched_rows(results)]
    return (*best, *(family for family in results.families if family not in best))


def _draw_families(axes: Axes, results: Results, scale: Scale, metric: str) -> list[_Curve]:
    """The best ones in colour; the others in grey, under one name and without their strengths.

    The points of flagged cells are hollow.
    """
    curves: list[_Curve] = []
    for family in coloured_first(results):
        points = [point for row in family.rows if (point := scale.point(results, row, metric))]
        if not points:
            continue
        coloured = len(curves) < len(PALETTE)
        colour = PALETTE[len(curves)] if coloured else GREY
        if coloured:
            _draw_bars(axes, points, colour)
        (handle,) = axes.plot(
            [point.leakage.mean for point in points],
            [point.benefit.mean for point in points],
            color=colour,
            marker=MARKERS[len(curves)] if coloured else ".",
            markersize=5.5 if coloured else 4,
            markeredgecolor=PAPER,
            markeredgewidth=0.6,
            linewidth=1.4 if coloured else 0.8,
            zorder=3 if coloured else 1.5,
        )
        doubtful = [point for point in points if point.flagged and coloured]
        axes.plot(
            [point.leakage.mean for point in doubtful],
            [point.benefit.mean for point in doubtful],
            linestyle="",
            marker=handle.get_marker(),
            markersize=5,
            markerfacecolor=PAPER,
            markeredgecolor=GREY,
            zorder=3.5,
        )
        named = points if coloured else [replace(point, text="") for point in points]
        curves.append(_Curve(family.label, colour, tuple(named), handle))
    return curves


def _legend(curves: Sequence[_Curve]) -> tuple[list[Line2D], list[str]]:
    """Handles and names: grey curves share one."""
    others = [curve for curve in curves if curve.colour == GREY]
    named = [curve for curve in curves if curve.colour != GREY]
    handles, names = [curve.handle for curve in named], [textwrap.fill(curve.label, 36) for curve in named]
    if others:
        handles.append(others[0].handle)
        names.append(
            others[0].label if len(others) == 1 else f"{len(others)} others, which leak more at equal utility"
        )
    return handles, names


def _draw_reference(axes: Axes, point: Point) -> _Curve:
    """No defence: a star, with guides to compare every other point with."""
    axes.axvline(point.leakage.mean, color=INK, linewidth=0.5, alpha=0.45, zorder=1)
    axes.axhline(point.benefit.mean, color=INK, linewidth=0.5, alpha=0.45, zorder=1)
    _draw_bars(axes, [point], INK)
    (handle,) = axes.plot(
        point.leakage.mean, point.benefit.mean, linestyle="", marker="*", markersize=12, color=INK, zorder=4
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


def _reach(intervals: Sequence[Interval]) -> Array:
    """(2, n): how far an interval reaches below and above its mean."""
    reach = np.array([[one.mean - one.low, one.high - one.mean] for one in intervals]).T
    return reach.clip(min=0)


def _logarithmic_if_wide(axes: Axes, values: Sequence[float]) -> None:
    if min(values) > 0 and max(values) > 10 * min(values):
        axes.set_yscale("log")


def _draw_baselines(axes: Axes, results: Results, scale: Scale, metric: str) -> list[_Note]:
    """What leaks without looking, and what guessing gets. Returns their labels, still to be placed."""
    notes: list[_Note] = []
    floor = results.floor(metric)
    if floor:
        left, right = axes.get_xlim()
        axes.set_xlim(min(left, floor.mean - 0.08 * (right - left)), right)  # room for the label
        axes.axvline(floor.mean, color=INK, linewidth=1.0, linestyle="--", zorder=1)
        label = axes.text(
            floor.mean - 0.007 * (right - left),
            0.5,
            f"mean image {number(metric, floor.mean)}",
            transform=axes.get_xaxis_transform(),
            rotation=90,
            ha="right",
            va="center",
            fontsize=7.5,
        )
        notes.append(_Note(label, tuple({"y": height} for height in (0.5, 0.35, 0.65, 0.2, 0.8)), needed=True))
    if scale.utility and results.chance is not None:
        notes.append(_draw_chance(axes, 100 * results.chance))
    return notes


def _draw_chance(axes: Axes, height: float) -> _Note:
    """A dotted line, or only a label at the foot where the line would take a third of the height."""
    text, (low, high) = f"chance {height:.3g} %", axes.get_ylim()
    if high - min(low, height) > 1.5 * (high - low):
        label = axes.text(1, 0.01, f"{text}, below", transform=axes.transAxes, ha="right", fontsize=8)
    else:
        axes.set_ylim(min(low, height - 0.06 * (high - low)), high)
        axes.axhline(height, color=INK, linewidth=1.0, linestyle=":", zorder=1)
        label = axes.text(
            1,
            height + 0.015 * (high - low),
            text,
            transform=axes.get_yaxis_transform(),
            ha="right",
            fontsize=8,
        )
    return _Note(label, ({"x": 1, "ha": "right"}, {"x": 0.5, "ha": "center"}, {"x": 0.14, "ha": "left"}), needed=True)


AROUND = tuple(
    {"position": (ring * across, ring * up), "ha": horizontal, "va": vertical}
    for ring in (1, 2)
    for across, up, horizontal, vertical in (
        (0, 6, "center", "bottom"),
        (0, -6, "center", "top"),
        (6, 0, "left", "center"),
        (-6, 0, "right", "center"),
        (4, 4, "left", "bottom"),
        (-4, 4, "right", "bottom"),
        (4, -4, "left", "top"),
        (-4, -4, "right", "top"),
    )
)
"""Where the label of a point may stand: offset in points, and alignment."""


def _place_labels(figure: Figure, axes: Axes, curves: Sequence[_Curve], notes: Sequence[_Note]) -> None:
    """Write each coloured point's strength beside it, clear of markers, lines and other labels.

    A strength for which there is no room is left out; the matrix names every setting.
    """
    figure.draw_without_rendering()  # the layout decides where the points are
    inside = axes.get_window_extent()
    solid = [
        _box(axes.transData.transform((point.leakage.mean, point.benefit.mean)), curve.marker_radius)
        for curve in curves
        for point in curve.points
    ]
    lines = _lines(axes)
    strengths = [
        _Note(_strength_label(axes, point, curve.colour), AROUND)
        for curve in curves
        if curve.colour != GREY
        for point in curve.points
        if point.text
    ]
    for note in (*notes, *strengths):
        avoids = (solid + lines, solid) if note.needed else (solid + lines,)
        if box := note.settle(inside, *avoids):
            solid.append(box)


def _strength_label(axes: Axes, point: Point, colour: str) -> Text:
    at = (point.leakage.mean, point.benefit.mean)
    label = axes.annotate(point.text, at, textcoords="offset points", xytext=(0, 0), fontsize=7, color=colour)
    label.set_path_effects([withStroke(linewidth=1.5, foreground=PAPER)])
    return label


def _lines(axes: Axes) -> list[Bbox]:
    """All curves, guides and bars as small boxes, in pixels of the figure."""
    paths = [line.get_transform().transform(line.get_xydata()) for line in axes.lines]
    for bars in axes.collections:
        if isinstance(bars, LineCollection):
            paths += [axes.transData.transform(segment) for segment in bars.get_segments()]
    boxes = []
    for path in paths:
        for start, end in pairwise(path):
            steps = np.linspace(0, 1, 2 + int(np.hypot(*(end - start)) / 5))
            boxes += [_box(start + step * (end - start), 1.5) for step in steps]
    return boxes


def _box(centre: Array, radius: float) -> Bbox:
    return Bbox([centre - radius, centre + radius])


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


def _shown(run: Path, cells: Sequence[Cell]) -> Cell | None:
    return next((cell for cell in cells if cell.ok and _strip_path(run, cell).exists()), None)


def _strip_path(run: Path, cell: Cell) -> Path:
    return run / "cells" / f"{cell.id}.png"


def _strip(run: Path, results: Results, cell: Cell, what: str) -> Strip:
    score, flags = cell.metrics.get("psnr"), results.raised(cell.defence, cell.column)
    label = f"{what}: {number('psnr', score.mean)}" if score else what
    return Strip(f"{label} ({FLAG} {', '.join(flags)})" if flags else label, _strip_path(run, cell))


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


def save(figure: Figure, stem: Path, *formats: str) -> None:
    """Write the figure as ``stem`` in each format, such as ``png`` (150 dpi) and ``svg``."""
    with mpl.rc_context(STYLE):
        for suffix in formats:
            # An SVG would hold the date, and differ each time.
            metadata = {"Date": None} if suffix == "svg" else None
            figure.savefig(stem.with_name(f"{stem.name}.{suffix}"), dpi=DPI, metadata=metadata)
