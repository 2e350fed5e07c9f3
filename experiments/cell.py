"""One cell of a plan: victim x defence setting x attack setting x seed, from its stages to one JSON file."""

import json
import os
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from attacks.base import Attack, QueryFree, knowledge_of
from defenses.base import Defense
from experiments.judge.metrics import metrics_for, score
from experiments.judge.statistics import interval
from experiments.plan import Entry, Plan
from experiments.stages.attack import AttackStage
from experiments.stages.data import DataStage
from experiments.stages.fitting import Budget
from experiments.stages.protect import ProtectStage
from experiments.stages.victim import VictimStage
from experiments.store import Store, digest, source_digest, write_atomically
from victims.files import WEIGHTS_VARIABLE, find_file
from victims.tensors import to_float

EXAMPLES = 8
"""How many targets are kept as pictures."""
LIBRARIES = ("splitleak", "torch", "torchvision", "torchmetrics", "opacus")


@dataclass(frozen=True)
class Cell:
    """Where a cell stands in its plan, and the stages that lead to it."""

    plan: Plan
    defense: Entry[Defense]
    attack: Entry[Attack[QueryFree]]
    adaptive: bool
    seed: int
    stage: AttackStage

    @cached_property
    def id(self) -> str:
        """Name of its files: readable, and unique within the plan."""
        facts = [self.defense.label, self.attack.label, self.adaptive, self.seed]
        return f"{self.defense.plugin.name}-{self.attack.plugin.name}-{self.seed}-{digest(facts)[:10]}"

    @cached_property
    def key(self) -> str:
        """Changes with everything that the result depends on, the judge included."""
        return digest([self.stage.key, self.plan.judge.to_mapping(), source_digest("experiments.judge.metrics")])

    def result(self, run: Path) -> dict[str, Any] | None:
        """The stored result, if there is one for exactly this cell."""
        path = run / "cells" / f"{self.id}.json"
        if not path.is_file():
            return None
        stored: dict[str, Any] = json.loads(path.read_text())
        return stored if stored["key"] == self.key else None

    def run(self, run: Path, store: Store) -> dict[str, Any]:
        """Compute what is missing, judge, and store the result; an error becomes a stored result too."""
        try:
            outcome = {"status": "ok", "traceback": None, **self._judge(run, store)}
        except Exception:
            outcome = {"status": "failed", "traceback": traceback.format_exc()}
        result = {"id": self.id, "key": self.key, **self._identity(), **outcome}
        write_atomically(run / "cells" / f"{self.id}.json", json.dumps(result, indent=1))
        return result

    def _identity(self) -> dict[str, Any]:
        victim, defense, attack = self.plan.victim, self.defense, self.attack
        strength = defense.plugin.strength
        return {
            "plan": self.plan.name,
            "seed": self.seed,
            "adaptive": self.adaptive,
            "victim": {
                "model": victim.model,
                "cut": victim.cut,
                "data": self.plan.source.name,
                "size": victim.size,
                "task": victim.task,
            },
            "defence": {
                "name": defense.plugin.name,
                "label": defense.label,
                "settings": defense.plugin.to_mapping(),
                "strength": strength,
                "strength_value": getattr(defense.plugin, strength) if strength else None,
            },
            "attack": {
                "name": attack.plugin.name,
                "label": attack.label,
                "settings": attack.plugin.to_mapping(),
                "knowledge": knowledge_of(type(attack.plugin)).__name__,
                "floor": attack.plugin.floor,
            },
        }

    def _judge(self, run: Path, store: Store) -> dict[str, Any]:
        images = self.stage.protect.images("target", store)
        rebuilt = self.stage.load(store)
        metrics = metrics_for(self.plan.victim.size, self.plan.judge.seed_convention)
        scores = score(metrics, to_float(images), to_float(rebuilt))
        facts, log = self.stage.protect.facts(store), self.stage.log(store)
        save_strip(run / "targets.png", images)
        save_strip(run / "cells" / f"{self.id}.png", rebuilt)
        for guarantee in facts["guarantees"]:
            guarantee["epsilon"] = None if np.isinf(guarantee["epsilon"]) else guarantee["epsilon"]
        return {
            "n": len(images),
            "metrics": {name: _with_interval(values) for name, values in scores.items()},
            "utility": facts["utility"] and {**facts["utility"], **_with_interval(facts["utility"]["values"])},
            "bytes": facts["bytes"],
            "edge": facts["edge"],
            "guarantees": facts["guarantees"],
            "queries": log["queries"],
            "seconds": log["seconds"],
            "history": log["history"],
            "versions": {library: version(library) for library in LIBRARIES},
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def _with_interval(values: list[float]) -> dict[str, Any]:
    return {**interval(values)._asdict(), "values": [round(value, 6) for value in values]}


def save_strip(path: Path, images: Tensor) -> None:
    """Write the first photos (n, 3, h, w) uint8 side by side."""
    strip = np.concatenate(list(images[:EXAMPLES].permute(0, 2, 3, 1).numpy()), axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    Image.fromarray(strip).save(temporary, "PNG")
    temporary.replace(path)


def cells_of(plan: Plan) -> Iterator[Cell]:
    """All cells of a plan, those of one protected victim together."""
    victim = plan.victim
    data = DataStage(plan.source, plan.part_sizes, victim.size, victim.task, plan.parts.seed)
    for seed in plan.seeds:
        network = VictimStage(
            data=data,
            model=victim.model,
            cut=victim.cut,
            weights=victim.weights,
            weights_fingerprint=weights_fingerprint(victim.weights),
            freeze_encoder=victim.freeze_encoder,
            budget=Budget(victim.epochs, victim.batch_size, victim.learning_rate),
            seed=seed,
        )
        for defense in plan.defenses:
            protect = ProtectStage(network, defense.plugin, _budget(plan, defense.plugin))
            for adaptive in dict.fromkeys(plan.attacker.adaptive):
                for attack in plan.attacks:
                    stage = AttackStage(protect, attack.plugin, adaptive, plan.attacker.queries)
                    yield Cell(plan, defense, attack, adaptive, seed, stage)


def _budget(plan: Plan, defense: Defense) -> Budget:
    if defense.retrains == "anew":
        epochs = plan.defender.anew_epochs or plan.victim.epochs
        return Budget(epochs, plan.victim.batch_size, plan.victim.learning_rate)
    return Budget(plan.defender.epochs, plan.defender.batch_size, plan.defender.learning_rate)


def weights_fingerprint(weights: str) -> str:
    """Size and time of a weights file; the name itself for weights that torchvision numbers.

    Raises:
        InvalidInputError: there is no such file.
    """
    if not Path(weights).suffix:
        return weights
    facts = find_file(weights, "weights file", WEIGHTS_VARIABLE).stat()
    return f"{facts.st_size}-{facts.st_mtime_ns}"
