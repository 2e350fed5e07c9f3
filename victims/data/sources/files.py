"""Data sets of photo files: a folder or a zip with a folder per class, a CSV index."""

import zipfile
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from posixpath import dirname
from typing import Annotated, ClassVar

from annotated_types import MinLen

from splitleak.victims.contents import digest
from splitleak.victims.data.base import Catalog, Pixels, Source
from splitleak.victims.data.containers import Files, FolderFiles, ZipFiles
from splitleak.victims.data.decode import UNREADABLE, OnCorrupt, decode_photos
from splitleak.victims.data.labels import Column, categories, known, why_no_label
from splitleak.victims.data.layout import INDEX_FILE, SPLIT_NAMES, Folders, index_in, layout_of
from splitleak.victims.data.notes import shown
from splitleak.victims.data.table import IDENTITY, PATH, SPLIT, find_listed, read_table
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.files import DATA_VARIABLE, find_file
from splitleak.victims.settings import doc

CLASSES = "class folders"

FEW_CLASSES = 12
"""Class folders up to which a small data set is taken at its word, however few photos they hold."""


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
    def _catalog(self, files: Files) -> Catalog:
        """What is known of the photos there."""

    def catalog(self) -> Catalog:
        """Names, labels, identities and split, as the files' names or the index say them."""
        with self._open() as files:
            return self._catalog(files)

    def fingerprint(self) -> str:
        """A digest of the settings, of the photos' names and bytes (in a zip: of all its bytes), and of the rest of
        the catalogue."""
        with self._open() as files:
            catalog = self._catalog(files)
            labels = {name: (of.classes, of.values.tolist()) for name, of in catalog.labels.items()}
            people = None if catalog.identity is None else catalog.identity.tolist()
            said = [labels, people, catalog.split, catalog.unusable, catalog.notes]
            return digest(self.name, self.choices(), files.fingerprint(catalog.names), said)

    def read(self, chosen: Sequence[int], size: int) -> Pixels:
        """Decode the chosen photos: upright, central square, bicubic with antialias to ``size``."""
        with self._open() as files:
            names = self._names(files)
            return decode_photos([names[index] for index in chosen], files.content, size, self.on_corrupt)

    def _names(self, files: Files) -> Sequence[str]:
        """The photos' names in the catalogue's order."""
        return self._catalog(files).names


@dataclass(frozen=True)
class SortedFiles(PhotoFiles):
    """Photos in folders that say what is on them.

    A folder for each class gives the task "class"; photos may lie deeper inside, those outside any have an unknown
    class, and a class without photos stays one. Folders called train (or training), val (valid, validation) and test
    (testing, target) are the authors' split, and the classes lie one level deeper. A folder around everything counts
    for nothing.
    """

    folders: Annotated[
        Folders, doc("what the outer folders are: classes, parts of a split (splits), or what their names say (auto)")
    ] = "auto"

    def _names(self, files: Files) -> Sequence[str]:
        return files.listing().photos

    def _catalog(self, files: Files) -> Catalog:
        """Photos sorted by path."""
        layout = layout_of(files, self.folders)
        column = categories(layout.classes, CLASSES, layout.places)
        notes = [*layout.notes, *column.merged, *column.notes]
        why = why_no_label(layout.classes, column.labels) if len(layout.places) > FEW_CLASSES else ""
        notes += [f"{CLASSES}: the task {why}"] if why else []
        return Catalog(
            layout.photos,
            {"class": column.labels} if layout.places and not why else {},
            split=layout.split,
            unusable={"class": why} if why else {},
            notes=tuple(notes),
        )


@dataclass(frozen=True)
class Folder(SortedFiles):
    """A folder with one sub-folder per class, or with the folders of a split around these.

    A folder for each class gives the task "class". Photos may lie deeper inside it, those outside any have an unknown
    class, and a class folder without photos stays a class. Folders called train, val and test are the authors' split;
    the classes lie one level deeper then.
    """

    summary: ClassVar[str] = "a folder of photos, one sub-folder per class"

    def _open(self) -> Files:
        place = find_file(self.path, "folder of photos", DATA_VARIABLE)
        if not place.is_dir():
            raise InvalidInputError(
                f"{shown(str(place))} is no folder; for a zip use data 'zip', for a CSV file 'index'"
            )
        return FolderFiles(place)


