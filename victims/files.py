"""Where files and folders named in a plan are looked for."""

import hashlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from splitleak.victims.contents import contents_of
from splitleak.victims.errors import InvalidInputError

DATA_VARIABLE = "SPLITLEAK_DATA"
"""Environment variable: a further folder in which data sets are looked for."""

WEIGHTS_VARIABLE = "SPLITLEAK_WEIGHTS"
"""Environment variable: a further folder in which weight files are looked for."""

FROM_PATH = "plugin_"
"""How the names of modules begin that were loaded from a path."""

_own_folders: set[Path] = set()
"""In which users' Python files lie that were loaded."""


def find_file(path: str, wanted: str, variable: str) -> Path:
    """The existing file or folder that ``path`` means.

    Looked for as given (absolute, or relative to the current folder), then in the folder that the environment
    variable ``variable`` names. ``wanted`` says in a few words what should be there and, where that is not
    plain, how to get it; it begins the error.

    Raises:
        InvalidInputError: neither place has it.
    """
    given = Path(path).expanduser()
    places = [Path.cwd() / given]
    folder = os.environ.get(variable)
    if folder and not given.is_absolute():
        places.append(Path(folder) / given)
    for place in places:
        if place.exists():
            return place
    looked = " and ".join(str(place) for place in places)
    advice = "give the path of an existing one"
    if not given.is_absolute():
        state = f"now {folder}" if folder else "not set"
        advice += f" or set {variable} ({state}) to the folder that holds '{path}'"
    raise InvalidInputError(f"{wanted} not found: looked for {looked}; {advice}")


def fingerprint(place: Path) -> str:
    """Size and time of a file: changes when the file does, without reading it."""
    facts = place.stat()
    return f"{facts.st_size}-{facts.st_mtime_ns}"


def content_of(place: Path) -> str:
    """SHA-256 of a file's bytes: the same wherever it is copied. It is read again only once it has changed.

    Raises:
        InvalidInputError: it cannot be read.
    """
    (content,) = contents_of(place.parent, [place.name])
    if content is None:
        raise InvalidInputError(f"{place} is no file that can be read")
    return content


def load_module(path: Path, wanted: str) -> ModuleType:
    """The module that a Python file is; what lies beside the file is found first, as where Python runs it.

    The same file is the same module, however often and under whatever relative name it is asked for.

    Raises:
        InvalidInputError: there is no such file; ``wanted`` says of what. An error inside it is the author's and
            keeps its traceback.
    """
    if not path.is_file():
        raise InvalidInputError(f"no {wanted} at {path.absolute()}")
    name = f"{FROM_PATH}{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise InvalidInputError(f"{path} is no Python file")
        module = importlib.util.module_from_spec(spec)
        _put_first(path.resolve().parent)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _put_first(folder: Path) -> None:
    """Let imports find what lies in ``folder``, not a namesake that was imported for a file of another folder."""
    others = _own_folders - {folder}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        top = name.partition(".")[0]
        neighbour = any((folder / file).is_file() for file in (f"{top}.py", f"{top}/__init__.py"))
        if neighbour and file and any(Path(file).is_relative_to(other) for other in others):
            del sys.modules[name]
    if str(folder) in sys.path:
        sys.path.remove(str(folder))
    sys.path.insert(0, str(folder))
    _own_folders.add(folder)
