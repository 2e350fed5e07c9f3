"""Where photo files lie: below a folder, or in a zip."""

import os
import stat
import struct
import threading
import zipfile
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from posixpath import splitext
from typing import Self

from splitleak.victims.contents import contents_of, digest
from splitleak.victims.data.decode import EXTENSIONS, check_bytes, read_file
from splitleak.victims.data.notes import counted, shown
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.files import content_of

HOUSEKEEPING = frozenset(
    {
        "__macosx",
        "@eadir",
        "@recycle",
        "@recently-snapshot",
        "@tmp",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "lost+found",
        "network trash folder",
        "temporary items",
        "__pycache__",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
    }
)
"""What file systems, desktops and network drives leave among photos, in small letters."""

MOST_AGAIN = 1000
"""Folders that are read another time under the name of a link: where many link to each other, there is no end."""

UTF8_NAME, ENCRYPTED = 0x800, 0x1
"""Flags of a zip's member: its name is UTF-8; it is encrypted (PKWARE, APPNOTE 4.4.4)."""


def is_housekeeping(name: str) -> bool:
    """Whether a file or folder of this name, without its place, is hidden or no user's own."""
    return name.startswith(".") or name.lower() in HOUSEKEEPING


@dataclass(frozen=True)
class Listing:
    """What lies in a place but for housekeeping: the names of all files and folders, sorted.

    ``notes``: what could not be followed, as sentences.
    """

    files: tuple[str, ...]
    folders: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def photos(self) -> tuple[str, ...]:
        """The files with an extension of photos."""
        return tuple(name for name in self.files if splitext(name)[1].lower() in EXTENSIONS)


class Files(ABC):
    """Photo files in one place, by their names relative to it (with "/" between folders).

    ``where``: the place in words.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.where = shown(str(place))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Give back what is held open."""

    @abstractmethod
    def listing(self) -> Listing:
        """All that lies there.

        Raises:
            InvalidInputError: a folder cannot be listed.
        """

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether there is such a file."""

    @abstractmethod
    def content(self, name: str) -> bytes:
        """A file's bytes; safe to call from several threads. Raises one of UNREADABLE."""

    @abstractmethod
    def fingerprint(self, names: Sequence[str]) -> str:
        """A digest of these files' names and bytes; one that cannot be read counts as such."""


class FolderFiles(Files):
    """Files below a folder. Links are followed, but not back to a folder that they lie in."""

    def close(self) -> None:
        """Nothing is held open."""

    def listing(self) -> Listing:
        """All that lies below the folder."""
        files: list[str] = []
        folders: list[str] = []
        known: set[str] = set()
        broken = back = again = 0
        # each folder stands with the real places of those that it lies in; outer ones come first
        pending = deque([("", frozenset(map(str, Path(os.path.realpath(self.place)).parents)))])
        while pending:
            inside, above = pending.popleft()
            real = os.path.realpath(self.place / inside)
            if real in above or (real in known and again == MOST_AGAIN):
                back += 1
                continue
            again += real in known
            known.add(real)
            folders += [inside] if inside else []
            for entry in _entries(self.place / inside):
                name = f"{inside}/{entry.name}" if inside else entry.name
                if os.path.isdir(entry) if entry.is_symlink() else entry.is_dir():
                    pending.append((name, above | {real}))
                elif entry.is_symlink() and not os.path.exists(entry):
                    broken += 1
                else:
                    files.append(name)
        notes = [f"left out {counted(broken, 'link')} to files or folders that are not there"] if broken else []
        if back:
            notes.append(f"left out {counted(back, 'link')} back to folders that were read already")
        return Listing(tuple(sorted(files)), tuple(sorted(folders)), tuple(notes))

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return os.path.isfile(self.place / name)

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
        except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
            raise InvalidInputError(f"{self.where} is no readable zip file: {shown(str(error))}") from None
        self.members: dict[str, zipfile.ZipInfo] = {}
        self.folders: set[str] = set()
        self.links = 0
        self.lock = threading.Lock()
        for member in self.archive.infolist():
            self._add(member)

    def _add(self, member: zipfile.ZipInfo) -> None:
        name = _member_name(member)
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise InvalidInputError(f"{self.where} holds '{shown(name)}', which leads out of it; pack it anew")
        if member.flag_bits & ENCRYPTED:
            raise InvalidInputError(f"{self.where} is encrypted; unpack it with its password and give the folder")
        if not parts:
            return
        if stat.S_ISLNK(member.external_attr >> 16):
            self.links += 1
        elif name.endswith("/"):
            self.folders.add("/".join(parts))
        else:
            self.members["/".join(parts)] = member

    def close(self) -> None:
        """Close the zip."""
        self.archive.close()

    def listing(self) -> Listing:
        """All members."""
        files = sorted(name for name in self.members if _is_own(name))
        folders = self.folders | {above for name in files for above in folders_of(name)}
        notes = [f"left out {counted(self.links, 'link')}: those in a zip are not followed"] if self.links else []
        return Listing(tuple(files), tuple(sorted(name for name in folders if name and _is_own(name))), tuple(notes))

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


def folders_of(name: str) -> list[str]:
    """All folders that a file or folder lies in, the outermost first."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds but for housekeeping, in the order of names."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not is_housekeeping(entry.name)), key=lambda one: one.name)
    except OSError as error:
        raise InvalidInputError(f"cannot list {shown(str(folder))}: {error.strerror}") from None


def _member_name(member: zipfile.ZipInfo) -> str:
    """A member's name with "/" between folders, as its author wrote it.

    Some programs write "\\" between folders, and macOS writes UTF-8 without saying so.
    """
    name = member.filename
    if not member.flag_bits & UTF8_NAME:
        with suppress(UnicodeError):  # it is in the code page that zips were made for
            name = name.encode("cp437").decode()
    return name.replace("\\", "/")


def _is_own(name: str) -> bool:
    return not any(is_housekeeping(part) for part in name.split("/"))
