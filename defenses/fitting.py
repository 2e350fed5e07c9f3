"""Train a split network, with or without a defence in it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitleak.defenses.base import Calibration, Channel, Defense, Perturbation, labels_of
from splitleak.victims.seeding import seeded
from splitleak.victims.splitting.twin import twin
from splitleak.victims.tensors import to_bytes, to_float
from splitleak.victims.training import Batch, History, Log, Shuffled, Training, adamw, train


class SplitModel(nn.Module):
    """Images -> logits through perturbation, encoder, channel and tail."""

    def __init__(
        self,
        encoder: nn.Module,
        tail: nn.Module,
        channel: Channel | None = None,
        perturb: Perturbation | None = None,
    ) -> None:
        super().__init__()
        self.perturb = perturb or Perturbation()
        self.encoder = encoder
        self.channel = channel or Channel()
        self.tail = tail

    @property
    def perturbs(self) -> bool:
        """Whether noise on the images makes the features of one image vary."""
        return type(self.perturb) is not Perturbation

    def features(self, images: Tensor) -> Tensor:
        """What the encoder makes of images (n, 3, h, w) in [0, 1]."""
        features: Tensor = self.encoder(self.perturb(images))
        return features

    def edge(self, images: Tensor) -> Tensor:
        """The edge device: images -> release."""
        return self.channel.send(self.features(images))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes)."""
        logits: Tensor = self.tail(self.channel(self.features(images)))
        return logits


@dataclass(frozen=True)
class Budget:
    """Of one training."""

    epochs: int
    batch_size: int
    learning_rate: float


@dataclass(frozen=True)
class Examples:
    """One part. ``images``: uint8 (n, 3, h, w); ``features``: (n, ...) of a frozen encoder, any float, else None."""

    images: Tensor
    labels: Tensor
    features: Tensor | None = None

    @property
    def tensors(self) -> Batch:
        """Aligned tensors, what the network takes first."""
        return (self.images if self.features is None else self.features), self.labels, self.images


@dataclass(frozen=True)
class Outcome:
    """The training curve, and (epsilon, delta) where training was private."""

    history: History
    spent: tuple[float, float] | None


class _Trainee(nn.Module):
    """The part of a SplitModel that trains: with the encoder, or from its stored features on."""

    def __init__(self, model: SplitModel, from_features: bool) -> None:
        super().__init__()
        self.before = nn.Identity() if from_features else nn.Sequential(model.perturb, model.encoder)
        self.channel, self.tail = model.channel, model.tail

    def train(self, mode: bool = True) -> Self:
        """A frozen encoder keeps its batch statistics too."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.before.parameters()):
            self.before.eval()
        return self

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.before(inputs)
        release = self.channel.send(features)
        return features, release, self.tail(self.channel.receive(release))


def fit(
    model: SplitModel,
    train_part: Examples,
    validation_part: Examples,
    budget: Budget,
    objective: nn.Module | None = None,
    prepare: Callable[[Training, int], Training] = lambda training, epochs: training,
    log: Log | None = None,
) -> Outcome:
    """Train ``model`` in place on cross-entropy; the encoder is left out where the parts carry features.

    Args:
        objective: a term added to the loss, see ``Defense.objective``; with it the last epoch's weights stay.
        prepare: wraps model, optimizer and batches, see ``Defense.prepare``.
    """
    frozen = train_part.features is not None
    trainee = _Trainee(model, from_features=frozen).train()
    recipe = adamw(budget.learning_rate, budget.epochs)
    parameters = [parameter for parameter in trainee.parameters() if parameter.requires_grad]
    batches = Shuffled(train_part.tensors, budget.batch_size)
    also = {} if objective is None else {"objective": objective}
    training = prepare(Training(trainee, recipe.optimizer(parameters), batches, also=also), budget.epochs)

    def loss(network: nn.Module, batch: Batch) -> Tensor:
        inputs, labels, images = batch
        features, release, logits = network(inputs.float() if frozen else to_float(inputs))
        value = F.cross_entropy(logits.float(), labels)
        if objective is not None:
            value = value + objective(to_float(images), features, release, logits, labels)
        return value

    def validation(network: nn.Module) -> float:
        device = next(network.parameters()).device
        total = 0.0
        for inputs, labels in zip(*(part.split(256) for part in validation_part.tensors[:2]), strict=True):
            inputs = inputs.to(device, torch.float32) if frozen else to_float(inputs.to(device))
            total += float(F.cross_entropy(network(inputs)[2].float(), labels.to(device), reduction="sum"))
        return total / len(validation_part.labels)

    # by the task alone the epoch would be kept in which an objective had done least
    history = train(training, recipe, loss, validation, log, select=objective is None)
    spent = training.spent() if training.spent else None
    if spent and math.isnan(spent[0]):
        raise FloatingPointError("the privacy accountant returned no number")
    model.eval()
    return Outcome(history, spent)


REHEARSAL = Budget(epochs=20, batch_size=16, learning_rate=2e-3)


@torch.enable_grad()
def rehearse(defense: Defense, calibration: Calibration, budget: Budget = REHEARSAL) -> SplitModel:
    """A copy of the network trained with the defence in place: what a statistic is taken from.

    Raises:
        InvalidInputError: the photos carry no labels.
    """
    batches = list(calibration.batches())
    images = torch.cat([to_bytes(batch.images) for batch in batches])
    labels = torch.cat([labels_of(batch, defense.name) for batch in batches])
    channel = defense.channel(tuple(batches[0].features.shape[1:])).to(calibration.device)
    model = SplitModel(twin(calibration.encoder), defense.cloud(twin(calibration.tail), channel), channel)
    model.channel.calibrate(calibration)
    model.requires_grad_(True)
    objective = defense.objective(calibration, model.channel)
    part = Examples(images, labels)
    fit(model, part, part, budget, objective)
    return model.eval().requires_grad_(False)


def trained_effect(defense: Defense, calibration: Calibration, measure: Callable[[SplitModel], float]) -> float:
    """By how much ``measure`` is lower after a short training with the defence than after one at strength 0."""
    assert defense.strength is not None
    without = replace(defense, **{defense.strength: 0.0})
    values = []
    for each in (without, defense):
        model = _rehearsed(each, calibration)
        with torch.no_grad(), seeded("measure"):
            values.append(measure(model))
    return values[0] - values[1]


@lru_cache(maxsize=2)
def _rehearsed(defense: Defense, calibration: Calibration) -> SplitModel:
    """A sweep over strengths asks for the one without strength each time."""
    with seeded("rehearsal"):
        return rehearse(defense, calibration)


@torch.no_grad()
def predict(model: SplitModel, images: Tensor, device: torch.device) -> Tensor:
    """Class of each image (n, 3, h, w) uint8, int64 (n,) on the CPU."""
    return torch.cat([model(to_float(chunk.to(device))).argmax(1).cpu() for chunk in images.split(128)])
