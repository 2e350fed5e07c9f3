"""The matrix of defences and attacks, as Markdown and for the terminal."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rich.table import Table
from rich.text import Text

from experiments.judge.statistics import Interval
from experiments.report.results import DefenceRow, Group, Results

FORMATS = {"psnr": ("PSNR", " dB", 1), "ssim": ("SSIM", "", 3)}
"""Of each leakage metric: its name, its unit, and the decimals that a few hundred photos bear."""

ABSENT = "–"  # noqa: RUF001 - the typographic dash of an empty table cell


def number(metric: str, value: float) -> str:
    """A score with its unit, such as ``21.3 dB``."""
    _, unit, decimals = FORMATS[metric]
    return f"{value:.{decimals}f}{unit}"


def plus_minus(metric: str, score: Interval) -> str:
    """A mean with half the width of its interval, such as ``21.3 ± 0.4 dB``."""
    _, unit, decimals = FORMATS[metric]
    return f"{score.mean:.{decimals}f} ± {(score.high - score.low) / 2:.{decimals}f}{unit}"


def percent(share: Interval) -> str:
    """A share with half the width of its interval, such as ``85.5 ± 2.1 %``."""
    return f"{100 * share.mean:.1f} ± {50 * (share.high - share.low):.1f} %"


def thousands(value: float | None) -> str:
    """A whole number, grouped."""
    return ABSENT if value is None else f"{value:,.0f}"


def decimals(value: float | None, places: int = 2) -> str:
    """A number with a fixed count of decimals."""
    return ABSENT if value is None else f"{value:.{places}f}"


@dataclass(frozen=True)
class Entry:
    """One attack on one defence setting; ``heat``: 0 at the floor, 1 at the highest PSNR of the matrix."""

    group: Group | None
    seeds: int
    strongest: bool = False
    heat: float | None = None

    @property
    def lines(self) -> tuple[str, ...]:
        """PSNR, SSIM, and what the reader must know of the seeds; ``failed`` where nothing was measured."""
        if self.group is None:
            return (ABSENT,)
        if not self.group.finished:
            return ("failed",)
        scores = self.group.scores
        shown = [f"PSNR {plus_minus('psnr', scores['psnr'])}"] if "psnr" in scores else []
        shown += [f"SSIM {plus_minus('ssim', scores['ssim'])}"] if "ssim" in scores else []
        done = len(self.group.finished)
        return (*shown, *([f"{done} of {self.seeds} seeds"] if done < self.seeds else []))


@dataclass(frozen=True)
class MatrixRow:
    """A defence setting with what it costs and what each attack makes of it."""

    row: DefenceRow
    entries: tuple[Entry, ...]

    @cached_property
    def costs(self) -> tuple[str, str, str]:
        """Utility, bytes and edge ratio."""
        utility = self.row.utility
        return (
            percent(utility) if utility else ABSENT,
            thousands(self.row.bytes),
            decimals(self.row.edge_ratio),
        )


def cost_names(results: Results) -> tuple[str, str, str]:
    """The headings of ``MatrixRow.costs``."""
    return (results.utility_name or "utility", "bytes", "edge time ratio")


def matrix_rows(results: Results) -> tuple[MatrixRow, ...]:
    """Defences in the order of the plan; each has one entry per ``results.columns``."""
    scores = [
        group.scores["psnr"].mean for row in results.rows for group in row.groups.values() if "psnr" in group.scores
    ]
    floor = results.floor("psnr")
    bottom = floor.mean if floor else min(scores, default=0.0)
    span = max(scores, default=bottom) - bottom

    def heat(group: Group | None) -> float | None:
        if group is None or "psnr" not in group.scores:
            return None
        return max(0.0, (group.scores["psnr"].mean - bottom) / span) if span > 0 else 0.0

    rows = []
    for row in results.rows:
        strongest = row.strongest("psnr")
        groups = [row.groups.get(column) for column in results.columns]
        entries = [
            Entry(group, len(results.seeds), group is not None and group is strongest, heat(group))
            for group in groups
        ]
        rows.append(MatrixRow(row, tuple(entries)))
    return tuple(rows)


def caption(results: Results) -> str:
    """What the numbers of the matrix are."""
    return (
        f"{results.sample}. Mean ± half of the 95 % bootstrap interval over photos and seeds. "
        "PSNR and SSIM of the reconstruction: higher means that more leaks."
    )


def markdown(results: Results) -> str:
    """The matrix as a Markdown table; the strongest attack of each row is bold."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    names = ["defence", *results.columns, *cost_names(results)]
    lines = [line([_markdown_text(name) for name in names]), line(["---"] * len(names))]
    for row in matrix_rows(results):
        cells = [_markdown_text(", ".join(entry.lines)) for entry in row.entries]
        cells = [f"**{text}**" if entry.strongest else text for text, entry in zip(cells, row.entries, strict=True)]
        lines.append(line([_markdown_text(row.row.defence.label), *cells, *row.costs]))
    return "\n".join([*lines, "", caption(results), ""])


def _markdown_text(text: str) -> str:
    return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ")


def write_markdown(results: Results, path: Path) -> None:
    """Write ``markdown(results)``."""
    path.write_text(markdown(results), encoding="utf-8")


def terminal_table(results: Results) -> Table:
    """The matrix for a terminal; the strongest attack of each row is bold."""
    table = Table(caption=Text(caption(results)), show_lines=True)
    # Text, not str: a label may hold brackets, which rich would read as markup.
    table.add_column("defence")
    for name in results.columns:
        table.add_column(Text(name), justify="right")
    for name in cost_names(results):
        table.add_column(Text(name), justify="right")
    for row in matrix_rows(results):
        cells = [Text("\n".join(entry.lines), style="bold" if entry.strongest else "") for entry in row.entries]
        table.add_row(Text(row.row.defence.label), *cells, *map(Text, row.costs))
    return table
