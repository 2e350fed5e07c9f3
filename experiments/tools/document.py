"""Documents whose numbers come from archives: each marked place is written anew from the stored results.

A mark is a comment, so that a reader of the rendered page does not see it:

    <!-- results: RUN TABLE -->             a table of that run, such as ``matched_utility`` or ``attacks``
    <!-- results: RUN figure NAME -->       one of its figures, such as ``tradeoff_psnr``
    <!-- results: RUN made -->              how it was made: of which data, on how many photos of whom, in how many
                                            trainings, with what budget and which versions
    <!-- results: ARCHIVE published -->    what others published of it beside ours, see ``planning.published``
    <!-- results: ARCHIVE victims -->       of an archive of several runs: they side by side; ``made`` as above
    <!-- results: RUN | DEFENCE | ATTACK | METRIC -->      one number, in the middle of a sentence; in a table, where
                                                           a bar begins a column, with \\| for |
    <!-- results: RUN | DEFENCE | ATTACK | METRIC by training -->     each seed's mean in the place of all together
    <!-- results: RUN | DEFENCE | lost N | METRIC -->      of the table at equal utility: where N % of it may be lost

What stands between it and the next ``<!-- end -->`` is replaced.
"""

import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from matplotlib.figure import Figure

from splitleak.experiments.planning.plan import parse_plan
from splitleak.experiments.planning.published import published_figures
from splitleak.experiments.planning.study import cut_of
from splitleak.experiments.report.figures import cost_figure, save, tradeoff
from splitleak.experiments.report.figures.depth import depth_figure
from splitleak.experiments.report.overview import overview_tables
from splitleak.experiments.report.tables import matrix
from splitleak.experiments.report.tables.files import tables
from splitleak.experiments.report.tables.matched import matched_rows
from splitleak.experiments.report.tables.published import published_table
from splitleak.experiments.report.tables.table import ABSENT, TextTable
from splitleak.experiments.results.archive import SUFFIX, Archived, read_archive
from splitleak.experiments.results.group import DefenceRow, Group
from splitleak.experiments.results.member import Member
from splitleak.experiments.results.metrics import LEAKAGE_METRICS, SHOWN_METRICS
from splitleak.experiments.results.results import Results
from splitleak.experiments.store.provenance import WHERE, facts_of
from splitleak.victims.errors import InvalidInputError, unknown

