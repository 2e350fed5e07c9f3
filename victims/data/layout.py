"""What folders mean: which are classes, which are the parts of a split, and which only lie around the others."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from posixpath import basename, commonpath, dirname, splitext
from typing import Literal

from splitleak.victims.data.containers import Files, Listing, folders_of
from splitleak.victims.data.decode import EXTENSIONS
from splitleak.victims.data.notes import counted, listed, shown
from splitleak.victims.errors import InvalidInputError

Folders = Literal["auto", "classes", "splits"]

INDEX_FILE = "index.csv"

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "target",
    "testing": "target",
    "target": "target",
}
"""What people call the parts of a split, in small letters, and what they are here."""

TEXTS = frozenset(
    {".csv", ".tsv", ".txt", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".md", ".rst"}
    | {".html", ".htm", ".log", ".py", ".ipynb", ".sh", ".lst", ".md5", ".sha1", ".sha256"}
)
"""Extensions of what is written about photos, and of programs."""

PAPERS = frozenset({"readme", "license", "licence", "copying", "notice", "authors", "changelog", "citation"})
"""What is written about photos and has no extension."""


@dataclass(frozen=True)
class Layout:
    """What a place says about its photos.

    ``photos``: names, sorted. ``classes``: of each photo the folder that is its class, "" where it lies in none.
    ``places``: all class folders, those without a photo too. ``split``: as a catalogue has it.
    """

    photos: tuple[str, ...]
    classes: tuple[str, ...]
    places: tuple[str, ...]
    split: tuple[str, ...] | None
    notes: tuple[str, ...]


def layout_of(files: Files, folders: Folders) -> Layout:
    """Read the folders of a place.

    Raises:
        InvalidInputError: no photos, or folders that are named like the parts of a split beside others.
    """
    tree = _Tree(files.listing())
    if not tree.listing.photos:
        kinds = ", ".join(sorted(EXTENSIONS))
        there = f"it holds {unread}; " if (unread := _unread(tree.listing)) else ""
        raise InvalidInputError(f"no photos in {files.where}: {there}looked for files ending in {kinds}")
    base = tree.around(folders)
    tops = tree.inside(base)
    split = _split_of(tops, tree, files.where, folders)
    depth = len(base.split("/")) if base else 0
    classes: list[str] = []
    parts: list[str] = []
    for photo in tree.listing.photos:
        above = photo.split("/")[depth:-1]
        parts.append(above[0] if above else "")
        above = above[1:] if split else above
        classes.append(above[0] if above else "")
    known = set(classes) - {""}
    places = {basename(one) for top in tops for one in tree.inside(top)} if split else {basename(top) for top in tops}
    return Layout(
        photos=tree.listing.photos,
        classes=tuple(classes),
        places=tuple(sorted(known | places)) if known else (),
        split=tuple(split.get(part, "") for part in parts) if split else None,
        notes=tuple(_notes(tree, base, split, parts, classes)),
    )


class _Tree:
    """A listing, and which of its folders hold what. ``pictured``: those with photos, at any depth."""

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self.pictured = {folder for name in listing.photos for folder in folders_of(name)}
        self.direct = {dirname(name) for name in listing.photos}
        written = {folder for name in listing.files if _is_text(name) for folder in folders_of(name)}
        unread = {folder for name in listing.files if _is_unread(name) for folder in folders_of(name)}
        self._inside: dict[str, list[str]] = defaultdict(list)
        for folder in listing.folders:
            # a folder with nothing but texts in it holds what is said of photos elsewhere
            if folder in self.pictured or folder in unread or folder not in written:
                self._inside[dirname(folder)].append(folder)

    def inside(self, folder: str) -> list[str]:
        """The folders directly in one that could be of a class: they hold photos, could hold them, or are empty."""
        return self._inside.get(folder, [])

    def around(self, folders: Folders) -> str:
        """The innermost folder that lies around all classes or parts of a split: "" where there is none.

        One that is called like a part is such a folder too where no other part lies beside it.
        """
        base = ""
        while base not in self.direct and len(self.inside(base)) == 1:
            (only,) = self.inside(base)
            part = basename(only).lower() in SPLIT_NAMES
            deeper = any(one in self.pictured for one in self.inside(only)) and only not in self.direct
            if not (deeper or (part and folders == "auto")) or (part and folders == "splits"):
                break
            base = only
        return base


def _split_of(tops: list[str], tree: _Tree, place: str, folders: Folders) -> dict[str, str]:
    """What each of these folders is in the authors' split, by its name; empty where they are classes.

    Raises:
        InvalidInputError: some are called like parts of a split, and others with photos are not.
    """
    if folders == "classes":
        return {}
    names = [basename(top) for top in tops]
    split = {name: SPLIT_NAMES[name.lower()] for name in names if name.lower() in SPLIT_NAMES}
    likely = {name: part for name in names if (part := _likely_part(name))}
    if folders == "splits" or len({*likely.values()}) > 1:  # one such name alone may be a class: "bullet train"
        split = likely
    if folders == "splits" and not split:
        there = listed(names) or "none"
        raise InvalidInputError(f'folders = "splits": no folder train, val or test in {place}; there: {there}')
    others = [basename(top) for top in tops if top in tree.pictured and basename(top) not in split]
    if folders == "auto" and split and others:
        raise InvalidInputError(
            f"{place} holds {listed(split)}, named like parts of a split, beside {listed(others)}: set "
            'folders = "classes" or folders = "splits" for the data, or move one kind away'
        )
    return split


def _likely_part(name: str) -> str:
    """The part of a split that is meant by such a name as ``train2017`` or ``images_test``, if one is."""
    words = re.findall("[a-z]+", name.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), "")


def _notes(tree: _Tree, base: str, split: dict[str, str], parts: list[str], classes: list[str]) -> Iterator[str]:
    yield from tree.listing.notes
    if unread := _unread(tree.listing):
        yield f"left out {unread}"
    if index := index_in_listing(tree.listing):
        yield f"'{shown(index)}' is not read: data 'index' does that"
    if base:
        yield f"the folder '{shown(base)}' lies around all photos and is looked through"
    if split:
        told = [f"{shown(name)} = {part}" for name, part in sorted(split.items())]
        yield f"folders are the authors' split: {', '.join(told)}"
        bare = sorted(name for name in split if name not in parts)
        if bare:
            yield f"no photo in these folders of the split: {listed(bare)}"
        if free := sum(part not in split for part in parts):
            yield f"{counted(free, 'photo')} outside the folders of the split may go to any part"
    if any(classes):
        if stray := classes.count(""):
            yield f"the class of {counted(stray, 'photo')} outside any class folder is unknown"
        if not split:
            depth = len(base.split("/")) if base else 0
            below = {name.split("/")[depth + 1] for name in tree.listing.photos if name.count("/") > depth + 1}
            if deep := sorted(name for name in below if name.lower() in SPLIT_NAMES):
                yield f"the folders {listed(deep)} inside class folders are not taken for a split"


def index_in(files: Files) -> str:
    """The name of the CSV file that lists a place's photos, in the place or in the one folder around all photos; ""
    where there is none."""
    return INDEX_FILE if files.has(INDEX_FILE) else index_in_listing(files.listing())


def index_in_listing(listing: Listing) -> str:
    """As ``index_in``, of what is listed already."""
    inner = commonpath([f"/{dirname(name)}" for name in listing.photos or listing.files or ("",)])
    around = [*folders_of(f"{inner[1:]}/x")] if inner != "/" else []
    named = {dirname(name): name for name in listing.files if basename(name).lower() == INDEX_FILE}
    return next((named[folder] for folder in ("", *around) if folder in named), "")


def _is_text(name: str) -> bool:
    stem, extension = splitext(basename(name).lower())
    return extension in TEXTS or (not extension and stem in PAPERS)


def _is_unread(name: str) -> bool:
    return splitext(name)[1].lower() not in EXTENSIONS and not _is_text(name)


def _unread(listing: Listing) -> str:
    """How many files are no photos here and may be photos elsewhere, by their extensions; "" where there is none."""
    kinds = Counter(splitext(name)[1].lower() or "without any" for name in listing.files if _is_unread(name))
    if not kinds:
        return ""
    said = listed(f"{count} {kind}" for kind, count in sorted(kinds.items(), key=lambda one: (-one[1], one[0])))
    return f"{counted(kinds.total(), 'file')} whose extension is not read: {said}"
