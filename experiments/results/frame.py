"""The long table of a run: every fact of every cell in a row of its own. CSV, LaTeX, pages and trackers read it."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from splitleak.experiments.judge.statistics.interval import Interval, exposed
from splitleak.experiments.results.metrics import EXPOSED, LEAKAGE_METRICS
from splitleak.experiments.results.record import Record

Scalar = str | int | float | bool | None


class Row(NamedTuple):
    """One fact of one cell; or, of the seeds of a setting together, one score: ``seed`` is None there, ``id`` empty.

    The fields before ``measure`` say of which cell; settings are JSON. ``column``: the attack with its threat.
    ``low`` and ``high``: ends of the 95 % interval of a mean over photos (and seeds), None of what is no such mean.
    """

    id: str
    key: str
    status: str
    plan: str
    seed: int | None
    adaptive: bool
    sends: int
    photos: str
    victim_model: str
    victim_cut: str
    victim_data: str
    victim_size: int
    victim_task: str | None
    defence: str
    defence_label: str
    strength: str | None
    strength_value: Scalar
    defence_settings: str
    attack_settings: str
    attack: str
    attack_label: str
    column: str
    effort: str | None
    knowledge: str
    floor: bool
    n: int | None
    budget_queries: int | None
    budget_photos: int | None
    budget_epochs: int | None
    budget_patience: int | None
    flags: str
    measure: str
    value: Scalar
    low: float | None = None
    high: float | None = None


FACTS = Row._fields[: Row._fields.index("measure")]
"""The fields that say of which cell a row is."""
NO_SETTINGS = ("id", "key", "status", "n", "flags")
"""Of these, what is no setting of a plan."""
SETTINGS = tuple(name for name in FACTS if name not in NO_SETTINGS)
"""What is known of a cell before anything is measured."""


def rows_of(record: Record, flags: Iterable[str] = ()) -> Iterator[Row]:
    """Of one cell; what was not measured has no row. ``flags``: those of its defence under its attack."""
    facts = _facts(record, " ".join(flags))
    for measure, value in _measures(record):
        if isinstance(value, Interval):
            yield Row(**facts, measure=measure, value=value.mean, low=value.low, high=value.high)
        else:
            yield Row(**facts, measure=measure, value=value)


def wide(rows: Iterable[Row]) -> list[dict[str, Scalar]]:
    """One flat row for each cell, in their order; a mean has the columns NAME_mean, NAME_low and NAME_high."""
    cells: dict[str, dict[str, Scalar]] = {}
    for row in rows:
        if row.seed is None:
            continue
        cell = cells.setdefault(row.id, {name: getattr(row, name) for name in FACTS})
        if row.low is None:
            cell[row.measure] = row.value
        else:
            cell |= {f"{row.measure}_mean": row.value, f"{row.measure}_low": row.low, f"{row.measure}_high": row.high}
    return list(cells.values())


def measured(row: Mapping[str, Scalar]) -> dict[str, float]:
    """The numbers of a ``wide`` row that are no settings, where they are finite."""
    return {
        name: float(value)
        for name, value in row.items()
        if name not in SETTINGS
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    }


def pooled(rows: Iterable[Row]) -> dict[tuple[str, str], dict[str, Interval]]:
    """Every score over all seeds by its measure, for each label of a defence and column of an attack."""
    found: dict[tuple[str, str], dict[str, Interval]] = {}
    for row in rows:
        if row.seed is None and isinstance(row.value, float) and row.low is not None and row.high is not None:
            place = found.setdefault((row.defence_label, row.column), {})
            place[row.measure] = Interval(row.value, row.low, row.high)
    return found


def pooled_rows(record: Record, flags: Iterable[str], scores: Mapping[str, Interval], photos: int) -> Iterator[Row]:
    """Scores of the seeds of a setting together; ``record``: of one of them."""
    facts = {**_facts(record, " ".join(flags)), "id": "", "key": "", "seed": None, "n": photos}
    for measure, score in scores.items():
        yield Row(**facts, measure=measure, value=score.mean, low=score.low, high=score.high)


def _facts(record: Record, flags: str) -> dict[str, Any]:
    defence, attack = record.defence, record.attack
    return {
        **{
            name: getattr(record, name)
            for name in ("id", "key", "status", "plan", "seed", "adaptive", "sends", "photos", "n")
        },
        **{f"victim_{name}": value for name, value in record.victim},
        **{f"budget_{name}": value for name, value in record.budget},
        "defence": defence.name,
        "defence_label": defence.label,
        "strength": defence.strength,
        "strength_value": defence.strength_value,
        "defence_settings": json.dumps(defence.settings),
        "attack_settings": json.dumps(attack.settings),
        "attack": attack.name,
        "attack_label": attack.label,
        "column": record.column,
        "effort": attack.effort,
        "knowledge": attack.knowledge,
        "floor": attack.floor,
        "flags": flags,
    }


def _measures(record: Record) -> Iterator[tuple[str, Scalar | Interval]]:
    yield "targets", record.targets
    yield "people", None if record.groups is None or record.n is None else len(set(record.groups[: record.n]))
    yield from _scores(record)
    if record.utility:
        utility = record.utility
        yield "utility_metric", utility.metric
        yield "utility_n", len(utility.values)
        yield "utility_people", None if utility.groups is None else len(set(utility.groups))
        yield "utility", Interval(utility.mean, utility.low, utility.high)
        yield "utility_chance", utility.chance
        for name, value in utility.also.items():
            yield f"utility_{name.replace(' ', '_')}", value
    yield "bytes", record.bytes
    if record.edge:
        yield from ((f"edge_{name}", value) for name, value in record.edge)
    if record.ok:
        for protects in ("training", "query"):
            epsilon, delta = record.epsilon(protects)
            yield from ((f"{protects}_epsilon", epsilon), (f"{protects}_delta", delta))
    yield from ((name, getattr(record, name)) for name in ("noise_std", "information", "queries", "draws"))
    yield "query_epsilon_at_least", record.probe.epsilon_at_least
    if record.bounds:
        yield from asdict(record.bounds).items()
    if record.seconds:
        yield from ((f"seconds_{name}", value) for name, value in record.seconds)
    yield from ((f"version_{name}", version) for name, version in record.versions.items())
    yield "finished", record.finished
    yield "error", record.why or None


def _scores(record: Record) -> Iterator[tuple[str, Scalar | Interval]]:
    """With what they are to be compared with, of controls, and of the oracle."""
    for name in LEAKAGE_METRICS:
        if name in record.metrics:
            yield f"{name}{EXPOSED}", exposed(record.metrics[name].values)
    groups = {"": record.metrics, "oracle_": record.oracle}
    groups |= {f"{control}_": scores for control, scores in record.controls.items()}
    for prefix, scores in groups.items():
        for name, score in scores.items():
            yield f"{prefix}{name}", Interval(score.mean, score.low, score.high)
    for name, references in record.references.items():
        yield from ((f"{name}_{reference}", value) for reference, value in references.items())
