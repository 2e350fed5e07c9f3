"""Results of stages on disk, found again by what they depend on."""

import ast
import hashlib
import importlib.util
import json
import os
import shutil
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch
from filelock import BaseFileLock, FileLock, Timeout

from splitleak.experiments.store.integrity import SEAL, intact, noticing_full_disk, seal
from splitleak.victims.allocator import give_back_freed_memory
from splitleak.victims.checkpoints import resumable
from splitleak.victims.data.base import Source
from splitleak.victims.settings import Settings
from splitleak.victims.training import Log

PACKAGES = ("splitleak",)


@dataclass(frozen=True)
class Stage(ABC):
    """One step of an experiment: its fields are all that its result depends on, besides its code.

    A field that is a Stage, or a tuple of them, is an upstream step; one that is a Settings is a plugin.
    """

    label: ClassVar[str]
    """The folder of its results, and its word in the progress display."""

    @cached_property
    def key(self) -> str:
        """Digest of the settings, the upstream keys and the source code (the stage's module and its imports)."""
        facts = {field.name: _fact(getattr(self, field.name)) for field in fields(self)}
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


def _fact(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_fact(one) for one in value]
    if isinstance(value, Stage):
        return value.key
    if isinstance(value, Source):
        return [value.name, value.to_mapping(), value.fingerprint()]
    if isinstance(value, Settings):
        nested = [_fact(one) for field in fields(value) for one in _settings(getattr(value, field.name))]
        return [value.name, value.to_mapping(), source_digest(type(value).__module__), *nested]
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value


def _settings(value: Any) -> list[Settings]:
    """The plugins that a plugin is made of."""
    return [one for one in value if isinstance(one, Settings)] if isinstance(value, tuple) else []


def digest(value: Any) -> str:
    """SHA-256 of a plain value's canonical JSON, shortened to 24 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:24]


@cache
def source_digest(module: str) -> str:
    """Digest of a module's source and of every module of this project that it imports, directly or not."""
    found: dict[str, str] = {}
    pending = [module]
    while pending:
        name = pending.pop()
        if name not in found and (source := _source(name)):
            found[name], imported = source
            pending += imported
    return digest(found)


@cache
def _source(module: str) -> tuple[str, list[str]] | None:
    """SHA-256 of a module's source, and what of this project it imports; None for what is no module."""
    path = _source_file(module)
    if path is None:
        return None
    source = path.read_bytes()
    imported = [name for name in _imports(source) if name.split(".")[0] in PACKAGES]
    return hashlib.sha256(source).hexdigest(), imported


def _source_file(module: str) -> Path | None:
    loaded: ModuleType | None = sys.modules.get(module)
    if loaded is not None and getattr(loaded, "__file__", None):
        return Path(str(loaded.__file__))
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # a name inside a module, not a module
        return None
    return Path(spec.origin) if spec and spec.origin else None


def _imports(source: bytes) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # "from package import module" names a module, "from module import name" does not
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


class StageFailedError(RuntimeError):
    """A stage failed earlier in this run; what depends on it fails with the same traceback."""


LOCKS, CHECKPOINTS, RUNNING, PARTIAL = "locks", "checkpoints", "running", ".partial"


