"""Results of stages on disk, found again by what they depend on."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from splitleak.experiments.store import evict
from splitleak.experiments.store.integrity import SEAL, intact, noticing_full_disk, seal, sealed
from splitleak.experiments.store.key import Stage
from splitleak.experiments.store.provenance import Made, here, together
from splitleak.victims.allocator import give_back_freed_memory
from splitleak.victims.checkpoints import resumable
from splitleak.victims.training import Log

LOCKS, CHECKPOINTS, PARTIAL = "locks", "checkpoints", ".partial"


class StageFailedError(RuntimeError):
    """A stage failed earlier in this run; what depends on it fails with the same traceback."""


class Store:
    """Stage results under one folder, which any number of processes share.

    A result is made under a lock of its own, in a folder that is renamed when it is whole, and sealed with checksums
    and with what it was made with: what is damaged is made anew. Locks are the system's (flock): they hold between
    processes of one machine, and between machines on NFSv4, GPFS and Lustre mounted with flock; not on NFSv3 or SMB.
    ``limit``: of its bytes; what was used least recently goes first, and what a running task has used stays.
    ``computed``: the labels of what this process made, in order.
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
        self._checked: dict[Path, tuple[Made, ...]] = {}
        self._using: list[dict[Path, tuple[Made, ...]]] = []
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
        if not self._usable(place):
            if key in self._failed:
                raise StageFailedError(f"{label} failed before") from self._failed[key]
            with self._locked(label, key):
                if not self._usable(place):  # another process may have made it in the meantime
                    self._make(place, compute)
        if self._using:
            self._using[-1][place] = self._checked[place]
        return place

    @contextmanager
    def using(self) -> Iterator[Callable[[str], tuple[Made, ...]]]:
        """Notes which results are used in the block.

        What it gives tells, called with a word for what was computed in the block itself, with what that and all that
        it used were made.
        """
        used: dict[Path, tuple[Made, ...]] = {}
        self._using.append(used)
        try:
            yield lambda label: together([*(one for made in used.values() for one in made), here(label, self.device)])
        finally:
            self._using.pop()

    def _usable(self, place: Path) -> bool:
        """Whether a result is there and as it was made, which is looked at once."""
        try:
            os.utime(place / SEAL)  # the time of its last use
        except FileNotFoundError:
            return False
        if place not in self._checked:
            if not intact(place):
                return False
            self._checked[place] = sealed(place)
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
            with noticing_full_disk(place), resumable(unfinished), self.using() as made:
                temporary.mkdir(parents=True)
                compute(temporary)
                seal(temporary, made(label))
            shutil.rmtree(place, ignore_errors=True)
            temporary.rename(place)
            shutil.rmtree(unfinished, ignore_errors=True)
        except Exception as error:
            self._failed[key] = error
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            give_back_freed_memory()
        self._checked[place] = sealed(place)
        self.computed.append(label)
        if self.limit is not None:
            with suppress(FileNotFoundError):  # another process evicts too: the next result is soon enough
                evict.least_recently_used(self.root, self.limit, self._lock, self.progress)

    def task(self) -> "evict.Running":
        """What is used from now on stays until the end of the block, whoever has a limit."""
        return evict.Running(self.root)

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

    def _lock(self, key: str) -> FileLock:
        folder = self.root / LOCKS
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / key)

    def _remove_leftovers(self) -> None:
        """Temporary folders of processes that were killed: nobody holds their locks."""
        for temporary in self.root.glob(f"*/.*{PARTIAL}"):
            lock = self._lock(temporary.name.removeprefix(".").removesuffix(PARTIAL))
            with suppress(Timeout), lock.acquire(timeout=0):
                shutil.rmtree(temporary, ignore_errors=True)
