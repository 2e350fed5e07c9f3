"""Defence settings as points in a figure: a curve per defence, the same colours and markers everywhere."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, StrMethodFormatter
from matplotlib.transforms import Bbox

from splitleak.experiments.judge.statistics.interval import Array, Interval
from splitleak.experiments.report.figures.style import DPI, GREY, INK, MARKERS, PALETTE, PAPER, Style
from splitleak.experiments.report.tables.matrix import FORMATS
from splitleak.experiments.results.metrics import LEAKAGE_METRICS, SHOWN_METRICS
from splitleak.experiments.results.ranked import Family
from splitleak.experiments.results.results import Results

WIDE, FEW_DECADES = 10, 50
"""Ratios of the largest and the smallest value: above it an axis is logarithmic, below it ticks between decades have
labels."""
LONGEST = 0.25
"""By how much bars widen an axis at most, at either end, as a share of what the markers span."""


@dataclass(frozen=True)
class Point:
    """A defence setting in a figure. ``text``: its strength."""

    x: Interval
    y: Interval
    text: str = ""
    flagged: bool = False

    @property
    def place(self) -> tuple[float, float]:
        """Where its marker stands."""
        return self.x.mean, self.y.mean


@dataclass(frozen=True)
class Look:
    """Of a defence in every figure of a run."""

    colour: str
    marker: str

    @property
    def grey(self) -> bool:
        """Whether it shares its look with others."""
        return self.colour == GREY


REFERENCE = "none (undefended)"
UNDEFENDED_LOOK = Look(INK, "*")


@dataclass(frozen=True)
class Curve:
    """The points of a defence as they are drawn."""

    label: str
    colour: str
    points: tuple[Point, ...]
    handle: Line2D


@dataclass(frozen=True)
class Note:
    """A text with the places where it may stand, best first; one that is ``needed`` stays if none is free."""

    text: Text
    places: tuple[dict[str, Any], ...]
    needed: bool = False

    def settle(self, inside: Bbox, *avoids: Array) -> Bbox | None:
        """Move to the first place clear of the first ``avoids``, or else of the next; None if none is.

        ``avoids``: boxes (n, 4), each from its left and lower end to its right and upper one.
        """
        boxes = self._boxes()
        for avoid in avoids:
            for place, box in zip(self.places, boxes, strict=True):
                if inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1:
                    beside = (avoid[:, 0] > box.x1) | (avoid[:, 2] < box.x0)
                    if (beside | (avoid[:, 1] > box.y1) | (avoid[:, 3] < box.y0)).all():
                        self.text.set(**place)
                        return box
        if self.needed:
            self.text.set(**self.places[0])
            return self.text.get_window_extent()
        self.text.remove()
        return None

    def _boxes(self) -> list[Bbox]:
        """What the text covers at each of its places; it is laid out once, for an alignment moves it and no more."""
        self.text.set(**self.places[0])
        first, boxes = self.text.get_window_extent(), []
        start = self._corner(first)
        for place in self.places:
            self.text.set(**place)
            boxes.append(first.translated(*(self._corner(first) - start)))
        return boxes

    def _corner(self, size: Bbox) -> Array:
        """Left and lower end of a box of this size that stands as the text does."""
        place = self.text.get_transform().transform(self.text.get_unitless_position())
        before = BEFORE[self.text.get_horizontalalignment()], BEFORE[self.text.get_verticalalignment()]
        corner: Array = place - np.array(before) * (size.width, size.height)
        return corner


BEFORE = {"left": 0.0, "bottom": 0.0, "baseline": 0.0, "center": 0.5, "right": 1.0, "top": 1.0}
"""By an alignment, the share of a text that lies before its place; a text on a baseline is on one at all places."""


def looks(results: Results) -> dict[str, Look]:
    """By the family's label, those in colour first.

    In the order of the plan; where there are more than colours, those that leak least at equal utility first, by the
    report's first metric in each figure: a defence looks the same in all of them.
    """
    families = [family for family in results.families if _measured(family)]
    if len(families) > len(PALETTE):
        best = [place.family for place in results.ranking]
        families = [*best, *(family for family in families if family not in best)]
    coloured = zip(PALETTE, MARKERS, strict=True)
    found = {family.label: Look(*look) for family, look in zip(families, coloured, strict=False)}
    return found | {family.label: Look(GREY, ".") for family in families[len(PALETTE) :]}


def _measured(family: Family) -> bool:
    return any(row.strongest(metric) for row in family.rows for metric in SHOWN_METRICS)


def draw_curve(axes: Axes, label: str, look: Look, points: Sequence[Point], linewidth: float = 1.4) -> Curve:
    """Grey ones are thin and without their strengths; the points of flagged cells are hollow."""
    if not look.grey:
        draw_bars(axes, points, look.colour)
    (handle,) = axes.plot(
        *_coordinates(points),
        color=look.colour,
        marker=look.marker,
        markersize=4 if look.grey else 5.5,
        markeredgecolor=PAPER,
        markeredgewidth=0.6,
        linewidth=min(linewidth, 0.8) if look.grey else linewidth,
        zorder=1.5 if look.grey else 3,
    )
    doubtful = [point for point in points if point.flagged and not look.grey]
    axes.plot(
        *_coordinates(doubtful),
        linestyle="",
        marker=look.marker,
        markersize=5,
        markerfacecolor=PAPER,
        markeredgecolor=GREY,
        zorder=3.5,
    )
    named = [replace(point, text="") for point in points] if look.grey else points
    return Curve(label, look.colour, tuple(named), handle)


def _coordinates(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [point.x.mean for point in points], [point.y.mean for point in points]


def draw_undefended(axes: Axes, point: Point) -> Curve:
    """A star, with guides to compare every other point with."""
    axes.axvline(point.x.mean, color=INK, linewidth=0.5, alpha=0.45, zorder=1)
    axes.axhline(point.y.mean, color=INK, linewidth=0.5, alpha=0.45, zorder=1)
    draw_bars(axes, [point], INK)
    (handle,) = axes.plot(
        *point.place, linestyle="", marker=UNDEFENDED_LOOK.marker, markersize=12, color=INK, zorder=4
    )
    return Curve(REFERENCE, INK, (point,), handle)


def draw_bars(axes: Axes, points: Sequence[Point], colour: str) -> None:
    """The intervals."""
    axes.errorbar(
        *_coordinates(points),
        xerr=_reach([point.x for point in points]),
        yerr=_reach([point.y for point in points]),
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


def exactly(value: float) -> Interval:
    """What is known without noise."""
    return Interval(value, value, value)


def logarithmic(axes: Axes, axis: Literal["x", "y"], values: Sequence[float], widest: float = WIDE) -> None:
    """Where the values are positive and the ratio of their extremes is above ``widest``."""
    if values and min(values) > 0 and max(values) > widest * min(values):
        axes.set(**{f"{axis}scale": "log"})
        ticks = axes.xaxis if axis == "x" else axes.yaxis
        ticks.set_major_formatter(StrMethodFormatter("{x:,g}"))
        if max(values) < FEW_DECADES * min(values):
            ticks.set_minor_locator(LogLocator(subs=(2, 5)))
            ticks.set_minor_formatter(StrMethodFormatter("{x:,g}"))


def frame(
    panels: Sequence[Axes], drawn: Sequence[Sequence[Curve]], margin: float, heights: Sequence[float] = ()
) -> None:
    """Fit panels that share their vertical axis to their curves and to further ``heights``, and ``margin`` more.

    Long bars, such as two seeds make, run out of the frame: they would leave no room for what they belong to.
    """
    points = [[point for curve in curves for point in curve.points] for curves in drawn]
    for axes, found in zip(panels, points, strict=True):
        if found:
            axes.set_xlim(_limits(axes.xaxis, [point.x for point in found], margin))
    every = [point.y for found in points for point in found]
    panels[0].set_ylim(_limits(panels[0].yaxis, every, margin, heights))


def _limits(
    axis: Axis, bars: Sequence[Interval], margin: float, further: Sequence[float] = ()
) -> tuple[float, float]:
    scale = axis.get_transform()
    means, lows, highs = (scale.transform(np.array(values)) for values in zip(*bars, strict=True))
    if len(further):
        means = np.append(means, scale.transform(np.array(further)))
    low, high = means.min(), means.max()
    longest = LONGEST * (high - low) or np.inf  # a single marker spans nothing
    low, high = min(low, max(lows.min(), low - longest)), max(high, min(highs.max(), high + longest))
    room = margin * (high - low) or margin
    first, last = scale.inverted().transform(np.array([low - room, high + room]))
    return float(first), float(last)


WORSE = f"others, with a higher {FORMATS[LEAKAGE_METRICS[0]].name} at equal utility"
"""What is grey among defences, see ``looks``."""


def draw_legend(
    figure: Figure, curves: Sequence[Curve], style: Style, *further: tuple[Line2D, str], grey: str = WORSE
) -> None:
    """Below the panels; grey curves share a line, which says what they are."""
    columns = 2 if figure.get_figwidth() < 6 else 3 if figure.get_figwidth() < 9 else 4
    room = figure.get_figwidth() / columns - 5 * style.small_size / 72  # beside the handle
    others = [curve for curve in curves if curve.colour == GREY]
    named = [(curve.handle, curve.label) for curve in curves if curve.colour != GREY]
    if others:
        named.append((others[0].handle, others[0].label if len(others) == 1 else f"{len(others)} {grey}"))
    handles, names = zip(*named, *further, strict=True)
    figure.legend(
        handles,
        [style.wrapped(name, room) for name in names],
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=style.small_size,
        borderpad=0,
        columnspacing=1.2,
    )


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


def place_labels(axes: Axes, curves: Sequence[Curve], notes: Sequence[Note], named: bool = False) -> None:
    """Write each coloured point's strength beside it, clear of markers, lines and other labels.

    ``named``: then the name of each curve beside its last point, where there is room; the legend has all.

    The figure's layout must have been made: it decides where the points are, and stays as it is from here on. A
    strength for which there is no room is left out; the matrix names every setting.
    """
    if axes.figure:
        axes.get_figure(root=True).set_layout_engine("none")  # type: ignore[union-attr]
    inside = axes.get_window_extent()
    solid, lines = _markers(axes), _lines(axes)
    strengths = [
        point_label(axes, point, curve.colour)
        for curve in curves
        if curve.colour != GREY
        for point in curve.points
        if point.text
    ]
    names = [
        point_label(axes, replace(curve.points[-1], text=curve.label), curve.colour)
        for curve in curves
        if named and curve.colour != GREY
    ]
    for note in (*notes, *strengths, *names):
        everything = np.concatenate([solid, lines])
        if box := note.settle(inside, *((everything, solid) if note.needed else (everything,))):
            solid = np.vstack([solid, box.extents])


def point_label(axes: Axes, point: Point, colour: str) -> Note:
    """The point's text, to stand beside it."""
    text = axes.annotate(point.text, point.place, textcoords="offset points", xytext=(0, 0), fontsize=7, color=colour)
    return Note(haloed(text), AROUND)


