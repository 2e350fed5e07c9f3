"""A CSV file that says what is known about photos."""

import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import PurePosixPath, PureWindowsPath

import torch

from splitleak.victims.data.base import Labels
from splitleak.victims.errors import InvalidInputError

SPLIT_NAMES = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "target",
    "target": "target",
    "": "",
}


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


def inside(path: str, where: str) -> str:
    """The path in its plainest form; refused where it could lead out of the data set's folder."""
    windows = PureWindowsPath(path)  # knows both kinds of slash, and drives
    if not path or windows.drive or windows.root or ".." in windows.parts:
        raise InvalidInputError(f"{where} lists the path '{path}': paths must stay inside the CSV's folder")
    return PurePosixPath(path).as_posix()
