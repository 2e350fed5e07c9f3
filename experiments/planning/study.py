"""A plan for several victims, which becomes one plan for each."""

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import tomli_w

from splitleak.experiments.planning.plan import (
    TABLES,
    Plan,
    checked_name,
    folder_name,
    parse_plan,
    read_tables,
    table_of,
)
from splitleak.experiments.planning.sweeps import PAIRED, check_not_empty, in_step
from splitleak.experiments.planning.tables import VictimTable
from splitleak.victims.cuts import Cut, split
from splitleak.victims.errors import InvalidInputError, unknown
from splitleak.victims.models import CLASSES_WITHOUT_TASK, make_network

VICTIMS, SHARED = "victims", "victim"
"""The tables of the single victims, and of what they have in common."""
OWN = tuple(name for name in TABLES if name != SHARED)
"""Tables that a victim may have for itself: what they say goes before what the plan says."""
FURTHER = ("defenses", "attacks")
"""Lists that a victim may have for itself: they are added to the plan's."""


@dataclass(frozen=True)
class Study:
    """The plans that a file stands for: one for each of its victims, by the name that its reader calls that.

    ``single``: the file has one victim, and the plan is the file's own.
    """

    name: str
    plans: Mapping[str, Plan]
    text: str
    single: bool

    def only(self, labels: Collection[str]) -> "Study":
        """The same with these victims alone.

        Raises:
            InvalidInputError: there is no such victim.
        """
        for label in labels:
            if label not in self.plans:
                raise unknown("victim of the plan:", label, self.plans)
        return replace(self, plans={label: plan for label, plan in self.plans.items() if label in labels})


def read_study(path: Path) -> Study:
    """Read and check a plan file; ``[[victims]]`` each get a plan of their own, named PLAN.VICTIM.

    A victim takes over what ``[victim]`` says; where it lists values it becomes several, one for each combination, or
    for each place in the lists of ``paired``.
    Beside a victim's settings its table may hold a name, tables such as ``parts`` that go before the plan's, and
    ``defenses`` and ``attacks`` that are added to the plan's.

    Raises:
        InvalidInputError: as ``read_plan`` does, or two victims have one name.
    """
    tables, text = read_tables(path)
    name = checked_name(tables.get("name", path.stem))
    if VICTIMS not in tables:
        return Study(name, {name: parse_plan(tables, text, path.parent, name)}, text, single=True)
    listed = tables.pop(VICTIMS)
    if not isinstance(listed, list) or not listed or not all(isinstance(entry, dict) for entry in listed):
        raise InvalidInputError("victims: should be one or more [[victims]] tables")
    found = [pair for entry in listed for pair in _victims(tables, entry)]
    label, count = Counter(label for label, _ in found).most_common(1)[0]
    if count > 1:
        raise InvalidInputError(f"{count} victims are called '{label}': give each of them a name")
    return Study(name, {label: _plan(one, f"{name}.{label}", path) for label, one in found}, text, single=False)


def cut_of(plan: Plan) -> Cut:
    """Where its network is split."""
    victim = plan.victim
    network = make_network(plan.model, CLASSES_WITHOUT_TASK, victim.size)
    return split(network, victim.model, victim.cut, victim.size).cut


def _victims(tables: Mapping[str, Any], entry: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The victims that one table stands for: their names, and the tables of a plan for each."""
    settings = [field.name for field in fields(VictimTable)]
    known = ["name", PAIRED, *settings, *OWN, *FURTHER]
    for key in entry:
        if key not in known:
            raise unknown("setting of a victim:", key, known)
    kept = {key: value for key, value in tables.items() if key != SHARED}
    kept |= {key: {**table_of(tables, key), **table_of(entry, key)} for key in OWN if key in entry}
    kept |= {key: [*_list(tables, key), *_list(entry, key)] for key in FURTHER if key in entry}
    for table in in_step(entry, VICTIMS):
        paired = entry.get(PAIRED, {})
        for key in paired:
            if key not in settings:
                raise unknown("setting of a victim that runs in step:", key, settings)
        own = {key: table[key] for key in settings if key in table}
        check_not_empty(own, VICTIMS)
        swept = {key: values for key, values in own.items() if isinstance(values, list)}
        several = [key for key in own if key in swept or key in paired]
        for values in itertools.product(*swept.values()):
            victim = {**table_of(tables, SHARED), **own, **dict(zip(swept, values, strict=True))}
            yield _label(entry, victim, several), {**kept, SHARED: victim}


def _list(tables: Mapping[str, Any], key: str) -> list[Any]:
    listed = tables.get(key, [])
    if not isinstance(listed, list):
        raise InvalidInputError(f"{key} = {listed!r}: should be a list of tables, each with a name")
    return listed


def _label(entry: Mapping[str, Any], victim: Mapping[str, Any], swept: Collection[str]) -> str:
    """Its name, else its network; then the values by which it is one of several."""
    first = entry.get("name", victim.get("model", VictimTable.model))
    return folder_name(str(first), *(str(victim[key]) for key in swept if key != "model" or "name" in entry))


def _plan(tables: Mapping[str, Any], name: str, path: Path) -> Plan:
    tables = {"name": name, **{key: value for key, value in tables.items() if key != "name"}}
    text = f"# One victim of {path.name}.\n{tomli_w.dumps(tables)}"
    return parse_plan(tables, text, path.parent, name)
