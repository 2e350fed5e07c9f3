"""Plans from end to end, on a small network and few faces."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import DECODER, HEAD, MEAN, NOISE, NONE, PRIVATE, RIDGE, SUBSET, run_plan

from splitleak.attacks.mean_image import MeanImage
from splitleak.experiments.cells.cell import Cell
from splitleak.experiments.planning.names import CACHE
from splitleak.experiments.planning.plan import read_plan
from splitleak.experiments.results.record import Record
from splitleak.experiments.run.execute import run_cells, work_of
from splitleak.experiments.run.run import Run, pending_stages, stages_of
from splitleak.experiments.run.schedule import Serial
from splitleak.experiments.store.store import Store

PLUGIN = '''
from dataclasses import dataclass
import torch
from splitleak.defenses.base import Channel, Defense

@dataclass(frozen=True)
class SignOnly(Defense):
    """Send the sign of each feature."""
    paper = "a test's"
    def channel(self, shape):
        return SignChannel()

class SignChannel(Channel):
    def send(self, features):
        return torch.sign(features)
'''


def _numbers(result: dict[str, Any]) -> Any:
    """What must not depend on when and how often a plan was started."""
    kept = ("id", "key", "status", "metrics", "oracle", "chosen", "utility", "bytes", "queries", "history")
    return {key: result.get(key) for key in kept}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("whole")
    results, _, _ = run_plan(HEAD + NONE + NOISE + SUBSET + PRIVATE + MEAN + RIDGE + DECODER, folder, report=True)
    return folder, results


def _cell(results: list[dict[str, Any]], defense: str, attack: str) -> dict[str, Any]:
    (found,) = [r for r in results if r["defence"]["label"] == defense and r["attack"]["name"] == attack]
    return found


def test_every_cell_has_a_result(whole: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, results = whole
    assert len(results) == 5 * 4  # three attacks and the suite's choice
    assert [r["traceback"] for r in results] == [None] * 20
    assert all(r["n"] == 24 for r in results)
    assert all(r["metrics"]["psnr"]["low"] <= r["metrics"]["psnr"]["mean"] for r in results)
    stored = {path.stem for path in (folder / "runs" / "tiny" / "cells").glob("*.json")}
    assert stored == {r["id"] for r in results}
    for name in (
        "index.html",
        "results.csv",
        "matrix.md",
        "figures/tradeoff_psnr.png",
        "figures/tradeoff_psnr.svg",
    ):
        assert (folder / "runs" / "tiny" / name).stat().st_size > 0


def test_ridge_beats_the_floor_and_the_strongest_noise_takes_it_there(
    whole: tuple[Path, list[dict[str, Any]]],
) -> None:
    _, results = whole

    def psnr(defense: str, attack: str) -> float:
        return float(_cell(results, defense, attack)["metrics"]["psnr"]["mean"])

    floor = psnr("none", "mean_image")
    assert psnr("none", "ridge") > floor + 1
    # the canary: a defence that is absent when attacked would leave this at the undefended value
    for attack in ("ridge", "decoder"):
        assert psnr("gaussian_noise sigma=100.0", attack) < floor + 0.5


def test_a_subset_sends_fewer_bytes(whole: tuple[Path, list[dict[str, Any]]]) -> None:
    _, results = whole
    full, subset = (_cell(results, d, "ridge")["bytes"] for d in ("none", "channel_subset keep=0.25"))
    assert 0.2 < subset / full < 0.35


def test_private_training_states_its_epsilon_and_none_for_the_query(
    whole: tuple[Path, list[dict[str, Any]]],
) -> None:
    _, results = whole
    (guarantee,) = _cell(results, "dp_sgd epsilon=5.0 delta=0.001", "ridge")["guarantees"]
    assert guarantee["protects"] == "training"
    assert 0 < guarantee["epsilon"] <= 5
    # an uncalibrated noise proves nothing about the query: infinity is stored as null
    (noise,) = _cell(results, "gaussian_noise sigma=0.5", "ridge")["guarantees"]
    assert (noise["protects"], noise["epsilon"]) == ("query", None)


def test_the_same_plan_computes_nothing_again(whole: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, results = whole
    again, fresh, store = run_plan((folder / "plan.toml").read_text(), folder)
    assert not any(fresh)
    assert store.computed == []
    assert again == results


def test_one_more_attack_computes_only_its_own_stages(whole: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, _ = whole
    text = (folder / "plan.toml").read_text()
    _, fresh, store = run_plan(text + RIDGE + "window = 3\n", folder)
    (folder / "plan.toml").write_text(text)
    assert sum(fresh) == 10  # the new attack's cells, and the suite's choice with it
    assert store.computed == ["attack", "seen", "strongest"] * 5


def test_the_unaware_attacker_is_weaker_and_labelled(tmp_path: Path) -> None:
    head = HEAD.replace("auxiliary = 64", "auxiliary = 64\nadaptive = [true, false]")
    results, _, _ = run_plan(
        head + '[[defenses]]\nname = "gaussian_noise"\nsigma = 2.0\n' + RIDGE, tmp_path, report=True, shared=True
    )
    aware, unaware = results
    assert (aware["adaptive"], unaware["adaptive"]) == (True, False)
    assert aware["metrics"]["psnr"]["mean"] > unaware["metrics"]["psnr"]["mean"]
    assert "(unaware)" in (tmp_path / "runs" / "tiny" / "matrix.md").read_text()


def test_a_defence_in_a_file_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    results, _, _ = run_plan(HEAD + '[[defenses]]\nname = "mine.py:SignOnly"\n' + MEAN + RIDGE, tmp_path)
    assert [r["status"] for r in results] == ["ok", "ok"]
    assert results[0]["defence"]["label"] == "sign_only"


BROKEN = """
from splitleak.attacks.knowledge import BlackBox
from splitleak.attacks.base import Reconstruction
class Broken(Reconstruction[BlackBox]):
    paper = "a test's"
    def fit(self, knows):
        raise RuntimeError("the author's mistake")
