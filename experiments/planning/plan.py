"""A plan: the TOML file that says which matrix to run."""

import itertools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from annotated_types import Ge, MinLen

from splitleak.attacks.base import Attack, Reconstruction
from splitleak.attacks.knowledge import QueryFree
from splitleak.defenses.base import Defense
from splitleak.experiments.planning import plugins
from splitleak.experiments.planning.cards import STANDARD, Effort
from splitleak.experiments.planning.efforts import Efforts, Spent
from splitleak.experiments.planning.found import Found
from splitleak.experiments.planning.match import asked_of, asking, coarse
from splitleak.experiments.planning.names import EFFORT, FLOOR, MATCH, UNDEFENDED
from splitleak.experiments.planning.sweeps import check_not_empty, in_step
from splitleak.experiments.planning.tables import AttackerTable, DefenderTable, JudgeTable, PartsTable, VictimTable
from splitleak.experiments.planning.tasks import own_task, task_for
from splitleak.experiments.planning.threat import Threat
from splitleak.victims.data.base import Source
from splitleak.victims.data.parts import PartSizes
from splitleak.victims.errors import InvalidInputError, unknown
from splitleak.victims.models import in_file
from splitleak.victims.settings import Settings, validated
from splitleak.victims.tasks.base import Task

P = TypeVar("P", bound=Settings, covariant=True)


@dataclass(frozen=True)
class Entry(Generic[P]):
    """One setting of one plugin, and how the plan's reader calls it.

    ``effort``: of an attack whose budget the plan names. ``note``: one line that the plan's reader should know.
    ``match``: of a defence, the accuracy that it may lose, where its strength is searched for that. Until it is
    ``found``, the plugin has the weakest of its strengths.
    """

    plugin: P
    label: str
    effort: Effort | None = None
    note: str | None = None
    match: float | None = None
    found: Found | None = None

    def settled(self, found: Found) -> "Entry[P]":
        """With what was found: at that strength, which its label tells, or without one."""
        if found.strength is None or found.value is None:
            return replace(self, found=found)
        plugin = replace(self.plugin, **{found.strength: found.value})
        return replace(self, plugin=plugin, label=f"{self.label} {found.strength}={found.value}", found=found)


