"""By what a stage's result is found again: its settings, what it builds on, and all code that it runs."""

import ast
import hashlib
import importlib.util
import sys
import sysconfig
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from splitleak.experiments.store.integrity import digest
from splitleak.victims.data.base import Source
from splitleak.victims.files import FROM_PATH
from splitleak.victims.settings import Settings

if TYPE_CHECKING:
    from splitleak.experiments.store.store import Store

PROJECT = "splitleak"
NOT_COMPUTING = frozenset({"pydantic", "annotated_types", "filelock", "safetensors", "rich", "tomli_w", "timm"})
"""Libraries that check input, keep files and print. timm makes networks: the fingerprint of one of its own tells of
it, and the others stay what they are when it is installed."""
NAMED_OTHERWISE = {"PIL": "pillow"}
"""Distributions by the package that they bring, where the names differ and it is imported everywhere."""
ELSEWHERE: dict[str, Any] = {"key": False}
"""Metadata of a stage's field that only says where something lies: another field stands for its content."""


@dataclass(frozen=True)
class Stage(ABC):
    """One step of an experiment: its fields are all that its result depends on, besides its code.

    A field that is a Stage, or a tuple of them, is an upstream step; one that is a Settings is a plugin. A field with
    the metadata ``ELSEWHERE`` is no part of the key.
    """

    label: ClassVar[str]
    """The folder of its results, and its word in the progress display."""

    @cached_property
    def key(self) -> str:
        """Digest of the settings, the upstream keys and the source code (the stage's module and its imports)."""
        counted = [field.name for field in fields(self) if field.metadata.get("key", True)]
        facts = {name: fact(getattr(self, name)) for name in counted}
        return digest([type(self).__name__, facts, source_digest(type(self).__module__)])

    @property
    def upstream(self) -> list["Stage"]:
        """The stages among the fields."""
        found: list[Stage] = []
        for field in fields(self):
            value = getattr(self, field.name)
            found += [one for one in (value if isinstance(value, tuple) else (value,)) if isinstance(one, Stage)]
        return found

    def expected_bytes(self) -> int:
        """About how much its result will take on disk, by-products included; 0 for a few kilobytes."""
        return 0

    @abstractmethod
    def compute(self, folder: Path, store: "Store") -> None:
        """Write the result's files into ``folder``, which is new and empty."""


def fact(value: Any) -> Any:
    """What a stage's field means for its key, as a plain value."""
    if isinstance(value, tuple):
        return [fact(one) for one in value]
    if isinstance(value, Stage):
        return value.key
    if isinstance(value, Settings):
        code = source_digest(type(value).__module__)
        if isinstance(value, Source):
            return [value.name, value.choices(), code, value.fingerprint()]
        nested = [fact(one) for field in fields(value) for one in _plugins(getattr(value, field.name))]
        return [value.name, value.to_mapping(), code, *nested]
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value


def _plugins(value: Any) -> list[Settings]:
    """The plugins that a plugin is made of."""
    return [one for one in value if isinstance(one, Settings)] if isinstance(value, tuple) else []


@cache
def source_digest(module: str) -> str:
    """Digest of all code that a module runs, directly or not, as syntax trees: what only readers see does not count.

    Followed is what this project, the user or the author of a plugin wrote: every imported file that is no installed
    library. A library counts by its major and minor version.
    """
    file = _file_of(module)
    if file is None:
        raise ValueError(f"{module} is no module with a file")
    trees: dict[str, str] = {}
    libraries: dict[str, str] = {}
    seen: set[Path] = set()
    pending = [_Module(module, file, module.startswith(FROM_PATH))]
    while pending:
        one = pending.pop()
        if one.file in seen:
            continue
        seen.add(one.file)
        tree, imported = _read(one.file, one.file.stat().st_mtime_ns)
        trees[one.shown] = tree
        for level, name in imported:
            for found in _resolved(one, level, name):
                if isinstance(found, _Module):
                    pending.append(found)
                elif found.name not in NOT_COMPUTING:
                    libraries[found.name] = found.version
    return digest([trees, libraries])


def forget() -> None:
    """Read sources and versions again: a process takes them as it found them first."""
    for kept in (source_digest, _file_of, _installed, _library):
        kept.cache_clear()


