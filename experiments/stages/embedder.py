"""The judge's recogniser of people: an embedder of images, trained on the plan's own photos or given as a file."""

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from splitleak.experiments.stages.arrays import load_array, save_array
from splitleak.experiments.stages.data import DataStage
from splitleak.experiments.stages.victim import load_modules, save_modules
from splitleak.experiments.store.key import ELSEWHERE, Stage
from splitleak.experiments.store.store import Store
from splitleak.victims.embedding import Embedder, Portraits, augmented, photographed_twice, train_embedder
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.files import WEIGHTS_VARIABLE, content_of, find_file
from splitleak.victims.onnx_embedder import ONNX_FILE, OnnxEmbedder, central
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import BATCH, to_float
from splitleak.victims.training import adamw

Embed = Callable[[Tensor], Tensor]
"""Images (n, 3, h, w) in [0, 1] -> embeddings (n, d)."""

WIDTH, EPOCHS, LEARNING_RATE = 32, 30, 2e-3
ASKED = "judge.identity"


@dataclass(frozen=True)
class EmbedderStage(Stage):
    """Makes the embedder ready and embeds the true photos, once for all cells of a plan.

    ``crop``: the side of the central square that it is shown, as a share of the photo's. ``device``: the type of what
    it runs on.
    """

    label: ClassVar[str] = "embedder"

    data: DataStage
    crop: float
    device: str

    @abstractmethod
    def prepare(self, folder: Path, store: Store) -> None:
        """Write what ``open`` needs."""

    @abstractmethod
    def open(self, folder: Path, store: Store) -> Embed:
        """The embedder."""

    def compute(self, folder: Path, store: Store) -> None:
        """What ``prepare`` writes, targets.npy and validation.npy (float32 (n, d))."""
        self.prepare(folder, store)
        embed = self.open(folder, store)
        save_array(folder / "targets.npy", self._embedded(embed, self._images("target", store)))
        save_array(folder / "validation.npy", self._embedded(embed, self._images("validation", store)))

    def targets(self, store: Store) -> Tensor:
        """Embeddings of the true target photos, float32 (n, d)."""
        return load_array(store.folder(self) / "targets.npy")

    def validation(self, store: Store) -> Tensor:
        """Of the true validation photos: on their people it is chosen which attack counts for identity."""
        return load_array(store.folder(self) / "validation.npy")

    def embed(self, images: Tensor, store: Store) -> Tensor:
        """Embeddings of other images, uint8 (n, 3, h, w) -> float32 (n, d)."""
        return self._embedded(self.open(store.folder(self), store), images)

    def view(self, images: Tensor) -> Tensor:
        """What the embedder is shown of images (n, 3, h, w) uint8: their central squares in [0, 1]."""
        return to_float(central(images, self.crop))

    def _embedded(self, embed: Embed, images: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([embed(self.view(chunk)).cpu() for chunk in images.split(BATCH)])

    def _images(self, part: str, store: Store) -> Tensor:
        return self.data.load(store).images[part]


@dataclass(frozen=True)
class TrainedEmbedderStage(EmbedderStage):
    """A small network trained to tell the people of the train and auxiliary parts apart.

    Nobody on a target or validation photo is among them; the weights are kept that do best on validation people.
    """

    def prepare(self, folder: Path, store: Store) -> None:
        """weights.safetensors and facts.json (the training curve)."""
        data = self.data.load(store)
        assert data.identities is not None  # by ``check_embedder``
        images, people = (torch.cat([of["train"], of["auxiliary"]]) for of in (data.images, data.identities))
        with seeded("embedder"):
            network = self._network(store)
            history = train_embedder(
                network,
                Portraits(people, lambda rows: augmented(self.view(images[rows].to(store.device)))),
                Portraits(data.identities["validation"], lambda rows: self.view(data.images["validation"][rows])),
                adamw(LEARNING_RATE, EPOCHS),
                store.curve("training the recogniser of people", EPOCHS),
            )
        save_modules(folder / "weights.safetensors", network=network)
        (folder / "facts.json").write_text(json.dumps({"history": history.rows}))

    def open(self, folder: Path, store: Store) -> Embed:
        """The trained network."""
        network = self._network(store)
        load_modules(folder / "weights.safetensors", network=network)
        network.eval().requires_grad_(False)
        return lambda images: network(images.to(store.device))

    def _network(self, store: Store) -> Embedder:
        side = self.view(torch.empty(1, 3, self.data.size, self.data.size, dtype=torch.uint8)).shape[-1]
        return Embedder((3, side, side), WIDTH).to(store.device)


@dataclass(frozen=True)
class OnnxEmbedderStage(EmbedderStage):
    """A network in an ONNX file, see ``OnnxEmbedder``. ``fingerprint`` changes when the file does."""

    path: str = field(metadata=ELSEWHERE)
    fingerprint: str

    def prepare(self, folder: Path, store: Store) -> None:
        """Nothing: the file is all there is."""

    def open(self, folder: Path, store: Store) -> Embed:
        """A session on the CPU."""
        return OnnxEmbedder(self.path, ASKED)


def embedder_stage(identity: str, crop: float, data: DataStage, device: str) -> EmbedderStage | None:
    """The recogniser that ``[judge] identity`` asks for: None for "none", else "trained" or an ONNX file.

    Raises:
        InvalidInputError: there is no such file.
    """
    if identity == "none":
        return None
    if identity == "trained":
        return TrainedEmbedderStage(data, crop, device)
    place = find_file(identity, ONNX_FILE, WEIGHTS_VARIABLE)
    return OnnxEmbedderStage(data, crop, device, identity, content_of(place))


def check_embedder(identity: str, people: Mapping[str, Tensor] | None) -> None:
    """Find out what would stop the recogniser.

    Args:
        identity: see ``embedder_stage``.
        people: who is on the photos of each part, int64 (n,), -1 where unknown; None where the data does not say.

    Raises:
        InvalidInputError: nobody to recognise, nobody to learn from, or no usable ONNX file.
    """
    if identity == "none":
        return
    if people is None:
        raise InvalidInputError(
            f"judge.identity = '{identity}': this data does not say who is on a photo; use 'none'"
        )
    if identity != "trained":
        OnnxEmbedder(identity, ASKED)
        return
    known = torch.cat([people["train"], people["auxiliary"]])
    if len(known[photographed_twice(known)].unique()) < 2:
        raise InvalidInputError(
            "judge.identity = 'trained': fewer than two people are on two photos of train and auxiliary; enlarge them"
        )