ARCHIVES, FIGURES = Path("results"), Path("docs/results")
PUBLISHED = "published"
"""What asks for the numbers of others beside ours."""
LOST, BY_TRAINING = "lost ", " by training"
"""What asks for a number at equal utility, and for one of each seed."""
MARK = re.compile(r"(<!-- results: (?P<asked>[^\n]*?) -->)(?P<old>.*?)(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Archive:
    """One file of ``ARCHIVES``. ``name``: the file's, without its ending; that of the plan."""

    name: str
    runs: Mapping[str, Archived]

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """Its runs as the victims of a study."""
        plans = {name: parse_plan(tomllib.loads(run.plan), run.plan, Path(), name) for name, run in self.runs.items()}
        return tuple(
            Member(name.removeprefix(f"{self.name}."), name, cut_of(plans[name]), run.results)
            for name, run in self.runs.items()
        )

    def command(self, run: str) -> str:
        """What made a run, and the archive."""
        only = f" --only {run.removeprefix(f'{self.name}.')}" if run != self.name else ""
        return f"splitleak run {self.name}{only}"


class Documents:
    """Fills documents below ``root`` from the archives there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        files = sorted((root / ARCHIVES).glob(f"*{SUFFIX}"))
        self.archives = {name: Archive(name, read_archive(file)) for file in files for name in [_stem(file)]}
        self.runs = {run: archive for archive in self.archives.values() for run in archive.runs}

    def filled(self, text: str) -> str:
        """The text with every marked place written anew; the figures that it shows are written, too.

        Raises:
            InvalidInputError: a mark asks for what no archive has; the message names what there is.
        """

        def fill(match: re.Match[str]) -> str:
            return f"{match[1]}{self._answer(match['asked'])}{match[4]}"

        return MARK.sub(fill, text)

    def _answer(self, asked: str) -> str:
        asked = asked.replace(r"\|", "|")
        if "|" in asked:
            return self._number(*(part.strip() for part in asked.split("|")))
        name, _, what = asked.partition(" ")
        if what == PUBLISHED and name in self.archives:
            table = published_table(published_figures(name), self.archives[name].runs)
            return f"\n\n{table.markdown()}\n"
        if name in self.archives and name not in self.runs:
            return self._study(self.archives[name], what)
        if name not in self.runs:
            raise unknown("run of the archives:", name, [*self.runs, *self.archives])
        archive = self.runs[name]
        results = archive.runs[name].results
        if what == "made":
            return _made(archive.command(name), archive, [archive.runs[name]])
        if what.startswith("figure "):
            return self._figure(name, what.removeprefix("figure "), dict(_figures(results)))
        return _table(what, tables(results))

    def _study(self, archive: Archive, what: str) -> str:
        if what == "made":
            return _made(archive.command(archive.name), archive, list(archive.runs.values()))
        if what.startswith("figure "):
            depths = {f"depth_{metric}": partial(depth_figure, archive.members, metric) for metric in LEAKAGE_METRICS}
            return self._figure(archive.name, what.removeprefix("figure "), depths)
        return _table(what, overview_tables(archive.members))

    def _figure(self, name: str, which: str, figures: Mapping[str, Callable[[], Figure | None]]) -> str:
        figure = figures[which]() if which in figures else None
        if figure is None:
            raise unknown(f"figure of {name}:", which, [known for known, draw in figures.items() if draw()])
        stem = FIGURES / f"{name}.{which}"
        (self.root / FIGURES).mkdir(parents=True, exist_ok=True)
        (file,) = save(figure, self.root / stem, "svg")
        return f"\n![{name}: {which.replace('_', ' ')}]({FIGURES.as_posix()}/{file.name})\n"

    def _number(self, run: str, defence: str, attack: str, metric: str) -> str:
        if run not in self.runs:
            raise unknown("run of the archives:", run, self.runs)
        results = self.runs[run].runs[run].results
        if attack.startswith(LOST):
            return _matched(results, defence, attack.removeprefix(LOST), metric)
        rows = {row.defence.label: row for row in results.rows}
        if defence not in rows:
            raise unknown(f"defence of {run}:", defence, rows)
        row = rows[defence]
        if attack not in row.groups:
            raise unknown(f"attack on {defence}:", attack, row.groups)
        if metric.endswith(BY_TRAINING):
            return _by_training(row, row.groups[attack], metric.removesuffix(BY_TRAINING))
        return _value(row, row.groups[attack], metric)


def _value(row: DefenceRow, group: Group, metric: str) -> str:
    costs = dict(zip(("utility", "bytes", "edge"), matrix.costs(row), strict=True))
    if metric in costs:
        return costs[metric]
    if metric == "ceiling":
        limit = group.reference("psnr", "ceiling")
        return ABSENT if limit is None else matrix.number("psnr", limit)
    score = group.pooled(metric) if metric in group.metrics and matrix.known(metric) else None
    if score is None:
        raise unknown("number of a cell:", metric, [*costs, "ceiling", *group.metrics])
    return matrix.ranged(metric, score)


def _by_training(row: DefenceRow, group: Group, metric: str) -> str:
    """The mean of each seed, in their order."""
    if metric == "utility":
        return ", ".join(f"{100 * cell.utility.mean:.1f}" for cell in row.by_seed if cell.utility) + " %"
    scores = group.table(metric) if matrix.known(metric) else None
    if scores is None:
        raise unknown("number of each training:", metric, ["utility", *group.metrics])
    return ", ".join(map(matrix.form(metric).bare, scores.mean(1))) + matrix.form(metric).unit


def _matched(results: Results, family: str, lost: str, metric: str) -> str:
    """The least that a family of settings leaves where ``lost`` per cent of the undefended utility may be lost."""
    rows = {row.family.label: row for row in matched_rows(results)}
    if family not in rows:
        raise unknown("defence of the table at equal utility:", family, rows)
    known = {f"{LOST}{100 * share:g} | {name}": leakage for (name, share), leakage in rows[family].leakage.items()}
    asked = f"{LOST}{lost} | {metric}"
    if asked not in known:
        raise unknown("number at equal utility:", asked, known)
    return matrix.ranged(metric, known[asked])


def _figures(results: Results) -> Iterator[tuple[str, Callable[[], Figure | None]]]:
    """What draws each: a large run's takes half a minute."""
    for metric in SHOWN_METRICS:
        yield f"tradeoff_{metric}", partial(tradeoff, results, metric)
        yield f"cost_{metric}", partial(cost_figure, results, metric)


def _table(name: str, found: Iterable[TextTable]) -> str:
    others = []
    for table in found:
        if table.name == name:
            return f"\n\n{table.markdown()}\n"
        others.append(table.name)
    raise unknown("table:", name, others)


def _made(command: str, archive: Archive, archived: Sequence[Archived]) -> str:
    runs = [run.results for run in archived]
    cells = [cell for results in runs for cell in results.finished]
    made = facts_of(one for results in runs for one in results.made)
    versions = {name: " and ".join(values) for name, values in made.items() if name not in WHERE}
    samples = " or ".join(dict.fromkeys(results.resting for results in runs))
    counts = {
        "cells": len(cells),
        "cells failed": sum(len(results.failed) for results in runs),
        "not run": sum(len(results.missing) for results in runs),
    }
    return (
        f"\n`{command}`, stored by `splitleak archive runs/{archive.name}`; "
        f"{' or '.join(dict.fromkeys(map(_setting, archived)))}; {samples}, "
        f"{', '.join(f'{count} {what}' for what, count in counts.items() if count)}; "
        f"{', '.join(f'{name} {values}' for name, values in versions.items())}.\n"
    )


def _setting(run: Archived) -> str:
    """On which data, and with what budget, such as ``lfw.zip at 96 px; attackers have 1,000 photos``."""
    cell = run.results.finished[0]
    spent = cell.budget
    most = "at most " if spent.patience else ""
    return (
        f"{run.data} at {cell.victim.size} px; attackers have {spent.photos:,} photos, defences {most}{spent.epochs} "
        f"epoch{'' if spent.epochs == 1 else 's'}"
    )


def _stem(file: Path) -> str:
    return file.name.removesuffix(SUFFIX)


def rewrite(paths: Iterable[str | Path], text: Callable[[Path], str]) -> int:
    """Write to each path what ``text`` makes of it; the exit code, with one line on stderr where it is not 0."""
    try:
        for path in map(Path, paths):
            path.write_text(text(path), encoding="utf-8")
    except InvalidInputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def main(paths: Sequence[str]) -> int:
    """Write documents anew in place; they lie, like the archives, in the current folder."""
    documents = Documents(Path())
    return rewrite(paths, lambda path: documents.filled(path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
