"""Runs as one small file: every number that a table or a figure needs, and no photo."""

import json
import lzma
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splitleak.experiments.judge.rules import TAR
from splitleak.experiments.judge.scores import EAVESDROPPING, SIMILARITY, TASK_ACCURACY, TASK_UTILITY, USABLE_BITS
from splitleak.experiments.planning.names import MEMBERS
from splitleak.experiments.planning.tables import VictimTable
from splitleak.experiments.results.load import (
    CELLS,
    Stored,
    cell_keys,
    load_results,
    results_of,
    write_listing,
    write_record,
)
from splitleak.experiments.results.member import member_runs
from splitleak.experiments.results.metrics import SHOWN_METRICS
from splitleak.experiments.results.record import Record, last_line, migrate
from splitleak.experiments.results.results import Results
from splitleak.experiments.store.integrity import digest, replace_if_other
from splitleak.victims.errors import InvalidInputError

FORMAT = 2
"""Of an archive; the first had no seal, and listed ids without keys."""
SUFFIX = ".json.xz"
DROPPED = {"history", "training", "inside", "oracle"}
"""Of a record: what no table of scores needs."""
KEPT = (
    *SHOWN_METRICS,
    *("mse", "psnr_seed_convention", "ms_ssim", "ms_ssim_3", TAR, SIMILARITY, TASK_ACCURACY, TASK_UTILITY),
    *(EAVESDROPPING, USABLE_BITS),
)
"""Metrics whose values of single photos are kept: intervals and paired comparisons rest on them."""
PLACES = {"mse": 5, "psnr": 2, "psnr_seed_convention": 2, USABLE_BITS: 0}
"""Decimals of such a value; three of the others. Means keep all of theirs."""


@dataclass(frozen=True)
class Archived:
    """A run as an archive holds it. ``plan``: the text of its plan; ``seal``: of the archive, where it is in one."""

    name: str
    plan: str
    results: Results
    seal: str | None = None

    @property
    def data(self) -> str:
        """What its photos are called: the file's or folder's name, or the data set's."""
        data: str | dict[str, Any] = tomllib.loads(self.plan).get("victim", {}).get("data", VictimTable().data)
        return data if isinstance(data, str) else Path(str(data.get("path", data["name"]))).name


def write_archive(runs: Sequence[Path], path: Path) -> int:
    """Store runs in one file; the same results make the same file.

    Returns:
        How many records were left out: they are stale or damaged, so that no number may rest on them.

    Raises:
        InvalidInputError: a folder is no run, or the file cannot be written.
    """
    packed = [(_packed(run, results := load_results(run)), results) for run in runs]
    content = {"format": FORMAT, "runs": [run for run, _ in packed]}
    text = json.dumps({**content, "seal": digest(content)}, sort_keys=True, separators=(",", ":"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lzma.compress(text.encode()))
    except OSError as error:
        raise InvalidInputError(f"--file {path} cannot be written: {error.strerror}; name a file") from error
    return sum(len(results.stale) + len(results.damaged) for _, results in packed)


def read_archive(path: Path) -> dict[str, Archived]:
    """The runs of an archive by their names, in its order.

    Raises:
        InvalidInputError: it is no archive, one of a later format, or one that was changed by hand.
    """
    found, content = {}, _content(path)
    seal = seal_in(path)
    for run in content:
        try:
            records = {name: Stored(record, whole=True) for name, record in _records(run).items()}
            keys = _keys(run)
            results = results_of({name: records.get(name) for name in keys}, keys, run["plan"])
        except (KeyError, TypeError, ValueError) as error:
            raise _no_archive(path, error) from error
        found[run["name"]] = Archived(run["name"], run["plan"], results, seal)
    return found


def seal_in(path: Path) -> str | None:
    """The seal of an archive that ``read_archive`` reads; None in one of the first format."""
    seal: str | None = json.loads(lzma.decompress(path.read_bytes())).get("seal")
    return seal


def read_runs(path: Path) -> dict[str, Archived]:
    """The runs of an archive, of a study's folder, or of a run's, by their names.

    Raises:
        InvalidInputError: it is none of these.
    """
    if path.is_file():
        return read_archive(path)
    folders = member_runs(path) if (path / MEMBERS).is_file() else [path]
    loaded = {folder.name: load_results(folder) for folder in folders}
    plans = {folder.name: (folder / "plan.toml").read_text(encoding="utf-8") for folder in folders}
    return {name: Archived(name, plans[name], results) for name, results in loaded.items()}


def restore_archive(path: Path, out: Path) -> list[Path]:
    """Make a folder in ``out`` for each run, to be reported and compared like any other; returns the folders.

    Nothing in it counts as computed: a plan that is run there computes its cells anew.

    Raises:
        InvalidInputError: as ``read_archive`` does, or a run of that name is there.
    """
    folders = []
    for run in _content(path):
        folder = out / run["name"]
        if (folder / CELLS).exists():
            raise InvalidInputError(f"{folder} is a run already; name another folder with --out")
        for record in _records(run).values():
            write_record(folder, record.model_copy(update={"archived": True}))
        replace_if_other(folder / "plan.toml", run["plan"].encode())
        write_listing(folder, _keys(run))
        folders.append(folder)
    return folders


def _packed(run: Path, results: Results) -> dict[str, Any]:
    return {
        "name": run.name,
        "plan": (run / "plan.toml").read_text(encoding="utf-8"),
        "keys": list(cell_keys(run).items()),  # the order counts
        "cells": {record.id: _small(record) for record in results.cells},
    }


def _small(record: Record) -> dict[str, Any]:
    kept = record.model_dump(mode="json", exclude=DROPPED, exclude_defaults=True)
    kept |= {"schema_version": record.schema_version, "traceback": last_line(record.traceback)}
    kept["metrics"] = dict(_rounded(kept.get("metrics", {}), KEPT))
    controls = kept.get("controls", {})
    kept["controls"] = {name: dict(_rounded(scores, SHOWN_METRICS)) for name, scores in controls.items()}
    return kept


def _rounded(scores: Mapping[str, Any], names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for name, score in scores.items():
        if name in names:
            values = [round(value, PLACES.get(name, 3)) for value in score["values"]]
            yield name, {**score, "values": [int(value) if value in (0, 1) else value for value in values]}


def _content(path: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(lzma.decompress(path.read_bytes()))
        if content["format"] not in (1, FORMAT):
            raise ValueError(f"its format is {content['format']}, this version reads up to {FORMAT}")
        if content["format"] == FORMAT and content.pop("seal") != digest(content):
            raise ValueError("its seal is broken: it was changed after it was written")
        runs: list[dict[str, Any]] = content["runs"]
    except (OSError, EOFError, lzma.LZMAError, KeyError, TypeError, ValueError) as error:
        raise _no_archive(path, error) from error
    return runs


def _keys(run: Mapping[str, Any]) -> dict[str, str | None]:
    """Of a run of either format; ids of the first had no keys."""
    return dict(run["keys"]) if "keys" in run else dict.fromkeys(run["ids"])


def _records(run: Mapping[str, Any]) -> dict[str, Record]:
    return {name: Record.model_validate({**migrate(cell), "id": name}) for name, cell in run["cells"].items()}


def _no_archive(path: Path, error: Exception) -> InvalidInputError:
    reason = " ".join(str(error).split())[:200]
    return InvalidInputError(f"{path} is no archive that `splitleak archive` wrote: {reason}")
