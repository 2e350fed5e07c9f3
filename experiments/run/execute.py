"""Run a plan's cells: what is missing becomes a graph of tasks, which an executor works off."""

import json
import os
import tomllib
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from splitleak.attacks.base import Scene
from splitleak.experiments.cells.cell import EXAMPLES, Cell, cells_of, save_strip
from splitleak.experiments.judge.metrics.perceptual import check_lpips
from splitleak.experiments.planning.plan import Plan, parse_plan
from splitleak.experiments.run.interrupt import stop_if_interrupted
from splitleak.experiments.run.schedule import Executor, Graph, Outcome, Progress, Task, Work, execute
from splitleak.experiments.run.workers import Workshop
from splitleak.experiments.stages.embedder import check_embedder
from splitleak.experiments.store.integrity import DiskFullError, replace_if_other
from splitleak.experiments.store.store import Stage, Store
from splitleak.victims.cuts import Halves, split
from splitleak.victims.data.parts import divide
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.files import DATA_VARIABLE, WEIGHTS_VARIABLE
from splitleak.victims.models import make_network
from splitleak.victims.settings import Settings

CACHE = "cache"
"""Folder, beside the runs, of the stages' results: runs share them."""
CELLS = "cells.json"
"""File in a run's folder: the ids of its cells, in the plan's order."""


@dataclass(frozen=True)
class Run:
    """A plan's place on disk and its cells."""

    plan: Plan
    folder: Path
    cells: tuple[Cell, ...]

    @classmethod
    def of(cls, plan: Plan, out: Path) -> "Run":
        """``out``/NAME for the run; ``out``/cache for the stages."""
        cells = tuple(cells_of(plan))
        for cell in cells:
            _ = cell.key  # taken now: sources that are edited while the plan runs are not what runs
        return cls(plan, out / plan.name, cells)

    @property
    def ids(self) -> list[str]:
        """Of all cells, in the plan's order."""
        return [cell.id for cell in self.cells]


def cell_ids(folder: Path) -> list[str]:
    """Of a run's cells, in the order of its plan.

    Raises:
        InvalidInputError: there is no run, or its list cannot be read.
    """
    listed = folder / CELLS
    if not listed.is_file():
        raise InvalidInputError(f"no run at {folder.absolute()}: no {CELLS} there; give a folder like runs/quick")
    try:
        ids: list[str] = json.loads(listed.read_text())
    except ValueError as error:
        raise InvalidInputError(f"{listed} is no list of cells ({error}); run the plan again to write it") from error
    return ids


def check_plan(plan: Plan) -> None:
    """Find out, before anything is computed, what would fail later; decodes no photo and trains nothing.

    Raises:
        InvalidInputError: missing data, unknown task, too few photos, unknown network, weights of another network,
            invalid cut, an attack that cannot take the releases, a recogniser or a backbone of the judge that cannot
            be had, too little to train on.
    """
    victim = plan.victim
    if plan.name == CACHE:
        raise InvalidInputError(f"plan name = '{CACHE}': that folder holds the stages' results; choose another")
    catalog = plan.source.catalog()
    parts = divide(catalog, plan.part_sizes, victim.task, plan.parts.seed)
    people = catalog.identity
    check_embedder(
        plan.judge.identity,
        None if people is None else {part: people[photos] for part, photos in parts.indices.items()},
    )
    if plan.judge.lpips:
        check_lpips(plan.judge.lpips, victim.size)
    if not plan.parts.train and (victim.task or any(entry.plugin.strength for entry in plan.defenses)):
        raise InvalidInputError("parts.train = 0: the victim's tail and the defences need photos to fit on")
    classes = len(catalog.labels[victim.task].classes) if victim.task else 1000
    if victim.task and classes < 2:
        raise InvalidInputError(
            f"victim.task = '{victim.task}': it has a single class, so there is nothing to predict"
        )
    network = make_network(plan.model, classes, victim.size, victim.weights)
    halves = split(network, victim.model, victim.cut, victim.size)
    shape = halves.cut.shape
    if victim.task:
        check_outputs(halves, classes)
    for defense in plan.defenses:
        channel = defense.plugin.channel(shape)
        release = tuple(channel.send(torch.zeros(1, *shape)).shape[1:])
        for threat in plan.threats:
            scene = Scene(
                release_shape=release if threat.adaptive else shape,
                image_shape=(3, victim.size, victim.size),
                task=victim.task,
                attributes=tuple(catalog.labels),
                identities=catalog.identity is not None,
            )
            for attack in plan.attacks:
                attack.plugin.check(scene)


@torch.no_grad()
def check_outputs(halves: Halves, classes: int) -> None:
    """Whether the network says as much as the task asks.

    Raises:
        InvalidInputError: it has another number of outputs, or another shape of them.
    """
    outputs = tuple(halves.tail(torch.zeros(1, *halves.cut.shape)).shape[1:])
    if outputs != (classes,):
        raise InvalidInputError(
            f"the network's outputs have the shape {outputs}, but the task has {classes} classes: "
            "let the network's function take the parameter 'classes', or leave the task out"
        )


