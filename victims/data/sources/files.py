"""Data sets of photo files: a folder per class, a plain zip, a CSV index."""

import hashlib
import zipfile
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import MinLen

from splitleak.victims.contents import digest
from splitleak.victims.data.base import Catalog, Pixels, Source
from splitleak.victims.data.containers import Files, FolderFiles, ZipFiles
from splitleak.victims.data.decode import UNREADABLE, OnCorrupt, decode_photos
from splitleak.victims.data.table import SPLIT_NAMES, categories, inside, read_table
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.files import DATA_VARIABLE, find_file
from splitleak.victims.settings import doc

INDEX_FILE = "index.csv"


@dataclass(frozen=True)
class PhotoFiles(Source):
    """A data set whose photos are files."""

    places: ClassVar[frozenset[str]] = frozenset({"path"})

    path: Annotated[str, MinLen(1), doc("where the photos are; also looked for below SPLITLEAK_DATA")]
    on_corrupt: Annotated[
        OnCorrupt, doc("an unreadable photo is an error (refuse), or left out and counted (skip)")
    ] = "refuse"

    @abstractmethod
    def _open(self) -> Files:
        """Where the files are."""

    @abstractmethod
    def _names(self, files: Files) -> Sequence[str]:
        """The photos' names in the catalogue's order."""

    def fingerprint(self) -> str:
        """A digest of the settings and of the photos' names and bytes (in a zip: of all its bytes)."""
        with self._open() as files:
            photos = files.fingerprint(self._names(files))
            return digest(self.name, self.choices(), photos, self._annotations(files))

    def _annotations(self, files: Files) -> str:
        """A digest of what is known about the photos beside their files."""
        return ""

    def read(self, chosen: Sequence[int], size: int) -> Pixels:
        """Decode the chosen photos: upright, central square, bicubic with antialias to ``size``."""
        with self._open() as files:
            names = self._names(files)
            return decode_photos([names[index] for index in chosen], files.content, size, self.on_corrupt)


@dataclass(frozen=True)
class Folder(PhotoFiles):
    """A folder with one sub-folder per class, which gives the task "class".

    Photos may lie deeper inside a class's folder. Those outside any have an unknown class.
    """

    summary: ClassVar[str] = "a folder of photos, one sub-folder per class"

    def _open(self) -> Files:
        place = find_file(self.path, "folder of photos", DATA_VARIABLE)
        if not place.is_dir():
            raise InvalidInputError(f"{place} is no folder; for a zip use data 'zip', for a CSV file 'index'")
        return FolderFiles(place)

    def _names(self, files: Files) -> Sequence[str]:
        return files.photos()

    def catalog(self) -> Catalog:
        """Photos sorted by path; task "class" where there are sub-folders."""
        with self._open() as files:
            names = tuple(files.photos())
        labels = categories([name.split("/")[0] if "/" in name else "" for name in names])
        return Catalog(names, {"class": labels} if labels.classes else {})


@dataclass(frozen=True)
class Zip(PhotoFiles):
    """A zip of photos without labels."""

    summary: ClassVar[str] = "a zip of photos, without labels"

    def _open(self) -> Files:
        return ZipFiles(find_file(self.path, "zip of photos", DATA_VARIABLE))

    def _names(self, files: Files) -> Sequence[str]:
        return files.photos()

    def catalog(self) -> Catalog:
        """Photos sorted by their path in the zip."""
        with self._open() as files:
            return Catalog(tuple(files.photos()))


@dataclass(frozen=True)
class Index(PhotoFiles):
    """Photos listed in a CSV file: the file itself, or a folder or zip with an index.csv at its root.

    Column path (relative to the CSV's folder or the zip's root) is required. identity and split (train;
    val, valid, validation; test, target) are optional. Every other column is a task under its own name, its
    classes the sorted distinct values. An empty cell is unknown, or free in column split.
    """

    summary: ClassVar[str] = "photos listed in a CSV file (path, label, identity, split, other tasks)"

    def _place(self) -> Path:
        return find_file(self.path, "CSV file, or folder or zip with an index.csv,", DATA_VARIABLE)

    def _open(self) -> Files:
        place = self._place()
        if zipfile.is_zipfile(place):
            return ZipFiles(place)
        return FolderFiles(place if place.is_dir() else place.parent)

    def _names(self, files: Files) -> Sequence[str]:
        return self._table(files)["path"]

    def _index(self, files: Files) -> bytes:
        place = self._place()
        name = INDEX_FILE if place == files.place else place.name
        if not files.has(name):
            raise InvalidInputError(f"no {name} in {files.place}: a CSV file with the column path is needed")
        try:
            return files.content(name)
        except UNREADABLE as error:
            raise InvalidInputError(f"cannot read {name} in {files.place}: {error}") from None

    def _table(self, files: Files) -> dict[str, list[str]]:
        where = str(self._place())
        table = read_table(self._index(files), where)
        table["path"] = [inside(path, where) for path in table["path"]]
        if len(set(table["path"])) < len(table["path"]):
            twice = next(path for path in table["path"] if table["path"].count(path) > 1)
            raise InvalidInputError(f"{where} lists the photo '{twice}' twice")
        missing = [path for path in table["path"] if not files.has(path)]
        if missing:
            raise InvalidInputError(
                f"{where} lists {len(missing)} photos that are not in {files.place}, first '{missing[0]}'"
            )
        return table

    def _annotations(self, files: Files) -> str:
        return hashlib.sha256(self._index(files)).hexdigest()

    def catalog(self) -> Catalog:
        """Photos in the CSV file's order."""
        with self._open() as files:
            table = self._table(files)
        names = tuple(table.pop("path"))
        identity = categories(table.pop("identity")).values if "identity" in table else None
        split = None
        if "split" in table:
            cells = table.pop("split")
            wrong = sorted(set(cells) - SPLIT_NAMES.keys())
            if wrong:
                known = ", ".join(value for value in SPLIT_NAMES if value)
                raise InvalidInputError(f"{self._place()}: unknown split '{wrong[0]}'; known: {known}, or empty")
            split = tuple(SPLIT_NAMES[cell] for cell in cells)
        return Catalog(names, {task: categories(cells) for task, cells in table.items()}, identity, split)
