"""What a page tells of one cell when it is opened."""

from collections.abc import Mapping
from typing import TypedDict

from splitleak.experiments.judge.flags import FLAGS
from splitleak.experiments.judge.statistics.interval import Interval
from splitleak.experiments.report.tables import matrix
from splitleak.experiments.report.tables.attacks import WORST
from splitleak.experiments.report.tables.table import ABSENT
from splitleak.experiments.results.frame import pooled
from splitleak.experiments.results.group import DefenceRow, Group, mean_of_known
from splitleak.experiments.results.metrics import EXPOSED
from splitleak.experiments.results.results import Results


class Details(TypedDict):
    """``facts``: names and values; ``picture``: the id of its strip on the page; ``file``: of its first seed."""

    title: str
    facts: list[tuple[str, str]]
    flags: list[tuple[str, str]]
    picture: str
    file: str


def details(results: Results) -> dict[str, Details]:
    """By the ids of the matrix' cells, see ``cell_id``."""
    scores = pooled(results.frame)
    return {
        cell_id(i, results.columns.index(group.column)): _of(
            results, row, group, i, scores.get((row.defence.label, group.column), {})
        )
        for i, row in enumerate(results.rows)
        for group in row.groups.values()
    }


def cell_id(row: int, column: int) -> str:
    """Of a defence setting and an attack by their positions."""
    return f"{row}-{column}"


def _of(results: Results, row: DefenceRow, group: Group, position: int, scores: Mapping[str, Interval]) -> Details:
    errors = [(cell.status, cell.why or "no message") for cell in group.cells if not cell.ok]
    return Details(
        title=f"{group.column} on {row.defence.label}",
        facts=[*_scores(group, scores), *_context(results, row, group), *errors],
        flags=[(name, FLAGS[name].means) for name in results.every_flag.get((row.defence.label, group.column), ())],
        picture=f"p{cell_id(position, results.columns.index(group.column))}",
        file=f"cells/{group.cells[0].id}",
    )


def _scores(group: Group, scores: Mapping[str, Interval]) -> list[tuple[str, str]]:
    """Every metric that has a form; ``scores``: over all seeds."""
    found = []
    for metric in filter(matrix.known, group.metrics):
        shown = (matrix.bare_range(metric, scores.get(metric)), matrix.floors([group], metric))
        found.append((matrix.heading(metric), ", ".join(filter(None, shown))))
    if (worst := f"psnr{EXPOSED}") in scores:
        found.append((WORST, matrix.bare_range("psnr", scores[worst])))
    if "oracle_psnr" in scores:
        found.append(("PSNR, had the truth chosen (dB)", matrix.bare_range("psnr", scores["oracle_psnr"])))
    shuffled = group.table("psnr", "shuffled")
    if shuffled is not None:
        found.append(("PSNR, given other photos' releases (dB)", matrix.FORMATS["psnr"].bare(float(shuffled.mean()))))
    return found


def _context(results: Results, row: DefenceRow, group: Group) -> list[tuple[str, str]]:
    """What the scores rest on."""
    cells = group.finished
    if not cells:
        return []
    relative, seconds = results.relative(row, group), [cell.seconds for cell in cells if cell.seconds]
    facts = [
        ("of the undefended gain", f"{100 * relative.mean:.0f} %" if relative else ""),
        (results.utility_name or "utility", matrix.percent(row.utility) if row.utility else ""),
        *((name, f"{100 * value:.1f} %") for name, value in row.also.items()),
        ("points against none", matrix.points(lost) if (lost := results.utility_lost(row)) else ""),
        ("bytes per photo", matrix.thousands(row.bytes)),
        ("edge time ratio", matrix.decimals(row.edge_ratio)),
        ("photos x seeds", f"{group.photos} x {len(cells)}"),
        ("knowledge", cells[0].attack.knowledge),
        ("effort", cells[0].attack.effort or ""),
        ("queries", matrix.thousands(mean_of_known(cell.queries for cell in cells))),
        ("seconds to fit", matrix.decimals(mean_of_known(one.fit for one in seconds), 1)),
        ("seconds to answer", matrix.decimals(mean_of_known(one.reconstruct for one in seconds), 1)),
        ("photos that went to", matrix.named_counts(group.chosen)),
        ("for SSIM", matrix.named_counts(group.chosen_for_ssim)),
        ("for who it is", matrix.named_counts(group.chosen_for("rank1"))),
    ]
    return [(name, value) for name, value in facts if value not in ("", ABSENT)]
