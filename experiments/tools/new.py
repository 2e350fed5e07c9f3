"""``splitleak new``: a file for an author to start from."""

import importlib
import inspect
from keyword import iskeyword
from pathlib import Path
from typing import Literal

from splitleak.experiments.planning import plugins
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.settings import Settings

Kind = Literal["attack", "defense", "task"]


def new_plugin(kind: Kind, name: str, path: Path) -> str:
    """Write a plugin that works, with a comment for each thing that an author may change.

    Args:
        kind: of plugin.
        name: of the plugin, ``my_noise`` or ``MyNoise``.
        path: the file to write.

    Returns:
        How a plan names it.

    Raises:
        InvalidInputError: the name is no identifier or taken, or the file is there or cannot be written.
    """
    class_name = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    _refuse_taken(class_name, name)
    if not class_name.isidentifier() or iskeyword(class_name):
        raise InvalidInputError(f"name = '{name}': it names a class; use letters, digits and '_', as in my_noise")
    reference = f"{path}:{class_name}"
    template = inspect.getsource(importlib.import_module(f"splitleak.experiments.tools.templates.{kind}"))
    text = template.replace(f"My{kind.capitalize()}", class_name).replace("FILE", str(path))
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InvalidInputError(f"{path} is there already; name another file with --output") from None
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be written: {error.strerror}; name another with --output") from None
    return reference


def _refuse_taken(class_name: str, name: str) -> None:
    """Whatever its kind: ``show`` knows each by its name alone."""
    known = plugins.all_classes()
    called = type(class_name, (Settings,), {}).name  # type: ignore[attr-defined]  # as such a class would be
    for taken in (name, called):
        if taken in known:
            raise InvalidInputError(f"name = '{name}': {inspect.getfile(known[taken])} has it; choose another")
