"""Leakage against utility: what each defence buys."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from splitleak.experiments.judge.statistics.interval import Interval
from splitleak.experiments.report.figures.points import (
    Curve,
    Note,
    Point,
    draw_curve,
    draw_legend,
    draw_undefended,
    exactly,
    frame,
    haloed,
    logarithmic,
    looks,
    place_labels,
    point_label,
)
from splitleak.experiments.report.figures.style import GREY, INK, SCREEN, Style
from splitleak.experiments.report.tables.matched import points_lost
from splitleak.experiments.report.tables.matrix import FORMATS, PARETO, number, possible
from splitleak.experiments.results.group import DefenceRow
from splitleak.experiments.results.metrics import LEAKAGE_METRICS
from splitleak.experiments.results.results import Results

RING = 10.5
"""Around the marker of a member of the Pareto set, in points."""
BEST = 14.0
"""Around that of the best affordable setting."""


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
        leakage, text = possible(metric, strongest.scores[metric]), row.defence.strength_text
        flagged = bool(results.raised(row.defence, strongest.column))
        if self.utility and row.utility:
            shares = (100 * min(max(share, 0), 1) for share in row.utility)
            return Point(leakage, Interval(*shares), text, flagged)
        if not self.utility and row.bytes is not None:
            return Point(leakage, exactly(row.bytes), text, flagged)
        return None


def vertical_scale(results: Results) -> Scale:
    """Utility, or bytes without a task."""
    if results.utility_name:
        return Scale(f"{results.utility_name} (%)", f"↖ better: less leakage, more {results.utility_name}", True)
    return Scale("bytes sent per photo", "↙ better: less leakage, fewer bytes", False)


def tradeoff(results: Results, metric: str, style: Style = SCREEN) -> Figure | None:
    """Leakage of the strongest attack against utility: a curve per defence, a point per strength.

    Bars are 95 % intervals; rings are the Pareto set, a square the first of the ranking. Lines join what was measured
    and promise nothing between. None where no defence was measured.
    """
    if not results.families:
        return None
    scale, rows = vertical_scale(results), {row.defence.label: row for row in results.rows}
    with style.drawing():
        figure = style.figure(style.width, style.height, layout="constrained")
        axes = figure.add_subplot()
        axes.set_xlabel(leakage_label(metric, style, 0.8 * style.width))
        show_in_unit(axes.xaxis, metric)
        axes.set_ylabel(scale.name)
        if style.titled:
            axes.set_title(scale.better, loc="left", fontsize=9, fontweight="bold")
        drawn = _draw_families(axes, results, scale, metric)
        reference = results.undefended and scale.point(results, results.undefended, metric)
        if reference:
            drawn.append(draw_undefended(axes, reference))
        if not drawn:
            return None
        if not scale.utility:
            logarithmic(axes, "y", [point.y.mean for curve in drawn for point in curve.points])
        frame([axes], [drawn], 0.09)
        members = [rows[label] for label, (member, _) in results.pareto_sets[metric].items() if member]
        ringed = [(row, point) for row in members if (point := scale.point(results, row, metric))]
        rings = _draw_rings(axes, [point for _, point in ringed]) + _draw_best(axes, results, scale, metric)
        notes = _draw_baselines(axes, results, scale, metric, style) + _name_grey(axes, results, drawn, ringed)
        draw_legend(figure, drawn, style, *rings)
        figure.draw_without_rendering()
        place_labels(axes, drawn, notes, named=not style.stacked)
    return figure


def leakage_label(metric: str, style: Style, room: float) -> str:
    """Of the axis that shows leakage, on one line of at most ``room`` inches or on two."""
    name, unit = FORMATS[metric].name, FORMATS[metric].unit
    what, how = f"{name} of the strongest attack{f' ({unit.strip()})' if unit else ''}", "higher leaks more"
    return f"{what}, {how}" if style.letters(room, style.type_size) > len(what + how) else f"{what},\n{how}"


def show_in_unit(axis: Axis, metric: str) -> None:
    """Ticks in the unit that the label names: a share in per cent."""
    if FORMATS[metric].scale != 1:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{FORMATS[metric].scale * value:g}"))


def _draw_families(axes: Axes, results: Results, scale: Scale, metric: str) -> list[Curve]:
    """The best ones in colour, the others in grey."""
    families = {family.label: family for family in results.families}
    curves = []
    for label, look in looks(results).items():
        points = [point for row in families[label].rows if (point := scale.point(results, row, metric))]
        if points:
            curves.append(draw_curve(axes, label, look, points))
    return curves


def _draw_rings(axes: Axes, members: list[Point]) -> list[tuple[Line2D, str]]:
    """Around the members of the Pareto set; returns what the legend says of them."""
    if not members:
        return []
    (rings,) = axes.plot(
        [point.x.mean for point in members],
        [point.y.mean for point in members],
        linestyle="",
        marker="o",
        markersize=RING,
        markerfacecolor="none",
        markeredgecolor=INK,
        markeredgewidth=0.9,
        zorder=3.8,
    )
    return [(rings, PARETO)]


def _draw_best(axes: Axes, results: Results, scale: Scale, metric: str) -> list[tuple[Line2D, str]]:
    """A frame around the setting that the verdict calls the best; what the legend says of it."""
    best = results.best.row if results.best else None
    point = scale.point(results, best, metric) if best and scale.utility else None
    if best is None or point is None:
        return []
    (mark,) = axes.plot(
        *point.place,
        linestyle="",
        marker="s",
        markersize=BEST,
        markerfacecolor="none",
        markeredgecolor=INK,
        zorder=3.9,
    )
    least = "least" if metric == LEAKAGE_METRICS[0] else f"least {FORMATS[LEAKAGE_METRICS[0]].name}"
    return [(mark, f"{least} within {points_lost(results.may_lose[-1])}: {best.defence.label}")]


def _name_grey(
    axes: Axes, results: Results, drawn: Sequence[Curve], ringed: Sequence[tuple[DefenceRow, Point]]
) -> list[Note]:
    """Which defence a ringed point is of that is grey here, being coloured by another metric's order."""
    seen = {curve.label for curve in drawn if curve.colour == GREY}
    grey = {row.defence.label for family in results.families if family.label in seen for row in family.rows}
    return [
        point_label(axes, replace(point, text=f"{row.defence.name} {point.text}".strip()), GREY)
        for row, point in ringed
        if row.defence.label in grey
    ]


