"""An encoder that the cloud's tail understands, with a decoder; critics tell both from what was intercepted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, MultipleOf
from torch import Tensor, nn

from splitleak.attacks.base import Reconstructor
from splitleak.attacks.grid import grid_shape
from splitleak.attacks.knowledge import QueryFree
from splitleak.attacks.networks.labelled import LabelledCritic, LabelledDecoder
from splitleak.attacks.networks.standard import Standardised
from splitleak.attacks.shadow import ROUND, Draws, LabelDriven, Shadow
from splitleak.victims.settings import doc
from splitleak.victims.splitting.twin import twin
from splitleak.victims.tensors import to_float
from splitleak.victims.training import Batch, Recipe, Training, train

CHUNK = 64
"""Validation photos that are rebuilt together."""


@dataclass(frozen=True)
class Sdar(LabelDriven):
    """Train an encoder and a decoder against critics (simulator decoding with adversarial regularisation).

    An encoder of the adversary's own, the simulator f, and a decoder d learn side by side. With the tail g frozen, f
    lowers the cross-entropy of g(f(x)) on labelled photos, and how well a critic tells f(x) from received features. d
    lowers the squared error of d(f(x), y), and how well another critic tells photos from d(z, y) for the features z
    that were received: so it learns from the victim's own releases, whose photos it has never seen. Both critics, and
    d, are told the label.

    Labels of the intercepted releases: in split learning without a U-shape the server trains on them and so knows
    them (with one the authors leave the labels out). In split inference nobody tells them; the adversary holds the
    tail, whose decision on a release stands in for its label here, as the critics learn and as d answers.
    """

    paper: ClassVar[str] = (
        "Zhu et al., Passive Inference Attacks on Split Learning via Adversarial Regularization, NDSS 2025"
    )

    by_distribution: ClassVar[bool] = True

    steps: Annotated[int, Gt(0), MultipleOf(ROUND), doc("of training; published: 20 000")] = 1000
    batch_size: Annotated[int, Gt(1), doc("photos, and as many releases, in a step; published: 128")] = 64
    learning_rate: Annotated[float, Gt(0), doc("of the encoder's Adam, as published")] = 1e-3
    decoder_learning_rate: Annotated[float, Gt(0), doc("of the decoder's Adam, as published")] = 5e-4
    critic_learning_rate: Annotated[
        float,
        Gt(0),
        doc("of both critics' Adam; published: 2e-5 and 5e-9, at which they learn nothing in so few steps"),
    ] = 2e-4
    feature_critic: Annotated[float, Ge(0), doc("its weight beside the cross-entropy; published: 0.02, 0.04")] = 0.02
    picture_critic: Annotated[float, Ge(0), doc("its weight beside the squared error, as published")] = 1e-5
    width: Annotated[int, Ge(16), doc("of the residual decoder")] = 128

    def fit(self, knows: QueryFree) -> Reconstructor:
        """Train encoder and decoder, or recall the decoder.

        Raises:
            InvalidInputError: no photo of the auxiliary or the validation part carries a label of the task.
        """
        what = f"{self.name} {self.to_mapping()} from {len(knows.intercepted)} releases"
        state = knows.remember(what, lambda: self._trained(knows))
        tail = _Tail.of(knows)
        decoder = self._decoder(tail, knows)
        decoder.load_state_dict(state)
        decoder.eval().requires_grad_(False)

        def reconstruct(release: Tensor) -> Tensor:
            features = knows.receive(release).float()
            images: Tensor = decoder(features, tail.decisions(features)).float()
            return images

        return reconstruct

    def _decoder(self, tail: "_Tail", knows: QueryFree) -> LabelledDecoder:
        height, width = knows.image_shape[1:]
        return LabelledDecoder(tail.shape, tail.classes, height, width, self.width).to(knows.device)

    def _trained(self, knows: QueryFree) -> dict[str, Tensor]:
        tail = _Tail.of(knows)
        decoder = self._decoder(tail, knows)
        pair = _Pair(Shadow(knows), decoder)
        received = pair.shadow.received.features
        decoder.standard.begin_from([received])
        decoder.decoder.begin_at(knows.image_batches())
        photos, held_out = (self._labelled(knows, part) for part in ("auxiliary", "validation"))

        def validation(model: nn.Module) -> float:
            assert isinstance(model, _Pair)
            images, labels = (part.to(knows.device) for part in held_out)
            chunks = zip(images.split(CHUNK), labels.split(CHUNK), strict=True)
            errors = [(model(to_float(some), of) - to_float(some)).square().mean((1, 2, 3)) for some, of in chunks]
            return float(torch.cat(errors).mean())

        # what the decoder makes of the adversary's own photos says nothing of the victim's: the last weights stay
        recipe = Recipe(self.steps // ROUND, lambda parameters: torch.optim.Adam(parameters, self.learning_rate))
        groups: list[dict[str, Any]] = [
            {"params": list(pair.shadow.parameters())},
            {"params": list(decoder.parameters()), "lr": self.decoder_learning_rate},
        ]
        draws = Draws(photos, (received, tail.decisions(received)), self.batch_size)
        training = Training(pair, torch.optim.Adam(groups, self.learning_rate), draws)
        train(training, recipe, self._loss(tail, decoder.standard, knows), validation, knows.log, select=False)
        return decoder.state_dict()

    def _loss(self, tail: "_Tail", standard: Standardised, knows: QueryFree) -> Callable[[nn.Module, Batch], Tensor]:
        """Of both networks; the critics learn on the way."""
        shapes = grid_shape(tail.shape), knows.image_shape
        of_features, of_pictures = (
            LabelledCritic(shape, tail.classes, self.critic_learning_rate).to(knows.device) for shape in shapes
        )

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            assert isinstance(model, _Pair)
            photos, labels, theirs, decided = batch
            images = to_float(photos)
            own = model.shadow(images)
            value = F.cross_entropy(tail.logits(own), labels)
            value = value + F.mse_loss(model.decoder(own.detach(), labels).float(), images)
            if self.feature_critic:
                real, made = (standard(theirs), decided), (standard(own), labels)
                value = value + self.feature_critic * of_features.outwit(real, made)
            if self.picture_critic:
                real, made = (images, labels), (model.decoder(theirs, decided).float(), decided)
                value = value + self.picture_critic * of_pictures.outwit(real, made)
            return value

        return loss


class _Pair(nn.Module):
    """An encoder in the device's place and the decoder that inverts it: images and their classes -> images."""

    def __init__(self, shadow: Shadow, decoder: LabelledDecoder) -> None:
        super().__init__()
        self.shadow, self.decoder = shadow, decoder

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Encode and decode."""
        rebuilt: Tensor = self.decoder(self.shadow(images), labels)
        return rebuilt


@dataclass(frozen=True)
class _Tail:
    """The cloud's half; a copy, since gradients flow through it and the adversary's own is left as it was found."""

    network: nn.Module
    shape: tuple[int, ...]
    classes: int

    @classmethod
    def of(cls, knows: QueryFree) -> "_Tail":
        """The adversary's."""
        network = twin(knows.tail).eval().requires_grad_(False)
        features = knows.receive(knows.intercepted[:1]).float()
        return cls(network, tuple(features.shape[1:]), network(features).shape[1])

    def logits(self, features: Tensor) -> Tensor:
        """Of features (n, *shape): (n, classes), differentiable."""
        logits: Tensor = self.network(features).float()
        return logits

    @torch.no_grad()
    def decisions(self, features: Tensor) -> Tensor:
        """The likeliest class of each, int64 (n,)."""
        return torch.cat([self.logits(some).argmax(1) for some in features.split(CHUNK)])
