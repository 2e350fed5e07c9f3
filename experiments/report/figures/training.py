"""Training curves: did the attacks converge, and did the defences train?"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from splitleak.experiments.judge.doubts import Curve as Losses
from splitleak.experiments.judge.doubts import flat, searches, trainings
from splitleak.experiments.report.figures.points import (
    REFERENCE,
    UNDEFENDED_LOOK,
    Curve,
    Look,
    draw_legend,
    logarithmic,
    looks,
)
from splitleak.experiments.report.figures.style import SCREEN, Style
from splitleak.experiments.results.group import DefenceRow
from splitleak.experiments.results.results import Results

PANELS = 12
"""At most: the victim's, and those of the attacks that the plan names first."""
PANEL_HEIGHT, LEGEND_HEIGHT = 1.8, 1.1
PROTECTED = "the victim, and behind each defence"


@dataclass(frozen=True)
class Trace:
    """A curve of losses in a panel: of a defence setting, by ``family``. ``axis``: epoch or step."""

    panel: str
    axis: str
    family: str
    losses: Losses


def training_figure(results: Results, style: Style = SCREEN) -> Figure | None:
    """The losses of the first seed: a panel for the victim, and one for each attack that learns or searches.

    Trainings show the loss on held-out photos, searches their objective over the last batch. A curve per defence
    setting, with its defence's look; a hollow end had not converged. None where nothing was trained.
    """
    traces = [trace for family, row in _settings(results) for trace in _traces(family, row)]
    panels = sorted({(trace.panel, trace.axis): None for trace in traces}, key=lambda panel: panel[0] != PROTECTED)
    if not panels:
        return None
    columns = min(2 if style.stacked else 3, len(panels))
    rows = math.ceil(min(len(panels), PANELS) / columns)
    with style.drawing():
        figure = style.figure(style.wide, LEGEND_HEIGHT + PANEL_HEIGHT * rows, layout="constrained")
        seen, drawn = {REFERENCE: UNDEFENDED_LOOK} | looks(results), dict[str, Curve]()
        places = figure.subplots(rows, columns, squeeze=False).flatten()
        for axes, panel in zip(places, panels, strict=False):
            shown = [trace for trace in traces if (trace.panel, trace.axis) == panel]
            drawn |= {trace.family: _draw(axes, trace, seen[trace.family]) for trace in shown}
            logarithmic(axes, "y", [loss for trace in shown for _, loss in trace.losses], widest=1)
            _describe(axes, *panel, style, style.wide / columns)
        for axes in places[len(panels) :]:
            axes.set_axis_off()
        figure.supylabel("loss", fontsize=style.type_size)
        draw_legend(figure, [drawn[label] for label in seen if label in drawn], style)
    return figure


def _settings(results: Results) -> Iterator[tuple[str, DefenceRow]]:
    if results.undefended:
        yield REFERENCE, results.undefended
    for family in results.families:
        for row in family.rows:
            yield family.label, row


def _traces(family: str, row: DefenceRow) -> Iterator[Trace]:
    trained = row.by_seed[0].training if row.by_seed else {}
    for losses in trainings(trained.get("victim" if family == REFERENCE else "defence", ())):
        yield Trace(PROTECTED, "epoch", family, losses)
    for group in row.groups.values():
        history = next((cell.history for cell in group.finished), ())
        for losses in trainings(history):
            yield Trace(group.column, "epoch", family, losses)
        for losses in searches(history)[-1:]:
            yield Trace(group.column, "step", family, losses)


def _draw(axes: Axes, trace: Trace, look: Look) -> Curve:
    steps, losses = zip(*trace.losses, strict=True)
    axes.plot(steps, losses, color=look.colour, linewidth=0.5 if look.grey else 0.9)
    (end,) = axes.plot(steps[-1:], losses[-1:], color=look.colour, marker=look.marker, markersize=4)
    end.set_fillstyle("full" if flat(losses) else "none")
    return Curve(trace.family, look.colour, (), Line2D([], [], color=look.colour, marker=look.marker, markersize=5))


def _describe(axes: Axes, panel: str, axis: str, style: Style, width: float) -> None:
    axes.set_title(style.wrapped(panel, width - 0.5), fontsize=style.small_size, loc="left")
    axes.set_xlabel(axis, fontsize=style.small_size)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.tick_params(labelsize=style.small_size)
