"""The inverse network: the first learned attack on split inference, on photos or on random noise."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Gt
from torch import Tensor, nn

from splitleak.attacks.base import Reconstruction, Reconstructor
from splitleak.attacks.knowledge import AttackerPart, BlackBox, Pairs
from splitleak.attacks.learning import learned
from splitleak.attacks.networks.inverse import InverseNet, Variant
from splitleak.attacks.networks.normalised import normalise, unnormalise
from splitleak.attacks.networks.staged import StagedDecoder
from splitleak.victims.settings import doc
from splitleak.victims.training import Batch, Recipe

ADAM_EPSILON = 1e-3
EPOCHS_PER_HALVING = 20
"""Of the learning rate; both as in the authors' code."""


@dataclass(frozen=True)
class InverseNetwork(Reconstruction[BlackBox]):
    """Train transposed convolutions to undo the protected edge part, as published in 2019.

    Squared error on ImageNet-normalised pixels, Adam (AMSGrad) whose learning rate is halved every 20 epochs.
    Every pass sees fresh draws of the channel. The weights with the least error on held-out images are kept, where
    the authors keep the last. With ``queries`` "noise" the adversary has no photo at all: pixels are drawn
    uniformly from [0, 1], afresh on each pass, as many images as the auxiliary part holds, and the held-out images
    are noise too.
    """

    paper: ClassVar[str] = (
        "He, Zhang, Lee, Model Inversion Attacks Against Collaborative Inference, ACSAC 2019 (published); "
        "batch_norm: a later variant"
    )

    variant: Annotated[Variant, doc("layers of a doubling: as published, or with batch normalisation")] = "published"
    queries: Annotated[Literal["auxiliary", "noise"], doc("what the edge device is asked to encode")] = "auxiliary"
    epochs: Annotated[int, Gt(0), doc("passes over the queried images; batch_norm was seen with 30 to 200")] = 50
    learning_rate: Annotated[float, Gt(0), doc("of Adam at the start")] = 1e-3
    batch_size: Annotated[int, Gt(0), doc("as published; batch_norm was seen with 128 to 256")] = 32

    def fit(self, knows: BlackBox) -> Reconstructor:
        """Train on queried pairs, or recall the network that another attack trained with these settings."""
        state = knows.remember(f"inverse network {self.to_mapping()}", lambda: self._trained(knows))
        network = self._network(knows)
        network.load_state_dict(state)
        network.eval().requires_grad_(False)
        return StagedDecoder(network, network.layers, unnormalise)

    def _network(self, knows: BlackBox) -> InverseNet:
        network = InverseNet(knows.release_shape, *knows.image_shape[1:], self.variant)
        return network.to(knows.device).to(memory_format=torch.channels_last)

    def _trained(self, knows: BlackBox) -> dict[str, Tensor]:
        def loss(model: nn.Module, batch: Batch) -> Tensor:
            release, images = batch
            return F.mse_loss(model(release).float(), normalise(images))

        examples, held_out = (self._batches(knows, part) for part in ("auxiliary", "validation"))
        return learned(self._network(knows), self._recipe(), examples, held_out, loss, knows)

    def _batches(self, knows: BlackBox, part: AttackerPart) -> Iterable[Batch]:
        pairs = knows.pairs(part, self.batch_size, shuffle=part == "auxiliary")
        return pairs if self.queries == "auxiliary" else _NoisePairs(pairs)

    def _recipe(self) -> Recipe:
        return Recipe(
            self.epochs,
            lambda parameters: torch.optim.Adam(parameters, lr=self.learning_rate, eps=ADAM_EPSILON, amsgrad=True),
            lambda optimizer, steps: torch.optim.lr_scheduler.StepLR(
                optimizer, step_size=EPOCHS_PER_HALVING * max(1, steps // self.epochs), gamma=0.5
            ),
        )


@dataclass(frozen=True)
class _NoisePairs:
    """As many (release, images) as ``pairs`` gives in a pass, of uniform noise in place of the photos."""

    pairs: Pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        knows, size = self.pairs.knows, self.pairs.batch_size
        for start in range(0, self.pairs.count, size):
            count = min(size, self.pairs.count - start)
            images = torch.rand(count, *knows.image_shape, device=knows.device)
            yield knows.query(images), images
