"""An encoder that the cloud's tail understands, learned from labelled photos alone."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor, nn

from splitleak.attacks.knowledge import QueryFree
from splitleak.attacks.shadow import LabelDriven, Shadow, ShadowAttack
from splitleak.victims.settings import doc
from splitleak.victims.splitting.twin import twin
from splitleak.victims.tensors import to_float
from splitleak.victims.training import Batch, Recipe, Shuffled, Training, train

LEAST_SHARE = 1e-4
"""Of the mean variance, added to each feature's."""


@dataclass(frozen=True)
class ShadowModel(LabelDriven, ShadowAttack):
    """Train encoders f so that g(f(x)) fits the labels, the tail g frozen; then invert f."""

    paper: ClassVar[str] = (
        "He, Zhang, Lee, Model Inversion Attacks Against Collaborative Inference, ACSAC 2019 (query-free)"
    )

    by_distribution: ClassVar[bool] = True

    match: Annotated[float, Ge(0), doc("weight of the received features' mean and spread; published: 0")] = 1.0
    epochs: Annotated[int, Gt(0), doc("passes over the labelled photos")] = 30
    learning_rate: Annotated[float, Gt(0), doc("of Adam, as published")] = 1e-3
    batch_size: Annotated[int, Gt(0), doc("photos in a step")] = 32

    def shadow(self, knows: QueryFree) -> Shadow:
        """The trained shadow, in eval mode and frozen; gradients reach its input."""
        return Shadow.recalled(knows, self.what(knows), lambda shadow: self._trained(shadow, knows))

    def _trained(self, shadow: Shadow, knows: QueryFree) -> dict[str, Tensor]:
        # a copy: gradients flow through the tail, and the adversary's own is left as it was found
        tail = twin(knows.tail).eval().requires_grad_(False)
        moments = MomentLoss.of(shadow.received.features)
        photos, held_out = (self._labelled(knows, part) for part in ("auxiliary", "validation"))

        def objective(seen: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(tail(seen).float(), labels) + self.match * moments(seen)

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            images, labels = batch
            return objective(model(to_float(images)), labels)

        def validation(model: nn.Module) -> float:
            images, labels = (part.to(knows.device) for part in held_out)
            return float(objective(torch.cat([model(to_float(chunk)) for chunk in images.split(64)]), labels))

        recipe = Recipe(self.epochs, lambda parameters: torch.optim.Adam(parameters, self.learning_rate))
        optimizer = recipe.optimizer(shadow.parameters())
        training = Training(shadow, optimizer, Shuffled(photos, self.batch_size))
        train(training, recipe, loss, validation, knows.log)
        return shadow.state_dict()


@dataclass(frozen=True)
class MomentLoss:
    """How far features (n, *shape) are from those received, in mean and spread: a scalar.

    Squared differences of each feature's mean and of its standard deviation over images, averaged over the features,
    in units of the mean variance of those received. The shadow's size would otherwise be what the labels like best.
    """

    mean: Tensor
    spread: Tensor
    variance: Tensor

    @classmethod
    def of(cls, received: Tensor) -> "MomentLoss":
        """To these features (m, *shape)."""
        variance = received.var(0, correction=0).mean().clamp_min(torch.finfo(torch.float32).tiny)
        return cls(received.mean(0), _spread(received, variance), variance)

    def __call__(self, features: Tensor) -> Tensor:
        """Of a batch; its own sampling error is in it."""
        mean = (features.mean(0) - self.mean).square().mean()
        spread = (_spread(features, self.variance) - self.spread).square().mean()
        return (mean + spread) / self.variance


def _spread(features: Tensor, variance: Tensor) -> Tensor:
    # the small share keeps the gradient finite where a feature is the same for all images
    return (features.var(0, correction=0) + LEAST_SHARE * variance).sqrt()
