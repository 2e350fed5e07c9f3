"""Odd label files, folders and photos: each is read as it was meant, or refused in one line; nothing else happens.

What is meant is drawn first and then written down in an odd way, so that the right answer is known without the code.
"""

import csv
import io
import tempfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from pictures import encoded, picture, write_folder, write_zip

from splitleak.experiments.tools.request import data_setting
from splitleak.victims.data.base import Catalog
from splitleak.victims.data.sources.files import Folder, Index, PhotoFiles, Zip
from splitleak.victims.errors import InvalidInputError

Result = TypeVar("Result")


@contextmanager
def room() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def result_or_refusal(make: Callable[[], Result]) -> Result | None:
    """None where it is refused, which is one line without signs that a terminal cannot show."""
    try:
        return make()
    except InvalidInputError as refusal:
        message = str(refusal)
    assert message.isprintable(), repr(message)
    event("refused")
    return None


def catalog_or_refusal(make: Callable[[], Catalog]) -> Catalog | None:
    """A sound catalogue, or None where it is refused."""
    catalog = result_or_refusal(make)
    if catalog is None:
        return None
    assert all(note.isprintable() for note in catalog.notes), catalog.notes
    assert len(set(catalog.names)) == len(catalog.names)
    for labels in catalog.labels.values():
        assert len(labels.values) == len(catalog)
        assert -1 <= int(labels.values.min()) <= int(labels.values.max()) < len(labels.classes)
        assert len(set(labels.classes)) == len(labels.classes)
    return catalog


# label files

WORDS = st.sampled_from(["cat", "Dog", "große Katze", "犬 🐕", "a, b; c", 'say "x"', "two\nlines", "none", "1x", "-"])
UNKNOWN = ("", "nan", "NaN", "NA", "None", "null", "N/A", "<NA>", "NaT", "  ")
PHOTOS = 24


@dataclass(frozen=True)
class Table:
    """A label file, and what it means: of each photo its class, None where it is unknown; the classes in order."""

    content: bytes
    meant: tuple[str | None, ...]
    classes: tuple[str, ...]
    files: tuple[str, ...]


@st.composite
def tables(draw: st.DrawFn) -> Table:
    numeric = draw(st.booleans())
    if numeric:
        numbers = draw(st.lists(st.integers(-20, 200), min_size=2, max_size=6, unique=True))
        classes: list[str] = [str(number) for number in sorted(numbers)]
        spellings = {name: [name, f"{name}.0", f" {name} "] for name in classes}
    else:
        classes = sorted(draw(st.lists(WORDS, min_size=2, max_size=6, unique=True)))
        spellings = {name: [name, f" {name}\t", unicodedata.normalize("NFD", name)] for name in classes}
    meant = [draw(st.none() | st.sampled_from(classes)) for _ in range(PHOTOS)]
    meant[: 2 * len(classes)] = classes * 2  # fewer photos of each would make it no label
    cells = [draw(st.sampled_from(UNKNOWN if name is None else spellings[name])) for name in meant]
    # where one spelling is used throughout, it is the class's name
    used: dict[str, set[str]] = {}
    for name, cell in zip(meant, cells, strict=True):
        if name is not None:
            used.setdefault(name, set()).add(cell.strip())
    shown = [min(used[name], key=len) if numeric else name for name in classes]
    files = [f"Ä {number % 3}/{number}.png" for number in range(PHOTOS)]
    odd = [
        lambda path: path,
        lambda path: f"./{path}",
        lambda path: path.replace("/", "\\"),
        lambda path: unicodedata.normalize("NFD", path),
        str.upper,
    ]
    paths = [draw(st.sampled_from(odd))(path) for path in files]
    rows = [("path", "label"), *zip(paths, cells, strict=True)]
    if draw(st.booleans()):
        rows = [row[::-1] for row in rows]
    text = io.StringIO()
    separator, ending = draw(st.sampled_from(",;\t")), draw(st.sampled_from(["\n", "\r\n"]))
    csv.writer(text, delimiter=separator, lineterminator=ending).writerows(rows)
    blank = draw(st.sampled_from(["", ending, separator + ending]))
    content = (text.getvalue() + blank).encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])))
    renamed = dict(zip(classes, shown, strict=True))
    return Table(
        content, tuple(None if name is None else renamed[name] for name in meant), tuple(shown), tuple(files)
    )


