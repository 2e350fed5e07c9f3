"""Run a plan's cells, one after the other."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from attacks.base import Scene
from experiments.cell import Cell, cells_of
from experiments.judge.perceptual import check_lpips
from experiments.plan import Plan
from experiments.stages.embedder import check_embedder
from experiments.store import Stage, Store, write_atomically
from victims.cuts import split
from victims.data.parts import divide
from victims.errors import InvalidInputError
from victims.models import make_network

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
    network = make_network(victim.model, classes, victim.size, victim.weights)
    shape = split(network, victim.model, victim.cut, victim.size).cut.shape
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


def pending_stages(cells: list[Cell], store: Store) -> dict[str, int]:
    """How many stages of each kind the cells still need, upstream ones included."""
    missing: dict[str, Stage] = {}
    for cell in cells:
        stages = cell.stages
        while stages:
            stage = stages.pop()
            if not store.has(stage):
                missing[stage.key] = stage
                stages += stage.upstream
    counts: dict[str, int] = {}
    for stage in missing.values():
        counts[stage.label] = counts.get(stage.label, 0) + 1
    return counts


def run_serial(
    run: Run, store: Store, retry_failed: bool, on_cell: Callable[[Cell, dict[str, Any], bool], None]
) -> list[dict[str, Any]]:
    """Compute every cell that has no result yet; each result is on disk before the next cell begins.

    Args:
        retry_failed: compute cells again whose stored result is a failure.
        on_cell: called after each cell with its result and whether it was computed just now.

    Raises:
        InvalidInputError: a photo cannot be read; the photos are decoded before the first cell.
    """
    store.folder(run.cells[0].protect.victim.data)
    write_atomically(run.folder / "plan.toml", run.plan.text)
    write_atomically(run.folder / CELLS, json.dumps(run.ids, indent=1))
    results = []
    for cell in run.cells:
        result = cell.result(run.folder)
        computed = result is None or (retry_failed and result["status"] == "failed")
        if result is None or computed:
            result = cell.run(run.folder, store)
        on_cell(cell, result, computed)
        results.append(result)
    return results
