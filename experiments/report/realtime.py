"""What a defence makes of a slow line: the way of a photo in its parts, beside what is left and what leaks."""

import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from splitleak.experiments.report.figures.style import INK, PALETTE, SCREEN, Style
from splitleak.experiments.report.tables.matrix import decimals, percent, ranged, thousands
from splitleak.experiments.report.tables.table import ABSENT, TextTable
from splitleak.experiments.results.group import DefenceRow

METRIC = "psnr"
PARTS = {"edge": PALETTE[0], "wire": PALETTE[1], "cloud": PALETTE[2]}
ROW, ABOVE, NAMES, LETTERS = 0.4, 0.75, 1.75, 32
"""Inches: of a bar, above and below all of them, for the names; letters of a name on a line."""


@dataclass(frozen=True)
class Timed:
    """Photos of one defence setting over a line of so many megabits a second, one after another.

    ``size``: bytes of a frame. The parts hold the milliseconds of each photo; ``seconds``: of all together.
    """

    defence: str
    megabits: float
    size: float
    edge: tuple[float, ...]
    wire: tuple[float, ...]
    cloud: tuple[float, ...]
    seconds: float

    @property
    def totals(self) -> list[float]:
        """Of each photo, from the camera to the answer."""
        return [sum(parts) for parts in zip(self.edge, self.wire, self.cloud, strict=True)]

    @property
    def rate(self) -> float:
        """Photos a second."""
        return len(self.edge) / self.seconds

    def part(self, name: str) -> float:
        """The median of one."""
        return float(statistics.median(getattr(self, name)))


def realtime_table(timed: Sequence[Timed], rows: Mapping[str, DefenceRow], delay: float) -> TextTable:
    """A line for each defence setting and speed; ``rows``: what the run measured of these settings."""
    headings = (
        "defence",
        "Mbit/s",
        "bytes",
        "edge (ms)",
        "wire (ms)",
        "cloud (ms)",
        "end to end (ms)",
        "slowest twentieth (ms)",
        "photos/s",
        "accuracy",
        "PSNR of the strongest attack",
    )
    caption = (
        f"{len(timed[0].edge)} photos each, one after another, over a loopback socket held to the speed in both "
        f"directions, {delay:g} ms of delay added each way; medians. The wire is what is left of the round trip when "
        "the cloud's own time is taken out. Edge and cloud are this machine's; utility and leakage the run's."
    )
    lines = tuple(_line(one, rows.get(one.defence)) for one in timed)
    return TextTable("realtime", headings, lines, caption)


def _line(one: Timed, row: DefenceRow | None) -> tuple[str, ...]:
    strongest = row.strongest(METRIC) if row else None
    ordered = sorted(one.totals)
    return (
        one.defence,
        f"{one.megabits:g}",
        thousands(one.size),
        *(decimals(one.part(name)) for name in PARTS),
        decimals(statistics.median(ordered), 1),
        decimals(ordered[int(0.95 * (len(ordered) - 1))], 1),
        decimals(one.rate, 1),
        percent(row.utility) if row and row.utility else ABSENT,
        ranged(METRIC, strongest.scores[METRIC]) if strongest else ABSENT,
    )


def realtime_figure(timed: Sequence[Timed], style: Style = SCREEN) -> Figure:
    """A panel for each speed: of each defence the way of a photo, from the camera to the answer, in its parts."""
    speeds = list(dict.fromkeys(one.megabits for one in timed))
    defences = list(dict.fromkeys(one.defence for one in timed))
    with style.drawing():
        figure = style.figure(style.wide + NAMES, ROW * len(defences) + ABOVE, layout="constrained")
        panels = figure.subplots(1, len(speeds), sharey=True, squeeze=False)[0]
        for axes, speed in zip(panels, speeds, strict=True):
            found = {one.defence: one for one in timed if one.megabits == speed}
            places = [defences.index(name) for name in found]
            left = [0.0] * len(found)
            for part, colour in PARTS.items():
                widths = [one.part(part) for one in found.values()]
                axes.barh(places, widths, left=left, color=colour, label=part, height=0.7)
                left = [a + b for a, b in zip(left, widths, strict=True)]
            for place, end, one in zip(places, left, found.values(), strict=True):
                text = f"{one.rate:.0f}/s" if one.rate >= 10 else f"{one.rate:.1f}/s"
                axes.text(end, place, f" {text}", va="center", fontsize=style.small_size, color=INK)
            axes.set_xlim(0, 1.4 * max(left))  # room for the photos a second
            axes.set_title(f"{speed:g} Mbit/s", loc="left", fontsize=style.type_size)
            axes.set_xlabel("milliseconds")
        panels[0].set_yticks(range(len(defences)), ["\n".join(textwrap.wrap(name, LETTERS)) for name in defences])
        panels[0].invert_yaxis()
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=3, frameon=False)
    return figure