@settings(max_examples=120, deadline=None)
@given(tables(), st.booleans())
def test_a_label_file_in_any_dress_means_the_same(table: Table, zipped: bool) -> None:
    with room() as place:
        files = {**dict.fromkeys(table.files, b""), "index.csv": table.content}
        path = write_zip(place / "a.zip", files) if zipped else write_folder(place / "a", files)
        assert data_setting(str(path)) == {"name": "index", "path": str(path)}
        catalog = catalog_or_refusal(Index(str(path)).catalog)
    assert catalog is not None
    assert catalog.names == table.files
    labels = catalog.labels["label"]
    read = tuple(labels.classes[value] if value >= 0 else None for value in labels.values.tolist())
    assert labels.classes == table.classes
    assert read == table.meant


PIECES = [*"path,;\t\n\r\"'\\/. ", "label", "split", "a.png", "nan", "1.0", "\0", "é", "\ufeff"]
NOISE = st.lists(st.sampled_from(PIECES)).map("".join)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | NOISE.map(str.encode) | NOISE.map(lambda text: f"path,label\n{text}".encode()))
def test_any_bytes_are_a_label_file_or_refused(content: bytes) -> None:
    with room() as place:
        write_folder(place, {"a.png": b"", "b.png": b"", "index.csv": content})
        catalog_or_refusal(Index(str(place)).catalog)
        catalog_or_refusal(Index(str(place / "index.csv")).catalog)


# folders

NAMES = st.sampled_from(["cat", "dog", "Bird", "10", "9", "2", "犬", "a b", "station", "[x]", "café", "test tube"])
PARTS = {"train": "train", "Training": "train", "VAL": "validation", "valid": "validation", "test": "target"}
LITTER = (
    "@eaDir/1.jpg",
    "__MACOSX/._1.jpg",
    ".git/1.png",
    "#recycle/2.png",
    "Thumbs.db",
    "System Volume Information/3.png",
)


@dataclass(frozen=True)
class Tree:
    """Files, folders without any, and what they mean: of each photo its class and its part of the split."""

    files: tuple[str, ...]
    empty: tuple[str, ...]
    meant: dict[str, tuple[str | None, str | None]]
    classes: tuple[str, ...]
    unread: int


