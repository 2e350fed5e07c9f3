"""A leakage profile as a table and a figure: what leaks, what travels and what the edge computes, by depth."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter
from rich.text import Text

from splitleak.experiments.judge.statistics.interval import Interval
from splitleak.experiments.report.figures.style import DPI, GREY, INK, MARKERS, PALETTE, PAPER, STYLE, save
from splitleak.experiments.report.tables.matrix import number, plus_minus
from splitleak.experiments.report.tables.table import ABSENT
from splitleak.experiments.report.terminal import Cell, Column, Sheet
from splitleak.experiments.results.csv import write_rows
from splitleak.experiments.results.frame import Scalar
from splitleak.experiments.results.group import Group
from splitleak.experiments.results.metrics import LEAKAGE_METRICS
from splitleak.experiments.results.results import Results
from splitleak.victims.cuts import Cut

INCHES_PER_CUT, NARROWEST_FIGURE, WIDEST_FIGURE = 0.36, 7.0, 18.0
LETTERS_PER_INCH = 14
"""Of the small print."""
BYTES_OF_A_PIXEL = 3


@dataclass(frozen=True)
class ProfiledCut:
    """A cut with what the attacks made of it; ``alias``: a name that the literature gives to it."""

    cut: Cut
    alias: str | None
    results: Results

    @property
    def label(self) -> str:
        """As figure and table name it."""
        return f"{self.cut.name} ({self.alias})" if self.alias else self.cut.name

    @property
    def release(self) -> str:
        """Such as ``24x40x40``."""
        return "x".join(map(str, self.cut.shape))

    @property
    def grid(self) -> str:
        """Where in the image a value belongs: rows and columns, tokens, or nowhere."""
        shape = self.cut.shape
        if len(shape) == 2:
            return f"{shape[0]} tokens"
        return f"{shape[-2]} x {shape[-1]}" if len(shape) == 3 else "vector"

    @cached_property
    def attacks(self) -> dict[str, Group]:
        """The attacks that finished, by name, in the order of the plan."""
        groups = [group for row in self.results.rows for group in row.groups.values()]
        return {group.cells[0].attack.name: group for group in groups if group.finished}

    @cached_property
    def strongest(self) -> str | None:
        """The attack with the highest mean PSNR, floors apart; None where none finished."""
        means = {name: group.scores["psnr"].mean for name, group in self.attacks.items() if not group.floor}
        return max(means, key=means.__getitem__, default=None)

    def score(self, attack: str | None, metric: str) -> Interval | None:
        """None where it was not measured."""
        return self.attacks[attack].scores.get(metric) if attack in self.attacks else None


@dataclass(frozen=True)
class MeasuredProfile:
    """The cuts of one network in the order of execution, at least one.

    ``data`` and ``weights``: as the user named them; ``auxiliary``: photos that the attacks were fitted to;
    ``notes``: what a reader of the numbers must know.
    """

    model: str
    weights: str
    data: str
    size: int
    auxiliary: int
    notes: tuple[str, ...]
    cuts: tuple[ProfiledCut, ...]

    @property
    def attacks(self) -> tuple[str, ...]:
        """Those that look at the release, in the order of the plan."""
        return tuple(dict.fromkeys(name for cut in self.cuts for name, of in cut.attacks.items() if not of.floor))

    @property
    def sample(self) -> str:
        """What every number rests on."""
        photos = next((cut.results.photos for cut in self.cuts if cut.results.finished), "0")
        return f"n = {photos} photos, attacks fitted to {self.auxiliary:,} others"

    def rows(self) -> Iterator[dict[str, Scalar]]:
        """A flat row per cut; the scores that failed are missing."""
        for profiled in self.cuts:
            cut = profiled.cut
            row: dict[str, Scalar] = {"model": self.model, "weights": self.weights, "data": self.data}
            row |= {"size": self.size, "cut": cut.name, "alias": profiled.alias, "node": cut.node}
            row |= {"release": profiled.release, "bytes": cut.bytes}
            row |= {"edge_macs": cut.edge_macs, "edge_share": round(cut.edge_share, 6)}
            row |= {"strongest": profiled.strongest, "n": int(profiled.results.photos)}
            for name, group in profiled.attacks.items():
                for metric in LEAKAGE_METRICS:
                    score = group.scores[metric]._asdict() if metric in group.scores else {}
                    row |= {f"{name}_{metric}_{end}": value for end, value in score.items()}
            yield row


def write_profile(profile: MeasuredProfile, folder: Path) -> None:
    """Write profile.csv, profile.png and profile.svg."""
    write_rows(list(profile.rows()), folder / "profile.csv")
    save(profile_figure(profile), folder / "profile", "png", "svg")


def terminal_profile(profile: MeasuredProfile) -> Sheet:
    """A row per cut; the strongest attack of each is bold."""
    floor = _floor(profile)
    known = f" The mean image, known without looking: {number('psnr', floor.mean)}." if floor else ""
    caption = (
        f"{profile.sample}. PSNR in dB, mean ± half of the 95 % bootstrap interval over photos; "
        f"SSIM of the strongest attack (bold).{known}"
    )
    headings = ("release", "bytes", "edge", *profile.attacks, "SSIM")
    rows: list[tuple[Cell, ...]] = []
    for cut in profile.cuts:
        ssim = cut.score(cut.strongest, "ssim")
        rows.append(
            (
                cut.label,
                cut.release,
                bytes_text(cut.cut.bytes),
                f"{cut.cut.edge_share:.1%}",
                *(_table_score(cut, attack) for attack in profile.attacks),
                number("ssim", ssim.mean) if ssim else ABSENT,
            )
        )
    return Sheet([Column("cut"), *(Column(heading, right=True) for heading in headings)], rows, caption=caption)


def _table_score(cut: ProfiledCut, attack: str) -> Text:
    score = cut.score(attack, "psnr")
    text = plus_minus("psnr", score).removesuffix(" dB") if score else ABSENT
    return Text(text, style="bold" if attack == cut.strongest else "")


def _floor(profile: MeasuredProfile) -> Interval | None:
    """The same at every cut: what ignores the release does not depend on it."""
    return next((floor for cut in profile.cuts if (floor := cut.results.floor("psnr"))), None)


def profile_figure(profile: MeasuredProfile) -> Figure:
    """Leakage with 95 % bands, bytes and the edge's share of the multiply-adds, over the cuts in order.

    A filled marker is the strongest attack at its cut. Background bands and the words above them show where the
    spatial resolution changes.
    """
    width = min(WIDEST_FIGURE, max(NARROWEST_FIGURE, 2 + INCHES_PER_CUT * len(profile.cuts)))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, 7.6), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        leakage, sent, computed = figure.subplots(3, sharex=True, height_ratios=(3, 1.25, 1))
        _draw_grids((leakage, sent, computed), profile.cuts)
        _draw_leakage(leakage, profile)
        _draw_bytes(sent, profile)
        _draw_share(computed, profile.cuts)
        headline = f"{profile.model} on {profile.data} at {profile.size} px: where should it be split?"
        figure.suptitle(headline, x=0.01, ha="left", fontsize=10, fontweight="bold")
        leakage.set_title(_conditions(profile, width), loc="left", fontsize=8, pad=18)
        figure.align_ylabels()
    return figure


def _conditions(profile: MeasuredProfile, width: float) -> str:
    """What the figure rests on, in lines that fit a figure of ``width`` inches."""
    text = (
        f"weights: {profile.weights}; {profile.sample}; bands are 95 % intervals over photos. "
        "The attacks are cheap ones: larger ones may rebuild more."
    )
    characters = int(LETTERS_PER_INCH * (width - 1))
    return "\n".join(line for part in (text, *profile.notes) for line in textwrap.wrap(part, characters))


def _draw_grids(axes: Sequence[Axes], cuts: Sequence[ProfiledCut]) -> None:
    start = 0
    for number_, (grid, members) in enumerate(groupby(cuts, lambda cut: cut.grid)):
        end = start + len(list(members))
        for one in axes:
            if number_ % 2:
                one.axvspan(start - 0.5, end - 0.5, color=GREY, alpha=0.12, linewidth=0, zorder=0)
        axes[0].text(
            (start + end - 1) / 2,
            1.01,
            grid,
            transform=axes[0].get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize=7.5,
        )
        start = end
    axes[0].set_xlim(-0.5, len(cuts) - 0.5)
    axes[-1].set_xticks(range(len(cuts)), [cut.label for cut in cuts], rotation=90, fontsize=7.5)
    axes[-1].set_xlabel("where the network is cut, from shallow to deep")


def _draw_leakage(axes: Axes, profile: MeasuredProfile) -> None:
    for number_, attack in enumerate(profile.attacks):
        colour, marker = PALETTE[number_ % len(PALETTE)], MARKERS[number_ % len(MARKERS)]
        _draw_attack(axes, profile.cuts, attack, colour, marker)
    if floor := _floor(profile):
        axes.axhline(floor.mean, color=INK, linewidth=1.0, linestyle="--", zorder=1)
        axes.annotate(
            f"mean image, {number('psnr', floor.mean)}: known without looking",
            (-0.35, floor.mean),
            xytext=(0, -3),
            textcoords="offset points",
            va="top",
            fontsize=7.5,
        )
    axes.set_ylabel("PSNR (dB)\nhigher leaks more")
    axes.margins(y=0.12)
    axes.legend(title="filled: the strongest at this cut", loc="upper right", frameon=False, fontsize=8.5)


def _draw_attack(axes: Axes, cuts: Sequence[ProfiledCut], attack: str, colour: str, marker: str) -> None:
    missing = Interval(np.nan, np.nan, np.nan)  # leaves a gap in the curve
    means, low, high = zip(*(cut.score(attack, "psnr") or missing for cut in cuts), strict=True)
    axes.fill_between(range(len(cuts)), low, high, color=colour, alpha=0.22, linewidth=0, zorder=2)
    axes.plot(means, color=colour, linewidth=1.3, zorder=3)
    for strongest in (True, False):
        places = [place for place, cut in enumerate(cuts) if (cut.strongest == attack) is strongest]
        axes.plot(
            places,
            [means[place] for place in places],
            linestyle="",
            marker=marker,
            markersize=7 if strongest else 4.5,
            markeredgecolor=PAPER if strongest else colour,
            markeredgewidth=0.6 if strongest else 1.0,
            markerfacecolor=colour if strongest else PAPER,
            zorder=5 if strongest else 4,
        )
    axes.plot([], [], color=colour, marker=marker, markersize=6, linewidth=1.3, label=attack)


def _draw_bytes(axes: Axes, profile: MeasuredProfile) -> None:
    axes.plot([cut.cut.bytes for cut in profile.cuts], color=INK, marker="o", markersize=3.5, linewidth=1.2, zorder=3)
    photo = BYTES_OF_A_PIXEL * profile.size**2
    axes.axhline(photo, color=INK, linewidth=1.0, linestyle=":", zorder=1)
    axes.set_title(f"dotted: the photo itself, uncompressed: {bytes_text(photo)}", loc="right", fontsize=7.5, pad=2)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: bytes_text(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.margins(y=0.15)
    axes.set_ylabel("sent per photo\n(float32)")


def bytes_text(count: float) -> str:
    """Such as ``76.8 kB``."""
    for unit, name in ((1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:.3g} B"


def _draw_share(axes: Axes, cuts: Sequence[ProfiledCut]) -> None:
    shares = [100 * cut.cut.edge_share for cut in cuts]
    axes.fill_between(range(len(cuts)), shares, color=INK, alpha=0.1, linewidth=0, zorder=1)
    axes.plot(shares, color=INK, marker="o", markersize=3.5, linewidth=1.2, zorder=3)
    axes.set_ylim(0, 105)
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    axes.set_ylabel("multiply-adds\non the edge")
