"""What the cells of a plan measured, compared with one another."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from splitleak.experiments.judge.flags import FLAGS, INHERITED, Evidence, flags_of
from splitleak.experiments.judge.rules import CHOSEN, COMMON
from splitleak.experiments.judge.statistics.different import Change, different
from splitleak.experiments.judge.statistics.groups import counted_photos
from splitleak.experiments.judge.statistics.interval import Array, Interval
from splitleak.experiments.judge.statistics.matched import needed
from splitleak.experiments.judge.statistics.pareto import pareto
from splitleak.experiments.judge.statistics.relative import relative
from splitleak.experiments.planning.names import MAY_LOSE, STRONGEST, UNDEFENDED
from splitleak.experiments.results.frame import Row, pooled_rows, rows_of
from splitleak.experiments.results.group import DefenceRow, Group, once
from splitleak.experiments.results.metrics import LEAKAGE_METRICS, SHOWN_METRICS
from splitleak.experiments.results.ranked import Family, Ranked, families_of, ranked
from splitleak.experiments.results.record import DefenceSetting, Record, Victim
from splitleak.experiments.store.provenance import Made, facts_of, together

Membership = tuple[bool, float]
"""Whether a setting is a member of the Pareto set, and the share of bootstrap resamples in which it is."""


@dataclass(frozen=True)
class Results:
    """The cells of one plan in its order; ``missing``: those without a result yet.

    ``stale``: results of other code, data or settings than the plan's last run began with. ``damaged``: results that
    are not as they were written. Neither takes part in any number. ``may_lose``: the shares of utility that a defence
    may cost, as the plan has them; defences are compared at each, and ranked at the last.

    Raises:
        ValueError: the cells do not share one victim.
    """

    cells: tuple[Record, ...]
    missing: tuple[str, ...] = ()
    stale: tuple[Record, ...] = ()
    damaged: tuple[Record, ...] = ()
    may_lose: tuple[float, ...] = MAY_LOSE

    def __post_init__(self) -> None:
        if len({cell.victim for cell in self.cells}) > 1:
            raise ValueError("a report compares defences of one victim; these cells have several")

    @property
    def victim(self) -> Victim | None:
        """The network that all cells attack; None where there are no cells."""
        return self.cells[0].victim if self.cells else None

    @cached_property
    def finished(self) -> tuple[Record, ...]:
        """The measured cells."""
        return tuple(cell for cell in self.cells if cell.ok)

    @property
    def rebuilt(self) -> bool:
        """Whether any attack rebuilt photos."""
        return any("psnr" in cell.metrics for cell in self.finished)

    @property
    def failed(self) -> tuple[Record, ...]:
        """The cells that ended in an error."""
        return tuple(cell for cell in self.cells if cell.failed)

    @property
    def inapplicable(self) -> tuple[Record, ...]:
        """The cells in which there is nothing to measure."""
        return tuple(cell for cell in self.cells if cell.status == "does not apply")

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know before any number: what was left out, and what was not computed alike."""
        return tuple(_notes(self))

    @cached_property
    def frame(self) -> tuple[Row, ...]:
        """The long table: a row for every fact of every cell, then for every score of a setting over its seeds."""
        return tuple(_long(self))

    @cached_property
    def made(self) -> tuple[Made, ...]:
        """With what the cells' stages were computed: one where all were computed alike."""
        return together(made for cell in self.cells for made in cell.made)

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """All seeds of the plan, in its order."""
        return tuple(dict.fromkeys(cell.seed for cell in self.cells))

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The suite's choice, then the attacks in the order of the plan."""
        ordered = sorted(self.cells, key=lambda cell: cell.attack.name != STRONGEST)
        return tuple(dict.fromkeys(cell.column for cell in ordered))

    @cached_property
    def rows(self) -> tuple[DefenceRow, ...]:
        """The defence settings in the order of the plan."""
        found: dict[str, dict[str, list[Record]]] = {}
        for cell in self.cells:
            found.setdefault(cell.defence.label, {}).setdefault(cell.column, []).append(cell)
        return tuple(
            DefenceRow(
                next(iter(columns.values()))[0].defence,
                {column: Group(tuple(cells)) for column, cells in columns.items()},
            )
            for columns in found.values()
        )

    @cached_property
    def undefended(self) -> DefenceRow | None:
        """The reference, where the plan has one."""
        return next((row for row in self.rows if row.defence.name == UNDEFENDED), None)

    @cached_property
    def families(self) -> tuple[Family, ...]:
        """The defences but ``none``, one per combination of the settings that are not the strength."""
        return families_of(self.rows)

    @cached_property
    def rankings(self) -> Mapping[tuple[str, float], tuple[Ranked, ...]]:
        """The families at equal utility, the least leaking first, by metric and what may be lost."""
        return {
            (metric, lost): ranked(self.undefended, self.families, metric, lost)
            for metric in SHOWN_METRICS
            for lost in self.may_lose
        }

    @property
    def ranking(self) -> tuple[Ranked, ...]:
        """What every verdict, table and figure ranks by: that of the first metric, where most may be lost."""
        return self.rankings[LEAKAGE_METRICS[0], self.may_lose[-1]]

    @property
    def best(self) -> Ranked | None:
        """The first of ``ranking``; None where no setting is affordable."""
        return next((place for place in self.ranking if place.row), None)

    def utility_lost(self, row: DefenceRow) -> Change | None:
        """The utility of a setting less that of none, in pairs; None of ``none`` itself, and where it is unknown."""
        reference, own = (one.useful if one else None for one in (self.undefended, row))
        if row is self.undefended or reference is None or own is None or len(own.values) != len(reference.values):
            return None
        return different(reference, own) if own.values.shape[1] > 1 else None

    def floor(self, metric: str) -> Interval | None:
        """What an attack that ignores the release scores; the highest, should a plan have several."""
        floors = [
            group.scores[metric]
            for row in self.rows
            for group in row.groups.values()
            if group.floor and metric in group.scores
        ]
        return max(floors, default=None)

    @cached_property
    def every_flag(self) -> Mapping[tuple[str, str], tuple[str, ...]]:
        """What makes a number doubtful, by the labels of defence and attack; absent where nothing does."""
        unmatched = {row.defence.label for family in self.families for row in family.rows if self._unmatched(family)}
        found: dict[tuple[str, str], tuple[str, ...]] = {}
        for row in self.rows:
            for group in sorted(row.groups.values(), key=lambda group: group.suite):  # its members' first
                if group.finished:
                    raised = {*flags_of(self._evidence(row, group, row.defence.label in unmatched))}
                    for member in _members(row, group):
                        raised |= {*found.get((row.defence.label, member.column), ())} & INHERITED
                    if raised:
                        found[row.defence.label, group.column] = tuple(name for name in FLAGS if name in raised)
        return found

    @cached_property
    def common_flags(self) -> Mapping[str, int]:
        """Those raised on half of the cells or more, with how many: they tell of the run and of no number in it."""
        cells = sum(bool(group.finished) for row in self.rows for group in row.groups.values())
        return {name: count for name, count in self.flag_counts.items() if count >= COMMON * cells}

    @cached_property
    def flags(self) -> Mapping[tuple[str, str], tuple[str, ...]]:
        """``every_flag`` but the common ones: what is marked at a number."""
        few = {
            place: tuple(name for name in raised if name not in self.common_flags)
            for place, raised in self.every_flag.items()
        }
        return {place: raised for place, raised in few.items() if raised}

    def raised(self, defence: DefenceSetting, column: str) -> tuple[str, ...]:
        """The flags of a defence setting under an attack that are marked at its number."""
        return self.flags.get((defence.label, column), ())

    @property
    def flag_counts(self) -> Mapping[str, int]:
        """How many of these pairs carry which flag, the most frequent first."""
        return dict(Counter(name for raised in self.every_flag.values() for name in raised).most_common())

    def _unmatched(self, family: Family) -> bool:
        """Whether every strength loses more utility than is comparable."""
        reference = self.undefended.utility if self.undefended else None
        known = [row.utility.mean for row in family.rows if row.utility]
        return reference is not None and bool(known) and max(known) < needed(reference.mean, self.may_lose[-1])

    def _evidence(self, row: DefenceRow, group: Group, unmatched: bool) -> Evidence:
        cells, leakage, sample = group.finished, group.table("psnr"), group.sample("psnr")
        floor = row.floor or (self.undefended.floor if self.undefended else None)
        gradients = [cell.gradient for cell in cells if cell.gradient is not None]
        return Evidence(
            photos=group.photos,
            seeds=len(cells),
            draws=min(cell.draws for cell in cells),
            random=any(cell.random for cell in cells),
            adaptive=cells[0].adaptive,
            floors=group.floor,
            leakage=leakage,
            floor=_like(leakage, floor.table("psnr") if floor else None),
            black_box=self._best_black_box(row, group, leakage),
            shuffled=_like(leakage, group.table("psnr", "shuffled")),
            groups=sample.groups if sample else None,
            untried=_untried(row, group),
            converged=False if any(cell.converged is False for cell in cells) else None,
            cut_short=any(cell.cut_short for cell in cells) or None,
            overfitted=any(cell.overfitted for cell in cells) or None,
            gradient=min(gradients, key=lambda norm: norm if norm > 0 else -1.0, default=None),  # a NaN is the worst
            cut_off=max((cell.cut_off for cell in cells if cell.cut_off is not None), default=None),
            overlap=max(cell.overlap for cell in cells),
            absent=row.defence.name != UNDEFENDED and all(cell.probe.absent for cell in cells),
            frozen=any(cell.probe.frozen for cell in cells),
            patterns=max(cell.probe.patterns for cell in cells),
            unbounded=any(cell.probe.unbounded for cell in cells),
            refuted=any(cell.refuted for cell in cells),
            talkative=any(cell.talkative for cell in cells),
            unmatched=unmatched,
        )

    def _best_black_box(self, row: DefenceRow, group: Group, leakage: Array | None) -> Array | None:
        """What the best attack without gradients makes of the photos that a white box was tried on."""
        if leakage is None or group.cells[0].attack.knowledge != "WhiteBox":
            return None
        others = [
            _like(leakage, other.table("psnr"))
            for other in row.groups.values()
            if other.threat == group.threat
            and other.cells[0].attack.knowledge in ("BlackBox", "QueryFree")
            and not other.floor
        ]
        shared = [table[:, : leakage.shape[1]] for table in others if table is not None]
        return max(shared, key=lambda table: float(table.mean()), default=None)

    def relative(self, row: DefenceRow, group: Group) -> Interval | None:
        """How much of what the same attack gains over the floor without a defence it still gains, by PSNR."""
        return once(self._relatives, (row.defence.label, group.column), lambda: self._relative(row, group))

    @cached_property
    def _relatives(self) -> dict[tuple[str, str], Interval | None]:
        return {}

    def _relative(self, row: DefenceRow, group: Group) -> Interval | None:
        reference, defended = self.undefended, group.table("psnr")
        if reference is None or row is reference or group.floor or group.column not in reference.groups:
            return None
        undefended = _like(defended, reference.groups[group.column].table("psnr"))
        floor = _like(defended, reference.floor.table("psnr") if reference.floor else None)
        if defended is None or undefended is None or floor is None:
            return None
        sample = group.sample("psnr")
        return relative(defended, undefended, floor, sample.groups if sample else None)

    @cached_property
    def pareto_sets(self) -> Mapping[str, Mapping[str, Membership]]:
        """Under the strongest attack, by metric and the defence's label; empty where settings cannot be compared."""
        return {metric: self._pareto(metric) for metric in SHOWN_METRICS}

    @property
    def pareto(self) -> Mapping[str, Membership]:
        """That of PSNR."""
        return self.pareto_sets[LEAKAGE_METRICS[0]]

    def _pareto(self, metric: str) -> Mapping[str, Membership]:
        settings = {row.defence.label: row.setting(metric) for row in self.rows if not self.at_chance(row)}
        known = {label: setting for label, setting in settings.items() if setting is not None}
        if len(known) < 2 or len({len(setting.utility) for setting in known.values()}) > 1:
            return {}
        return dict(zip(known, zip(*pareto(list(known.values())), strict=True), strict=True))

    def at_chance(self, row: DefenceRow) -> bool:
        """Whether what is left of the utility cannot be told from guessing: such a setting is no choice."""
        return row.utility is not None and self.chance is not None and row.utility.low <= self.chance

    @cached_property
    def chance(self) -> float | None:
        """The utility of guessing."""
        return next((cell.utility.chance for cell in self.finished if cell.utility), None)

    @cached_property
    def utility_name(self) -> str | None:
        """The metric of the task; None where the victim has none."""
        return next((cell.utility.metric for cell in self.finished if cell.utility), None)

    @property
    def photos(self) -> str:
        """How many photos each cell is scored on."""
        counts = sorted({cell.n for cell in self.finished if cell.n is not None})
        return " to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else "0"

    @property
    def people(self) -> int | None:
        """How many there are on all the photos that are scored; None where that was not stored."""
        known = [set(cell.groups[: cell.n]) for cell in self.finished if cell.groups is not None]
        return max(map(len, known), default=None)

    @property
    def sample(self) -> str:
        """What every number rests on, such as ``n = 200 photos of 40 people x 2 seeds``."""
        most = max((cell.n or 0 for cell in self.finished), default=0)
        people = f" of {self.people} people" if self.people is not None and self.people < most else ""
        seeds = f"{len(self.seeds)} seed{'' if len(self.seeds) == 1 else 's'}"
        return f"n = {self.photos} photos{people} x {seeds}{self._measured}"

    @property
    def _measured(self) -> str:
        """On which photos utility was measured, where these are others than the targets."""
        found = (cell.utility for cell in self.finished if cell.utility and cell.utility.groups)
        utility = next((one for one in found if one.part != "target"), None)
        if utility is None or utility.groups is None:
            return ""
        return f"; {utility.metric} on {counted_photos(utility.groups)} that no attack met"

    @property
    def resting(self) -> str:
        """``sample``, and what intervals take for granted where nothing tells who is on the photos."""
        unknown = self.people is None and bool(self.finished)
        return f"{self.sample}{'; photos counted as independent: who is on them was not stored' * unknown}"