def in_order(names: set[str]) -> tuple[str, ...]:
    if all(name.isascii() and name.isdigit() for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    around = draw(st.sampled_from(["", "", "photos/", "a/b/"]))
    parts: Sequence[str] = draw(st.lists(st.sampled_from(sorted(PARTS)), unique=True, max_size=3))
    parts = parts if len(parts) != 1 else ()  # a part alone is a folder around everything, which has a test
    classes = draw(st.lists(NAMES, min_size=2, max_size=5, unique=True))
    meant: dict[str, tuple[str | None, str | None]] = {}
    for number, name in enumerate(classes):
        for part in parts or [""]:
            if part and number and draw(st.booleans()) and part != parts[0]:
                continue  # a class may be missing in a part
            deep = draw(st.sampled_from(["", "deep/", "x/y/"]))
            extension = draw(st.sampled_from(["jpg", "PNG", "tiff", "jfif", "gif"]))
            path = (
                f"{around}{part}/{name}/{deep}{number}.{extension}"
                if part
                else f"{around}{name}/{deep}{number}.{extension}"
            )
            meant[path] = name, PARTS[part] if part else None
    folder = f"{around}{parts[0]}/" if parts else around
    extra = draw(st.lists(NAMES.filter(lambda name: name not in classes), unique=True, max_size=2))
    unread = draw(st.lists(st.sampled_from(["heic", "CR2", "mp4"]), max_size=3))
    left = [f"{folder}{classes[0]}/unread{number}.{kind}" for number, kind in enumerate(unread)]
    litter = [
        f"{draw(st.sampled_from(['', around, folder + classes[0] + '/']))}{name}"
        for name in draw(st.lists(st.sampled_from(LITTER), unique=True))
    ]
    return Tree(
        (*meant, *left, *litter, *draw(st.sampled_from([(), ("readme.md",), (f"{around}labels/1.txt",)]))),
        tuple(f"{folder}{name}" for name in extra),
        meant,
        in_order({*classes, *extra}),
        len(unread),
    )


def write_tree(place: Path, tree: Tree, zipped: bool) -> PhotoFiles:
    files = dict.fromkeys(tree.files, b"")
    if zipped:
        return Zip(str(write_zip(place / "a.zip", files | {f"{name}/": b"" for name in tree.empty})))
    write_folder(place / "a", files)
    for name in tree.empty:
        (place / "a" / name).mkdir(parents=True, exist_ok=True)
    return Folder(str(place / "a"))


@settings(max_examples=150, deadline=None)
@given(trees(), st.booleans())
def test_folders_in_any_arrangement_mean_the_same(tree: Tree, zipped: bool) -> None:
    with room() as place:
        catalog = catalog_or_refusal(write_tree(place, tree, zipped).catalog)
    assert catalog is not None
    assert catalog.names == tuple(sorted(tree.meant))
    labels = catalog.labels["class"]
    assert labels.classes == tree.classes
    for row, name in enumerate(catalog.names):
        value = int(labels.values[row])
        part = None if catalog.split is None else catalog.split[row]
        assert (labels.classes[value] if value >= 0 else None, part) == tree.meant[name]
    told = [note for note in catalog.notes if note.startswith(f"left out {tree.unread} file")]
    assert len(told) == bool(tree.unread)


FRAGMENTS = [*"ab.@#~ /\\\n\x7f", "train", "test", "cat", ".png", ".jpg", "é", "e\u0301", ".."]
ANY = st.lists(st.sampled_from(FRAGMENTS), min_size=1).map("".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(ANY, min_size=1, max_size=6, unique=True))
def test_any_names_in_a_zip_are_a_data_set_or_refused(names: list[str]) -> None:
    with room() as place:
        path = write_zip(place / "a.zip", dict.fromkeys(names, b""))
        assert data_setting(str(path))["name"] == "zip" if catalog_or_refusal(Zip(str(path)).catalog) else True
        for folders in ("classes", "splits"):
            catalog_or_refusal(Zip(str(path), folders=folders).catalog)  # type: ignore[arg-type]


# damage


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    start = draw(st.sampled_from([0, 0, 0, 3]))
    return bytes(content[start : draw(st.integers(0, len(content)) | st.just(len(content)))])


def zip_of_photos() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("cat/1.png", "dog/2.png"):
            archive.writestr(name, encoded(picture(1, 8, 8)))
    return buffer.getvalue()


def read_or_refusal(source: PhotoFiles) -> None:
    if (catalog := catalog_or_refusal(source.catalog)) is None:
        return
    read = result_or_refusal(lambda: source.read(range(len(catalog)), 8))
    assert read is None or read.images.shape == (len(catalog), 3, 8, 8)


@settings(max_examples=120, deadline=None)
@given(damaged(zip_of_photos()))
def test_a_damaged_zip_is_read_or_refused(content: bytes) -> None:
    with room() as place:
        (place / "a.zip").write_bytes(content)
        read_or_refusal(Zip(str(place / "a.zip")))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "JPEG2000"])
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_damaged_photo_is_read_or_refused(kind: str, data: st.DataObject) -> None:
    with room() as place:
        (place / "a.png").write_bytes(data.draw(damaged(encoded(picture(1, 12, 12), kind))))
        read_or_refusal(Folder(str(place)))
