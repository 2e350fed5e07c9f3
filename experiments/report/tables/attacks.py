"""Every attack on one defence setting: all its scores, what it knew and what it took."""

from collections.abc import Sequence

from rich.text import Text

from splitleak.attacks.needs import IMPLIED
from splitleak.experiments.judge.rules import EXPOSED
from splitleak.experiments.report.tables import matrix
from splitleak.experiments.report.tables.table import ABSENT, TextTable
from splitleak.experiments.report.terminal import Column, Sheet
from splitleak.experiments.results.group import DefenceRow, Group, mean_of_known
from splitleak.experiments.results.metrics import SHOWN_METRICS
from splitleak.experiments.results.results import Results

FLAGS = "flags"
WORST = f"PSNR (dB), most exposed {EXPOSED:.0%}"
"""Heading of the worst case: a mean hides whom it goes worst for."""


def attack_table(results: Results) -> TextTable | None:
    """The attacks on the undefended network, or on the first defence of the plan; None before any cell finished.

    A line for each attack, the last cell its flags, empty where it has none.
    """
    row = results.undefended or next(iter(results.rows), None)
    groups = [group for group in row.groups.values() if group.finished] if row else []
    if row is None or not groups:
        return None
    metrics = tuple(dict.fromkeys(metric for group in groups for metric in group.metrics if matrix.known(metric)))
    shared = min((group.photos for group in groups if "psnr" in group.metrics), default=0)
    differ = any(group.photos > shared for group in groups if "psnr" in group.metrics)
    spent = any(group.cells[0].attack.effort for group in groups)
    lines = []
    for group in groups:
        flags = ", ".join(results.raised(row.defence, group.column))
        lines.append((*_line(group, metrics, shared if differ else None, spent), flags))
        if group.oracle:
            lines.append(_oracle_line(group, metrics, differ + spent))
    headings = (
        "attack",
        "knowledge",
        "n",
        *(_heading(metric, groups) for metric in metrics),
        *([WORST] if "psnr" in metrics else []),
        *([f"PSNR (dB) of the first {shared}"] if differ else []),
        *(["effort"] if spent else []),
        "queries",
        "seconds to fit",
        "seconds to answer",
        FLAGS,
    )
    return TextTable("attacks", headings, tuple(lines), _caption(results, row))


def _heading(metric: str, groups: Sequence[Group]) -> str:
    """Such as ``rank-1 (%), chance 2.0``."""
    return ", ".join(filter(None, (matrix.heading(metric), matrix.floors(groups, metric))))


def _line(group: Group, metrics: Sequence[str], shared: int | None, spent: bool) -> tuple[str, ...]:
    cells = group.finished
    first = [] if shared is None else [matrix.bare_range("psnr", group.pooled("psnr", shared))]
    worst = [matrix.bare_range("psnr", group.most_exposed("psnr"))] if "psnr" in metrics else []
    return (
        group.column,
        ", ".join([cells[0].attack.knowledge, *(need for need in cells[0].attack.needs if need not in IMPLIED)]),
        str(group.photos),
        *(matrix.bare_range(metric, group.pooled(metric)) for metric in metrics),
        *worst,
        *first,
        *([cells[0].attack.effort or ABSENT] if spent else []),
        matrix.thousands(mean_of_known(cell.queries for cell in cells)),
        matrix.decimals(mean_of_known(cell.seconds.fit if cell.seconds else None for cell in cells), 1),
        matrix.decimals(mean_of_known(cell.seconds.reconstruct if cell.seconds else None for cell in cells), 1),
    )


def _oracle_line(group: Group, metrics: Sequence[str], further: int) -> tuple[str, ...]:
    """``further``: columns beside those that every such table has."""
    scores = (matrix.bare_range(metric, group.oracle.get(metric)) for metric in metrics)
    worst = [ABSENT] if "psnr" in metrics else []
    empty = ("",) * (4 + further)
    return ("the best as the truth tells", "", str(group.photos), *scores, *worst, *empty)


def _caption(results: Results, row: DefenceRow) -> str:
    chosen = next((group for group in row.groups.values() if group.suite), None)
    photos = {"": chosen.chosen, ", for SSIM": chosen.chosen_for_ssim} if chosen else {}
    limits = [(group.column, limit) for group in row.groups.values() if (limit := group.reference("psnr", "ceiling"))]
    return " ".join(
        [
            f"Against {row.defence.label}; {results.resting}; in brackets 95 % bootstrap intervals.",
            *(
                f"strongest chose{why}, without the truth: {matrix.named_counts(of)}."
                for why, of in photos.items()
                if of
            ),
            *(f"{name} cannot rebuild better than {matrix.number('psnr', limit)}." for name, limit in limits),
            *matrix.references(results, list(matrix.FORMATS)),
        ]
    )


def terminal_table(table: TextTable) -> Sheet:
    """For a terminal, whose lines are short: the shown metrics only."""
    narrow = ["attack", "n", "effort", FLAGS, *(matrix.heading(metric) for metric in SHOWN_METRICS)]
    shown = [index for index, heading in enumerate(table.headings) if heading.split(",")[0] in narrow]
    columns = [Column(table.headings[index], right=index > 0) for index in shown]
    rows = [[Text(line[index], style="dim" if line[-1] else "") for index in shown] for line in table.lines]
    return Sheet(columns, rows, caption=table.caption)
