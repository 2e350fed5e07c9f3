"""The victim: a network with its cut, trained on its task; and what its encoder makes of the photos."""

import json
import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from splitleak.defenses.fitting import Budget, Examples, SplitModel, fit
from splitleak.experiments.stages.arrays import ArrayFile, load_array
from splitleak.experiments.stages.data import Data, DataStage
from splitleak.experiments.stages.moved import MovedStage, Part
from splitleak.experiments.store.key import ELSEWHERE, Stage
from splitleak.experiments.store.store import Store
from splitleak.victims.cuts import Halves, split, uncut
from splitleak.victims.models import CLASSES_WITHOUT_TASK, Network, forget, in_file, make_network
from splitleak.victims.seeding import seeded
from splitleak.victims.splitting.twin import twin
from splitleak.victims.tasks.base import Task
from splitleak.victims.tasks.classification import CLASSIFICATION
from splitleak.victims.tensors import BATCH, to_float
from splitleak.victims.training import History


@dataclass(frozen=True)
class NetworkStage(Stage):
    """A stage that ends in a split network, defended or not, with the photos that it belongs to."""

    @abstractmethod
    def images(self, part: Part, store: Store) -> Tensor:
        """The photos of a part, uint8 (n, 3, h, w)."""

    @abstractmethod
    def load(self, store: Store) -> SplitModel:
        """The network in eval mode on the store's device, its parameters frozen; a fresh copy on each call."""

    @abstractmethod
    def stored_features(self, part: Part, store: Store) -> Tensor | None:
        """What the encoder makes of a part, (n, *shape); None where that varies from call to call."""


@dataclass(frozen=True)
class TrainingStage(Stage):
    """Train the whole network on its task, wherever it is cut afterwards.

    ``weights_fingerprint`` and ``model_fingerprint`` stand for the content of what ``weights`` and ``model`` name.
    ``device``: the type of what networks run on, for it rounds in its own way. ``task``: what a label is predicted
    for; without one nothing is trained.
    """

    label: ClassVar[str] = "network"

    data: DataStage
    model: str = field(metadata=ELSEWHERE)
    weights: str = field(metadata=ELSEWHERE)
    weights_fingerprint: str
    budget: Budget
    seed: int
    model_fingerprint: str
    device: str = "cpu"
    task: Task = CLASSIFICATION

    def initial(self, classes: int) -> Network:
        """The network before any training, in eval mode: the same for the same seed."""
        with seeded("initial weights", self.seed):
            return make_network(self.model, classes, self.data.size, self.weights)

    def compute(self, folder: Path, store: Store) -> None:
        """weights.safetensors (network.*) and history.json."""
        data = self.data.load(store)
        assert data.labels is not None, "nothing to train on"
        network = self.initial(len(data.classes))
        model = SplitModel(uncut(network, self.data.size), nn.Identity()).to(store.device)
        parts = {part: Examples(data.images[part], data.labels[part]) for part in ("train", "validation")}
        history = _trained(model, parts, self, store)
        save_modules(folder / "weights.safetensors", network=network.module)
        (folder / "history.json").write_text(json.dumps(asdict(history)))

    def load(self, store: Store) -> tuple[Network, History]:
        """The trained network on the CPU, and how its training went."""
        folder = store.folder(self)
        network = self.initial(len(self.data.load(store).classes))
        load_modules(folder / "weights.safetensors", network=network.module)
        return network, History(**json.loads((folder / "history.json").read_text()))


