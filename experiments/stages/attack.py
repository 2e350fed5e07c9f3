"""Fit an attack with what its kind of adversary may know, and rebuild the target photos."""

import json
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from attacks.base import Attack, BlackBox, QueryFree, WhiteBox, knowledge_of
from experiments.stages.data import load_array, save_array
from experiments.stages.protect import ProtectStage
from experiments.stages.victim import NetworkStage
from experiments.store import Stage, Store
from victims.seeding import seeded
from victims.tensors import check_images, to_bytes, to_float

BATCH = 64


class EdgeDevice(nn.Module):
    """What stands on the device, in eval mode: images (n, 3, h, w) in [0, 1] -> release."""

    def __init__(self, stage: NetworkStage, store: Store) -> None:
        super().__init__()
        self.model = stage.load(store)
        self._device = store.device
        # looked up once: a learned attack asks for thousands of batches
        self._images = cache(lambda part: stage.images(part, store))
        self._features = cache(lambda part: stage.stored_features(part, store))

    def forward(self, images: Tensor) -> Tensor:
        """Encode and send."""
        return self.model.edge(images)

    def resend(self, part: str, rows: Tensor) -> Tensor:
        """Release of stored photos with fresh draws of the channel, from stored features where they hold."""
        stored = self._features(part)
        if stored is None:
            return self.forward(to_float(self._images(part)[rows].to(self._device)))
        return self.model.channel.send(stored[rows].to(self._device))


@dataclass(frozen=True)
class AttackStage(Stage):
    """Reconstructions of the target part.

    ``adaptive``: the attack is fitted to the defended edge; otherwise to the undefended one, and what it then
    rebuilds from is what the cloud receives, which has the shape that it was fitted to.
    """

    label: ClassVar[str] = "attack"

    protect: ProtectStage
    attack: Attack[QueryFree]
    adaptive: bool
    budget: int | None

    def compute(self, folder: Path, store: Store) -> None:
        """reconstructions.npy (uint8, aligned with the target part) and log.json."""
        history: list[dict[str, float]] = []
        knows = self._knowledge(store, history)
        with seeded("attack", self.protect.seed, self.attack.name):
            start = time.perf_counter()
            reconstruct = self.attack.fit(knows)
            fitted = time.perf_counter()
            chunks = []
            for release in knows.intercepted.split(BATCH):
                with torch.no_grad():
                    chunks.append(to_bytes(check_images(reconstruct(release), self.attack.name)).cpu())
            done = time.perf_counter()
        save_array(folder / "reconstructions.npy", torch.cat(chunks))
        log = {
            "queries": getattr(knows, "queries", None),
            "seconds": {"fit": fitted - start, "reconstruct": done - fitted},
            "history": history,
        }
        (folder / "log.json").write_text(json.dumps(log))

    def load(self, store: Store) -> Tensor:
        """uint8 (n, 3, h, w)."""
        return load_array(store.folder(self) / "reconstructions.npy")

    def log(self, store: Store) -> dict[str, Any]:
        """Queries, seconds and the training curve."""
        log: dict[str, Any] = json.loads((store.folder(self) / "log.json").read_text())
        return log

    def _knowledge(self, store: Store, history: list[dict[str, float]]) -> QueryFree:
        """Build the one object that the attack declares, and nothing beyond it."""
        victim, protected = self.protect.victim, EdgeDevice(self.protect, store)
        edge = protected if self.adaptive else EdgeDevice(victim, store)
        show = store.curve(f"fitting {self.attack.name}", None)

        def log(row: dict[str, float]) -> None:
            history.append(row)
            show(row)

        facts: dict[str, Any] = {
            "images": {part: victim.images(part, store) for part in ("auxiliary", "validation")},
            "intercepted": self._intercept(protected, store),
            "tail": protected.model.tail,
            "architecture": f"{victim.model} cut at {victim.cut}",
            "device": store.device,
            "log": log,
        }
        kind = knowledge_of(type(self.attack))
        if issubclass(kind, BlackBox):
            facts |= {"send": edge, "resend": edge.resend, "budget": self.budget}
        if issubclass(kind, WhiteBox):
            facts["edge"] = edge
        return kind(**facts)

    def _intercept(self, protected: EdgeDevice, store: Store) -> Tensor:
        """One release of each target photo: the same draws for every attack on this protected victim."""
        count = len(self.protect.images("target", store))
        with torch.no_grad(), seeded("intercept", self.protect.seed):
            releases = torch.cat([protected.resend("target", rows) for rows in torch.arange(count).split(BATCH)])
            return releases if self.adaptive else protected.model.channel.receive(releases)
