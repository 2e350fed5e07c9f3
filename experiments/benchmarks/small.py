"""A small plan with every stage in it, for benchmarks of the runner."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from splitleak.experiments.cells.attack import AttackCell
from splitleak.experiments.planning.names import CACHE
from splitleak.experiments.planning.plan import read_plan
from splitleak.experiments.run.check import check_plan
from splitleak.experiments.run.execute import run_cells, work_of
from splitleak.experiments.run.run import Run
from splitleak.experiments.run.schedule import Executor, Serial
from splitleak.experiments.store.store import Store

PLAN = """
name = "small"
seeds = [0, 1]
[victim]
model = "mobilenet_v3_small"
cut = "features.2.block.1"
data = { name = "faces", photos = 1600 }
size = 32
task = "mask"
epochs = 4
[parts]
train = 480
validation = 32
target = 32
[defender]
epochs = 3
[attacker]
auxiliary = 480
[[defenses]]
name = "none"
[[defenses]]
name = "channel_subset"
keep = [0.5, 0.1]
[[defenses]]
name = "gaussian_noise"
sigma = [0.5, 4.0]
[[defenses]]
name = "siamese"
[[attacks]]
name = "mean_image"
[[attacks]]
name = "ridge"
[[attacks]]
name = "nearest_neighbor"
[[attacks]]
name = "decoder"
width = 16
epochs = 3
[[attacks]]
name = "inverse_network"
epochs = 3
"""
ANOTHER_ATTACK = '[[attacks]]\nname = "ridge"\nwindow = 3\n'
TWO_DEFENCES = PLAN.replace('[[defenses]]\nname = "channel_subset"\nkeep = [0.5, 0.1]\n', "").replace(
    '[[defenses]]\nname = "gaussian_noise"\nsigma = [0.5, 4.0]\n', ""
)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder that goes when the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="splitleak-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_of(text: str, folder: Path) -> Run:
    """The plan's cells, the suite's choice left out: it needs all attacks, so no cell of it stands alone."""
    path = folder / "small.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    plan = read_plan(path)
    check_plan(plan)
    run = Run.of(plan, folder / "runs")
    return replace(run, cells=tuple(cell for cell in run.cells if isinstance(cell, AttackCell)))


def store_of(run: Run) -> Store:
    """On the CPU."""
    return Store(run.folder.parent / CACHE, torch.device("cpu"))


def seconds(run: Run, executor: Executor | None = None) -> float:
    """How long its missing cells take."""
    store = store_of(run)
    start = time.perf_counter()
    with executor or Serial(work_of(run, store)) as working:
        run_cells(run, store, working, False, lambda cell, result, fresh: None)
    return time.perf_counter() - start
