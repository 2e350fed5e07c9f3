"""Executors against each other: the same matrix on one thread, by two processes, and by two workers of Ray."""

import importlib
import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table

from splitleak.experiments.benchmarks.small import PLAN, run_of, scratch, seconds, store_of
from splitleak.experiments.run.execute import RunWorkshop, work_of
from splitleak.experiments.run.run import Run
from splitleak.experiments.run.schedule import Executor, Graph, Outcome, Progress, Serial, Task, Work, execute
from splitleak.experiments.run.workers import Processes, Ray, Workshop

LONGER = PLAN.replace("seeds = [0, 1]", "seeds = [0, 1, 2, 3, 4, 5]")
"""Minutes of work, as of a small real matrix: each worker takes seconds to start."""
WORKERS, REPEATS = 2, 3
NODES, IDLE_CELLS = 4, 1000


def compare() -> Table:
    """Medians of interleaved repeats, and whether every result is the serial one, bit by bit."""
    table = Table("executor", "seconds", "times as fast as serial", "same results", box=None)
    taken: dict[str, list[float]] = {name: [] for name in _EXECUTORS}
    same = dict.fromkeys(_EXECUTORS, True)
    for _ in range(REPEATS):
        reference: dict[str, str] | None = None
        for name, make in _EXECUTORS.items():
            with scratch() as folder:
                run = run_of(LONGER, folder)
                taken[name].append(seconds(run, make(run)))
                results = _results(run)
            reference = reference or results
            same[name] &= results == reference
    table.title = f"executors: {len(run.cells)} cells, one thread for each worker"
    for name, times in taken.items():
        ratio = statistics.median(slow / fast for slow, fast in zip(taken["serial"], times, strict=True))
        table.add_row(name, f"{statistics.median(times):.0f}", f"{ratio:.2f}", "yes" if same[name] else "NO")
    return table


def _one_thread(make: Callable[[Run], Executor]) -> Callable[[Run], Executor]:
    def made(run: Run) -> Executor:
        torch.set_num_threads(1)
        executor = make(run)
        if isinstance(executor, Processes | Ray):
            executor.threads = 1
        return executor

    return made


_EXECUTORS: dict[str, Callable[[Run], Executor]] = {
    "serial": _one_thread(lambda run: Serial(work_of(run, store_of(run)))),
    f"processes, {WORKERS} workers": _one_thread(lambda run: Processes(RunWorkshop.of(run, store_of(run)), WORKERS)),
    f"ray, {WORKERS} workers": _one_thread(
        lambda run: Ray(RunWorkshop.of(run, store_of(run)), WORKERS, torch.device("cpu"))
    ),
}


def _results(run: Run) -> dict[str, str]:
    """What was measured, without times."""
    kept = {"metrics", "controls", "utility", "bytes", "queries", "history", "key"}
    results = {cell.id: cell.result(run.folder) for cell in run.cells}
    return {name: of.model_dump_json(include=kept) if of else "" for name, of in results.items()}


@dataclass(frozen=True)
class Idle(Workshop):
    """Does nothing, at once."""

    def open(self, number: int, progress: Progress) -> Work:
        """The work of doing nothing."""
        return lambda task: Outcome()


def overhead() -> Table:
    """Seconds for each of many cells that do nothing, on a cluster of several nodes simulated on this machine."""
    ray: Any = importlib.import_module("ray")
    cluster = importlib.import_module("ray.cluster_utils").Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1}
    )
    for _ in range(NODES - 1):
        cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    tasks: dict[Task, set[Task]] = {Task("cell", str(number)): set() for number in range(IDLE_CELLS)}
    ended: list[Task] = []
    try:
        with Ray(Idle(), NODES, torch.device("cpu")) as executor:
            executor.threads = 1
            start = time.perf_counter()
            execute(Graph(tasks, {task: task.name for task in tasks}), executor, lambda task, _: ended.append(task))
            taken = time.perf_counter() - start
    finally:
        ray.shutdown()
        cluster.shutdown()
    table = Table("cells that do nothing", "nodes", "seconds each", box=None, title="scheduling on a Ray cluster")
    table.add_row(f"{len(ended):,}", str(NODES), f"{taken / len(ended):.3f}")
    return table