def _draw_baselines(axes: Axes, results: Results, scale: Scale, metric: str, style: Style) -> list[Note]:
    """What leaks without looking, and what guessing gets. Returns their labels, still to be placed."""
    notes: list[Note] = []
    floor = results.floor(metric)
    if floor:
        left, right = axes.get_xlim()
        axes.set_xlim(min(left, floor.mean - 0.08 * (right - left)), right)  # room for the label
        axes.axvline(floor.mean, color=INK, linewidth=1.0, linestyle="--", zorder=1)
        label = axes.text(
            floor.mean,
            0.5,
            f"mean image {number(metric, floor.mean)}",
            transform=axes.get_xaxis_transform(),
            rotation=90,
            va="center",
            fontsize=style.small_size,
        )
        sides = (
            {"x": floor.mean + side * 0.007 * (right - left), "ha": ha} for side, ha in ((-1, "right"), (1, "left"))
        )
        places = tuple({"y": height, **side} for side in sides for height in (0.5, 0.35, 0.65, 0.2, 0.8))
        notes.append(Note(haloed(label), places, needed=True))
    if scale.utility and results.chance is not None:
        notes.append(_draw_chance(axes, 100 * results.chance, style))
    return notes


def _draw_chance(axes: Axes, height: float, style: Style) -> Note:
    """A dotted line, or only a label at the foot where the line would take a third of the height."""
    text, (low, high), size = f"chance {height:.3g} %", axes.get_ylim(), style.small_size
    if high - min(low, height) > 1.5 * (high - low):
        label = axes.text(1, 0.01, f"{text}, below", transform=axes.transAxes, ha="right", fontsize=size)
    else:
        axes.set_ylim(min(low, height - 0.06 * (high - low)), high)
        axes.axhline(height, color=INK, linewidth=1.0, linestyle=":", zorder=1)
        place = (1, height + 0.015 * (high - low))
        label = axes.text(*place, text, transform=axes.get_yaxis_transform(), ha="right", fontsize=size)
    return Note(label, ({"x": 1, "ha": "right"}, {"x": 0.5, "ha": "center"}, {"x": 0.14, "ha": "left"}), needed=True)
