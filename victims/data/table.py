"""A CSV file that says what is known about photos."""

import codecs
import csv
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import StringIO
from pathlib import PurePosixPath, PureWindowsPath
from unicodedata import normalize

from splitleak.victims.data.containers import Files
from splitleak.victims.data.notes import counted, listed, shown
from splitleak.victims.errors import InvalidInputError

PATH, IDENTITY, SPLIT = "path", "identity", "split"
"""Columns with a meaning of their own, in capitals or not."""

SEPARATORS = (",", ";", "\t")

MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # begins like the mark of UTF-16
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order marks, which spreadsheet programs put in front, and what follows them."""


def read_table(content: bytes, where: str) -> dict[str, list[str]]:
    """A CSV file's columns by name, cells stripped of blanks. It may have commas, semicolons or tabs between cells.

    Raises:
        InvalidInputError: neither UTF-8 nor marked as UTF-16, no column path, a column without a name or twice, a row
            of another length than the header, no rows.
    """
    encoding = next((of for mark, of in MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
        rows = list(_rows(text, _separator(text)))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError(f"{where} is no CSV file in UTF-8: {shown(str(error))}") from None
    header = rows[0] if rows else []
    header = [name.lower() if name.lower() in (PATH, IDENTITY, SPLIT) else name for name in header]
    if PATH not in header:
        raise InvalidInputError(f"{where} needs a column '{PATH}'; its columns are: {listed(header)}")
    if "" in header or len(set(header)) < len(header):
        raise InvalidInputError(f"{where}: every column needs a name of its own: {listed(header)}")
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(header):
            raise InvalidInputError(f"{where}: row {number} has {len(row)} cells, the header {len(header)}")
    if len(rows) == 1:
        raise InvalidInputError(f"{where} lists no photos")
    return {name: [row[column] for row in rows[1:]] for column, name in enumerate(header)}


def _rows(text: str, separator: str) -> Iterator[list[str]]:
    """Cells stripped of blanks, without rows that are blank as a whole."""
    for row in csv.reader(StringIO(text, newline=""), strict=True, delimiter=separator):
        cells = [cell.strip() for cell in row]
        if any(cells):
            yield cells


def _separator(text: str) -> str:
    """That by which the first row says in the most columns where photos are."""

    def columns(separator: str) -> int:
        with suppress(csv.Error):  # quotes that make sense with another one
            header = next(_rows(text, separator), [])
            return len(header) if PATH in map(str.lower, header) else 0
        return 0

    return max(SEPARATORS, key=columns)


def find_listed(paths: Sequence[str], files: Files, folder: str, where: str) -> tuple[list[str], list[str]]:
    """The names of the files that a CSV file's paths mean, and notes on those that are written otherwise.

    A path is relative to ``folder``. It may be written on Windows, in another Unicode form than the file's name, or
    with other capitals, where only one file can be meant.

    Raises:
        InvalidInputError: a path leads out of the data set, means no file or several, or is listed twice.
    """
    found = [_exact(path, files, folder, where) for path in paths]
    missing = [row for row, name in enumerate(found) if not files.has(name)]
    notes = []
    for how, fold in (("Unicode's form", _form), ("capitals", _small)) if missing else ():
        candidates = defaultdict(list)
        for name in files.listing().files:
            candidates[fold(name)].append(name)
        meant = {row: candidates.get(fold(found[row]), []) for row in missing}
        for row, names in meant.items():
            if len(names) > 1:
                raise InvalidInputError(f"{where} lists '{shown(paths[row])}', which may mean {listed(names)}")
            found[row] = names[0] if names else found[row]
        if renamed := sum(map(bool, meant.values())):
            notes.append(f"{counted(renamed, 'path')} found under a name that differs in {how} only")
        missing = [row for row, names in meant.items() if not names]
    if missing:
        place, first = shown(str(files.place / folder)), shown(paths[missing[0]])
        raise InvalidInputError(f"{where} lists {len(missing)} photos that are not in {place}, first '{first}'")
    name, times = Counter(found).most_common(1)[0]
    if times > 1:
        raise InvalidInputError(f"{where} lists the photo '{shown(name)}' twice")
    return found, notes


def _exact(path: str, files: Files, folder: str, where: str) -> str:
    """The name of a file in its plainest form; refused where it could lead out of the data set's folder."""
    windows = PureWindowsPath(path)  # knows both kinds of slash, and drives
    if not path or windows.root or ".." in windows.parts:
        raise InvalidInputError(f"{where} lists the path '{shown(path)}': paths must stay inside the CSV's folder")
    name = (PurePosixPath(folder) / path).as_posix()
    if "\\" in path and not files.has(name):
        return (PurePosixPath(folder) / path.replace("\\", "/")).as_posix()
    return name


def _form(name: str) -> str:
    return normalize("NFC", name)


def _small(name: str) -> str:
    return _form(_form(name).casefold())
