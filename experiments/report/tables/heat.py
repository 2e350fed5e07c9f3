"""The matrix with one number a cell: for a terminal, and as the heat map of a page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from splitleak.experiments.judge.statistics.interval import Interval
from splitleak.experiments.report.tables import matrix
from splitleak.experiments.report.tables.matched import points_lost
from splitleak.experiments.report.tables.table import ABSENT, FLAG
from splitleak.experiments.report.terminal import Column, Sheet, fitted
from splitleak.experiments.results.group import DefenceRow, Group
from splitleak.experiments.results.metrics import LEAKAGE_METRICS, SHOWN_METRICS
from splitleak.experiments.results.results import Results

BEST, FAILED, NO_ANSWER = "★", "failed", "n/a"
"""The best affordable setting, the one that the verdict names; a cell that failed, and one that does not apply."""


@dataclass(frozen=True)
class Tile:
    """One attack on one defence setting. ``heat``: 0 at the floor or chance, 1 at what leaks undefended."""

    text: str
    column: int
    heat: float | None = None
    strongest: bool = False
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """A defence setting. ``position``: among the run's; ``utility`` and ``lost``: in per cent, and points."""

    label: str
    strength: str
    position: int
    tiles: tuple[Tile, ...]
    utility: str
    lost: str
    best: bool


@dataclass(frozen=True)
class HeatMap:
    """One metric.

    ``columns``: the attacks that have it, floors last. ``groups``: of each defence its name and its settings.
    """

    metric: str
    columns: tuple[str, ...]
    utility_name: str | None
    groups: tuple[tuple[str, tuple[Line, ...]], ...]

    @property
    def lines(self) -> Iterator[Line]:
        """Of all groups."""
        for _, lines in self.groups:
            yield from lines


def measured(results: Results) -> tuple[str, ...]:
    """The shown metrics that any cell has."""
    return tuple(metric for metric in SHOWN_METRICS if any(metric in cell.metrics for cell in results.finished))


def heat_map(results: Results, metric: str) -> HeatMap:
    """Settings in the order of the plan, those of one defence together; empty where nothing was measured."""
    shown = [
        index
        for index, column in enumerate(results.columns)
        if any(_asked(row.groups.get(column), metric) for row in results.rows)
    ]
    shown.sort(key=lambda index: _is_floor(results, results.columns[index]))  # they tell least
    read = partial(_line, results, metric, shown, _scale(results, metric))
    families = [(family.label, family.rows) for family in results.families]
    alone = [(row.defence.label, (row,)) for row in results.rows if row is results.undefended]
    groups = tuple((label, tuple(map(read, rows))) for label, rows in (*alone, *families))
    return HeatMap(metric, tuple(results.columns[index] for index in shown), results.utility_name, groups)


def _asked(group: Group | None, metric: str) -> bool:
    """Whether it has the metric, or might have had."""
    return group is not None and (metric in group.metrics or not group.finished)


def _is_floor(results: Results, column: str) -> bool:
    return any(row.groups[column].floor for row in results.rows if column in row.groups)


def _scale(results: Results, metric: str) -> tuple[float, float]:
    """From what is known without looking to what leaks undefended, or to the most that leaks."""
    groups = [group for row in results.rows for group in row.groups.values()]
    means = [group.scores[metric].mean for group in groups if metric in group.scores]
    chance = next((of for group in groups if (of := group.reference(metric, "chance")) is not None), None)
    floor, strongest = results.floor(metric), results.undefended and results.undefended.strongest(metric)
    if chance is None:
        chance = floor.mean if floor else min(means, default=0.0)
    return chance, strongest.scores[metric].mean if strongest else max(means, default=chance)


def _line(results: Results, metric: str, shown: Sequence[int], scale: tuple[float, float], row: DefenceRow) -> Line:
    strongest, lost, best = row.strongest(metric), results.utility_lost(row), results.best
    tiles = []
    for index in shown:
        group = row.groups.get(results.columns[index])
        score = group.scores.get(metric) if group else None
        flags = results.raised(row.defence, group.column) if group else ()
        heat = _heat(score, *scale)
        tiles.append(Tile(_text(group, metric), index, heat, group is not None and group is strongest, flags))
    return Line(
        row.defence.label,
        f"{row.defence.strength} = {row.defence.strength_text}" if row.defence.strength else row.defence.label,
        results.rows.index(row),
        tuple(tiles),
        f"{100 * row.utility.mean:.1f}" if row.utility else ABSENT,
        f"{100 * lost.difference.mean:+.1f}" if lost else ABSENT,
        best is not None and best.row is row,
    )


