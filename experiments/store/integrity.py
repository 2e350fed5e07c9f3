"""Files that can be trusted after a crash: written whole, sealed with checksums, and a full disk is noticed."""

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from splitleak.experiments.store.provenance import Made
from splitleak.victims import contents

SEAL = "checksums.json"
"""File in each stage's folder: size and SHA-256 of the others, and with what they were made."""
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def digest(value: Any) -> str:
    """SHA-256 of a plain value's canonical JSON, shortened to 24 hexadecimal digits."""
    return contents.digest(value)[:24]


class DiskFullError(RuntimeError):
    """There is no room for a result; what was stored before is as it was."""


@contextmanager
def noticing_full_disk(place: Path) -> Iterator[None]:
    """Raise DiskFullError, which names ``place``, where the block runs out of space."""
    try:
        yield
    except Exception as error:
        # safetensors reports the system's error as a text of its own
        full = getattr(error, "errno", None) in DISK_FULL or f"os error {errno.ENOSPC}" in str(error)
        if not full:
            raise
        raise DiskFullError(
            f"the disk is full: no space left for {place}; finished cells are stored: free some space, or set a "
            "--cache-limit, and the same command goes on from there"
        ) from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old one or the new one and nothing in between.

    Raises:
        DiskFullError: there is no room for it; the old one is still there.
    """
    with noticing_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def replace_if_other(path: Path, content: bytes) -> None:
    """Write a file atomically unless it holds just that: its time tells when it changed."""
    if not (path.is_file() and path.read_bytes() == content):
        write_atomically(path, content)


def seal(folder: Path, made: Sequence[Made]) -> None:
    """Write down what the files of a folder are, so that ``intact`` can tell, and with what they were made."""
    facts = {"files": _contents(folder), "made": [one.model_dump(mode="json") for one in made]}
    (folder / SEAL).write_text(json.dumps(facts, indent=1))


def sealed(folder: Path) -> tuple[Made, ...]:
    """With what the files of a sealed folder were made, and all that went into them."""
    return tuple(Made.model_validate(one) for one in json.loads((folder / SEAL).read_text())["made"])


def intact(folder: Path) -> bool:
    """Whether a folder holds what it held when it was sealed; reads every byte."""
    try:
        files = json.loads((folder / SEAL).read_text())["files"]
        # sizes first: a truncated file of many gigabytes need not be read
        sizes = {name: os.stat(folder / name).st_size for name in files}
        return sizes == {name: facts["bytes"] for name, facts in files.items()} and files == _contents(folder)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return False


def _contents(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)
    return {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": file_digest(path)} for path in files
    }


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