def haloed(text: Text) -> Text:
    """Legible on top of a line."""
    text.set_path_effects([withStroke(linewidth=1.5, foreground=PAPER)])
    return text


NOTHING: Array = np.empty((0, 4))


def _markers(axes: Axes) -> Array:
    """All markers, with the rings around them, as boxes (n, 4), in pixels of the figure."""
    boxes = [NOTHING]
    for line in axes.lines:
        places = np.reshape(line.get_xydata(), (-1, 2))
        if line.get_marker() not in ("", "None", None) and len(places):
            boxes.append(_boxes(line.get_transform().transform(places), line.get_markersize() / 2 * DPI / 72))
    return np.concatenate(boxes)


def _lines(axes: Axes) -> Array:
    """All curves, guides and bars as small boxes (n, 4), in pixels of the figure."""
    drawn = [line for line in axes.lines if line.get_linestyle() != "None"]
    paths = [line.get_transform().transform(line.get_xydata()) for line in drawn]
    for bars in axes.collections:
        if isinstance(bars, LineCollection):
            paths += [axes.transData.transform(segment) for segment in bars.get_segments()]
    boxes = [NOTHING]
    for path in paths:
        for start, end in pairwise(path):
            steps = np.linspace(0, 1, 2 + int(np.hypot(*(end - start)) / 5))[:, None]
            boxes.append(_boxes(start + steps * (end - start), 1.5))
    return np.concatenate(boxes)


def _boxes(centres: Array, radius: float) -> Array:
    """(n, 4) around centres (n, 2)."""
    return np.hstack([centres - radius, centres + radius])
