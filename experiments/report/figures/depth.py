"""Leakage of several networks against how deep they are cut and how much they send."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from splitleak.experiments.report.figures.points import (
    Curve,
    Look,
    Point,
    draw_curve,
    draw_legend,
    exactly,
    frame,
    logarithmic,
    place_labels,
)
from splitleak.experiments.report.figures.style import GREY, INK, MARKERS, PALETTE, SCREEN, Style
from splitleak.experiments.report.figures.tradeoff import leakage_label
from splitleak.experiments.results.member import Member

TWO_PANELS, STACKED = 3.8, 5.6
"""Heights in inches."""


@dataclass(frozen=True)
class Axis:
    """What a panel shows on its horizontal axis."""

    name: str
    read: Callable[[Member], float]


AXES = (
    Axis("multiply-adds on the device (%)", lambda member: 100 * member.cut.edge_share),
    Axis("values sent per photo", lambda member: float(member.values)),
)


def depth_figure(members: Sequence[Member], metric: str, style: Style = SCREEN) -> Figure | None:
    """Leakage of the strongest attack on each undefended victim: a curve for each network, its cuts in their order.

    None unless a network was attacked at two cuts.
    """
    networks: dict[str, list[Member]] = {}
    for member in members:
        if member.leakage(metric):
            networks.setdefault(member.network, []).append(member)
    if not any(len({member.cut.edge_macs for member in cuts}) > 1 for cuts in networks.values()):
        return None
    shape = (2, 1) if style.stacked else (1, 2)
    with style.drawing():
        figure = style.figure(style.wide, STACKED if style.stacked else TWO_PANELS, layout="constrained")
        panels = figure.subplots(*shape, sharey=True)
        drawn = [_draw(axes, networks, axis, metric) for axes, axis in zip(panels, AXES, strict=True)]
        floors = {round(floor.mean, 2) for member in members if (floor := member.results.floor(metric))}
        for axes, height in itertools.product(panels, floors):
            axes.axhline(height, color=INK, linewidth=1.0, linestyle="--", zorder=1)
        frame(panels, drawn, 0.1, [*floors])
        figure.supylabel(leakage_label(metric, style, 0.6 * figure.get_figheight()), fontsize=style.type_size)
        if style.titled:
            panels[0].set_title("↙ better: less leakage, less work on the device", loc="left", fontsize=9)
        draw_legend(figure, drawn[0], style, grey="others")
        figure.draw_without_rendering()
        for axes, curves in zip(panels, drawn, strict=True):
            place_labels(axes, curves, [])
    return figure


def _draw(axes: Axes, networks: dict[str, list[Member]], axis: Axis, metric: str) -> list[Curve]:
    curves = []
    for number, (network, cuts) in enumerate(networks.items()):
        look = Look(PALETTE[number], MARKERS[number]) if number < len(PALETTE) else Look(GREY, ".")
        ordered = sorted(cuts, key=lambda member: member.cut.edge_macs)
        points = [point for member in ordered if (point := _point(member, axis, metric))]
        curves.append(draw_curve(axes, network, look, points))
    logarithmic(axes, "x", [point.x.mean for curve in curves for point in curve.points])
    axes.set_xlabel(axis.name)
    return curves


def _point(member: Member, axis: Axis, metric: str) -> Point | None:
    leakage = member.leakage(metric)
    return leakage and Point(exactly(axis.read(member)), leakage, flagged=member.doubtful(metric))
