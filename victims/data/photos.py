"""Data sets of photo files: a folder per class, a CSV index, a plain zip; and how a photo is decoded."""

import csv
import hashlib
import json
import os
import stat
import struct
import threading
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from annotated_types import MinLen
from PIL import Image, ImageOps, UnidentifiedImageError

from splitleak.victims.data.base import Catalog, Labels, Pixels, Source
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.files import DATA_VARIABLE, find_file
from splitleak.victims.settings import doc

OnCorrupt = Literal["refuse", "skip"]

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
"""What Pillow may try; its other readers (some start other programs) stay out of reach of a data set."""

MAX_PIXELS = 64 * 2**20
"""Width x height above which a photo is not decoded: its header may promise more than memory holds."""

MAX_BYTES = 4 * MAX_PIXELS
"""A file larger than an uncompressed photo of MAX_PIXELS with four channels is not read."""

MAX_THREADS = 8

UNREADABLE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    RuntimeError,  # zipfile's complaint about an encrypted member, or one in an unknown compression
    Image.DecompressionBombError,
)
"""What Pillow and zipfile raise on damaged or hostile files."""


def square(image: Image.Image, size: int) -> npt.NDArray[np.uint8]:
    """The central square of an image at ``size`` pixels, bicubic with antialias: uint8 (size, size, 3), RGB.

    Nothing is resampled where the central square already has that size.
    """
    if image.mode.startswith("I;16"):  # Pillow's own conversion clips 16 bits to 8 and turns most of it white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    if side != size:
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def decode(content: bytes, size: int) -> npt.NDArray[np.uint8]:
    """Decode one photo file as an upright RGB square: uint8 (size, size, 3).

    Raises:
        any of UNREADABLE: no photo in one of FORMATS, damaged, or more than MAX_PIXELS.
    """
    with Image.open(BytesIO(content), formats=FORMATS) as image:  # reads the header only
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"declares {image.width}x{image.height} pixels, the limit is {MAX_PIXELS}")
        return square(ImageOps.exif_transpose(image), size)


def read_photo(path: Path, size: int) -> npt.NDArray[np.uint8]:
    """One photo file as photos of a data set are read: uint8 (size, size, 3).

    Raises:
        InvalidInputError: there is no such file, or it is unreadable.
    """
    if not path.is_file():
        raise InvalidInputError(f"no photo at {path.absolute()}")
    try:
        return decode(FolderFiles(path.parent).content(path.name), size)
    except UNREADABLE as error:
        raise InvalidInputError(f"photo {path} is unreadable ({_reason(error)})") from error


def _reason(error: Exception) -> object:
    """Why a photo is unreadable; Pillow's own words for a file that is none only name an object in memory."""
    return f"no {', '.join(FORMATS)} image" if isinstance(error, UnidentifiedImageError) else error


def decode_photos(names: Sequence[str], content: Callable[[str], bytes], size: int, on_corrupt: OnCorrupt) -> Pixels:
    """Decode photos in a few threads (Pillow releases the interpreter while it decodes), keeping their order.

    ``content``: a photo's name -> its file's bytes; called from several threads at once.

    Raises:
        InvalidInputError: a photo is unreadable and ``on_corrupt`` is "refuse"; names the photo.
    """
    images = torch.empty((len(names), 3, size, size), dtype=torch.uint8)
    rows = images.numpy()

    def fill(position: int) -> bool:
        try:
            photo = decode(content(names[position]), size)
        except UNREADABLE as error:
            if on_corrupt == "skip":
                return False
            raise InvalidInputError(
                f"photo '{names[position]}' is unreadable ({_reason(error)}); "
                'repair or remove it, or set on_corrupt = "skip"'
            ) from error
        rows[position] = photo.transpose(2, 0, 1)
        return True

    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        readable = torch.tensor(list(pool.map(fill, range(len(names)))), dtype=torch.bool)
    if readable.all():
        return Pixels(images)
    return Pixels(images[readable], tuple((~readable).nonzero().flatten().tolist()))


def digest(*facts: object) -> str:
    """SHA-256 of plain values (what JSON can hold), as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


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
        path = self.place / name
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would block for ever
            raise OSError("not a regular file")
        _check_bytes(status.st_size)
        return path.read_bytes()

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
        _check_bytes(member.file_size)
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


def _check_bytes(count: int) -> None:
    if count > MAX_BYTES:
        raise ValueError(f"{count} bytes, the limit is {MAX_BYTES}")


@dataclass(frozen=True)
class PhotoFiles(Source):
    """A data set whose photos are files."""

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
        """A digest of the settings and of the photos' names, sizes and times (in a zip: CRCs and sizes)."""
        with self._open() as files:
            stamps = sorted(files.stamp(name) for name in self._names(files))
            return digest(self.name, self.to_mapping(), stamps, self._annotations(files))

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


INDEX_FILE = "index.csv"

SPLIT_NAMES = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "target",
    "target": "target",
    "": "",
}


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
        table["path"] = [_inside(path, where) for path in table["path"]]
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


def categories(cells: Sequence[str]) -> Labels:
    """Labels from text: the classes are the sorted distinct values, an empty text is unknown (-1)."""
    classes = tuple(sorted(set(cells) - {""}))
    number = {name: index for index, name in enumerate(classes)} | {"": -1}
    return Labels(torch.tensor([number[cell] for cell in cells], dtype=torch.int64), classes)


def read_table(content: bytes, where: str) -> dict[str, list[str]]:
    """A CSV file's columns by name, cells stripped of blanks.

    Raises:
        InvalidInputError: not UTF-8, no column path, a column without a name or twice, a row of another
            length than the header, no rows.
    """
    try:
        # "utf-8-sig": spreadsheet programs put a byte order mark in front
        rows = list(csv.reader(StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError(f"{where} is no CSV file in UTF-8: {error}") from None
    header = [cell.strip() for cell in rows[0]] if rows else []
    if "path" not in header:
        raise InvalidInputError(f"{where} needs a column 'path'; its columns are: {', '.join(header)}")
    if "" in header or len(set(header)) < len(header):
        raise InvalidInputError(f"{where}: every column needs a name of its own: {', '.join(header)}")
    body = [row for row in rows[1:] if row]
    for number, row in enumerate(body, start=1):
        if len(row) != len(header):
            raise InvalidInputError(f"{where}: row {number} has {len(row)} cells, the header {len(header)}")
    if not body:
        raise InvalidInputError(f"{where} lists no photos")
    return {name: [row[column].strip() for row in body] for column, name in enumerate(header)}


def _inside(path: str, where: str) -> str:
    """The path in its plainest form; refused where it could lead out of the data set's folder."""
    windows = PureWindowsPath(path)  # knows both kinds of slash, and drives
    if not path or windows.drive or windows.root or ".." in windows.parts:
        raise InvalidInputError(f"{where} lists the path '{path}': paths must stay inside the CSV's folder")
    return PurePosixPath(path).as_posix()