def _long(results: Results) -> Iterator[Row]:
    for record in results.cells:
        yield from rows_of(record, results.every_flag.get((record.defence.label, record.column), ()))
    for row in results.rows:
        change = results.utility_lost(row)
        lost = {"utility_difference": change.difference} if change else {}
        for group in row.groups.values():
            if group.finished:
                flags = results.every_flag.get((row.defence.label, group.column), ())
                scores = {**group.every_score, **lost}
                yield from pooled_rows(group.finished[0], flags, scores, group.photos)


def _notes(results: Results) -> Iterator[str]:
    if results.stale:
        yield (
            f"{_cells(results.stale)} stale and left out: computed with other code, data or settings than this "
            "plan's last run began with; run it again"
        )
    if results.damaged:
        yield f"{_cells(results.damaged)} left out: changed by hand, or damaged, after being written; run it again"
    differing = {name: values for name, values in facts_of(results.made).items() if len(values) > 1}
    if differing:
        told = "; ".join(f"{name} {' and '.join(values)}" for name, values in differing.items())
        yield f"not all was computed alike: {told}"


def _cells(records: Sequence[Record]) -> str:
    return f"{len(records)} cell{' is' if len(records) == 1 else 's are'}"


def _like(table: Array | None, other: Array | None) -> Array | None:
    """``other``, where it has the same seeds."""
    return other if table is not None and other is not None and len(table) == len(other) else None


def _members(row: DefenceRow, suite: Group) -> list[Group]:
    """The attacks to which a suite left a tenth of its photos or more; none of a single attack."""
    photos = suite.photos * len(suite.finished)
    choices = [suite.chosen, *map(suite.chosen_for, SHOWN_METRICS)]
    mainly = {label for choice in choices for label, count in choice.items() if count >= CHOSEN * photos}
    return [
        group
        for group in row.groups.values()
        if group.threat == suite.threat and not group.suite and group.cells[0].attack.label in mainly
    ]


def _untried(row: DefenceRow, suite: Group) -> int:
    """Photos of a suite that not all its members tried; 0 of a single attack.

    An attack that tried few photos is a member where a tenth of these were left to it.
    """
    if not suite.suite:
        return 0
    members = [
        group.photos
        for group in row.groups.values()
        if group.threat == suite.threat
        and group.photos
        and suite.chosen.get(group.cells[0].attack.label, 0) >= CHOSEN * group.photos * len(suite.finished)
    ]
    return suite.photos - min(members, default=suite.photos)
