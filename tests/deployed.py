"""A tiny run with a defence of each kind, and its deployments, for the tests of what leaves a run."""

from pathlib import Path

import torch
from tiny import HEAD, MEAN, NONE, RIDGE, run_plan

from splitleak.experiments.planning.names import CACHE
from splitleak.experiments.store.store import Store
from splitleak.experiments.tools.deploy import Deployment
from splitleak.experiments.tools.finished import Setting

SUBSET, NOISE = "channel_subset keep=0.25", "gaussian_noise sigma=0.5"
BOTTLENECK, QUANTISED = "bottleneck keep=0.1", "quantisation bits=3"
CHAIN = "chain"
FIVE = (BOTTLENECK, NOISE, SUBSET, QUANTISED, CHAIN)
"""Learned, random, a subset, quantised, and a chain of three."""
DEFENCES = """
[[defenses]]
name = "bottleneck"
keep = 0.1
[[defenses]]
name = "gaussian_noise"
sigma = 0.5
[[defenses]]
name = "channel_subset"
keep = 0.25
[[defenses]]
name = "quantisation"
bits = 3
[[defenses]]
name = "chain"
[[defenses.parts]]
name = "channel_subset"
keep = 0.5
[[defenses.parts]]
name = "laplace_noise"
scale = 0.3
[[defenses.parts]]
name = "quantisation"
bits = 5
[[defenses]]
name = "multi_server"
"""


def run_in(folder: Path) -> Path:
    """The run's folder."""
    run_plan(HEAD + NONE + DEFENCES + MEAN + RIDGE, folder, shared=True)
    return folder / "runs" / "tiny"


def deployment(run: Path, label: str) -> Deployment:
    return Deployment.of(Setting.of(run, label), store_of(run))


def store_of(run: Path) -> Store:
    return Store(run.parent / CACHE, torch.device("cpu"))
