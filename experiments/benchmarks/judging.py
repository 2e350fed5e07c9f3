"""What the judge costs: scores of images, and the bootstrap of many photos."""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from rich.table import Table

from splitleak.experiments.judge.metrics.pictures import metrics_for, score
from splitleak.experiments.judge.scores import Truth, score_images
from splitleak.experiments.judge.statistics.interval import interval
from splitleak.victims.tensors import to_bytes, to_float

SIZE, REPEATS, WARM_UP = 160, 3, 64
SMALLER = 10
"""The bootstrap is timed on so many times fewer photos too: how does its cost grow?"""


def compare(images: int, photos: int) -> Table:
    """Seconds of each metric of ``images`` images at 160 px, and of an interval over ``photos`` photos."""
    table = Table("judged", "seconds", "times as long as", "", box=None)
    table.title = f"judging: {images:,} images of {SIZE} px, intervals over up to {photos:,} photos"
    truth, rebuilt = _pictures(images)
    pair = to_float(truth), to_float(rebuilt)
    score_images(rebuilt[:WARM_UP], Truth(truth))
    taken = {name: _seconds(partial(score, {name: metric}, *pair)) for name, metric in metrics_for(SIZE).items()}
    for name, seconds in taken.items():
        table.add_row(name, f"{seconds:.2f}", f"{seconds / taken['mse']:.1f}", "mse")
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
