"""What is found on each of an attack's pictures alone, once for all who ask."""

from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from splitleak.experiments.judge.metrics.perceptual import LPIPS, lpips
from splitleak.experiments.judge.metrics.pictures import Metric, metrics_for
from splitleak.experiments.judge.scores import Reader, Reading, Seen, look
from splitleak.experiments.stages.attack import AttackStage
from splitleak.experiments.stages.reader import ReaderStage
from splitleak.experiments.stages.victim import VictimStage
from splitleak.experiments.store.key import ELSEWHERE, Stage
from splitleak.experiments.store.store import Store
from splitleak.victims.tasks.base import Task
from splitleak.victims.tensors import BATCH, to_float

TASK, LABEL = "task", "label of "
"""How arrays that are no metric's are called."""


@dataclass(frozen=True)
class SeenStage(Stage):
    """Likeness by every metric of pictures, and what two networks read.

    The attack is judged by it, and the suite that the attack is a member of.

    ``reader``: see ``reader_stage``. ``lpips``: the file of its backbone, where the plan gives one.
    ``seed_convention``: see ``metrics_for``.
    """

    label: ClassVar[str] = "seen"

    attack: AttackStage
    reader: ReaderStage | None = None
    seed_convention: bool = False
    lpips: str | None = field(default=None, metadata=ELSEWHERE)
    lpips_fingerprint: str | None = None

    @property
    def metrics(self) -> dict[str, Metric]:
        """By name."""
        known = metrics_for(self.attack.protect.victim.data.size, self.seed_convention)
        return known | ({LPIPS: lpips(self.lpips)} if self.lpips else {})

    def compute(self, folder: Path, store: Store) -> None:
        """seen.safetensors: all arrays of ``Seen``, (draws, n)."""
        images, attack = self.attack.protect.images("target", store), self.attack
        task = task_of(attack.protect.victim, store)
        reader = reader_of(self.reader, store) if self.reader else None
        draws = [attack.load(store, draw) for draw in range(attack.log(store)["draws"])]
        found = [look(images[: len(rebuilt)], rebuilt, self.metrics, task, reader) for rebuilt in draws]
        arrays = [_named(seen) for seen in found]
        save_file({name: torch.stack([of[name] for of in arrays]) for name in arrays[0]}, folder / "seen.safetensors")

    def load(self, store: Store, draw: int) -> Seen:
        """Of one interception."""
        arrays = load_file(store.folder(self) / "seen.safetensors")
        found = {name: of[draw] for name, of in arrays.items()}
        labels = {name.removeprefix(LABEL): of for name, of in found.items() if name.startswith(LABEL)}
        return Seen({metric: found[metric] for metric in self.metrics}, found.get(TASK), labels)


def _named(seen: Seen) -> dict[str, Tensor]:
    """All its arrays."""
    task = {} if seen.task is None else {TASK: seen.task}
    return {**seen.likeness, **task, **{LABEL + name: of for name, of in seen.labels.items()}}


@lru_cache(maxsize=2)
def task_of(victim: VictimStage, store: Store) -> Reading | None:
    """The undefended victim as a reader of pictures, loaded once for all that a process judges; None where it has no
    task."""
    labels = victim.data.load(store).labels
    if labels is None:
        return None
    model = victim.load(store)
    features = victim.stored_features("target", store)  # what it reads from the photos needs its tail alone
    said = partial(_said, task=victim.task, device=store.device)
    of_photos = victim.task.utility(said(model.tail, features), labels["target"])
    return Reading(victim.task, labels["target"], of_photos, lambda images: said(model, images))


@torch.no_grad()
def _said(network: nn.Module, inputs: Tensor, task: Task, device: torch.device) -> Tensor:
    """What a network predicts of features, or of photos uint8 (n, 3, h, w); (n, ...) on the CPU."""

    def shown(chunk: Tensor) -> Tensor:
        chunk = chunk.to(device)
        return chunk.float() if chunk.is_floating_point() else to_float(chunk)

    return torch.cat([task.predict(network(shown(chunk))).cpu() for chunk in inputs.split(BATCH)])


def reader_of(stage: ReaderStage, store: Store) -> Reader:
    """The independent network as a reader of pictures."""
    return Reader(stage.targets(store), partial(stage.read, store=store))