"""


def test_a_failing_cell_is_stored_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(BROKEN)
    text = HEAD + NONE + '[[attacks]]\nname = "mine.py:Broken"\n' + MEAN
    (failed, fine), _, _ = run_plan(text, tmp_path, report=True)
    assert (failed["status"], fine["status"]) == ("failed", "ok")
    assert "the author's mistake" in failed["traceback"]
    _, fresh, _ = run_plan(text, tmp_path)
    assert fresh == [False, False]
    _, fresh, _ = run_plan(text, tmp_path, retry=True)
    assert fresh == [True, False]


def statuses_failing_fast(folder: Path, attacks: str) -> list[str]:
    """What becomes of the cells of one plan, in the order in which that is told."""
    path = folder / "plan.toml"
    path.write_text(HEAD + NONE + attacks)
    run, store = Run.of(read_plan(path), folder / "runs"), Store(folder / "runs" / CACHE, torch.device("cpu"))
    told: list[str] = []

    def tell(cell: Cell, record: Record, computed: bool) -> None:
        told.append(record.status)

    run_cells(run, store, Serial(work_of(run, store)), False, tell, fail_fast=True)
    return told


def test_failing_fast_the_first_failure_is_the_last_cell(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(BROKEN)
    attacks = MEAN + '[[attacks]]\nname = "mine.py:Broken"\n' + RIDGE
    assert statuses_failing_fast(tmp_path, attacks) == ["ok", "failed"]
    again = statuses_failing_fast(tmp_path, attacks)
    assert again[:2] == ["ok", "failed"]
    assert len(again) > 2, "a failure of before held the run up"


def test_failing_fast_a_cell_that_does_not_apply_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MeanImage, "inapplicable", lambda attack, scene: "there is nothing to measure")
    assert statuses_failing_fast(tmp_path, MEAN + RIDGE) == ["does not apply", "ok"]


def test_a_victim_without_a_task(tmp_path: Path) -> None:
    head = HEAD.replace('task = "mask"\n', "").replace("train = 96", "train = 0")
    (result,), _, _ = run_plan(head + NONE + RIDGE, tmp_path, report=True, shared=True)
    assert result["utility"] is None
    assert result["status"] == "ok"


def test_every_plan_has_its_controls(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(HEAD + NOISE + RIDGE)
    cells = [(cell.defense.label, cell.attack["name"]) for cell in Run.of(read_plan(path), tmp_path / "runs").cells]
    defences = ("none", "gaussian_noise sigma=0.5", "gaussian_noise sigma=100.0")
    assert cells == [(defence, attack) for defence in defences for attack in ("mean_image", "ridge")]
    path.write_text(HEAD + NOISE + '[[attacks]]\nname = "infer_attribute"\n')
    attacks = {cell.attack["name"] for cell in Run.of(read_plan(path), tmp_path / "runs").cells}
    assert attacks == {"infer_attribute"}  # rebuilds nothing, so there is no floor of pictures


def test_dry_run_counts_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(HEAD + NONE + NOISE + MEAN + RIDGE)
    run = Run.of(read_plan(path), tmp_path / "runs")
    store = Store(tmp_path / "runs" / CACHE, torch.device("cpu"))
    assert Counter(stage.label for stage in pending_stages(run.cells, store).values()) == {
        "attack": 6,
        "seen": 6,
        "probe": 3,
        "bounds": 3,
        "floor": 1,
        "reader": 1,
        "protect": 3,
        "victim": 1,
        "data": 1,
    }


def test_disk_use_is_predicted(whole: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    folder, _ = whole
    run = Run.of(read_plan(folder / "plan.toml"), tmp_path / "runs")
    expected = sum(stage.expected_bytes() for stage in stages_of(run.cells).values())
    used = sum(path.stat().st_size for path in (folder / "runs" / CACHE).rglob("*"))
    assert 0.6 * used < expected < 1.4 * used


@pytest.mark.slow
def test_whatever_is_truncated_is_noticed_and_made_again(
    whole: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    folder, results = whole
    shutil.copytree(folder / "runs", tmp_path / "runs")
    (tmp_path / "plan.toml").write_text((folder / "plan.toml").read_text())
    artefacts = [path for path in (tmp_path / "runs" / CACHE).glob("*/*/*") if path.stat().st_size]
    cells = tmp_path / "runs" / "tiny" / "cells"
    random = np.random.default_rng(0)
    for path in [*artefacts, *cells.iterdir()]:
        with path.open("r+b") as file:
            file.truncate(random.integers(path.stat().st_size))
    again, fresh, store = run_plan((tmp_path / "plan.toml").read_text(), tmp_path)
    assert all(fresh)
    assert [_numbers(result) for result in again] == [_numbers(result) for result in results]
    stages = stages_of(Run.of(read_plan(tmp_path / "plan.toml"), tmp_path / "runs").cells).values()
    assert Counter(stage.label for stage in stages) <= Counter(store.computed), "a damaged result was used"


@pytest.mark.slow
def test_two_runs_of_one_plan_at_the_same_time_share_the_work(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(HEAD + NONE + NOISE + MEAN + RIDGE)
    command = [sys.executable, "-m", "splitleak.experiments", "run", str(plan), "--out", str(tmp_path / "runs")]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    run = Run.of(read_plan(plan), tmp_path / "runs")
    stored = [cell.result(run.folder) for cell in run.cells]
    assert all(result and result.ok for result in stored)
    (tmp_path / "alone").mkdir()
    alone, _, _ = run_plan(plan.read_text(), tmp_path / "alone")
    assert [_numbers(result) for result in alone] == [
        _numbers(result.model_dump(mode="json")) for result in stored if result
    ]
    assert any("waiting for another process" in text for text in said) or "already there" in "".join(said)


@pytest.mark.slow
def test_killed_at_any_moment_it_resumes_to_the_same_result(
    whole: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    folder, results = whole
    plan = tmp_path / "plan.toml"
    plan.write_text((folder / "plan.toml").read_text())
    command = [sys.executable, "-m", "splitleak.experiments", "run", str(plan), "--out", str(tmp_path / "runs")]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    cells = tmp_path / "runs" / "tiny" / "cells"
    for finished in (1, 4, 9):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(cells.glob("*.json"))) < finished:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kept = {path: path.read_text() for path in cells.glob("*.json")}
        assert len(kept) >= finished
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert all(path.read_text() == text for path, text in kept.items()), "a finished cell was computed again"
    resumed = {path.stem: json.loads(path.read_text()) for path in cells.glob("*.json")}
    for result in results:
        assert _numbers(resumed[result["id"]]) == _numbers(result)
