"""Files are known by their content: read once, and recognised until they change.

An index on the disk says which bytes a file had when its size, times and inode were these. It only saves time:
without it, or with a damaged one, files are read again.
"""

import hashlib
import json
import os
import stat
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

CACHE_VARIABLE = "XDG_CACHE_HOME"
"""Environment variable: the folder of a user's caches, by the XDG Base Directory Specification."""

INDEX = Path("splitleak", "contents.json")
"""Below the folder of caches."""

CLOCK_STEP = 2 * 10**9
"""The coarsest step, in nanoseconds, in which a file system counts time (FAT). A file that changes twice within one
step shows one time for both, so one that was changed that recently is not yet recognised by it."""

DIGITS = 64
"""Of a SHA-256 in hexadecimal."""


def digest(*facts: object) -> str:
    """SHA-256 of plain values (what JSON can hold, all else as its text), as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def contents_of(folder: Path, names: Sequence[str]) -> list[str | None]:
    """SHA-256 of the bytes of each file below a folder, None where it cannot be read.

    ``names``: the files' paths below the folder.
    """
    place = os.path.abspath(folder)
    return _index_at(_index_place()).contents_of([os.path.join(place, name) for name in names])


def _index_place() -> Path | None:
    """Where the index is kept; None for a user without a home."""
    caches = Path(os.environ.get(CACHE_VARIABLE, ""))
    if not caches.is_absolute():  # the specification wants such a one to be ignored
        try:
            caches = Path.home() / ".cache"
        except RuntimeError:
            return None
    return caches / INDEX


class _Index:
    """What is known of files by their absolute path: their stamp, then the SHA-256 of their bytes.

    Several processes may share its file. Each adds what it has read to what it finds there; of two that write at the
    same time one loses its entries, and reads those files again.
    """

    def __init__(self, place: Path | None) -> None:
        self._place = place
        self._entries: dict[str, str] = {}
        self._loaded = ""  # the stamp of the file that the entries are from
        self._lock = threading.Lock()

    def contents_of(self, paths: Sequence[str]) -> list[str | None]:
        """SHA-256 of each file's bytes, None where it cannot be read."""
        with self._lock:
            self._load()
            fresh: dict[str, str] = {}
            try:
                return [self._content_of(path, fresh) for path in paths]
            finally:  # what an interrupted process has read is not read again
                if fresh:
                    self._keep(fresh)

    def _content_of(self, path: str, fresh: dict[str, str]) -> str | None:
        """``fresh`` gets an entry for a file that had to be read."""
        try:
            status = os.stat(path)
            stamp = _stamp(status)
            known = self._entries.get(path)
            if isinstance(known, str) and known.startswith(stamp) and len(known) == len(stamp) + DIGITS:
                return known[len(stamp) :]
            if not stat.S_ISREG(status.st_mode):  # a pipe would block for ever
                return None
            settled = time.time_ns() - status.st_ctime_ns >= CLOCK_STEP
            with open(path, "rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            if settled and _stamp(os.stat(path)) == stamp:
                fresh[path] = stamp + content
        except OSError:
            return None
        return content

    def _load(self) -> None:
        """Add what the file holds, if another process has written it since."""
        if self._place is None:
            return
        with suppress(OSError, ValueError, RecursionError):  # missing or damaged: it is as good as empty
            loaded = _stamp(os.stat(self._place))
            if loaded != self._loaded:
                self._loaded = loaded
                found = json.loads(self._place.read_bytes())
                self._entries |= found if isinstance(found, dict) else {}

    def _keep(self, fresh: dict[str, str]) -> None:
        """Add entries to the file, and drop those of files that are gone."""
        self._load()
        self._entries |= fresh
        self._entries = {path: one for path, one in self._entries.items() if path in fresh or os.path.exists(path)}
        if self._place is None:
            return
        with suppress(OSError):  # a full or read-only disk
            self._place.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._place.parent, prefix=f"{self._place.name}.")
            try:
                with open(handle, "w", encoding="ascii") as file:
                    file.write(json.dumps(self._entries))
                os.replace(temporary, self._place)
                self._loaded = _stamp(os.stat(self._place))
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(temporary)
                raise


@cache
def _index_at(place: Path | None) -> _Index:
    return _Index(place)


def _stamp(status: os.stat_result) -> str:
    """Changes when a file does: the last change's time does even where another program sets the modification time."""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino} "
