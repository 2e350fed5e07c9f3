"""Tiny plans from end to end, for several test files."""

import os
import tomllib
from pathlib import Path
from typing import Any

import torch

from splitleak.experiments.cells.cell import Cell
from splitleak.experiments.planning.names import CACHE, FLOOR, UNDEFENDED
from splitleak.experiments.planning.plan import read_plan
from splitleak.experiments.report import write_report
from splitleak.experiments.results.record import Record
from splitleak.experiments.run.check import check_plan
from splitleak.experiments.run.execute import run_cells, work_of
from splitleak.experiments.run.run import Run
from splitleak.experiments.run.schedule import Serial
from splitleak.experiments.store.store import Store

HEAD = """
name = "tiny"
seeds = [0]
[victim]
model = "mobilenet_v3_small"
cut = "features.2.block.1"
data = { name = "faces", photos = 400 }
size = 32
task = "mask"
epochs = 1
learning_rate = 1e-3
patience = 0
[parts]
train = 96
validation = 32
target = 24
[defender]
epochs = 1
patience = 0
[attacker]
auxiliary = 64
"""
TABLES: dict[str, dict[str, Any]] = {name: of for name, of in tomllib.loads(HEAD).items() if isinstance(of, dict)}
"""The same for use from Python."""
NONE = '[[defenses]]\nname = "none"\n'
NOISE = '[[defenses]]\nname = "gaussian_noise"\nsigma = [0.5, 100.0]\n'
SUBSET = '[[defenses]]\nname = "channel_subset"\nkeep = 0.25\n'
PRIVATE = '[[defenses]]\nname = "dp_sgd"\nepsilon = 5.0\ndelta = 1e-3\n'
MEAN, RIDGE = '[[attacks]]\nname = "mean_image"\n', '[[attacks]]\nname = "ridge"\n'
DECODER = '[[attacks]]\nname = "decoder"\nwidth = 16\nepochs = 1\n'


STAGES = "SPLITLEAK_TEST_STAGES"
"""Environment variable: the folder of the stages that tests share."""


def link_stages(cache: Path) -> None:
    """Let a folder of runs use the stages that tests share."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    if not cache.is_symlink():
        cache.symlink_to(os.environ[STAGES], target_is_directory=True)


def run_plan(
    text: str, folder: Path, retry: bool = False, report: bool = False, shared: bool = False
) -> tuple[list[dict[str, Any]], list[bool], Store]:
    """Results, whether each was computed just now, and the store; the report is written where a test reads it.

    Of the controls, which every plan has, only those that the text names are returned. ``shared``: stages are those
    of all tests that say so, computed once for all of them; not for a test that counts or damages them.
    """
    if shared:
        link_stages(folder / "runs" / CACHE)
    path = folder / "plan.toml"
    path.write_text(text)
    plan = read_plan(path)
    check_plan(plan)
    store = Store(folder / "runs" / CACHE, torch.device("cpu"))
    fresh: dict[str, bool] = {}
    results: dict[str, dict[str, Any]] = {}

    def note(cell: Cell, record: Record, computed: bool) -> None:
        result = record.model_dump(mode="json")
        controls = {name for name in (UNDEFENDED, FLOOR) if f'"{name}"' not in text}
        if not controls & {result["defence"]["name"], result["attack"]["name"]}:
            results[cell.id], fresh[cell.id] = result, computed

    run = Run.of(plan, folder / "runs")
    run_cells(run, store, Serial(work_of(run, store)), retry, note)
    if report:
        write_report(run.folder)
    order = [name for name in (run.again() if run.searches else run).ids if name in results]
    return [results[name] for name in order], [fresh[name] for name in order], store
