"""The judge's reader: an independent network that tells the labels of photos, to be shown reconstructions."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from splitleak.experiments.stages.data import Data, DataStage
from splitleak.experiments.stages.victim import load_modules, save_modules
from splitleak.experiments.store.key import Stage
from splitleak.experiments.store.store import Store
from splitleak.victims.embedding import PooledNetwork, augmented
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import BATCH, to_float
from splitleak.victims.training import Batch, Shuffled, Training, adamw, train

WIDTH, LEARNING_RATE = 16, 3e-3
STEPS, PASSES = 300, 30
"""Of training, in whole passes: 20 over 1,000 photos of 64 pixels take 15 seconds of one core."""


@dataclass(frozen=True)
class ReaderStage(Stage):
    """A small network trained on the auxiliary part to tell every label of a photo, the task's among them.

    It is nobody's victim, and no target photo is among its own: what it reads on reconstructions an eavesdropper
    reads, whatever pleases the network that is attacked (Ren et al., CVPR 2026, arXiv 2511.15316). The weights are
    kept that do best on the validation part. ``device``: the type of what it runs on.
    """

    label: ClassVar[str] = "reader"

    data: DataStage
    device: str

    def compute(self, folder: Path, store: Store) -> None:
        """weights.safetensors, facts.json (the training's curve), targets.safetensors (see ``targets``)."""
        data = self.data.load(store)
        heads = told(data)
        with seeded("reader"):
            network = self._network(heads, store)
            history = self._trained(network, heads, data, store) if heads else []
        save_modules(folder / "weights.safetensors", network=network)
        (folder / "facts.json").write_text(json.dumps({"history": history}))
        save_file(_read(network, heads, data.images["target"], store), folder / "targets.safetensors")

    def targets(self, store: Store) -> dict[str, Tensor]:
        """What it reads on the true target photos: by label the classes, int64 (n,)."""
        return load_file(store.folder(self) / "targets.safetensors")

    def read(self, images: Tensor, store: Store) -> dict[str, Tensor]:
        """What it reads on other images, uint8 (n, 3, h, w)."""
        heads = told(self.data.load(store))
        network = self._network(heads, store)
        load_modules(store.folder(self) / "weights.safetensors", network=network)
        return _read(network, heads, images, store)

    def _network(self, heads: Mapping[str, int], store: Store) -> PooledNetwork:
        return PooledNetwork((3, self.data.size, self.data.size), sum(heads.values()), WIDTH).to(store.device)

    def _trained(
        self, network: PooledNetwork, heads: Mapping[str, int], data: Data, store: Store
    ) -> list[dict[str, float]]:
        """In place; the curve."""
        own, held_out = (
            (data.images[part], torch.stack([data.attributes[part][name] for name in heads], 1))
            for part in ("auxiliary", "validation")
        )
        batches = Shuffled(own, BATCH)
        recipe = adamw(LEARNING_RATE, min(PASSES, math.ceil(STEPS / len(batches))))

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            return _wrong(model(augmented(to_float(batch[0]))), batch[1], heads)

        def validation(model: nn.Module) -> float:
            chunks = held_out[0].split(BATCH)
            outputs = torch.cat([model(to_float(chunk.to(store.device))) for chunk in chunks])
            return float(_wrong(outputs, held_out[1].to(store.device), heads))

        training = Training(network, recipe.optimizer(network.parameters()), batches)
        log = store.curve("training the reader of labels", recipe.epochs)
        return train(training, recipe, loss, validation, log).rows


def told(data: Data) -> dict[str, int]:
    """The labels that the network tells, with their numbers of classes: those of which auxiliary photos show two."""
    known = {name: data.attributes["auxiliary"][name] for name in data.names}
    return {name: len(data.names[name]) for name, of in known.items() if len(of[of >= 0].unique()) > 1}


def _wrong(outputs: Tensor, labels: Tensor, heads: Mapping[str, int]) -> Tensor:
    """Mean cross-entropy over all labels (n, heads) that are known; ``outputs``: (n, all classes)."""
    total, known = outputs.sum() * 0, (labels >= 0).sum().clamp_min(1)
    for own, of in zip(outputs.split(list(heads.values()), 1), labels.unbind(1), strict=True):
        total = total + F.cross_entropy(own, of, ignore_index=-1, reduction="sum")
    return total / known


@torch.no_grad()
def _read(network: nn.Module, heads: Mapping[str, int], images: Tensor, store: Store) -> dict[str, Tensor]:
    network.eval()
    outputs = torch.cat([network(to_float(chunk.to(store.device))).cpu() for chunk in images.split(BATCH)])
    classes = [own.argmax(1) for own in outputs.split(list(heads.values()), 1)]
    return dict(zip(heads, classes, strict=True))


def reader_stage(data: DataStage, device: str) -> ReaderStage | None:
    """The reader of a plan's labels; None where its data carries none."""
    return ReaderStage(data, device) if data.source.catalog().labels else None
