"""Plugins by name: built in, installed by third parties, or in a file."""

import importlib
import inspect
import pkgutil
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from splitleak import attacks, defenses
from splitleak.attacks.base import Attack
from splitleak.attacks.knowledge import QueryFree
from splitleak.defenses.base import Defense
from splitleak.experiments.planning.names import EFFORT, MATCH
from splitleak.experiments.planning.sweeps import PAIRED
from splitleak.victims import tasks
from splitleak.victims.data import sources
from splitleak.victims.data.base import Source
from splitleak.victims.errors import InvalidInputError, unknown
from splitleak.victims.files import load_module
from splitleak.victims.settings import Settings
from splitleak.victims.tasks.base import Task

S = TypeVar("S", bound=Settings)
NOT_PLUGINS = {"base", "checks"}
RESERVED = {PAIRED: "lists that run in step", EFFORT: "a budget of its card"}
"""Keys of a plugin's table in a plan that are no settings, and what they mean."""
RESERVED_IN_DEFENSES = {MATCH: "a strength that is searched"}
"""Further ones, of defences."""


def attack_classes() -> dict[str, type[Attack[QueryFree]]]:
    """Every attack by name."""
    return _discover(attacks, Attack, "splitleak.attacks")  # type: ignore[type-abstract]


def defense_classes() -> dict[str, type[Defense]]:
    """Every defence by name."""
    return _discover(defenses, Defense, "splitleak.defenses")


def source_classes() -> dict[str, type[Source]]:
    """Every kind of data set by name."""
    return _discover(sources, Source, "splitleak.data")  # type: ignore[type-abstract]


def task_classes() -> dict[str, type[Task]]:
    """Every kind of task by name."""
    return _discover(tasks, Task, "splitleak.tasks")  # type: ignore[type-abstract]


def all_classes() -> dict[str, type[Settings]]:
    """Every attack, defence, data set and task by name."""
    return {**task_classes(), **source_classes(), **defense_classes(), **attack_classes()}


def find(kind: str, name: str, known: dict[str, type[S]], base: type[S]) -> type[S]:
    """The plugin called ``name``: a known one, or ``path/to/file.py:Class``.

    Raises:
        InvalidInputError: no such name (near ones are given), or the file holds no such plugin, or a plugin of
            the file's name exists already.
    """
    if ".py" not in name:
        if name not in known:
            raise unknown(kind, name, known)
        return known[name]
    path, _, wanted = name.partition(":")
    offered = {cls.__name__: cls for cls in in_file(Path(path), base)}
    if not wanted and len(offered) == 1:
        wanted = next(iter(offered))
    if wanted not in offered:
        classes = ", ".join(offered) or f"no {kind} at all"
        raise InvalidInputError(f"{name}: name one {kind} of the file, as in {path}:Class; it holds {classes}")
    plugin = offered[wanted]
    if plugin.name in known:
        other = inspect.getfile(known[plugin.name])
        raise InvalidInputError(f"two plugins are called '{plugin.name}': {path} and {other}; rename one class")
    return plugin


def located(name: str, folder: Path) -> str:
    """``file.py:member`` with the file's path from here, where it is none yet from the plan's folder."""
    return name if Path(name.partition(":")[0]).expanduser().is_file() else str(folder / name)


def in_file(path: Path, base: type[S]) -> list[type[S]]:
    """The plugins that a Python file defines.

    Raises:
        InvalidInputError: there is no such file. An error inside it is the author's and keeps its traceback.
    """
    return _defined_in(load_module(path, "plugin file"), base)


def _discover(package: ModuleType, base: type[S], group: str) -> dict[str, type[S]]:
    """Scan a package's modules and an entry-point group; an import error is raised, a clash of names refused.

    A package inside counts as one module: its plugins are those that its ``__init__.py`` has.
    """
    found: dict[str, type[S]] = {}
    classes: list[Any] = []
    for module in pkgutil.iter_modules(package.__path__):
        if module.name not in NOT_PLUGINS:
            classes += _defined_in(importlib.import_module(f"{package.__name__}.{module.name}"), base)
    classes += [_allowed(point.load()) for point in entry_points(group=group)]
    for cls in classes:
        if cls.name in found:
            first, second = inspect.getfile(found[cls.name]), inspect.getfile(cls)
            raise InvalidInputError(f"two plugins are called '{cls.name}': {first} and {second}; rename one class")
        found[cls.name] = cls
    return found


def _defined_in(module: ModuleType, base: type[S]) -> list[type[S]]:
    """The plugins that a module, or a module of the package that it is, defines."""
    return [
        _allowed(member)
        for member in vars(module).values()
        if inspect.isclass(member)
        and issubclass(member, base)
        and f"{member.__module__}.".startswith(f"{module.__name__}.")
        and not inspect.isabstract(member)
        and not member.__name__.startswith("_")
    ]


def _allowed(plugin: type[S]) -> type[S]:
    """Itself.

    Raises:
        InvalidInputError: a setting of it is called as plans call something else.
    """
    reserved = RESERVED | (RESERVED_IN_DEFENSES if issubclass(plugin, Defense) else {})
    for name, meaning in reserved.items():
        if name in getattr(plugin, "__dataclass_fields__", {}):
            file = inspect.getfile(plugin)
            raise InvalidInputError(
                f"{file}: {plugin.__name__} has a setting '{name}', which means {meaning}; rename it"
            )
    return plugin