class _Module(NamedTuple):
    """``alone``: it was loaded from a path and belongs to no package; its neighbours are imported by their names."""

    name: str
    file: Path
    alone: bool

    @property
    def shown(self) -> str:
        """A name that is the same wherever a file lies that was loaded from its path."""
        return self.file.stem if self.name.startswith(FROM_PATH) else self.name

    @property
    def package(self) -> str:
        """By which its relative imports begin."""
        return self.name if self.file.name == "__init__.py" else self.name.rpartition(".")[0]


class _Library(NamedTuple):
    """Of another author: ``version`` is major and minor."""

    name: str
    version: str


def _resolved(importer: _Module, level: int, name: str) -> Iterator[_Module | _Library]:
    """What an import statement names, if it is a module of the project, of its author, or a library."""
    if level:
        parents = importer.package.split(".")
        name = ".".join([*parents[: len(parents) - level + 1], *([name] if name else [])])
    elif importer.alone and (neighbour := _neighbour(importer.file.parent, name)):
        yield _Module(name, neighbour, alone=True)
        return
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        return
    file = _file_of(name)
    own = top == PROJECT or (not importer.alone and _same_author(top, importer.name.partition(".")[0]))
    if file is not None and (own or not _installed(file)):
        yield _Module(name, file, alone=False)
    elif not own and (found := _library(top)):
        yield found


def _neighbour(folder: Path, name: str) -> Path | None:
    """The file of a module that lies beside one that was loaded from its path."""
    place = folder.joinpath(*name.split("."))
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)


@cache
def _file_of(module: str) -> Path | None:
    loaded = sys.modules.get(module)
    if loaded is not None and getattr(loaded, "__file__", None):
        return _python(str(loaded.__file__))
    try:
        spec = importlib.util.find_spec(module)
    except (ModuleNotFoundError, ValueError):  # a name inside a module, not a module
        return None
    return _python(spec.origin) if spec and spec.origin else None


def _python(origin: str) -> Path | None:
    """Compiled modules have no source; what is built in has no file."""
    path = Path(origin)
    return path if path.suffix == ".py" and path.is_file() else None


@cache
def _installed(file: Path) -> bool:
    """Whether a file belongs to an installed library, and is no checkout that somebody works on."""
    places = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    return any(file.resolve().is_relative_to(place) for place in places)


@cache
def _distributions() -> dict[str, list[str]]:
    """By top-level package; takes a second where many are installed."""
    return dict(packages_distributions())


def _same_author(first: str, second: str) -> bool:
    """Whether two top-level packages are one, or one distribution brought both."""
    if first == second or PROJECT in (first, second):
        return first == second
    return bool({*_distributions().get(first, ())} & {*_distributions().get(second, ())})


@cache
def _library(top: str) -> _Library | None:
    """The installed distribution that brought a top-level name; None where there is none."""
    with suppress(PackageNotFoundError):
        return _Library(top, library_version(NAMED_OTHERWISE.get(top, top)))
    with suppress(PackageNotFoundError, KeyError):
        return _Library(top, library_version(_distributions()[top][0]))
    return None


def library_version(distribution: str) -> str:
    """Major and minor version of an installed distribution, such as 2.14.

    Raises:
        PackageNotFoundError: it is not installed.
    """
    return ".".join(version(distribution).split(".")[:2])


@cache
def _read(file: Path, changed: int) -> tuple[str, tuple[tuple[int, str], ...]]:
    """SHA-256 of a file's syntax tree without its docstrings, and what it may import, each with its level."""
    imported: dict[tuple[int, str], None] = {}
    tree = _plain(ast.parse(file.read_bytes()), imported)
    return hashlib.sha256(repr(tree).encode()).hexdigest(), tuple(imported)


def _plain(node: Any, imported: dict[tuple[int, str], None]) -> Any:
    """A syntax tree as nested lists, without places and without what only readers see; notes what it imports."""
    if isinstance(node, list):
        return [_plain(one, imported) for one in node if not _only_told(one)]
    if not isinstance(node, ast.AST):
        return node
    if isinstance(node, ast.Import | ast.ImportFrom):
        imported.update(dict.fromkeys(_imports(node)))
    return [type(node).__name__, *[_plain(getattr(node, name, None), imported) for name in node._fields]]


def _only_told(line: Any) -> bool:
    """Whether a statement is a docstring, or the text below an assignment."""
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


def _imports(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Import):
        yield from ((0, alias.name) for alias in node.names)
    else:
        # "from package import module" names a module, "from module import name" does not
        module = node.module or ""
        yield node.level, module
        yield from ((node.level, f"{module}.{alias.name}".removeprefix(".")) for alias in node.names)
