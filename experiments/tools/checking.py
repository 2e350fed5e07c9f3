"""``splitleak check``: contract checks for a user's own file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from splitleak.attacks.base import Attack
from splitleak.attacks.checks import check_attack
from splitleak.defenses.base import Defense
from splitleak.defenses.checks import check_defense
from splitleak.experiments.planning import plugins
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.settings import Settings
from splitleak.victims.tasks.base import Task
from splitleak.victims.tasks.checks import check_task


def check_file(path: Path, console: Console) -> bool:
    """Print one line per plugin of the file; true when all keep their contract.

    Raises:
        InvalidInputError: no such file, or no plugin in it.
    """
    attacks = plugins.in_file(path, Attack)  # type: ignore[type-abstract]
    defenses = plugins.in_file(path, Defense)
    tasks = plugins.in_file(path, Task)  # type: ignore[type-abstract]
    if not attacks and not defenses and not tasks:
        raise InvalidInputError(f"{path} defines no attack, no defence and no task: subclass Attack, Defense or Task")
    results = [_report(cls, check_attack, console) for cls in attacks]
    results += [_report(cls, check_defense, console) for cls in defenses]
    results += [_report(cls, check_task, console) for cls in tasks]
    return all(results)


def _report(cls: type[Settings], check: Callable[[Any], list[str]], console: Console) -> bool:
    problems = check(cls())
    console.print(
        f"{cls.name}: {'keeps its contract' if not problems else f'{len(problems)} broken promises'}",
        highlight=False,
    )
    for problem in problems:
        console.print(f"  - {problem}", markup=False, highlight=False, soft_wrap=True)
    return not problems