@dataclass(frozen=True)
class Zip(SortedFiles):
    """A zip of photos, with the folders that data 'folder' has; nothing is unpacked."""

    summary: ClassVar[str] = "a zip of photos, one folder per class"

    def _open(self) -> Files:
        return ZipFiles(find_file(self.path, "zip of photos", DATA_VARIABLE))


@dataclass(frozen=True)
class Index(PhotoFiles):
    """Photos listed in a CSV file: the file itself, or a folder or zip with an index.csv.

    The index.csv lies at the root, or in the one folder around all photos. Its cells are separated by commas,
    semicolons or tabs. Column path (relative to the CSV's folder) is required. identity and split (train; val, valid,
    validation; test, target) are optional. Every other column is a task under its own name; its classes are the
    distinct values, in the order of their characters, whole numbers in numeric order. An empty cell is unknown, or
    free in column split, as are nan, NA, None and the like. A column of measurements, or with about one photo for
    each value, is no task.
    """

    summary: ClassVar[str] = "photos listed in a CSV file (path, label, identity, split, other tasks)"

    def _place(self) -> Path:
        return find_file(self.path, "CSV file, or folder or zip with an index.csv,", DATA_VARIABLE)

    def _open(self) -> Files:
        place = self._place()
        if zipfile.is_zipfile(place):
            return ZipFiles(place)
        return FolderFiles(place if place.is_dir() else place.parent)

    def _index(self, files: Files) -> str:
        """The CSV file's name."""
        place = self._place()
        name = index_in(files) if place == files.place else place.name
        if not name:
            raise InvalidInputError(f"no {INDEX_FILE} in {files.where}: a CSV file with the column path is needed")
        return name

    def _table(self, files: Files) -> tuple[dict[str, list[str]], list[str]]:
        """The columns, with the names of files as paths, and notes on these."""
        where, name = shown(str(self._place())), self._index(files)
        try:
            content = files.content(name)
        except UNREADABLE as error:
            raise InvalidInputError(f"cannot read {shown(name)} in {files.where}: {shown(str(error))}") from None
        table = read_table(content, where)
        table[PATH], notes = find_listed(table[PATH], files, dirname(name), where)
        return table, notes

    def _names(self, files: Files) -> Sequence[str]:
        return self._table(files)[0][PATH]

    def _catalog(self, files: Files) -> Catalog:
        """Photos in the CSV file's order."""
        table, notes = self._table(files)
        names = tuple(table.pop(PATH))
        columns: dict[str, Column] = {}
        split, unusable = None, {}
        for name in list(table):
            title = f"column '{shown(name)}'"
            table[name], unknown = known(table[name], title)
            notes += unknown
            if name == SPLIT:
                split = self._split(table[name])
                continue
            columns[name] = column = categories(table[name], title)
            if name != IDENTITY and (why := why_no_label(table[name], column.labels)):
                unusable[name] = why
                notes.append(f"{title} {why}")
            else:
                notes += [*column.merged, *(column.notes if name != IDENTITY else ())]
        identity = columns.pop(IDENTITY).labels.values if IDENTITY in columns else None
        labels = {name: column.labels for name, column in columns.items() if name not in unusable}
        return Catalog(names, labels, identity, split, unusable, tuple(notes))

    def _split(self, cells: Sequence[str]) -> tuple[str, ...]:
        free = {"": "", **SPLIT_NAMES}
        wrong = sorted({cell for cell in cells if cell.lower() not in free})
        if wrong:
            listed = ", ".join(SPLIT_NAMES)
            where = shown(str(self._place()))
            raise InvalidInputError(f"{where}: unknown split '{shown(wrong[0])}'; known: {listed}, or empty")
        return tuple(free[cell.lower()] for cell in cells)
