"""Defences in order: the settings of one on a curve, and all of them at equal utility."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from splitleak.experiments.judge.statistics.matched import Place, ranking
from splitleak.experiments.planning.names import UNDEFENDED
from splitleak.experiments.results.group import DefenceRow
from splitleak.experiments.results.record import DefenceSetting


@dataclass(frozen=True)
class Family:
    """A defence with all its settings but the strength fixed: one curve, in order of the strength's value."""

    label: str
    rows: tuple[DefenceRow, ...]


@dataclass(frozen=True)
class Ranked:
    """A family's place at equal utility. ``row``: its best affordable setting, None where it has none."""

    family: Family
    row: DefenceRow | None
    place: Place


def families_of(rows: Sequence[DefenceRow]) -> tuple[Family, ...]:
    """The defences but ``none``, one per combination of the settings that are not the strength."""
    members: dict[tuple[str, str], list[DefenceRow]] = {}
    for row in rows:
        if row.defence.name != UNDEFENDED:
            fixed = json.dumps(row.defence.fixed, sort_keys=True, default=str)
            members.setdefault((row.defence.name, fixed), []).append(row)
    every = [settings[0].defence for settings in members.values()]
    return tuple(Family(_label(settings[0].defence, every), _sorted(settings)) for settings in members.values())


def ranked(reference: DefenceRow | None, families: Sequence[Family], metric: str, lost: float) -> tuple[Ranked, ...]:
    """The families by what their best affordable setting leaks under its strongest attack, see ``ranking``.

    Those without an affordable setting come last, those of which none was measured under the seeds of the undefended
    network are left out. Empty where there is nothing to compare with.
    """
    first = reference.setting(metric) if reference else None
    if first is None or first.leakage.shape[1] < 2:
        return ()
    known = []
    for family in families:
        settings = [(row, setting) for row in family.rows if (setting := row.setting(metric))]
        comparable = [(row, setting) for row, setting in settings if len(setting.leakage) == len(first.leakage)]
        if comparable:
            known.append((family, comparable))
    places = ranking(first, [[setting for _, setting in settings] for _, settings in known], lost)
    return tuple(
        Ranked(family, None if place.setting is None else settings[place.setting][0], place)
        for place in places
        for family, settings in [known[place.family]]
    )


def _label(defence: DefenceSetting, others: Sequence[DefenceSetting]) -> str:
    """The name, with the settings in which it differs from its namesakes; the plan's label where nothing is swept."""
    if defence.strength is None:
        return defence.label
    namesakes = [other for other in others if other.name == defence.name]
    differing = [
        f"{name}={value}"
        for name, value in defence.fixed.items()
        if any(other.fixed.get(name) != value for other in namesakes)
    ]
    return " ".join([defence.name, *differing])


def _sorted(rows: Sequence[DefenceRow]) -> tuple[DefenceRow, ...]:
    """By the strength's value; in the order of the plan where the values are not all numbers."""
    if not all(isinstance(row.defence.strength_value, int | float) for row in rows):
        return tuple(rows)
    return tuple(sorted(rows, key=lambda row: float(row.defence.strength_value)))