@dataclass(frozen=True)
class VictimStage(NetworkStage):
    """A trained network and its cut, or a tail trained behind a frozen encoder; without a task nothing is trained.

    The fields beside the cut are those of ``TrainingStage``, which all cuts of one network share.
    """

    label: ClassVar[str] = "victim"

    data: DataStage
    model: str = field(metadata=ELSEWHERE)
    cut: str
    weights: str = field(metadata=ELSEWHERE)
    weights_fingerprint: str
    freeze_encoder: bool
    budget: Budget
    seed: int
    model_fingerprint: str
    device: str = "cpu"
    task: Task = CLASSIFICATION

    @property
    def training(self) -> TrainingStage:
        """Of the whole network."""
        return TrainingStage(**{field.name: getattr(self, field.name) for field in fields(TrainingStage)})

    def initial(self, classes: int) -> Halves:
        """The halves before any training, in eval mode: the same for the same seed."""
        made = _initial(self, classes)
        # copies: the cached one must stay as it was made
        return replace(made, encoder=twin(made.encoder), tail=twin(made.tail))

    def new_encoder(self, store: Store) -> nn.Module:
        """An encoder of this architecture with weights of its own, untrained; drawn from torch's global state."""
        classes = len(self.data.load(store).classes) or CLASSES_WITHOUT_TASK
        network = make_network(self.model, classes, self.data.size)
        if in_file(self.model):
            forget(network.module)  # its function may have loaded the victim's weights
        return split(network, self.model, self.cut, self.data.size).encoder

    def uncut(self, store: Store) -> Network | None:
        """The network that was cut, on the CPU; None where its tail was trained after the cut."""
        data = self.data.load(store)
        if data.labels is None or not self.budget.epochs:
            return self.training.initial(len(data.classes) or CLASSES_WITHOUT_TASK)
        return None if self.freeze_encoder else self.training.load(store)[0]

    def compute(self, folder: Path, store: Store) -> None:
        """weights.safetensors (encoder.*, tail.*) and facts.json."""
        data = self.data.load(store)
        trains = data.labels is not None and bool(self.budget.epochs)
        history = History()
        if trains and not self.freeze_encoder:
            network, history = self.training.load(store)
            halves = split(network, self.model, self.cut, self.data.size)
        else:
            halves = self.initial(len(data.classes) or CLASSES_WITHOUT_TASK)
        if trains and self.freeze_encoder:
            history = self._train_tail(halves, data, folder, store)
        save_modules(folder / "weights.safetensors", encoder=halves.encoder, tail=halves.tail)
        (folder / "facts.json").write_text(json.dumps({"cut": asdict(halves.cut), "history": asdict(history)}))

    def _train_tail(self, halves: Halves, data: Data, folder: Path, store: Store) -> History:
        assert data.labels is not None
        model = SplitModel(halves.encoder, halves.tail).to(store.device).eval()
        parts = {}
        for part in ("train", "validation"):
            place = folder / f"{part}.npy"
            features = write_features(place, halves.encoder, data.images[part], store)
            place.unlink()  # the mapped file goes with the last who uses it
            parts[part] = Examples(data.images[part], data.labels[part], features)
        return _trained(model, parts, self, store)

    def history(self, store: Store) -> History:
        """How training went; empty where nothing was trained."""
        return History(**json.loads((store.folder(self) / "facts.json").read_text())["history"])

    def expected_bytes(self) -> int:
        """The weights, those of the uncut network too, and the features of every part."""
        return (1 if self.freeze_encoder else 2) * self.weight_bytes() + self.feature_bytes()

    def weight_bytes(self) -> int:
        """Of both halves."""
        halves = _initial(self, self.data.class_count or CLASSES_WITHOUT_TASK)
        return sum(value.nbytes for half in (halves.encoder, halves.tail) for value in half.state_dict().values())

    def feature_bytes(self) -> int:
        """Of the features of every part."""
        shape = _initial(self, self.data.class_count or CLASSES_WITHOUT_TASK).cut.shape
        photos = self.data.expected_bytes() // self.data.image_bytes(1)
        return photos * math.prod(shape) * torch.float16.itemsize

    def images(self, part: Part, store: Store) -> Tensor:
        """Of the victim's data, or made of them."""
        return part.load(store) if isinstance(part, MovedStage) else self.data.load(store).images[part]

    def load(self, store: Store) -> SplitModel:
        """The trained network, undefended."""
        halves = self.initial(len(self.data.load(store).classes) or CLASSES_WITHOUT_TASK)
        load_modules(store.folder(self) / "weights.safetensors", encoder=halves.encoder, tail=halves.tail)
        return SplitModel(halves.encoder, halves.tail).to(store.device).eval().requires_grad_(False)

    def stored_features(self, part: Part, store: Store) -> Tensor:
        """Of the undefended encoder."""
        return FeaturesStage(self, part).load(store)


@lru_cache(maxsize=2)
def _initial(victim: VictimStage, classes: int) -> Halves:
    """Tracing a network takes about a second, and every cell needs its victim's."""
    return split(victim.training.initial(classes), victim.model, victim.cut, victim.data.size)


def _trained(
    model: SplitModel, parts: Mapping[str, Examples], stage: TrainingStage | VictimStage, store: Store
) -> History:
    """Train in place on the task."""
    with seeded("train victim", stage.seed):
        log = store.curve("training the victim", stage.budget.epochs)
        return fit(
            model, parts["train"], parts["validation"], stage.budget, log=log, task_loss=stage.task.loss
        ).history


@dataclass(frozen=True)
class FeaturesStage(Stage):
    """An encoder's features of one part: computed once, used by all that leave the encoder as it is."""

    label: ClassVar[str] = "features"

    network: NetworkStage
    part: Part

    def compute(self, folder: Path, store: Store) -> None:
        """features.npy, see ``write_features``."""
        images = self.network.images(self.part, store)
        write_features(folder / "features.npy", self.network.load(store).encoder, images, store)

    def load(self, store: Store) -> Tensor:
        """Memory-mapped, (n, *shape)."""
        return load_array(store.folder(self) / "features.npy")


def write_features(path: Path, encoder: nn.Module, images: Tensor, store: Store) -> Tensor:
    """Encode photos (n, 3, h, w) uint8 into a file of float16 (n, *shape), which is returned mapped.

    That rounds by a two-thousandth, far below what a defence changes. Features beyond its range stay float32.
    """
    for dtype in (torch.float16, torch.float32):
        file = None
        for chunk in encode(encoder, images, store):
            rounded = chunk.to(dtype)
            if rounded.isinf().any() and not chunk.isinf().any():
                break
            file = file or ArrayFile(path, tuple(chunk.shape[1:]), str(dtype).removeprefix("torch."))
            file.add(rounded)
        else:
            break
    assert file is not None, "no photos"
    return file.tensor()


@torch.no_grad()
def encode(encoder: nn.Module, images: Tensor, store: Store, batch_size: int = BATCH) -> Iterator[Tensor]:
    """Features of photos (n, 3, h, w) uint8, in order, on the CPU, some at a time."""
    encoder.to(store.device).to(memory_format=torch.channels_last).eval()
    for chunk in images.split(batch_size):
        batch = to_float(chunk.to(store.device, non_blocking=True)).to(memory_format=torch.channels_last)
        yield encoder(batch).float().cpu()


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