@dataclass(frozen=True)
class Plan:
    """A checked plan. ``text`` is the file's, for the run's records; relative Python files begin at ``folder``.

    ``own_task``: the victim's, where the plan names one in a file.
    """

    name: str
    seeds: tuple[int, ...]
    victim: VictimTable
    source: Source
    parts: PartsTable
    defender: DefenderTable
    attacker: AttackerTable
    judge: JudgeTable
    defenses: tuple[Entry[Defense], ...]
    attacks: tuple[Entry[Attack[QueryFree]], ...]
    text: str
    folder: Path
    own_task: Task | None = None

    @property
    def label(self) -> str | None:
        """Of the data, which the victim predicts; None without a task."""
        return self.own_task.label if self.own_task else self.victim.task

    @cached_property
    def task(self) -> Task | None:
        """How that is predicted; asks the data what form the label has.

        Raises:
            InvalidInputError: there is no such label, or none that predicts it.
        """
        return task_for(self.label, self.own_task, self.source.catalog()) if self.label else None

    @property
    def model(self) -> str:
        """The victim's network as every process finds it, wherever it runs."""
        if not in_file(self.victim.model):
            return self.victim.model
        path, colon, function = plugins.located(self.victim.model, self.folder).partition(":")
        return f"{Path(path).expanduser().resolve()}{colon}{function}"

    @property
    def threats(self) -> tuple[Threat, ...]:
        """Every combination of what ``[attacker]`` lists."""
        table = self.attacker
        axes = itertools.product(
            dict.fromkeys(table.adaptive), dict.fromkeys(table.sends), dict.fromkeys(table.photos)
        )
        return tuple(Threat(adaptive, sends, table.queries, photos) for adaptive, sends, photos in axes)

    def settled(self, found: Mapping[str, Found]) -> "Plan":
        """With strengths that were searched, by the label of the defence."""
        return replace(
            self,
            defenses=tuple(
                entry.settled(found[entry.label]) if entry.label in found else entry for entry in self.defenses
            ),
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What its reader should know before it runs, a line each."""
        told = [entry.note for entry in self.attacks if entry.note]
        if any(entry.match for entry in self.defenses):
            told += coarse(self.parts.validation)
        return tuple(dict.fromkeys(told))

    @property
    def part_sizes(self) -> PartSizes:
        """Of all parts."""
        parts = self.parts
        return PartSizes(
            parts.train,
            self.attacker.auxiliary,
            parts.validation,
            parts.target,
            parts.test,
            parts.photos_per_person,
        )


@dataclass(frozen=True)
class _Seeds(Settings):
    name: ClassVar[str] = "plan"

    seeds: Annotated[list[Annotated[int, Ge(0)]], MinLen(1)]


TABLES = ("victim", "parts", "defender", "attacker", "judge")
# abstract bases, which only serve to recognise plugins
_ATTACK: type[Attack[QueryFree]] = Attack  # type: ignore[type-abstract]
_SOURCE: type[Source] = Source  # type: ignore[type-abstract]


def read_plan(path: Path, name: str | None = None) -> Plan:
    """Read and check a plan file; relative Python files are looked for from the plan's folder too.

    ``name``: of a plan that does not say its own; by default the file's.

    Raises:
        InvalidInputError: no file, no TOML, an unknown name or key, a value of a wrong type or out of range.
    """
    tables, text = read_tables(path)
    return parse_plan(tables, text, path.parent, name or path.stem)


def read_tables(path: Path) -> tuple[dict[str, Any], str]:
    """A plan file's tables, not yet checked, and its text.

    Raises:
        InvalidInputError: no file, or no TOML.
    """
    if not path.is_file():
        raise InvalidInputError(f"no plan at {path.absolute()}")
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows put a byte order mark in front
        return tomllib.loads(text), text
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} is no TOML: {error}") from None


def parse_plan(tables: Mapping[str, Any], text: str, folder: Path, name: str) -> Plan:
    """Check a plan's tables; ``folder`` and ``name`` are the file's. Raises as ``read_plan`` does."""
    known = {"name", "seeds", MATCH, "defenses", "attacks", *TABLES}
    for key in tables:
        if key not in known:
            raise unknown("key of the plan:", key, known)
    seeds = validated(_Seeds, {"seeds": tables.get("seeds", [0])})["seeds"]
    name = checked_name(tables.get("name", name))
    defenses = _entries(asking(tables), "defenses", "defence", plugins.defense_classes(), Defense, folder)
    if not any(entry.plugin.name == UNDEFENDED for entry in defenses):
        defenses = (*_entry({"name": UNDEFENDED}, "defence", plugins.defense_classes(), Defense, folder), *defenses)
    attacker = AttackerTable.from_mapping(table_of(tables, "attacker"))
    efforts = Efforts(attacker.effort, attacker.auxiliary * (1 + attacker.mirror))
    attacks = _entries(tables, "attacks", "attack", plugins.attack_classes(), _ATTACK, folder, efforts)
    rebuilds = any(isinstance(entry.plugin, Reconstruction) for entry in attacks)
    if rebuilds and not any(entry.plugin.floor for entry in attacks):
        attacks = (*_entry({"name": FLOOR}, "attack", plugins.attack_classes(), _ATTACK, folder), *attacks)
    victim = VictimTable.from_mapping(table_of(tables, "victim"))
    if victim.task is None and any(entry.match for entry in defenses):
        raise InvalidInputError(
            f"'{MATCH}' says how much accuracy may be lost, so it needs a task: set victim.task, such as \"mask\""
        )
    return Plan(
        name=name,
        seeds=tuple(dict.fromkeys(seeds)),
        victim=victim,
        source=parse_source(victim.data, folder),
        parts=PartsTable.from_mapping(table_of(tables, "parts")),
        defender=DefenderTable.from_mapping(table_of(tables, "defender")),
        attacker=attacker,
        judge=JudgeTable.from_mapping(table_of(tables, "judge")),
        defenses=defenses,
        attacks=attacks,
        text=text,
        folder=folder,
        own_task=own_task(victim.task, folder),
    )


def checked_name(name: Any) -> str:
    """A plan's name.

    Raises:
        InvalidInputError: it is no name for a folder.
    """
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name):
        raise InvalidInputError(f"plan.name = {name!r}: it names a folder; use letters, digits, '_', '-', '.'")
    return name


def folder_name(*facts: str) -> str:
    """Facts in a form that every file system takes."""
    return "-".join(re.sub(r"\W+", "_", fact).strip("_") for fact in facts)


def table_of(tables: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """One of a plan's tables, empty where it is not there.

    Raises:
        InvalidInputError: it is no table.
    """
    table = tables.get(key, {})
    if not isinstance(table, dict):
        raise InvalidInputError(f"{key} = {table!r}: should be a table, [{key}]")
    return table


def parse_source(data: str | dict[str, Any], folder: Path) -> Source:
    """What ``[victim]`` says of its data as a data set; raises as ``read_plan`` does."""
    settings = {"name": data} if isinstance(data, str) else dict(data)
    entry = _entry(settings, "data set", plugins.source_classes(), _SOURCE, folder)
    if len(entry) != 1:
        raise InvalidInputError("victim.data: a plan has one data set; write one plan for each")
    return entry[0].plugin


def _entries(
    tables: Mapping[str, Any],
    key: str,
    kind: str,
    known: dict[str, type[P]],
    base: type[P],
    folder: Path,
    efforts: Efforts | None = None,
) -> tuple[Entry[P], ...]:
    listed = tables.get(key)
    if not isinstance(listed, list) or not listed or not all(isinstance(item, dict) for item in listed):
        raise InvalidInputError(f"the plan needs at least one [[{key}]] table with a name")
    entries = [entry for item in listed for entry in _entry(item, kind, known, base, folder, efforts)]
    distinct: dict[tuple[P, float | None], Entry[P]] = {}
    for entry in entries:
        distinct.setdefault((entry.plugin, entry.match), entry)
    return tuple(distinct.values())


def _entry(
    settings: Mapping[str, Any],
    kind: str,
    known: dict[str, type[P]],
    base: type[P],
    folder: Path,
    efforts: Efforts | None = None,
) -> tuple[Entry[P], ...]:
    """One table's plugin at each combination of its listed values, those in step taken together.

    ``efforts``: of attacks, whose tables may name one.
    """
    name = settings.get("name")
    if not isinstance(name, str):
        raise InvalidInputError(f'a {kind} needs name = "..."; known: {", ".join(sorted(known))}')
    plugin = plugins.find(kind, plugins.located(name, folder) if ".py" in name else name, known, base)
    entries: list[Entry[P]] = []
    for table in in_step({key: value for key, value in settings.items() if key != "name"}, plugin.name):
        check_not_empty(table, plugin.name)
        sweeps = [_choices(key, value, kind, known, base, folder) for key, value in table.items()]
        for choice in itertools.product(*sweeps):
            given = {key: value for key, (value, _) in zip(table, choice, strict=True)}
            asked = asked_of(plugin, given)
            spent = _spent(plugin, asked.settings, efforts)
            said = [plugin.name, *(text for _, text in choice)]
            if spent.effort not in (None, STANDARD) and EFFORT not in given:
                said.append(f"{EFFORT}={spent.effort}")
            made = plugin.from_mapping(spent.settings)
            entries.append(Entry(made, " ".join(said), spent.effort, spent.lacks, asked.match, asked.found))
    return tuple(entries)


def _spent(plugin: type[Settings], given: Mapping[str, Any], efforts: Efforts | None) -> Spent:
    return efforts.spent(plugin, given) if efforts and issubclass(plugin, Attack) else Spent(given)


def _choices(
    key: str, value: Any, kind: str, known: dict[str, type[P]], base: type[P], folder: Path
) -> list[tuple[Any, str]]:
    """The values that a key of a plugin's table stands for, and how a label calls each.

    A list sweeps; a list of tables is a single value, plugins in their order, unless one of these sweeps.
    """
    if not isinstance(value, list):
        return [(value, f"{key}={value}")]
    if not all(isinstance(item, dict) for item in value):
        return [(one, f"{key}={one}") for one in value]
    parts = [_entry(item, kind, known, base, folder) for item in value]
    if any(entry.match for part in parts for entry in part):
        raise InvalidInputError(f"{key}: '{MATCH}' stands in a part; what is made of parts has no strength to search")
    return [
        (tuple(entry.plugin for entry in entries), " + ".join(entry.label for entry in entries))
        for entries in itertools.product(*parts)
    ]
