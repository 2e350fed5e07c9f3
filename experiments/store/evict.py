"""What leaves a store that has a limit, and what stays because somebody is at it."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from splitleak.experiments.store.integrity import SEAL

RUNNING = "running"
"""Folder with a locked file for each task that runs."""


class Running:
    """A task that runs: a context within which nothing that it uses is removed."""

    def __init__(self, root: Path) -> None:
        self.mark = root / RUNNING / f"{os.getpid()}-{time.time_ns()}"
        self.lock = FileLock(self.mark)

    def __enter__(self) -> None:
        self.mark.parent.mkdir(parents=True, exist_ok=True)
        self.lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.mark.unlink(missing_ok=True)
        self.lock.release()


def least_recently_used(root: Path, limit: int, lock: Callable[[str], FileLock], told: Callable[[str], None]) -> None:
    """Remove what was last used before the oldest running task began, until the results take ``limit`` bytes."""
    since = min((path.stat().st_mtime for path in _running(root)), default=time.time())
    used = {seal.parent: seal.stat().st_mtime for seal in root.glob(f"*/[!.]*/{SEAL}")}
    sizes = {place: sum(path.stat().st_size for path in place.iterdir()) for place in used}
    total = sum(sizes.values())
    for place in sorted(used, key=lambda place: used[place]):
        if total <= limit or used[place] >= since:
            break
        with suppress(Timeout), lock(place.name).acquire(timeout=0):
            shutil.rmtree(place, ignore_errors=True)
            total -= sizes[place]
    if total > limit:
        told(f"the cache holds {total / 1e9:.2f} GB, more than its limit: running cells need it")


def _running(root: Path) -> Iterator[Path]:
    """Marks of the tasks that run now; those of processes that died are removed."""
    for mark in list((root / RUNNING).glob("*")):
        try:
            with FileLock(mark).acquire(timeout=0):
                mark.unlink(missing_ok=True)
        except Timeout:
            yield mark