def stages_of(cells: Iterable[Cell], wanted: Callable[[Stage], bool] = lambda stage: True) -> dict[str, Stage]:
    """The stages behind some cells by key, each after those that it builds on.

    ``wanted``: the others are left out, and with them what only they build on.
    """
    found: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        if stage.key not in found and wanted(stage):
            for upstream in stage.upstream:
                visit(upstream)
            found[stage.key] = stage

    for cell in cells:
        for stage in cell.stages:
            visit(stage)
    return found


def pending_stages(cells: Iterable[Cell], store: Store) -> dict[str, Stage]:
    """Those that have no result yet."""
    return stages_of(cells, lambda stage: not store.has(stage))


@dataclass(frozen=True)
class RunWorkshop(Workshop):
    """All that a worker elsewhere needs to take part in a run."""

    text: str
    folder: Path
    name: str
    out: Path
    device: str
    limit: int | None
    here: Path
    variables: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, run: Run, store: Store) -> "RunWorkshop":
        """It reads the plan again, with the data and the weights where this process finds them."""
        variables = tuple(
            (name, os.environ[name]) for name in (DATA_VARIABLE, WEIGHTS_VARIABLE) if name in os.environ
        )
        plan = run.plan
        out = run.folder.parent.resolve()
        here = Path.cwd()
        return cls(plan.text, plan.folder.resolve(), plan.name, out, store.device.type, store.limit, here, variables)

    def open(self, number: int, progress: Progress) -> Work:
        """On the GPU of that number, where there are GPUs."""
        os.chdir(self.here)
        os.environ.update(self.variables)
        plan = parse_plan(tomllib.loads(self.text), self.text, self.folder, self.name)
        device = torch.device(self.device)
        if device.type == "cuda":
            device = torch.device("cuda", number % torch.cuda.device_count())
        return work_of(Run.of(plan, self.out), Store(self.out / CACHE, device, progress, self.limit))


def work_of(run: Run, store: Store) -> Work:
    """What does a run's tasks with a store."""
    cells = {cell.id: cell for cell in run.cells}
    stages = stages_of(run.cells)

    def work(task: Task) -> Outcome:
        before, failure = len(store.computed), None
        try:
            with store.task():
                if task.kind == "cell":
                    cells[task.name].run(run.folder, store)
                else:
                    store.folder(stages[task.name])
        except DiskFullError:
            raise
        except Exception:
            failure = traceback.format_exc()
        stop_if_interrupted()
        return Outcome(failure, tuple(store.computed[before:]))

    return work


def run_cells(
    run: Run,
    store: Store,
    executor: Executor,
    retry_failed: bool,
    on_cell: Callable[[Cell, dict[str, Any], bool], None],
    time_is_up: Callable[[], bool] = lambda: False,
) -> Counter[str]:
    """Compute every cell that has no result yet; each result is on disk as soon as it is there.

    Args:
        store: what the executor's workers use, too.
        retry_failed: compute cells again whose stored result is a failure.
        on_cell: called for each cell with its result and whether it was computed just now.
        time_is_up: no stage and no cell begins after that; what is left has no result yet.

    Returns:
        How many stages of each kind were computed.

    Raises:
        InvalidInputError: a photo cannot be read; the photos are decoded before the first cell.
        DiskFullError: there is no room for a result.
    """
    before = len(store.computed)  # of other runs
    with store.task():
        data = run.cells[0].protect.victim.data.load(store)
        save_strip(run.folder / "targets.png", data.images["target"][:EXAMPLES])
    replace_if_other(run.folder / "plan.toml", run.plan.text.encode())
    replace_if_other(run.folder / CELLS, json.dumps(run.ids, indent=1).encode())
    computed, missing = Counter(store.computed[before:]), {}
    for cell in run.cells:
        result = cell.result(run.folder)
        if result is None or (retry_failed and result["status"] == "failed"):
            missing[cell.id] = cell
        else:
            on_cell(cell, result, False)

    def on_end(task: Task, outcome: Outcome) -> None:
        computed.update(outcome.computed)
        if task.kind == "cell":
            cell = missing[task.name]
            result = cell.result(run.folder) if outcome.failure is None else cell.fail(run.folder, outcome.failure)
            if result is None:
                raise RuntimeError(f"{cell.title}: its result is another cell's; was the source edited meanwhile?")
            on_cell(cell, result, True)

    execute(_graph(list(missing.values()), store), executor, on_end, time_is_up)
    return computed


def _graph(cells: list[Cell], store: Store) -> Graph:
    """Each cell after the stages that it still needs; in the plan's order, so that results come early."""
    needs: dict[Task, set[Task]] = {}
    groups: dict[Task, str] = {}
    tasks: dict[str, Task] = {}
    for cell in cells:
        pending = pending_stages([cell], store)
        for key, stage in pending.items():
            if key not in tasks:
                tasks[key] = Task("stage", key, f"{stage.label} for {cell.title}", _sort(stage))
                needs[tasks[key]] = {tasks[one.key] for one in stage.upstream if one.key in tasks}
                groups[tasks[key]] = cell.protect.key
        last = Task("cell", cell.id, f"judging {cell.title}", f"judging {cell.attack['name']}")
        needs[last] = {tasks[key] for key in pending}
        groups[last] = cell.protect.key
    return Graph(needs, groups)


def _sort(stage: Stage) -> str:
    """Its label and the plugin that it runs."""
    values = [getattr(stage, field.name) for field in fields(stage)]
    return " ".join([stage.label, *(value.name for value in values if isinstance(value, Settings))])
