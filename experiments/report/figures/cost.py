"""Cost against leakage: what each defence sends and computes, and what still leaks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
)
from splitleak.experiments.report.figures.style import INK, SCREEN, Style
from splitleak.experiments.report.figures.tradeoff import leakage_label, show_in_unit
from splitleak.experiments.report.tables.matrix import number, possible
from splitleak.experiments.results.group import DefenceRow
from splitleak.experiments.results.results import Results

TWO_PANELS, STACKED = 3.6, 5.4
"""Heights in inches."""


@dataclass(frozen=True)
class Cost:
    """What a panel shows on its horizontal axis."""

    name: str
    read: Callable[[DefenceRow], float | None]


COSTS = (
    Cost("bytes sent per photo", lambda row: row.bytes),
    Cost("edge time, undefended = 1", lambda row: row.edge_ratio),
)


def cost_figure(results: Results, metric: str, style: Style = SCREEN) -> Figure | None:
    """Leakage of the strongest attack against bytes and edge time, looks as in the tradeoff figure.

    None where no defence was measured.
    """
    shape = (2, 1) if style.stacked else (1, 2)
    with style.drawing():
        figure = style.figure(style.wide, STACKED if style.stacked else TWO_PANELS, layout="constrained")
        panels = figure.subplots(*shape, sharey=True)
        drawn = [_draw(axes, results, cost, metric) for axes, cost in zip(panels, COSTS, strict=True)]
        if not any(len(curves) > 1 for curves in drawn):
            return None
        for axes, cost in zip(panels, COSTS, strict=True):
            axes.set_xlabel(cost.name)
        figure.supylabel(leakage_label(metric, style, 0.6 * figure.get_figheight()), fontsize=style.type_size)
        if style.titled:
            panels[0].set_title("↙ better: less leakage, less cost", loc="left", fontsize=9, fontweight="bold")
        show_in_unit(panels[0].yaxis, metric)
        floor = results.floor(metric)
        frame(panels, drawn, 0.1, [floor.mean] if floor else [])
        notes = [_draw_floor(panels, floor, metric, style) if floor else [], []]
        draw_legend(figure, max(drawn, key=len), style)
        figure.draw_without_rendering()
        for axes, curves, labels in zip(panels, drawn, notes, strict=True):
            place_labels(axes, curves, labels)
    return figure


def _draw(axes: Axes, results: Results, cost: Cost, metric: str) -> list[Curve]:
    families, curves = {family.label: family for family in results.families}, []
    for label, look in looks(results).items():
        points = [point for row in families[label].rows if (point := _point(results, row, cost, metric))]
        if points:
            curves.append(draw_curve(axes, label, look, points, linewidth=0.7))
    reference = results.undefended and _point(results, results.undefended, cost, metric)
    if reference:
        curves.append(draw_undefended(axes, reference))
    logarithmic(axes, "x", [point.x.mean for curve in curves for point in curve.points])
    return curves


def _point(results: Results, row: DefenceRow, cost: Cost, metric: str) -> Point | None:
    strongest, spent = row.strongest(metric), cost.read(row)
    if strongest is None or spent is None:
        return None
    flagged = bool(results.raised(row.defence, strongest.column))
    return Point(exactly(spent), possible(metric, strongest.scores[metric]), row.defence.strength_text, flagged)


def _draw_floor(panels: Sequence[Axes], floor: Interval, metric: str, style: Style) -> list[Note]:
    """What leaks without looking; returns the label of the first panel, still to be placed."""
    for axes in panels:
        axes.axhline(floor.mean, color=INK, linewidth=1.0, linestyle="--", zorder=1)
    text = f"mean image {number(metric, floor.mean)}"
    label = panels[0].text(0, floor.mean, text, transform=panels[0].get_yaxis_transform(), fontsize=style.small_size)
    ends = ((0.02, "left"), (0.5, "center"), (0.98, "right"))
    places = tuple({"x": x, "ha": ha, "va": va} for va in ("bottom", "top") for x, ha in ends)
    return [Note(haloed(label), places, needed=True)]
