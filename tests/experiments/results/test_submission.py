"""A record file that may be submitted, and what is said of one that may not."""

import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from written_run import Edit, relisted, score, write_run

from splitleak.experiments.results.archive import write_archive
from splitleak.experiments.results.submission import VOID, check_submission
from splitleak.experiments.store.integrity import digest
from splitleak.victims.errors import InvalidInputError


def controlled(cell: dict[str, Any]) -> None:
    """As a run stores it: with what the attack makes of the releases of other photos, which is no better than the
    floor."""
    values = cell["metrics"]["psnr"]["values"]
    cell["controls"] = {"shuffled": {"psnr": score(np.full(len(values), 11.0))}}


def submitted(folder: Path, edit: Edit = controlled, keep: Callable[[str], bool] = lambda name: True) -> Path:
    run = folder / "small"
    ids = write_run(run, edit)
    relisted(run, [name for name in ids if keep(name)])
    write_archive([run], folder / "small.json.xz")
    return folder / "small.json.xz"


def refused(path: Path) -> str:
    with pytest.raises(InvalidInputError) as error:
        check_submission(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_whole_run_with_its_controls_is_accepted(tmp_path: Path) -> None:
    runs = check_submission(submitted(tmp_path))
    assert list(runs) == ["small"]
    assert runs["small"].seal


def test_a_changed_number_breaks_the_seal(tmp_path: Path) -> None:
    path = submitted(tmp_path)
    content = json.loads(lzma.decompress(path.read_bytes()))
    cell = next(iter(content["runs"][0]["cells"].values()))
    cell["metrics"]["psnr"]["mean"] = 1.0
    path.write_bytes(lzma.compress(json.dumps(content).encode()))
    assert "its seal is broken" in refused(path)


def test_one_of_an_unknown_schema_is_refused(tmp_path: Path) -> None:
    path = submitted(tmp_path)
    content = json.loads(lzma.decompress(path.read_bytes()))
    del content["seal"]
    next(iter(content["runs"][0]["cells"].values()))["schema_version"] = 99
    path.write_bytes(lzma.compress(json.dumps({**content, "seal": digest(content)}).encode()))
    assert "its schema_version is 99" in refused(path)


def test_an_unsealed_one_is_refused(tmp_path: Path) -> None:
    path = submitted(tmp_path)
    content = json.loads(lzma.decompress(path.read_bytes()))
    del content["seal"]
    path.write_bytes(lzma.compress(json.dumps({**content, "format": 1}).encode()))
    assert "it has no seal" in refused(path)


def drop_shuffled(cell: dict[str, Any]) -> None:
    controlled(cell)
    if cell["attack"]["name"] == "decoder" and cell["defence"]["name"] == "dp_sgd":
        cell["controls"] = {}


def unmade(cell: dict[str, Any]) -> None:
    controlled(cell)
    cell["made"] = []


def overlapping(cell: dict[str, Any]) -> None:
    controlled(cell)
    cell["overlap"] = 3 * (cell["defence"]["name"] == "dp_sgd")


def knowing(cell: dict[str, Any]) -> None:
    controlled(cell)
    if cell["attack"]["name"] == "decoder" and cell["defence"]["name"] == "dp_sgd":
        cell["controls"]["shuffled"]["psnr"] = score(40 + np.arange(12) / 100)


def failing(cell: dict[str, Any]) -> None:
    controlled(cell)
    if cell["defence"]["name"] == "dp_sgd" and cell["attack"]["name"] == "decoder":
        for name in ("n", "metrics", "utility", "bytes", "edge", "guarantees", "queries", "seconds", "history"):
            del cell[name]
        cell |= {"status": "failed", "traceback": "it broke", "controls": {}}


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (
            drop_shuffled,
            "control of shuffled features is missing: dp_sgd epsilon=8.0 x decoder, seed 0 and 1 more",
        ),
        (unmade, "cells that do not say with what they were made: 36"),
        (overlapping, f"flag overlap, {VOID['overlap']}: dp_sgd epsilon=8.0 x mean_image and 2 more"),
        (knowing, "flag answers-without-release, an attack knows the photos from elsewhere"),
        (failing, "cells failed: 2"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, edit: Edit, said: str) -> None:
    assert said in refused(submitted(tmp_path, edit))


def test_controls_that_were_not_run_are_missed(tmp_path: Path) -> None:
    without_none = submitted(tmp_path / "a", keep=lambda name: int(name[1:]) >= 6)
    assert "the control 'none' is missing" in refused(without_none)
    without_floor = submitted(tmp_path / "b", keep=lambda name: int(name[1:]) not in (7, 12))
    said = refused(without_floor)
    assert "the control 'mean_image' is missing against gaussian_noise sigma=2.0, seed 1" in said
    assert "the control 'mean_image' is missing against gaussian_noise sigma=0.5, seed 0" in said


def test_cells_that_are_not_there_are_counted(tmp_path: Path) -> None:
    run = tmp_path / "small"
    ids = write_run(run, controlled)
    (run / "cells" / f"{ids[5]}.json").unlink()
    write_archive([run], tmp_path / "small.json.xz")
    assert "cells not there: 1" in refused(tmp_path / "small.json.xz")
