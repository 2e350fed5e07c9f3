"""Where photo files lie: below a folder, or in a zip."""

import os
import threading
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from posixpath import splitext
from typing import Self

from splitleak.victims.contents import contents_of, digest
from splitleak.victims.data.decode import check_bytes, read_file
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.files import content_of

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
    def fingerprint(self, names: Sequence[str]) -> str:
        """A digest of these files' names and bytes; one that cannot be read counts as such."""

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
            inside = Path(folder).relative_to(self.place).as_posix()
            yield from files if inside == "." else (f"{inside}/{file}" for file in files)

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.place / name).is_file()

    def content(self, name: str) -> bytes:
        """The file's bytes."""
        return read_file(self.place / name)

    def fingerprint(self, names: Sequence[str]) -> str:
        """A digest of these files' names and bytes."""
        return digest(names, contents_of(self.place, names))


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

    def fingerprint(self, names: Sequence[str]) -> str:
        """A digest of these names and of the whole zip's bytes."""
        return digest(names, content_of(self.place))


def _is_photo(name: str) -> bool:
    if splitext(name)[1].lower() not in EXTENSIONS:
        return False
    # macOS leaves hidden companions of every photo, with its extension but no image inside
    parts = set(name.split("/")) - {".", ".."}
    return "__MACOSX" not in parts and not any(part.startswith(".") for part in parts)


def _refuse_folder(error: OSError) -> None:
    raise InvalidInputError(f"cannot list {error.filename}: {error.strerror}")
