"""What the judge costs: scores of images, the bootstrap of many photos, and its share of a run."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from rich.table import Table

from splitleak.experiments.benchmarks.small import run_of, scratch, seconds, store_of
from splitleak.experiments.judge.metrics.pictures import metrics_for, score
from splitleak.experiments.judge.scores import Truth, score_images
from splitleak.experiments.judge.statistics.interval import interval
from splitleak.experiments.run.execute import work_of
from splitleak.experiments.run.schedule import Serial, Task, Watcher
from splitleak.victims.tensors import to_bytes, to_float

SIZE, REPEATS, WARM_UP = 160, 3, 64
SMALLER = 10
"""The bootstrap is timed on so many times fewer photos too: how does its cost grow?"""
STANDARD = """
name = "standard"
seeds = [0]
[victim]
model = "mobilenet_v3_large"
cut = "C4"
data = "faces"
size = 64
task = "mask"
epochs = 10
[parts]
train = 1000
validation = 200
target = 300
test = 1000
[attacker]
auxiliary = 1000
[[defenses]]
name = "none"
[[defenses]]
name = "channel_subset"
keep = [0.5, 0.25, 0.1]
[[defenses]]
name = "gaussian_noise"
sigma = [0.5, 1.0, 2.0]
[[attacks]]
name = "mean_image"
[[attacks]]
name = "ridge"
[[attacks]]
name = "decoder"
"""
"""Two defences at three strengths before a linear attack and a learned one, which spend what they do by default."""
JUDGING = ("seen", "reader", "probe", "bounds")
"""Stages that belong to the judge, besides the cells: they score, draw intervals and write the record."""


def compare(images: int, photos: int) -> Table:
    """Seconds of each metric of ``images`` images at 160 px, and of an interval over ``photos`` photos."""
    table = Table("judged", "seconds", "times as long as", "", box=None)
    table.title = f"judging: {images:,} images of {SIZE} px, intervals over up to {photos:,} photos"
    truth, rebuilt = _pictures(images)
    pair = to_float(truth), to_float(rebuilt)
    score_images(rebuilt[:WARM_UP], Truth(truth))
    taken = {name: _seconds(partial(score, {name: metric}, *pair)) for name, metric in metrics_for(SIZE).items()}
    for name, median in taken.items():
        table.add_row(name, f"{median:.2f}", f"{median / taken['mse']:.1f}", "mse")
    together = _seconds(partial(score_images, rebuilt, Truth(truth)))
    table.add_row("all, from bytes", f"{together:.2f}", f"{together / sum(taken.values()):.2f}", "the above together")
    for row in _bootstrap(photos):
        table.add_row(*row)
    return table


def _pictures(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and what might be rebuilt of them, uint8: the metrics take as long whatever is on them."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    return truth, to_bytes(0.5 * to_float(truth) + 0.25)


def _bootstrap(photos: int) -> Iterator[tuple[str, ...]]:
    """The first interval over so many photos draws the resamples, which later ones share."""
    drawn: list[float] = []
    for count in (photos // SMALLER, photos):
        values = np.random.default_rng(0).normal(20, 3, (1, count))
        first, again = (_seconds(partial(interval, values), repeats) for repeats in (1, REPEATS))
        growth = [f"{first / drawn[-1]:.1f}", f"{count // SMALLER:,} photos"] if drawn else []
        yield f"interval, {count:,} photos", f"{first:.2f}", *growth
        yield "the same again", f"{again:.3f}", f"{again / first:.3f}", "the first time"
        drawn.append(first)


def _seconds(action: Callable[[], object], repeats: int = 1) -> float:
    """The median."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


class _Stopwatch(Watcher):
    """Adds up how long tasks take that are done one after the other: ``taken``, by kind of stage."""

    def __init__(self) -> None:
        self.taken: dict[str, float] = defaultdict(float)
        self._began = 0.0

    def began(self, task: Task) -> None:
        """Its time begins."""
        self._began = time.perf_counter()

    def ended(self, task: Task) -> None:
        """Its time is over."""
        kind = "cell" if task.kind == "cell" else task.sort.split()[0]
        self.taken[kind] += time.perf_counter() - self._began


def share(text: str = STANDARD) -> Table:
    """What part of a run's time is the judge's: all cells of a plan, one task after the other."""
    watch = _Stopwatch()
    with scratch() as folder:
        run = run_of(text, folder)
        executor = Serial(work_of(run, store_of(run)))
        executor.watcher = watch
        whole = seconds(run, executor)
    table = Table("the judge's", "seconds", "of the run, %", box=None)
    table.title = f"judging: {len(run.cells)} cells in {whole:.0f} s"
    parts = {kind: watch.taken[kind] for kind in ("cell", *JUDGING)}
    for kind, taken in (*parts.items(), ("together", sum(parts.values()))):
        table.add_row(kind, f"{taken:.1f}", f"{100 * taken / whole:.1f}")
    return table
