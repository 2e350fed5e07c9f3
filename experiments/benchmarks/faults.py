"""Runs that are killed at random moments, and resumed until they end."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.table import Table

from splitleak.experiments.benchmarks.small import TWO_DEFENCES, scratch
from splitleak.experiments.planning.plan import read_plan
from splitleak.experiments.run.run import Run

KILLS = 50
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def compare(kills: int = KILLS) -> Table:
    """Kill a run so often, then let it end; compare with one that nobody killed."""
    with scratch() as folder:
        plan = folder / "small.toml"
        plan.write_text(TWO_DEFENCES)
        start = time.perf_counter()
        _run(plan, folder / "undisturbed").wait()
        alone = time.perf_counter() - start
        lost = killed = 0
        kept: dict[Path, bytes] = {}
        moments = random.Random(0)
        while killed < kills:
            process = _run(plan, folder / "killed")
            time.sleep(moments.uniform(0.1, 0.6) * alone)
            if process.poll() is not None:  # it ended first: begin again, what was there is killed with it
                lost += _changed(folder / "killed", kept)
                _remove_some(folder / "killed", moments)
                kept = _cells(folder / "killed")
                continue
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
            lost += _changed(folder / "killed", kept)
            kept = _cells(folder / "killed")
        _run(plan, folder / "killed").wait()
        lost += _changed(folder / "killed", kept)
        equal = _results(plan, folder / "killed") == _results(plan, folder / "undisturbed")
    table = Table("killed", "finished cells that were computed again", "results as undisturbed", box=None)
    table.title = f"faults: a plan of {alone:.0f} s, killed with SIGKILL at random moments and resumed"
    table.add_row(str(killed), str(lost), "yes" if equal else "NO")
    return table


def _run(plan: Path, out: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "splitleak.experiments", "run", str(plan), "--out", str(out)]
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=nowhere, stderr=nowhere, start_new_session=True)


def _cells(out: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (out / "small" / "cells").glob("*.json")}


def _changed(out: Path, kept: dict[Path, bytes]) -> int:
    now = _cells(out)
    return sum(now.get(path) != content for path, content in kept.items())


def _remove_some(out: Path, moments: random.Random) -> None:
    """Half of the cells and of each kind of stage, so that the next run has something of everything to do."""
    for path in sorted((out / "small" / "cells").glob("*.json")):
        if moments.random() < 0.5:
            path.unlink()
    for path in sorted((out / "cache").glob("*/*")):
        if path.is_dir() and moments.random() < 0.5:
            shutil.rmtree(path)


def _results(plan: Path, out: Path) -> dict[str, Any]:
    run = Run.of(read_plan(plan), out)
    kept = {"status", "metrics", "controls", "utility", "bytes", "queries", "history", "chosen", "oracle"}
    results = {cell.id: cell.result(run.folder) for cell in run.cells}
    return {name: result.model_dump_json(include=kept) if result else "" for name, result in results.items()}
