"""A small synthetic run, written as files: what reports read, without computing anything."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from splitleak.experiments.judge.statistics.interval import interval
from splitleak.experiments.results.load import record_file, seal_of, write_listing
from splitleak.experiments.results.record import SCHEMA

PHOTOS, SIZE = 12, 8

DEFENCES: tuple[dict[str, Any], ...] = (
    {"name": "none", "label": "none", "settings": {}, "strength": None, "strength_value": None},
    *(
        {
            "name": "gaussian_noise",
            "label": f"gaussian_noise sigma={sigma}",
            "settings": {"sigma": sigma},
            "strength": "sigma",
            "strength_value": sigma,
        }
        for sigma in (2.0, 0.5)
    ),
    *(
        {
            "name": "channel_subset",
            "label": f"channel_subset keep=0.5 selection={selection}",
            "settings": {"keep": 0.5, "selection": selection},
            "strength": "keep",
            "strength_value": 0.5,
        }
        for selection in ("saliency", "random")
    ),
    {
        "name": "dp_sgd",
        "label": "dp_sgd epsilon=8.0",
        "settings": {"epsilon": 8.0, "delta": 1e-5},
        "strength": "epsilon",
        "strength_value": 8.0,
    },
)
ATTACKS: tuple[dict[str, Any], ...] = (
    {"name": "mean_image", "label": "mean_image", "settings": {}, "knowledge": "QueryFree", "floor": True},
    {"name": "ridge", "label": "ridge", "settings": {}, "knowledge": "BlackBox", "floor": False},
    {"name": "decoder", "label": "decoder", "settings": {}, "knowledge": "BlackBox", "floor": False},
)
PSNR = {"mean_image": 13.0, "ridge": 16.0, "decoder": 21.0}
LOST = {"none": 0.0, "gaussian_noise": 4.0, "channel_subset": 2.0, "dp_sgd": 0.5}
GUARANTEES = {
    "dp_sgd": [{"protects": "training", "epsilon": 7.996, "delta": 1e-5, "noise_std": None}],
    "gaussian_noise": [{"protects": "query", "epsilon": None, "delta": 0.0, "noise_std": 0.25}],
}

Edit = Callable[[dict[str, Any]], None]


def score(values: np.ndarray) -> dict[str, Any]:
    mean, low, high = interval(values)
    return {"mean": mean, "low": low, "high": high, "values": values.tolist()}


def cell_of(identifier: str, seed: int, defence: dict[str, Any], attack: dict[str, Any]) -> dict[str, Any]:
    random = np.random.default_rng([seed, *identifier.encode()])
    loss = 0.0 if attack["floor"] else LOST[defence["name"]]
    psnr = PSNR[attack["name"]] - loss + seed + random.normal(0, 0.3, PHOTOS)
    right = (np.arange(PHOTOS) < 10 - loss / 4).astype(float)
    return {
        "id": identifier,
        "key": f"key {identifier}",
        "status": "ok",
        "traceback": None,
        "plan": "small",
        "seed": seed,
        "adaptive": True,
        "victim": {"model": "net", "cut": "C4", "data": "faces", "size": SIZE, "task": "expression"},
        "defence": defence,
        "attack": attack,
        "n": PHOTOS,
        "metrics": {"mse": score(10 ** (-psnr / 10)), "psnr": score(psnr), "ssim": score(psnr / 40)},
        "utility": {"metric": "accuracy", "chance": 0.25, **score(right)},
        "bytes": 43080,
        "edge": {"milliseconds": 4.125, "ratio": 1.02},
        "guarantees": GUARANTEES.get(defence["name"], []),
        "queries": None if attack["floor"] else 3000,
        "seconds": {"fit": 1.2, "reconstruct": 0.1},
        "history": [{"epoch": 1, "train_loss": 0.5, "validation_loss": 0.6}],
        "schema_version": SCHEMA,
        "made": [{"stages": ["judge"], "versions": {"torch": "2.11", "numpy": "2.1"}}],
        "finished": "2026-01-01T00:00:00",
    }


def fail(cell: dict[str, Any]) -> None:
    for name in ("n", "metrics", "utility", "bytes", "edge", "guarantees", "queries", "seconds", "history"):
        del cell[name]
    cell |= {"status": "failed", "traceback": "Traceback (most recent call last):\nValueError: it broke\n"}


def fail_one(cell: dict[str, Any]) -> None:
    if cell["defence"]["label"] == "gaussian_noise sigma=2.0" and cell["attack"]["name"] == "ridge":
        fail(cell)


def write_run(run: Path, edit: Edit = fail_one, seeds: tuple[int, ...] = (0, 1)) -> list[str]:
    """Cells in the order of the plan, and one that does not belong to it. Returns the ids."""
    folder = run / "cells"
    folder.mkdir(parents=True)
    (run / "plan.toml").write_text('name = "small"  # a <plan>\n')
    strip = np.random.default_rng(0).integers(0, 256, (SIZE, 8 * SIZE, 3), dtype=np.uint8)
    Image.fromarray(strip).save(run / "targets.png")
    ids: list[str] = []
    for defence in DEFENCES:
        for attack in ATTACKS:
            for seed in seeds:
                identifier = f"c{len(ids):03d}"
                ids.append(identifier)
                cell = cell_of(identifier, seed, dict(defence), dict(attack))
                edit(cell)
                if cell["status"] == "ok":
                    Image.fromarray(strip).save(folder / f"{identifier}.png")
                write_sealed(run, cell)
    write_sealed(run, cell_of("other", 7, {**DEFENCES[0], "label": "other"}, ATTACKS[2]))
    write_listing(run, {identifier: f"key {identifier}" for identifier in ids})
    return ids


def write_sealed(run: Path, cell: dict[str, Any]) -> None:
    """A cell's file as a run would have stored it, whatever it holds."""
    record_file(run, cell["id"]).write_text(json.dumps({**cell, "seal": seal_of(run, cell["id"], cell)}))


def relisted(run: Path, ids: Sequence[str]) -> Path:
    """The same run with these cells alone."""
    write_listing(run, {identifier: f"key {identifier}" for identifier in ids})
    return run
