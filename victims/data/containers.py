"""Where photo files lie: below a folder, or in a zip."""

import os
import threading
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Self

from splitleak.victims.data.decode import check_bytes, read_file
from splitleak.victims.errors import InvalidInputError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


class Files(ABC):
    """Photo files in one place, by their names relative to it (with "/" between folders)."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Give back what is held open."""

    @abstractmethod
    def names(self) -> Iterable[str]:
        """All files, in any order."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether there is such a file."""

    @abstractmethod
    def content(self, name: str) -> bytes:
        """A file's bytes; safe to call from several threads. Raises one of UNREADABLE."""

    @abstractmethod
    def stamp(self, name: str) -> tuple[str, int, int]:
        """The name and two numbers that change when the file does."""

    def photos(self) -> list[str]:
        """The names of all photos, sorted.

        Raises:
            InvalidInputError: there is none.
        """
        found = sorted({name for name in self.names() if _is_photo(name)})
        if not found:
            kinds = ", ".join(sorted(EXTENSIONS))
            raise InvalidInputError(f"no photos in {self.place}: looked for files ending in {kinds}")
        return found


class FolderFiles(Files):
    """Files below a folder; links to other folders are not followed."""

    def close(self) -> None:
        """Nothing is held open."""

    def names(self) -> Iterable[str]:
        """All files below the folder."""
        for folder, _, files in os.walk(self.place, onerror=_refuse_folder):
            for file in files:
                yield (Path(folder) / file).relative_to(self.place).as_posix()

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.place / name).is_file()

    def content(self, name: str) -> bytes:
        """The file's bytes."""
        return read_file(self.place / name)

    def stamp(self, name: str) -> tuple[str, int, int]:
        """Name, size, time of the last change."""
        status = (self.place / name).stat()
        return name, status.st_size, status.st_mtime_ns


class ZipFiles(Files):
    """Members of a zip. They are read, never extracted: a member's name is never a path on disk."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        try:
            self.archive = zipfile.ZipFile(place)
        except (OSError, zipfile.BadZipFile) as error:
            raise InvalidInputError(f"{place} is no readable zip file: {error}") from None
        self.members = {info.filename: info for info in self.archive.infolist() if not info.is_dir()}
        self.lock = threading.Lock()

    def close(self) -> None:
        """Close the zip."""
        self.archive.close()

    def names(self) -> Iterable[str]:
        """All members that are no folders."""
        return self.members

    def has(self, name: str) -> bool:
        """Whether there is such a member."""
        return name in self.members

    def content(self, name: str) -> bytes:
        """The member's bytes."""
        member = self.members[name]
        check_bytes(member.file_size)
        with self.lock:  # ZipFile counts its open members without one
            return self.archive.read(member)

    def stamp(self, name: str) -> tuple[str, int, int]:
        """Name, CRC, size."""
        return name, self.members[name].CRC, self.members[name].file_size


def _is_photo(name: str) -> bool:
    path = PurePosixPath(name)
    # macOS leaves hidden companions of every photo, with its extension but no image inside
    hidden = any((part[0] == "." and part != "..") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in EXTENSIONS and not hidden


def _refuse_folder(error: OSError) -> None:
    raise InvalidInputError(f"cannot list {error.filename}: {error.strerror}")
