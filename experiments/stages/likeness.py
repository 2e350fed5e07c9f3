"""How like the true photos an attack's reconstructions are, scored once for all who ask."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch

from splitleak.experiments.judge.metrics.perceptual import LPIPS, lpips
from splitleak.experiments.judge.metrics.pictures import Metric, metrics_for
from splitleak.experiments.judge.scores import Likeness, likeness_of
from splitleak.experiments.stages.arrays import load_array, save_array
from splitleak.experiments.stages.attack import AttackStage
from splitleak.experiments.store.key import ELSEWHERE, Stage
from splitleak.experiments.store.store import Store


@dataclass(frozen=True)
class LikenessStage(Stage):
    """By every metric of pictures. Its attack is judged by it, and the suite that the attack is a member of.

    ``lpips``: the file of its backbone, where the plan gives one. ``seed_convention``: see ``metrics_for``.
    """

    label: ClassVar[str] = "likeness"

    attack: AttackStage
    seed_convention: bool = False
    lpips: str | None = field(default=None, metadata=ELSEWHERE)
    lpips_fingerprint: str | None = None

    @property
    def metrics(self) -> dict[str, Metric]:
        """By name."""
        known = metrics_for(self.attack.protect.victim.data.size, self.seed_convention)
        return known | ({LPIPS: lpips(self.lpips)} if self.lpips else {})

    def compute(self, folder: Path, store: Store) -> None:
        """METRIC.npy, float64 (draws, n)."""
        images, attack = self.attack.protect.images("target", store), self.attack
        draws = [attack.load(store, draw) for draw in range(attack.log(store)["draws"])]
        found = [likeness_of(images[: len(rebuilt)], rebuilt, self.metrics) for rebuilt in draws]
        for metric in self.metrics:
            save_array(folder / f"{metric}.npy", torch.stack([of[metric] for of in found]))

    def load(self, store: Store, draw: int) -> Likeness:
        """Of one interception, by metric, float64 (n,)."""
        folder = store.folder(self)
        return {metric: load_array(folder / f"{metric}.npy")[draw] for metric in self.metrics}
