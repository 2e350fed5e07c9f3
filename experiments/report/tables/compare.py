"""Two runs side by side: which cells changed beyond noise."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from splitleak.experiments.judge.rules import FALSE_DISCOVERIES
from splitleak.experiments.judge.statistics.different import Change, Sample, beyond_noise, different
from splitleak.experiments.judge.statistics.interval import Array
from splitleak.experiments.report.tables import matrix
from splitleak.experiments.report.tables.table import ABSENT
from splitleak.experiments.report.terminal import Column, Sheet
from splitleak.experiments.results.frame import Scalar
from splitleak.experiments.results.metrics import SHOWN_METRICS
from splitleak.experiments.results.record import Record, Score
from splitleak.experiments.results.results import Results
from splitleak.victims.errors import InvalidInputError

Place = tuple[str, str, int]
"""What a cell is, in any run: its defence, its attack with the threat, its seed."""
Pair = tuple[Record, Record]

UTILITY = "utility"
Verdict = Literal["changed", "within noise", "identical", "too few photos"]
VERDICTS: tuple[Verdict, ...] = ("changed", "within noise", "identical", "too few photos")
People = tuple[int, ...] | None
Pairing = Literal["paired", "different photos", "unknown photos"]


@dataclass(frozen=True)
class Scored:
    """What both runs measured of one setting, values (seeds, n) and (seeds, m) of the seeds that they share.

    ``attack`` is empty for the utility, which no attack changes. ``form``: how the metric is written. ``people``: who
    is on the photos of each, None where not stored.
    """

    defence: str
    attack: str
    metric: str
    form: matrix.Format
    seeds: tuple[int, ...]
    pairing: Pairing
    first: Array
    second: Array
    people: tuple[People, People] = (None, None)

    @property
    def identical(self) -> bool:
        """Whether every value is the same."""
        return np.array_equal(self.first, self.second)

    @property
    def photos(self) -> tuple[int, int]:
        """How many each run scored."""
        return self.first.shape[1], self.second.shape[1]

    def compare(self) -> Change | None:
        """The second less the first; None of a single photo, which tells nothing about noise."""
        if min(self.photos) < 2:
            return None
        first, second = Sample(self.first, self.people[0]), Sample(self.second, self.people[1])
        return different(first, second, self.pairing == "paired")


@dataclass(frozen=True)
class Row:
    """A setting with what became of it. ``change``: None of too few photos; ``adjusted``: the p-value among all."""

    scored: Scored
    verdict: Verdict
    change: Change | None = None
    adjusted: float | None = None

    @property
    def size(self) -> float:
        """Of the change, whatever its direction."""
        return abs(self.change.difference.mean) if self.change else 0.0


@dataclass(frozen=True)
class Comparison:
    """``rows``: changed ones first, the largest of each metric on top. ``unmatched``: cells that were not compared,
    by reason. ``warnings``: what makes the two runs two different things."""

    rows: tuple[Row, ...]
    unmatched: dict[str, list[Place]]
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, first: Results, second: Results) -> "Comparison":
        """Compare two runs.

        Runs of different victims are compared too, with a warning: what another cut or size does to the leakage is
        a question that one may ask.

        Raises:
            InvalidInputError: nothing to compare.
        """
        before, after = _places(first), _places(second)
        shared = [(cell, after[place]) for place, cell in before.items() if place in after]
        pairs = [pair for pair in shared if all(cell.ok for cell in pair)]
        if not pairs:
            raise InvalidInputError(_nothing_shared(first, second, len(shared)))
        unmatched = {
            "only in first": [place for place in before if place not in after],
            "only in second": [place for place in after if place not in before],
            "failed in first": [_place(cell) for cell, _ in shared if not cell.ok],
            "failed in second": [_place(cell) for _, cell in shared if not cell.ok],
        }
        return cls(_rows([*_scored(pairs)]), unmatched, tuple(_warnings(first, second, pairs)))

    @property
    def changed(self) -> tuple[Row, ...]:
        """Those beyond noise."""
        return tuple(row for row in self.rows if row.verdict == "changed")

    @property
    def summary(self) -> list[str]:
        """What the table does not show, a line each."""
        counts = Counter(row.verdict for row in self.rows)
        shown = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if verdict in {*counts, "changed"})
        lines = [f"{len(self.rows)} comparisons: {shown}"]
        unpaired = Counter(row.scored.pairing for row in self.rows if row.scored.pairing != "paired")
        lines += [f"{count} of them unpaired: {pairing}" for pairing, count in unpaired.items()]
        lines += _unseen(self.rows)
        return [*lines, *(f"{reason}: {_counted(places)}" for reason, places in self.unmatched.items() if places)]

    def csv_rows(self) -> Iterator[dict[str, Scalar]]:
        """A flat row per comparison, then one per cell that has no counterpart; shares are in [0, 1]."""
        for row in self.rows:
            scored, result = row.scored, row.change
            flat: dict[str, Scalar] = {"defence": scored.defence, "attack": scored.attack, "metric": scored.metric}
            flat |= {"seeds": " ".join(map(str, scored.seeds)), "verdict": row.verdict, "pairing": scored.pairing}
            flat |= {"n_first": scored.photos[0], "n_second": scored.photos[1]}
            first, second = (float(values.mean()) for values in (scored.first, scored.second))
            flat |= {"first": first, "second": second, "difference": second - first}
            if result:
                flat |= {"low": result.difference.low, "high": result.difference.high}
                flat |= {"p": result.p, "p_adjusted": row.adjusted, "could_be_seen": result.seen}
            yield flat
        for reason, places in self.unmatched.items():
            for defence, attack, seed in places:
                yield {"defence": defence, "attack": attack, "seeds": str(seed), "verdict": reason}


def _place(cell: Record) -> Place:
    return cell.defence.label, cell.column, cell.seed


def _places(results: Results) -> dict[Place, Record]:
    return {_place(cell): cell for cell in results.cells}


def _nothing_shared(first: Results, second: Results, shared: int) -> str:
    for name, results in (("first", first), ("second", second)):
        if not results.finished:
            return f"the {name} run has no finished cell to compare; finish it with splitleak run"
    if shared:
        return f"the runs share {shared} cells, of which none is finished in both; try --retry failed"
    examples = " and ".join(_title(_place(results.finished[0])) for results in (first, second))
    return f"the runs share no defence, attack and seed ({examples}); compare runs of plans that do"


def _scored(pairs: Sequence[Pair]) -> Iterator[Scored]:
    """Every metric of every setting, then the utility of every defence."""
    settings: dict[tuple[str, str], list[Pair]] = {}
    defences: dict[str, dict[int, Pair]] = {}
    for pair in pairs:
        defence, attack, seed = _place(pair[0])
        settings.setdefault((defence, attack), []).append(pair)
        defences.setdefault(defence, {}).setdefault(seed, pair)
    for metric in SHOWN_METRICS:
        for (defence, attack), group in settings.items():
            yield from _measured(defence, attack, metric, group)
    for defence, by_seed in defences.items():
        yield from _measured(defence, "", UTILITY, [by_seed[seed] for seed in sorted(by_seed)])


def _measured(defence: str, attack: str, metric: str, pairs: Sequence[Pair]) -> Iterator[Scored]:
    """One entry of the seeds in which both runs measured it, none if there are none."""
    known = [pair for pair in pairs if all(_score(cell, metric) for cell in pair)]
    if metric == UTILITY:  # of another task it is another thing
        known = [pair for pair in known if pair[0].victim.task == pair[1].victim.task]
    if known:
        runs = [[(cell, _score(cell, metric)) for cell in cells] for cells in zip(*known, strict=True)]
        first, second = (_table([score for _, score in run]) for run in runs)
        people = tuple(cell.people(score) if score else None for (cell, score), *_ in runs)
        seeds = tuple(cell.seed for cell, _ in known)
        pairing = _pairing(metric, known, first.shape == second.shape)
        form = _form(metric, known[0][0])
        yield Scored(defence, attack, metric, form, seeds, pairing, first, second, (people[0], people[1]))


def _score(cell: Record, metric: str) -> Score | None:
    return cell.utility if metric == UTILITY else cell.metrics.get(metric)


def _form(metric: str, cell: Record) -> matrix.Format:
    if metric == UTILITY and cell.utility:
        return matrix.Format(cell.utility.metric, " %", 1, 100)
    return matrix.FORMATS[metric]


def _table(scores: Sequence[Score | None]) -> Array:
    rows = [score.values for score in scores if score]
    if len({len(row) for row in rows}) > 1:
        raise InvalidInputError(
            "a run's seeds were scored on different numbers of photos; finish it with splitleak run"
        )
    return np.array(rows, dtype=float)


def _pairing(metric: str, pairs: Sequence[Pair], same_shape: bool) -> Pairing:
    """Values stand photo by photo where both runs scored as many of the same photos."""
    cells = [cell for pair in pairs for cell in pair]
    scored = {_photos(cell, metric) for cell in cells}
    if any(photos is None for photos, _ in scored):
        return "unknown photos"
    return "paired" if len(scored) == 1 and same_shape else "different photos"


def _photos(cell: Record, metric: str) -> tuple[str | None, int | None]:
    """A digest of the photos on which it was measured, and how many of them."""
    if metric == UTILITY and cell.utility:  # of all photos of its part, however many an attack answered for
        return cell.utility.photos or cell.targets, None
    return cell.targets, cell.n


def _rows(scored: Sequence[Scored]) -> tuple[Row, ...]:
    changes = [None if one.identical else one.compare() for one in scored]
    adjusted, real = beyond_noise([result.p for result in changes if result])
    judged = iter(zip(adjusted.tolist(), real.tolist(), strict=True))
    rows = []
    for one, result in zip(scored, changes, strict=True):
        if result:
            p, changed = next(judged)
            rows.append(Row(one, "changed" if changed else "within noise", result, p))
        else:
            rows.append(Row(one, "identical" if one.identical else "too few photos"))
    metrics = (*SHOWN_METRICS, UTILITY)
    return tuple(
        sorted(rows, key=lambda row: (VERDICTS.index(row.verdict), metrics.index(row.scored.metric), -row.size))
    )


def _unseen(rows: Sequence[Row]) -> Iterator[str]:
    """Of each metric how large a change would have been seen where none was."""
    found: dict[matrix.Format, list[float]] = {}
    for row in rows:
        if row.verdict == "within noise" and row.change:
            found.setdefault(row.scored.form, []).append(row.change.seen)
    for form, seen in found.items():
        yield f"within noise: a change of {form.name} by {form.bare(max(seen))}{form.unit} would have been seen"


def _warnings(first: Results, second: Results, pairs: Sequence[Pair]) -> Iterator[str]:
    victims = [dict(cell.victim) for cell in pairs[0]]
    differing = [
        f"{name} {value} | {victims[1][name]}" for name, value in victims[0].items() if value != victims[1][name]
    ]
    if differing:
        yield f"DIFFERENT VICTIMS, first | second: {', '.join(differing)}"
    changed = [_place(one) for one, two in pairs if _settings(one) != _settings(two)]
    if changed:
        yield f"SAME NAME, OTHER SETTINGS: {_counted(changed)}"
    for name, results in (("first", first), ("second", second)):
        if results.missing:
            yield f"not run yet in {name}: {_cells(len(results.missing))}"
        yield from (f"{name}: {note}" for note in results.notes)


def _settings(cell: Record) -> tuple[dict[str, Any], dict[str, Any]]:
    """All of them: a label names only those that a plan states."""
    return cell.defence.settings, cell.attack.settings


def _title(place: Place) -> str:
    defence, attack, seed = place
    return f"{defence} x {attack}, seed {seed}"


def _counted(places: Sequence[Place]) -> str:
    return f"{_cells(len(places))}, such as {_title(places[0])}"


def _cells(count: int) -> str:
    return f"{count} cell{'s' if count > 1 else ''}"


def terminal_table(comparison: Comparison) -> Sheet:
    """The changes."""
    columns = [
        Column("defence"),
        Column("attack"),
        Column("metric"),
        *(Column(name, right=True) for name in ("first", "second", "change", "p", "photos")),
    ]
    return Sheet(columns, map(line, comparison.changed), caption=caption(comparison))


def line(row: Row) -> tuple[str, ...]:
    """A change as text."""
    scored, form = row.scored, row.scored.form
    assert row.change is not None
    assert row.adjusted is not None
    before, after = scored.photos
    seeds = f"x {len(scored.seeds)} seed{'s' if len(scored.seeds) > 1 else ''}"
    return (
        scored.defence,
        scored.attack or ABSENT,
        f"{form.name} ({form.unit.strip()})" if form.unit else form.name,
        *(form.bare(float(values.mean())) for values in (scored.first, scored.second)),
        _signed(row.change, form),
        "<0.001" if row.adjusted < 0.001 else f"{row.adjusted:.3f}",
        f"{before} {seeds}" if scored.pairing == "paired" else f"{before} | {after} {seeds}, unpaired",
    )


def _signed(result: Change, form: matrix.Format) -> str:
    """Such as ``+0.30 [+0.21, +0.39]``, with two digits of a change however small it is."""
    size = abs(form.scale * result.difference.mean)
    places = max(form.decimals, 1 - math.floor(math.log10(size)) if size else 0)
    mean, low, high = (f"{form.scale * value:+.{places}f}" for value in result.difference)
    return f"{mean} [{low}, {high}]"


def caption(comparison: Comparison) -> str:
    """What the numbers of the table are."""
    tested = sum(row.change is not None for row in comparison.rows)
    single = any(len(row.scored.seeds) == 1 for row in comparison.changed)
    unpaired = any(row.scored.pairing != "paired" for row in comparison.changed)
    return " ".join(
        [
            "Change: second less first, with its 95 % interval over people and seeds.",
            f"p: adjusted for {tested} comparisons, so that {100 * FALSE_DISCOVERIES:g} % of the changes shown, or",
            "fewer, are expected to be noise.",
            *(["With one seed, what another seed would have given counts as a change."] if single else []),
            *(["Photos that are not the same, or not known to be, are compared unpaired."] if unpaired else []),
        ]
    )