class Store:
    """Stage results under one folder, which any number of processes share.

    A result is made under a lock of its own, in a folder that is renamed when it is whole, and sealed with checksums:
    what is damaged is made anew. ``limit``: of its bytes; what was used least recently goes first, and what a running
    task has used stays. ``computed``: the labels of what this process made, in order.
    """

    def __init__(
        self,
        root: Path,
        device: torch.device,
        progress: Callable[[str], None] = lambda text: None,
        limit: int | None = None,
    ) -> None:
        self.root = root
        self.device = device
        self.progress = progress
        self.limit = limit
        self.computed: list[str] = []
        self._failed: dict[str, BaseException] = {}
        self._checked: set[Path] = set()
        self._remove_leftovers()

    def curve(self, what: str, epochs: int | None) -> Log:
        """A callback for training loops that shows each row in the progress display."""

        def show(row: dict[str, float]) -> None:
            step = f" epoch {row['epoch']:.0f}{f'/{epochs}' if epochs else ''}" if "epoch" in row else ""
            losses = ", ".join(f"{key.replace('_', ' ')} {row[key]:.4g}" for key in row if key.endswith("loss"))
            self.progress(f"{what}{step}: {losses}")

        return show

    def has(self, stage: Stage) -> bool:
        """Whether the stage's result is there; whether it is intact shows when it is used."""
        return (self.root / stage.label / stage.key).is_dir()

    def folder(self, stage: Stage) -> Path:
        """The stage's result, computed if it is not there; raises as ``made`` does."""
        return self.made(stage.label, stage.key, lambda folder: stage.compute(folder, self))

    def made(self, label: str, key: str, compute: Callable[[Path], None]) -> Path:
        """The folder that ``compute`` filled, now or earlier: ``key`` stands for all that it depends on.

        Waits where another process is at it.

        Raises:
            StageFailedError: it failed before in this run.
            DiskFullError: there is no room for it.
        """
        place = self.root / label / key
        if self._usable(place):
            return place
        if key in self._failed:
            raise StageFailedError(f"{label} failed before") from self._failed[key]
        with self._locked(label, key):
            if not self._usable(place):  # another process may have made it in the meantime
                self._make(place, compute)
        return place

    def _usable(self, place: Path) -> bool:
        """Whether a result is there and as it was made, which is looked at once."""
        try:
            os.utime(place / SEAL)  # the time of its last use
        except FileNotFoundError:
            return False
        if place not in self._checked and not intact(place):
            return False
        self._checked.add(place)
        return True

    def _make(self, place: Path, compute: Callable[[Path], None]) -> None:
        label, key = place.parts[-2:]
        if place.exists():
            self.progress(f"{label} {key} is damaged and made again")
        temporary = place.with_name(f".{key}{PARTIAL}")
        unfinished = self.root / CHECKPOINTS / key
        shutil.rmtree(temporary, ignore_errors=True)
        self.progress(label)
        try:
            with noticing_full_disk(place), resumable(unfinished):
                temporary.mkdir(parents=True)
                compute(temporary)
                seal(temporary)
            shutil.rmtree(place, ignore_errors=True)
            temporary.rename(place)
            shutil.rmtree(unfinished, ignore_errors=True)
        except Exception as error:
            self._failed[key] = error
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            give_back_freed_memory()
        self._checked.add(place)
        self.computed.append(label)
        if self.limit is not None:
            with suppress(FileNotFoundError):  # another process evicts too: the next result is soon enough
                self._evict(self.limit)

    @contextmanager
    def task(self) -> Iterator[None]:
        """What is used from now on stays until the end of the block, whoever has a limit."""
        running = self.root / RUNNING / f"{os.getpid()}-{time.time_ns()}"
        running.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(running):
            try:
                yield
            finally:
                running.unlink(missing_ok=True)

    def _evict(self, limit: int) -> None:
        """Remove what was last used before the oldest running task began, until the limit holds."""
        since = min((path.stat().st_mtime for path in self._running()), default=time.time())
        used = {seal.parent: seal.stat().st_mtime for seal in self.root.glob(f"*/[!.]*/{SEAL}")}
        sizes = {place: sum(path.stat().st_size for path in place.iterdir()) for place in used}
        total = sum(sizes.values())
        for place in sorted(used, key=lambda place: used[place]):
            if total <= limit or used[place] >= since:
                break
            with suppress(Timeout), self._lock(place.name).acquire(timeout=0):
                shutil.rmtree(place, ignore_errors=True)
                total -= sizes[place]
        if total > limit:
            self.progress(f"the cache holds {total / 1e9:.2f} GB, more than its limit: running cells need it")

    def _running(self) -> Iterator[Path]:
        """Marks of the tasks that run now; those of processes that died are removed."""
        for mark in list((self.root / RUNNING).glob("*")):
            try:
                with FileLock(mark).acquire(timeout=0):
                    mark.unlink(missing_ok=True)
            except Timeout:
                yield mark

    @contextmanager
    def _locked(self, label: str, key: str) -> Iterator[None]:
        """Hold the result's lock, which the system lifts when a process dies."""
        lock = self._lock(key)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self.progress(f"waiting for another process, which computes {label}")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _lock(self, key: str) -> BaseFileLock:
        folder = self.root / LOCKS
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / key)

    def _remove_leftovers(self) -> None:
        """Temporary folders of processes that were killed: nobody holds their locks."""
        for temporary in self.root.glob(f"*/.*{PARTIAL}"):
            lock = self._lock(temporary.name.removeprefix(".").removesuffix(PARTIAL))
            with suppress(Timeout), lock.acquire(timeout=0):
                shutil.rmtree(temporary, ignore_errors=True)
