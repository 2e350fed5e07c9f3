"""Every attack on a victim whose best reconstruction is known: how far from the optimum does each one end?"""

import time
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from splitleak.attacks.base import Attack, knowledge_of
from splitleak.attacks.decoder import Decoder
from splitleak.attacks.deep_image_prior import DeepImagePrior
from splitleak.attacks.edge import PlainEdge
from splitleak.attacks.flow_prior import FlowPrior
from splitleak.attacks.inverse_network import InverseNetwork
from splitleak.attacks.knowledge import AttackerPart, BlackBox, QueryFree, WhiteBox
from splitleak.attacks.latent_search import LatentSearch
from splitleak.attacks.mean_image import MeanImage
from splitleak.attacks.nearest_neighbor import NearestNeighbor
from splitleak.attacks.refine import Refine
from splitleak.attacks.ridge import Ridge
from splitleak.attacks.rmle import Rmle
from splitleak.attacks.stack import Stack
from splitleak.victims.gaussian import GaussianVictim
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import to_bytes, to_float

AUXILIARY, VALIDATION = 16_000, 500

SUITE: tuple[tuple[Attack[Any], float | None], ...] = (
    (MeanImage(), None),
    (NearestNeighbor(), None),
    (Ridge(), 1.01),
    (Decoder(width=64, epochs=30, structure=0.0), 1.05),
    (InverseNetwork(), None),
    (Stack(width=64, epochs=30), 1.05),
    (Rmle(prior="gaussian", learning_rate=0.05), 1.05),
    (Rmle(), None),
    (Refine(width=64), None),
    (FlowPrior(width=64), None),
    (LatentSearch(), None),
    (DeepImagePrior(steps=300), None),
)
"""Attacks and, where its model contains the optimum, the excess that each is allowed."""


@dataclass(frozen=True)
class Calibrated:
    """``ratio``: the attack's squared error over the posterior mean's, on the same targets."""

    attack: Attack[Any]
    error: float
    ratio: float
    seconds: float


def calibrate(attack: Attack[Any], victim: GaussianVictim, targets: int, auxiliary: int = AUXILIARY) -> Calibrated:
    """Fit the attack to the victim and compare it with the optimum on fresh images."""
    knows, truth = knowledge(attack, victim, targets, auxiliary)
    start = time.perf_counter()
    with seeded("calibrate", attack.name):
        answer = attack.fit(knows)
        with torch.no_grad():
            rebuilt = torch.cat([answer(release) for release in knows.intercepted.split(64)])
    seconds = time.perf_counter() - start
    error, least = (float((x - truth).square().mean()) for x in (rebuilt, victim.posterior_mean(knows.intercepted)))
    return Calibrated(attack, error, error / least, seconds)


def knowledge(attack: Attack[Any], victim: GaussianVictim, targets: int, auxiliary: int) -> tuple[QueryFree, Tensor]:
    """What the attack declares to know of this victim, and the targets' true images."""
    truth = victim.images(targets, seed=3)
    edge = victim.edge
    images: dict[AttackerPart, Tensor] = {
        "auxiliary": to_bytes(victim.images(auxiliary, seed=1)),
        "validation": to_bytes(victim.images(VALIDATION, seed=2)),
    }
    with seeded("intercept"):
        facts: dict[str, Any] = {
            "images": images,
            "intercepted": edge(truth),
            "tail": torch.nn.Flatten(),
            "new_encoder": lambda: victim.encoder,
            "device": torch.device("cpu"),
        }
    kind = knowledge_of(type(attack))
    if issubclass(kind, BlackBox):
        facts |= {"send": edge, "resend": lambda part, rows: edge(to_float(images[part][rows]))}
    if issubclass(kind, WhiteBox):
        facts["edge"] = PlainEdge(edge[0], edge[1])
    return kind(**facts), truth


def compare(victim: GaussianVictim, targets: int) -> Table:
    """One row per attack, beside the closed form."""
    table = Table("attack", "squared error", "over the optimum's", "allowed", "seconds", box=None)
    table.title = f"linear-Gaussian victim, n = {targets}; least error in closed form {victim.least_error:.3e}"
    for attack, allowed in SUITE:
        row = calibrate(attack, victim, targets)
        limit = "" if allowed is None else f"{allowed:.2f}"
        table.add_row(str(attack), f"{row.error:.3e}", f"{row.ratio:.3f}", limit, f"{row.seconds:.0f}")
    return table
