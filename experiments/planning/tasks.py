"""The task of a plan: a label of the data, whose form says what is predicted, or a task in a file."""

from pathlib import Path

from splitleak.experiments.planning import plugins
from splitleak.victims.data.base import Catalog
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.tasks.base import Task

_TASK: type[Task] = Task  # type: ignore[type-abstract]


def own_task(named: str | None, folder: Path) -> Task | None:
    """What ``file.py:Class`` names; None where a plan names a label. Relative files begin at ``folder``.

    Raises:
        InvalidInputError: no such file or class, or it says not which label it predicts.
    """
    if named is None or ".py" not in named:
        return None
    found = plugins.find("task", plugins.located(named, folder), plugins.task_classes(), _TASK)
    if found.label is None:
        raise InvalidInputError(f"victim.task = '{named}': the task names no label of the data; set its 'label'")
    return found.from_mapping({})


def task_for(label: str, own: Task | None, catalog: Catalog) -> Task:
    """What predicts a label: the task in the file, else the built-in one that takes labels of this form.

    Raises:
        InvalidInputError: there is no such label, or it has a form that the task, or any built-in one, does not take.
    """
    form = catalog.task(label).form
    if own is not None:
        if own.form != form:
            raise InvalidInputError(
                f"victim.task: {own.name} takes labels of the form '{own.form}', and '{label}' has '{form}'"
            )
        return own
    for known in plugins.task_classes().values():
        if known.form == form:
            return known.from_mapping({})
    raise InvalidInputError(
        f"victim.task = '{label}': a label of the form '{form}' needs a task of your own, file.py:Class; "
        "splitleak new task NAME writes one to start from"
    )
