"""Train a split network, with or without a defence in it."""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitleak.defenses.base import Calibration, Channel, Defense, Perturbation, labels_of
from splitleak.defenses.head import SHOWN_AT_ONCE, inputs_of, last_linear, moved_copies
from splitleak.victims.moving import AUGMENTATIONS, Augmentation
from splitleak.victims.seeding import seeded
from splitleak.victims.splitting.twin import twin
from splitleak.victims.tasks.base import Loss
from splitleak.victims.tensors import to_bytes, to_float
from splitleak.victims.training import (
    OPTIMIZERS,
    WEIGHT_DECAY,
    Batch,
    History,
    Log,
    OptimizerName,
    Recipe,
    Shuffled,
    Training,
    train,
    until_it_stalls,
)

HELD_OUT_BATCH = 256


class SplitModel(nn.Module):
    """Images -> the tail's outputs through perturbation, encoder, channel and tail."""

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
        """Logits (n, classes), or what else the task takes, (n, ...)."""
        outputs: Tensor = self.tail(self.channel(self.features(images)))
        return outputs


@dataclass(frozen=True)
class Manner:
    """How a network learns, beside how long. ``half``: see ``Recipe``; ``augment``: see ``AUGMENTATIONS``."""

    optimizer: OptimizerName = "adamw"
    weight_decay: float = WEIGHT_DECAY
    augment: Augmentation = "none"
    half: bool = False


@dataclass(frozen=True)
class Budget:
    """Of one training. ``patience``: see ``Recipe``; ``epochs`` is then a ceiling."""

    epochs: int
    batch_size: int
    learning_rate: float
    patience: int = 0
    manner: Manner = Manner()

    @property
    def recipe(self) -> Recipe:
        """One-cycle over exactly ``epochs``, or until validation stalls."""
        made = OPTIMIZERS[self.manner.optimizer](self.learning_rate, self.epochs, self.manner.weight_decay)
        return replace(until_it_stalls(made, self.patience), half=self.manner.half)


@dataclass(frozen=True)
class Examples:
    """One part. ``images``: uint8 (n, 3, h, w); ``labels``: (n, ...) as the task has them; ``features``: (n, ...) of
    a frozen encoder, any float, else None."""

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
    task_loss: Loss = F.cross_entropy,
) -> Outcome:
    """Train ``model`` in place on its task; the encoder is left out where the parts carry features.

    The weights kept are those with the lowest WHOLE loss on the validation part, the task's and the objective's
    together; where there is an objective, of the epochs at the lowered rate: before that an adversary within it may
    know little, see ``Plateau``. Without patience there is no such phase, and with an objective the last epoch's
    weights stay. Where training is private, the number of steps is what the accountant was told: all epochs are
    trained, at a constant rate, and the last weights stay, or their average. The validation part is none of the
    photos that are protected, so that its losses may be looked at and cost nothing.

    Args:
        objective: a term added to the loss, see ``Defense.objective``.
        prepare: wraps model, optimizer and batches, see ``Defense.prepare``.
        task_loss: see ``Task.loss``.
    """
    frozen = train_part.features is not None
    trainee = _Trainee(model, from_features=frozen).train()
    recipe = budget.recipe
    parameters = [parameter for parameter in trainee.parameters() if parameter.requires_grad]
    batches = Shuffled(train_part.tensors, budget.batch_size)
    also = {} if objective is None else {"objective": objective}
    training = prepare(Training(trainee, recipe.optimizer(parameters), batches, also=also), budget.epochs)
    if training.spent:
        recipe = replace(recipe, schedule=None, patience=0)
    loss = _WholeLoss(frozen, objective, task_loss, budget.manner.augment)
    select = not training.spent and (objective is None or bool(budget.patience))
    validation = partial(loss.held_out, part=validation_part, batch_size=budget.batch_size)
    history = train(training, recipe, loss, validation, log, select=select, moving=objective is not None)
    spent = training.spent() if training.spent else None
    if spent and math.isnan(spent[0]):
        raise FloatingPointError("the privacy accountant returned no number")
    model.eval()
    return Outcome(history, spent)


