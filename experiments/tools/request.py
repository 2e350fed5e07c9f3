"""What is asked about a network and photos, and how it becomes a plan."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from zipfile import is_zipfile

import tomli_w

from splitleak.experiments.planning import plugins
from splitleak.victims.data.containers import Files, FolderFiles, ZipFiles
from splitleak.victims.data.layout import index_in
from splitleak.victims.errors import InvalidInputError, unknown
from splitleak.victims.files import DATA_VARIABLE, find_file
from splitleak.victims.models import SCRATCH, in_file
from splitleak.victims.settings import doc

Data = Annotated[str, doc("a data set's name, a path, or a table as in a plan")]

UNTRAINED = "UNTRAINED ENCODER: its weights are random; a trained one may leak more or less"


def is_untrained(model: str, weights: str) -> bool:
    """Whether a request's network is as random as it was made; a user's function may have trained its own."""
    return weights == SCRATCH and not in_file(model)


def data_name(data: str) -> str:
    """What ``data_setting`` takes, for people: a data set's name, or the last part of a path."""
    return Path(data).resolve().stem


def data_setting(data: str) -> str | dict[str, Any]:
    """What a plan's ``data`` is: ``data`` is a data set's name, a path, or the text of such a table.

    Raises:
        InvalidInputError: no such data set and no such file, or no table.
    """
    if data.startswith("{"):
        try:
            table: dict[str, Any] = tomllib.loads(f"data = {data}")["data"]
        except tomllib.TOMLDecodeError as error:
            raise InvalidInputError(f"data = {data} is no TOML table: {error}") from None
        return table
    known = plugins.source_classes()
    if data in known:
        return data
    try:
        place = find_file(data, "folder of photos, zip or CSV file", DATA_VARIABLE)
    except InvalidInputError as error:
        raise InvalidInputError(f"{unknown('data set', data, known)}; {error}") from None
    return {"name": _kind(place), "path": data}


def _kind(place: Path) -> Literal["index", "folder", "zip"]:
    """The data set that a folder, a zip or a CSV file is."""
    if place.is_file() and place.suffix.lower() != ".zip" and not is_zipfile(place):
        return "index"
    files: Files = FolderFiles(place) if place.is_dir() else ZipFiles(place)
    with files:
        if index_in(files):
            return "index"
    return "folder" if place.is_dir() else "zip"


def plan_text(
    comments: Iterable[str],
    tables: Mapping[str, Any],
    defenses: Sequence[Mapping[str, Any]],
    attacks: Sequence[Mapping[str, Any]],
) -> str:
    """A plan's file.

    Each defence and each attack is a table of its own at the end, so that a user can add further ones there; none
    may hold tables itself.
    """
    text = "".join(f"# {line}\n" for line in comments) + tomli_w.dumps(tables)
    for name, entries in (("defenses", defenses), ("attacks", attacks)):
        text += "".join(f"\n[[{name}]]\n{tomli_w.dumps(entry)}" for entry in entries)
    return text
