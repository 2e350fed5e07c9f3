"""The victim: a network with its cut, trained on its task; and what its encoder makes of the photos."""

import copy
import json
from abc import abstractmethod
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from defenses.fitting import Budget, Examples, SplitModel, fit
from experiments.stages.data import DataStage, load_array, save_array
from experiments.store import Stage, Store
from victims.cuts import Halves, split
from victims.models import make_network
from victims.seeding import seeded
from victims.tensors import to_float

CLASSES_WITHOUT_TASK = 1000  # what torchvision's weights have


@dataclass(frozen=True)
class NetworkStage(Stage):
    """A stage that ends in a split network, defended or not, with the photos that it belongs to."""

    @abstractmethod
    def images(self, part: str, store: Store) -> Tensor:
        """The photos of a part, uint8 (n, 3, h, w)."""

    @abstractmethod
    def load(self, store: Store) -> SplitModel:
        """The network in eval mode on the store's device, its parameters frozen; a fresh copy on each call."""

    @abstractmethod
    def stored_features(self, part: str, store: Store) -> Tensor | None:
        """What the encoder makes of a part, (n, *shape); None where that varies from call to call."""


@dataclass(frozen=True)
class VictimStage(NetworkStage):
    """Train the whole network, or the tail behind a frozen encoder; without a task nothing is trained.

    ``weights_fingerprint`` changes when a weights file does.
    """

    label: ClassVar[str] = "victim"

    data: DataStage
    model: str
    cut: str
    weights: str
    weights_fingerprint: str
    freeze_encoder: bool
    budget: Budget
    seed: int

    def initial(self, classes: int) -> Halves:
        """The halves before any training, in eval mode: the same for the same seed."""
        # a copy: the cached one must stay as it was made
        return copy.deepcopy(_initial(self, classes))

    def new_encoder(self, store: Store) -> nn.Module:
        """An encoder of this architecture with weights of its own, untrained; drawn from torch's global state."""
        classes = len(self.data.load(store).classes) or CLASSES_WITHOUT_TASK
        network = make_network(self.model, classes, self.data.size)
        return split(network, self.model, self.cut, self.data.size).encoder

    def compute(self, folder: Path, store: Store) -> None:
        """weights.safetensors (encoder.*, tail.*) and facts.json."""
        data = self.data.load(store)
        halves = self.initial(len(data.classes) or CLASSES_WITHOUT_TASK)
        model = SplitModel(halves.encoder, halves.tail).to(store.device).eval()
        facts: dict[str, Any] = {"cut": asdict(halves.cut), "history": []}
        if data.labels is not None:
            parts = {}
            for part in ("train", "validation"):
                features = encode(halves.encoder, data.images[part], store) if self.freeze_encoder else None
                parts[part] = Examples(data.images[part], data.labels[part], features)
            with seeded("train victim", self.seed):
                log = store.curve("training the victim", self.budget.epochs)
                outcome = fit(model, parts["train"], parts["validation"], self.budget, log=log)
            facts["history"] = outcome.history.rows
        save_modules(folder / "weights.safetensors", encoder=halves.encoder, tail=halves.tail)
        (folder / "facts.json").write_text(json.dumps(facts))

    def images(self, part: str, store: Store) -> Tensor:
        """Of the victim's data."""
        return self.data.load(store).images[part]

    def load(self, store: Store) -> SplitModel:
        """The trained network, undefended."""
        halves = self.initial(len(self.data.load(store).classes) or CLASSES_WITHOUT_TASK)
        load_modules(store.folder(self) / "weights.safetensors", encoder=halves.encoder, tail=halves.tail)
        return SplitModel(halves.encoder, halves.tail).to(store.device).eval().requires_grad_(False)

    def stored_features(self, part: str, store: Store) -> Tensor:
        """Of the undefended encoder."""
        return FeaturesStage(self, part).load(store)


@lru_cache(maxsize=2)
def _initial(victim: VictimStage, classes: int) -> Halves:
    """Tracing a network takes about a second, and every cell needs its victim's."""
    with seeded("initial weights", victim.seed):
        network = make_network(victim.model, classes, victim.data.size, victim.weights)
        return split(network, victim.model, victim.cut, victim.data.size)


@dataclass(frozen=True)
class FeaturesStage(Stage):
    """An encoder's features of one part: computed once, used by all that leave the encoder as it is."""

    label: ClassVar[str] = "features"

    network: NetworkStage
    part: str

    def compute(self, folder: Path, store: Store) -> None:
        """features.npy, float32 (n, *shape)."""
        features = encode(self.network.load(store).encoder, self.network.images(self.part, store), store)
        save_array(folder / "features.npy", features)

    def load(self, store: Store) -> Tensor:
        """Memory-mapped, (n, *shape)."""
        return load_array(store.folder(self) / "features.npy")


@torch.no_grad()
def encode(encoder: nn.Module, images: Tensor, store: Store, batch_size: int = 64) -> Tensor:
    """Features of photos (n, 3, h, w) uint8, in order, on the CPU."""
    encoder.to(store.device).eval()
    chunks = images.split(batch_size)
    return torch.cat([encoder(to_float(chunk.to(store.device))).cpu() for chunk in chunks])


def save_modules(path: Path, **modules: nn.Module) -> None:
    """Write the states of several modules, each under its name."""
    states = {
        f"{name}.{key}": value for name, module in modules.items() for key, value in module.state_dict().items()
    }
    # clones: safetensors refuses tensors that share memory, as tied weights do
    save_file({key: value.detach().cpu().contiguous().clone() for key, value in states.items()}, path)


def load_modules(path: Path, **modules: nn.Module) -> None:
    """Restore what ``save_modules`` wrote; every key must match."""
    states = load_file(path)
    for name, module in modules.items():
        prefix = f"{name}."
        module.load_state_dict({k.removeprefix(prefix): v for k, v in states.items() if k.startswith(prefix)})