def _heat(score: Interval | None, floor: float, undefended: float) -> float | None:
    if score is None:
        return None
    return min(max((score.mean - floor) / (undefended - floor), 0.0), 1.0) if undefended > floor else 0.0


def _text(group: Group | None, metric: str) -> str:
    if group is None:
        return ABSENT
    if not group.finished:
        return FAILED if any(cell.failed for cell in group.cells) else NO_ANSWER
    return matrix.form(metric).bare(group.scores[metric].mean) if metric in group.scores else ABSENT


class Brief:
    """A heat map for a terminal: as many attacks as fit beside one another, into a file or ``wide`` all of them."""

    def __init__(self, results: Results, metric: str = LEAKAGE_METRICS[0], wide: bool = False) -> None:
        self.results, self.map, self.wide = results, heat_map(results, metric), wide

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        count = len(self.map.columns)
        whole = self.wide or not options.is_terminal
        shown = count if whole else self._fitting(options.max_width)
        sheet = self.sheet(shown)
        yield from [Text(sheet.title, style="bold"), *sheet.lines()] if whole else [sheet]
        for line in self.legend(shown):
            yield Text(line, style="dim")

    def _fitting(self, room: int) -> int:
        """How many attacks stand beside one another; all where not even one does, as a list."""
        sheets = ((count, self.sheet(count)) for count in range(len(self.map.columns), 0, -1))
        return next((n for n, sheet in sheets if fitted(sheet.columns, sheet.rows, room)), len(self.map.columns))

    def sheet(self, attacks: int) -> Sheet:
        """The first attacks."""
        name = self.map.utility_name
        costs = [Column(f"{name} (%)", right=True), Column("points lost or won", right=True)] if name else []
        scores = (Column(column, right=True) for column in self.map.columns[:attacks])
        flagged = {tile.column for line in self.map.lines for tile in line.tiles if tile.flags}
        rows = [
            (
                f"{BEST} {line.label}" if line.best else line.label,
                *((line.utility, line.lost) if name else ()),
                *(_shown(tile, tile.column in flagged) for tile in line.tiles[:attacks]),
            )
            for line in self.map.lines
        ]
        return Sheet([Column("defence", prose=True), *costs, *scores], rows, matrix.heading(self.map.metric))

    def legend(self, attacks: int) -> Iterator[str]:
        """What the signs are, and what is not shown; ``attacks``: how many of them are."""
        tiles = [tile for line in self.map.lines for tile in line.tiles]
        signs = [f"{BEST} leaks least within {points_lost(self.results.may_lose[-1])}"] if self._marked else []
        signs += ["bold: the strongest attack"]
        flags = dict.fromkeys(flag for tile in tiles for flag in tile.flags)
        signs += [f"{FLAG} doubtful: {', '.join(flags)} (splitleak explain FLAG)"] if flags else []
        signs += [f"{NO_ANSWER}: does not apply"] if any(tile.text == NO_ANSWER for tile in tiles) else []
        yield "; ".join(signs)
        if attacks < len(self.map.columns):
            yield f"{attacks} of {len(self.map.columns)} attacks; all with --wide"
        others = [metric for metric in measured(self.results) if metric != self.map.metric]
        if others:
            yield f"other measures: --metric {', '.join(others)}; intervals are on the page"

    @property
    def _marked(self) -> bool:
        return any(line.best for line in self.map.lines)


def _shown(tile: Tile, flagged: bool) -> Text:
    """``flagged``: whether the column has room for signs, so that its numbers stand below one another."""
    sign = f" {FLAG}" if tile.flags else "\N{NO-BREAK SPACE}" * 2 * flagged
    return Text(f"{tile.text}{sign}", style=f"{'bold ' * tile.strongest}{'dim' * bool(tile.flags)}".strip())
