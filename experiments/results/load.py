"""A run's stored records: which are its own, which are stale, and which are not as they were written."""

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from splitleak.experiments.planning.names import MAY_LOSE
from splitleak.experiments.results.record import Record, migrate
from splitleak.experiments.results.results import Results
from splitleak.experiments.store.integrity import digest, file_digest, replace_if_other, write_atomically
from splitleak.victims.errors import InvalidInputError

CELLS = "cells.json"
"""File in a run's folder: its cells in the plan's order, by id, each with the key that its result must have."""
PICTURES = (".png", ".maps.png", ".stages.png")
"""Beside a cell's file: the first reconstructions; of the first the maps that were sent, and the decoder's stages."""
LISTING = 2
"""Of the listing's form. The first was a list of ids, which told of no key."""


@dataclass(frozen=True)
class Stored:
    """A cell's file as it was read. ``whole``: its seal holds: it and its pictures are as they were written."""

    record: Record
    whole: bool


def record_file(run: Path, identifier: str) -> Path:
    """Where a cell's record lies."""
    return run / "cells" / f"{identifier}.json"


def write_listing(run: Path, keys: Mapping[str, str | None]) -> None:
    """Store which cells a run has, and the key that each result must have to be this plan's with this code."""
    replace_if_other(run / CELLS, json.dumps({"listing": LISTING, "cells": dict(keys)}, indent=1).encode())


def cell_keys(run: Path) -> dict[str, str | None]:
    """Of a run's cells by id, in the order of its plan; None where the run is older than such keys.

    Raises:
        InvalidInputError: there is no run, or its list cannot be read.
    """
    listed = run / CELLS
    if not listed.is_file():
        raise InvalidInputError(f"no run at {run.absolute()}: no {CELLS} there; give a folder like runs/quick")
    try:
        content = json.loads(listed.read_text())
        if isinstance(content, list):
            return dict.fromkeys(content)
        if content["listing"] != LISTING:
            raise ValueError(f"its form is {content['listing']}, this splitleak reads up to {LISTING}")
        keys: dict[str, str | None] = content["cells"]
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidInputError(f"{listed} is no list of cells ({error}); run the plan again to write it") from error
    return keys


def cell_ids(run: Path) -> list[str]:
    """Of a run's cells, in the order of its plan; raises as ``cell_keys`` does."""
    return list(cell_keys(run))


def write_record(run: Path, record: Record) -> Record:
    """Store a record with its seal; returns it as it is read again."""
    content = json.loads(record.model_dump_json())
    sealed = {**content, "seal": seal_of(run, record.id, content)}
    write_atomically(record_file(run, record.id), json.dumps(sealed, indent=1))
    return Record.model_validate(content)


def seal_of(run: Path, identifier: str, content: Mapping[str, Any]) -> str:
    """Of what a cell's file holds beside the seal, and of the pictures beside the file."""
    files = [record_file(run, identifier).with_name(f"{identifier}{kind}") for kind in PICTURES]
    return digest([content, [file_digest(file) for file in files if file.is_file()]])


def run_seal(run: Path) -> str:
    """Of all that a run has measured: of its cells' files, which hold their own seals, in the plan's order.

    Raises:
        InvalidInputError: there is no run, or its list cannot be read.
    """
    files = {identifier: record_file(run, identifier) for identifier in cell_ids(run)}
    return digest([[name, file_digest(file) if file.is_file() else None] for name, file in files.items()])


def read_record(run: Path, identifier: str) -> Stored | None:
    """A cell's record, of any version; None where there is none.

    Raises:
        InvalidInputError: the file is no record; the message names it.
    """
    path = record_file(run, identifier)
    try:
        content = json.loads(path.read_bytes())
        seal = content.pop("seal", None)
        record = Record.model_validate({**migrate(content), "id": identifier})
    except FileNotFoundError:
        return None
    except (ValidationError, ValueError, TypeError, AttributeError) as error:
        raise InvalidInputError(f"{path} is not a cell of a run: {error}") from error
    return Stored(record, seal == seal_of(run, identifier, content))


def load_results(run: Path, ids: Sequence[str] | None = None) -> Results:
    """Read a run's records; those of another key, or whose seal is broken, are told apart and take no part.

    Args:
        run: its folder.
        ids: only these of its cells, by default all.

    Raises:
        InvalidInputError: there is no run, or a file is no record; the message names it.
        ValueError: the cells do not share one victim.
    """
    keys = cell_keys(run)
    found = {identifier: read_record(run, identifier) for identifier in (keys if ids is None else ids)}
    plan = run / "plan.toml"
    return results_of(found, keys, plan.read_text(encoding="utf-8") if plan.is_file() else "")


def results_of(found: Mapping[str, Stored | None], keys: Mapping[str, str | None], plan: str) -> Results:
    """Sort records by id into those of their keys, and the others; ``plan``: the text of the run's plan."""
    stored = {identifier: one for identifier, one in found.items() if one is not None}
    damaged = {identifier for identifier, one in stored.items() if not one.whole}
    stale = {name for name, one in stored.items() if keys.get(name) not in (None, one.record.key)} - damaged
    return Results(
        cells=_records(one for name, one in stored.items() if name not in damaged | stale),
        missing=tuple(identifier for identifier, one in found.items() if one is None),
        stale=_records(stored[name] for name in found if name in stale),
        damaged=_records(stored[name] for name in found if name in damaged),
        may_lose=_may_lose(plan),
    )


def _may_lose(plan: str) -> tuple[float, ...]:
    """What a plan's text says that a defence may cost; its plugins need not be here."""
    try:
        return tuple(tomllib.loads(plan).get("judge", {}).get("may_lose", MAY_LOSE))
    except tomllib.TOMLDecodeError:  # changed by hand since: the numbers are there all the same
        return MAY_LOSE


def _records(stored: Iterable[Stored]) -> tuple[Record, ...]:
    return tuple(one.record for one in stored)
