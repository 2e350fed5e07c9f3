"""Runs as one small file: every number that a table or a figure needs, and no photo."""

import json
import lzma
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splitleak.experiments.judge.scores import SIMILARITY, TAR, TASK_ACCURACY
from splitleak.experiments.results.results import SHOWN_METRICS, Results, last_line, load_results, results_of
from splitleak.experiments.run.execute import CELLS, cell_ids
from splitleak.experiments.store.integrity import replace_if_other, write_atomically
from splitleak.victims.errors import InvalidInputError

FORMAT = 1
SUFFIX = ".json.xz"
DROPPED = ("seal", "history", "training", "inside", "oracle")
"""Of a cell: what no table of scores needs."""
KEPT = (*SHOWN_METRICS, "mse", "psnr_seed_convention", "ms_ssim", "ms_ssim_3", TAR, SIMILARITY, TASK_ACCURACY)
"""Metrics whose values of single photos are kept: intervals and paired comparisons rest on them."""
PLACES = {"mse": 5, "psnr": 2, "psnr_seed_convention": 2}
"""Decimals of such a value; three of the others. Means keep all of theirs."""


@dataclass(frozen=True)
class Archived:
    """A run as an archive holds it. ``plan``: the text of its plan."""

    name: str
    plan: str
    results: Results


def write_archive(runs: Sequence[Path], path: Path) -> None:
    """Store runs in one file; the same results make the same file.

    Raises:
        InvalidInputError: a folder is no run, or the file cannot be written.
    """
    content = {"format": FORMAT, "runs": [_packed(run) for run in runs]}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lzma.compress(text.encode()))
    except OSError as error:
        raise InvalidInputError(f"--file {path} cannot be written: {error.strerror}; name a file") from error


def read_archive(path: Path) -> dict[str, Archived]:
    """The runs of an archive by their names, in its order.

    Raises:
        InvalidInputError: it is no archive, or one of another format.
    """
    try:
        return {run["name"]: Archived(run["name"], run["plan"], _results(run)) for run in _content(path)}
    except (KeyError, TypeError, ValueError) as error:
        raise _no_archive(path, error) from error


def restore_archive(path: Path, out: Path) -> list[Path]:
    """Make a folder in ``out`` for each run, to be reported and compared like any other; returns the folders.

    Nothing in it counts as computed: a plan that is run there computes its cells anew.

    Raises:
        InvalidInputError: it is no archive, or a run of that name is there.
    """
    folders = []
    for run in _content(path):
        folder = out / run["name"]
        if (folder / CELLS).exists():
            raise InvalidInputError(f"{folder} is a run already; name another folder with --out")
        for identifier, cell in run["cells"].items():
            write_atomically(folder / "cells" / f"{identifier}.json", json.dumps(cell, indent=1))
        replace_if_other(folder / "plan.toml", run["plan"].encode())
        replace_if_other(folder / CELLS, json.dumps(run["ids"], indent=1).encode())
        folders.append(folder)
    return folders


def _packed(run: Path) -> dict[str, Any]:
    ids = cell_ids(run)
    load_results(run, ids)  # refuses what is no cell
    files = {identifier: run / "cells" / f"{identifier}.json" for identifier in ids}
    cells = {name: _small(json.loads(file.read_text())) for name, file in files.items() if file.is_file()}
    return {"name": run.name, "plan": (run / "plan.toml").read_text(encoding="utf-8"), "ids": ids, "cells": cells}


def _small(cell: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in cell.items() if name not in DROPPED}
    kept["traceback"] = last_line(cell["traceback"])
    kept["metrics"] = dict(_rounded(cell.get("metrics", {}), KEPT))
    controls = cell.get("controls", {})
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
        runs: list[dict[str, Any]] = content["runs"]
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']}, this version reads {FORMAT}")
    except (OSError, EOFError, lzma.LZMAError, KeyError, TypeError, ValueError) as error:
        raise _no_archive(path, error) from error
    return runs


def _results(run: Mapping[str, Any]) -> Results:
    cells = run["cells"]
    return results_of({name: cells.get(name) for name in run["ids"]})


def _no_archive(path: Path, error: Exception) -> InvalidInputError:
    reason = " ".join(str(error).split())[:200]
    return InvalidInputError(f"{path} is no archive that `splitleak archive` wrote: {reason}")
