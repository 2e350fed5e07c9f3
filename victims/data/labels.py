"""How what is written about photos becomes labels."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple
from unicodedata import normalize

import torch

from splitleak.victims.data.base import Labels
from splitleak.victims.data.notes import counted, listed, shown

MISSING = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A"}
    | {"NA", "NULL", "NaN", "NaT", "None", "n/a", "nan", "null"}
)
"""What means that nothing is known: what pandas 2 writes and reads so."""

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)

CROWDED = 0.75
"""Classes per photo above which a column tells photos apart instead of grouping them."""


class Column(NamedTuple):
    """Labels; notes on what became one class; and all else that is to be said of the classes."""

    labels: Labels
    merged: tuple[str, ...]
    notes: tuple[str, ...]


def known(cells: Sequence[str], title: str) -> tuple[list[str], list[str]]:
    """Cells, "" where nothing is known; and a note where something else stood there. ``title``: what they are."""
    words = Counter(cell for cell in cells if cell and cell in MISSING)
    note = f"{title}: {counted(words.total(), 'cell')} with {listed(sorted(words))} taken as unknown"
    return ["" if cell in MISSING else cell for cell in cells], [note] if words else []


def categories(cells: Sequence[str], title: str, places: Iterable[str] = ()) -> Column:
    """Labels from text: the classes are the distinct values, an empty text is unknown (-1).

    Values that are whole numbers all of them are in numeric order, and different spellings of one number are one
    class; others are in the order of their characters, and different Unicode forms of one text are one class.
    ``places``: values that are classes though no photo may have them. ``title``: what the values are, for the notes.
    """
    written = sorted(({*cells} | {*places}) - {""})
    spelled: dict[str | Decimal, list[str]] = defaultdict(list)
    numeric = all(_is_whole(value) for value in written)
    for value in written:
        spelled[Decimal(value) if numeric else normalize("NFC", value)].append(value)
    order = sorted(spelled)  # numbers or texts, never both
    classes = tuple(min(spelled[key], key=len) if numeric else str(key) for key in order)
    number = {value: index for index, key in enumerate(order) for value in spelled[key]} | {"": -1}
    labels = Labels(torch.tensor([number[cell] for cell in cells], dtype=torch.int64), classes)
    several = [" and ".join(values) for values in spelled.values() if len(values) > 1]
    what = "spellings of one number" if numeric else "names that differ in Unicode's form only"
    merged = [f"{title}: {what} are one class: {listed(several)}"] if several else []
    return Column(labels, tuple(merged), tuple(_notes(labels, title)))


def _notes(labels: Labels, title: str) -> Iterator[str]:
    classes = labels.classes
    if classes != tuple(sorted(classes)):
        yield f"{title}: whole numbers, in numeric order: {_row(classes)}"
    times = Counter(name.casefold() for name in classes)
    if alike := [name for name in classes if times[name.casefold()] > 1]:
        yield f"{title}: {listed(alike)} differ in capitals only and are classes of their own"
    photos = torch.bincount(labels.values[labels.values >= 0], minlength=len(classes)).tolist()
    empty = [name for name, count in zip(classes, photos, strict=True) if not count]
    if len(empty) == 1:
        yield f"class '{shown(empty[0])}' has no photo"
    elif empty:
        yield f"{len(empty)} classes have no photo: {listed(empty)}"


def why_no_label(cells: Sequence[str], labels: Labels) -> str:
    """Why a column does not say to which of some classes a photo belongs, as the end of a sentence; "" if it does.

    ``labels``: what ``categories`` makes of the cells.
    """
    values = [cell for cell in cells if cell]
    if not values:
        return "is unknown for every photo"
    numbers = [cell for cell in values if NUMBER.fullmatch(cell)]
    fractions = [cell for cell in numbers if not _is_whole(cell)]
    if fractions and (2 * len(fractions) > len(values) or len(numbers) == len(values)):
        return f"holds measurements such as {shown(fractions[0])}, no classes; sort them into groups first"
    different = len(labels.classes)
    if different > CROWDED * len(values):
        kind = "measurements, no classes" if len(numbers) == len(values) else "about one photo each"
        return f"has {counted(different, 'different value')} for {counted(len(values), 'photo')}: {kind}"
    return ""


def _is_whole(value: str) -> bool:
    return bool(NUMBER.fullmatch(value)) and (number := Decimal(value)) == number.to_integral_value()


def _row(classes: Sequence[str]) -> str:
    """Such as ``0, 1, 2, ..., 11``."""
    names = [shown(name) for name in classes]
    return ", ".join(names if len(names) < 6 else [*names[:3], "...", names[-1]])