def fit_head(
    model: SplitModel,
    train_part: Examples,
    validation_part: Examples,
    budget: Budget,
    prepare: Callable[[Training, int], Training],
    copies: int = 0,
    log: Log | None = None,
) -> Outcome:
    """Train the last linear layer of ``model`` in place, on what reaches it, which is computed once.

    A photo stands there with ``copies`` moved copies: the layer takes them together as (n, 1 + copies, width), so
    that its gradient for one photo is the mean over them.

    Raises:
        InvalidInputError: the model does not end in a linear layer.
    """
    frozen, model = train_part.features is not None, model.eval()
    behind = _Trainee(model, from_features=frozen).eval()
    device = next(model.parameters()).device

    def shown(part: Examples) -> Iterator[Tensor]:
        for chunk in part.tensors[0].split(SHOWN_AT_ONCE):
            yield chunk.to(device, torch.float32) if frozen else to_float(chunk.to(device))

    head = last_linear(behind, next(shown(train_part))[:2])
    whole = _Trainee(model, from_features=False).eval()
    seen = [inputs_of(head, behind, shown(train_part))]
    seen += [inputs_of(head, whole, moved_copies(train_part.images, device)) for _ in range(copies)]
    held_out = inputs_of(head, behind, shown(validation_part))
    return fit(
        SplitModel(nn.Identity(), head),
        replace(train_part, features=torch.stack(seen, 1)),
        replace(validation_part, features=held_out[:, None]),
        budget,
        prepare=prepare,
        log=log,
    )


@dataclass(frozen=True)
class _WholeLoss:
    """The task's and what a defence adds, of a ``_Trainee``.

    ``frozen``: batches hold features, not photos, which are left as they are. ``augment``: what is done to a photo
    afresh each time that the network learns from it.
    """

    frozen: bool
    objective: nn.Module | None
    task_loss: Loss
    augment: Augmentation = "none"

    def __call__(self, network: nn.Module, batch: Batch) -> Tensor:
        inputs, labels, images = batch
        taken = inputs.float() if self.frozen else to_float(inputs)
        if network.training and not self.frozen:
            taken = AUGMENTATIONS[self.augment](taken)
        features, release, logits = network(taken)
        value = self.task_loss(*_each_copy(logits.float(), labels))
        if self.objective is not None:
            photos = to_float(images) if self.frozen else taken
            value = value + self.objective(photos, features, release, logits, labels)
        return value

    def held_out(self, network: nn.Module, part: Examples, batch_size: int) -> float:
        """The mean over a part.

        An objective meets batches of the size that it was trained on, because statistics of a batch depend on that;
        what it learns here it forgets.
        """
        rows = torch.arange(len(part.labels)).split(HELD_OUT_BATCH if self.objective is None else batch_size)
        if self.objective is not None and len(rows) > 1 and len(rows[-1]) < len(rows[0]):
            rows = rows[:-1]
        device, total = next(network.parameters()).device, 0.0
        with _forgetting(self.objective):
            for some in rows:
                batch = tuple(tensor[some].to(device) for tensor in part.tensors)
                total += len(some) * float(self(network, batch).detach())
        return total / sum(map(len, rows))


def _each_copy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (n, classes), or (n, copies, classes) of copies of a photo, one under another with their labels.

    What is asked of more than one class in a photo has labels of more axes, and no copies.
    """
    if logits.ndim != 3 or labels.ndim > 1:
        return logits, labels
    return logits.flatten(0, 1), labels.repeat_interleave(logits.shape[1])


@contextmanager
def _forgetting(objective: nn.Module | None) -> Iterator[None]:
    """Let an objective judge, and become what it was: one that learns beside the network may do so whenever asked."""
    if objective is None:
        yield
        return
    before, training = copy.deepcopy(objective.state_dict()), objective.training
    with torch.enable_grad():
        yield
    objective.load_state_dict(before)
    objective.train(training)


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
    fit(model, part, part, budget, objective, task_loss=calibration.loss)
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
