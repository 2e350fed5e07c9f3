"""The leaderboard: every defence setting of several runs under the strongest attack that met it, on one page."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from splitleak.experiments.judge.statistics.interval import Interval
from splitleak.experiments.report.page import template
from splitleak.experiments.report.tables import matrix
from splitleak.experiments.report.tables.table import ABSENT, FLAG, TextTable
from splitleak.experiments.results.archive import Archived
from splitleak.experiments.results.group import DefenceRow, Group
from splitleak.experiments.results.metrics import LEAKAGE_METRICS
from splitleak.experiments.results.results import Results
from splitleak.experiments.store.integrity import digest, write_atomically

ABOUT = ("defence", "victim", "data")
WHO = ("photos, people, trainings", "photos' digest", "attacks tried", "run", "seal", "flags")
SHOWN = 8
"""Digits of a digest."""


def write_board(runs: Mapping[str, Archived], path: Path) -> TextTable:
    """Write the page of all runs, which needs no other file; returns its table."""
    table = board_table(runs)
    notes = [f"{name}: {note}" for name, run in runs.items() for note in run.results.notes]
    page = template("board.html").render(
        board=table,
        lines=[(line, FLAG in line[-1]) for line in table.lines],
        verdict=_verdict(table, runs),
        notes=notes,
    )
    write_atomically(path, page)
    return table


def board_table(runs: Mapping[str, Archived]) -> TextTable:
    """A line for each defence setting, those of one victim together, what leaks least first."""
    found = sorted((place for run in runs.values() for place in _lines(run)), key=lambda place: (place[0], place[1]))
    headings = (
        *ABOUT,
        "utility (%)",
        "lost (points)",
        "strongest attack",
        *(matrix.heading(metric) for metric in LEAKAGE_METRICS),
        *WHO,
    )
    caption = (
        "The lower PSNR and SSIM, the less leaks. Settings can be compared where the victim is the same, and most "
        "closely where the photos' digest is: then they were scored on the same photos. Of several attacks the one "
        "that leaks most counts, or the suite's choice for each photo. In brackets 95 % intervals over people and "
        f"trainings. The seal is that of the record file, {ABSENT} of a run's folder. {FLAG}: what makes the number "
        "doubtful, see splitleak explain."
    )
    return TextTable("board", headings, tuple(line for _, _, line in found), caption)


def _lines(run: Archived) -> Iterator[tuple[str, float, tuple[str, ...]]]:
    """Of a run: the victim, what is sorted by within it, and the line."""
    results = run.results
    for row in results.rows:
        strongest = row.strongest(LEAKAGE_METRICS[0])
        if strongest is None or results.victim is None:
            continue
        victim = results.victim
        about = (
            row.defence.label,
            f"{victim.model}, cut at {victim.cut}",
            f"{run.data}, {victim.size} px, {f'task {victim.task}' if victim.task else 'no task'}",
        )
        scores = (matrix.bare_range(metric, strongest.scores.get(metric)) for metric in LEAKAGE_METRICS)
        line = (*about, *_utility(results, row), _named(strongest), *scores, *_basis(run, row, strongest))
        yield f"{about[1]} {about[2]}", strongest.scores[LEAKAGE_METRICS[0]].mean, line


def _utility(results: Results, row: DefenceRow) -> tuple[str, str]:
    if row.utility is None:
        return ABSENT, ABSENT
    guessed = " (at chance)" if results.at_chance(row) else ""
    scaled = Interval(*(100 * value for value in row.utility))
    share = f"{scaled.mean:.1f} [{scaled.low:.1f}, {scaled.high:.1f}]{guessed}"
    return share, matrix.points(results.utility_lost(row))


def _named(strongest: Group) -> str:
    """The attack; of the suite's choice also the attack that it chose for most photos."""
    mostly = next(iter(strongest.chosen), None)
    return f"{strongest.column}: mostly {mostly}" if mostly else strongest.column


def _basis(run: Archived, row: DefenceRow, strongest: Group) -> tuple[str, ...]:
    """On what the number rests."""
    cells = strongest.finished
    known = [len(set(cell.groups[: cell.n])) for cell in cells if cell.groups is not None]
    people = str(max(known)) if known else "unknown"
    tried = [group for group in row.groups.values() if group.finished and not (group.suite or group.floor)]
    targets = dict.fromkeys(cell.targets for cell in cells if cell.targets)
    flags = run.results.every_flag.get((row.defence.label, strongest.column), ())
    return (
        f"{strongest.photos}, {people}, {len({cell.seed for cell in cells})}",
        digest(list(targets))[:SHOWN] if targets else ABSENT,
        f"{len(tried)}: {', '.join(group.column for group in tried)}",
        run.name,
        run.seal[:SHOWN] if run.seal else ABSENT,
        " ".join(f"{FLAG} {name}" for name in flags),
    )


def _verdict(table: TextTable, runs: Mapping[str, Archived]) -> str:
    victims = len({line[1:3] for line in table.lines})
    settings = f"{len(table.lines)} defence setting{'' if len(table.lines) == 1 else 's'}"
    where = f"{victims} victim{'' if victims == 1 else 's'}, in {len(runs)} run{'' if len(runs) == 1 else 's'}"
    return f"{settings} of {where}."
