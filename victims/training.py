"""The one training loop: victims, fine-tuning and every learned attack run through it."""

import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from splitleak.victims.averages import Average
from splitleak.victims.checkpoints import Checkpoint, Stateful
from splitleak.victims.plateau import LOWERED, Plateau
from splitleak.victims.seeding import seeded

Batch = tuple[Tensor, ...]
Log = Callable[[dict[str, float]], None]
"""Receives one row per epoch: epoch, train_loss, validation_loss."""


RISE = 0.2
"""Share of the one-cycle schedule in which the learning rate rises."""
LEAST_STEPS = 6
"""Of that schedule: torch divides by zero where the rise is a single step."""


COMPILED_STEPS = 5000
"""From so many steps on compiling pays: it takes a minute, and saves a quarter to a third of a decoder's step."""


@dataclass(frozen=True)
class Recipe:
    """How long and with what to train. ``schedule`` makes a per-STEP scheduler from (optimizer, steps).

    ``patience``: how many epochs the validation loss may go without a new record before the rate is lowered, and
    again before training ends, see ``Plateau``; 0: all ``epochs`` are trained. ``half``: steps are computed in
    bfloat16 on a CPU too, which pays on one that has instructions for it and rounds on any.
    """

    epochs: int
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    schedule: Callable[[torch.optim.Optimizer, int], torch.optim.lr_scheduler.LRScheduler] | None = None
    patience: int = 0
    half: bool = False


WEIGHT_DECAY, MOMENTUM = 1e-4, 0.9


def adamw(learning_rate: float, epochs: int, weight_decay: float = WEIGHT_DECAY) -> Recipe:
    """AdamW with a one-cycle learning rate (Smith & Topin, 2018): our default for everything that trains."""
    return _one_cycle(
        learning_rate,
        epochs,
        lambda parameters: torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay),
    )


def sgd(learning_rate: float, epochs: int, weight_decay: float = WEIGHT_DECAY) -> Recipe:
    """Stochastic gradient descent with momentum and a one-cycle learning rate."""
    return _one_cycle(
        learning_rate,
        epochs,
        lambda parameters: torch.optim.SGD(
            parameters, lr=learning_rate, momentum=MOMENTUM, weight_decay=weight_decay
        ),
    )


OptimizerName = Literal["adamw", "sgd"]
OPTIMIZERS: Mapping[OptimizerName, Callable[[float, int, float], Recipe]] = {"adamw": adamw, "sgd": sgd}


def _one_cycle(
    learning_rate: float, epochs: int, optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
) -> Recipe:
    return Recipe(
        epochs,
        optimizer,
        lambda made, steps: torch.optim.lr_scheduler.OneCycleLR(
            made, learning_rate, total_steps=max(steps, LEAST_STEPS), pct_start=RISE
        ),
    )


def until_it_stalls(recipe: Recipe, patience: int) -> Recipe:
    """The same until validation has nothing more to give: at a constant rate, then at a tenth of it.

    A one-cycle rate is made for a length that is known beforehand.
    """
    return replace(recipe, schedule=None, patience=patience) if patience else recipe


@dataclass
class Training:
    """What trains: the three things that a defence may wrap (DP-SGD does) and gives back."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    batches: Iterable[Batch]
    """Iterated once an epoch; ``len()`` gives the steps."""
    spent: Callable[[], tuple[float, float]] | None = None
    """Where training is differentially private: (epsilon, delta) spent so far."""
    also: Mapping[str, Stateful] | None = None
    """What else changes while it runs, a loss with a memory for one. None: it cannot be resumed from a checkpoint."""
    plain: bool = False
    """Whether the model is a plain function of tensors, which may be compiled: no hooks, no randomness of its own."""
    average: Average | None = None
    """The weights that count, where those are not the last step's: validation sees them, and they are kept."""

    def averaged(self) -> AbstractContextManager[None]:
        """Within the block the model has the weights that count."""
        return self.average.in_place() if self.average else nullcontext()


@dataclass
class History:
    """One row per epoch, the epoch whose weights were kept, and whether the ceiling came before patience ended."""

    rows: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    cut_short: bool = False


def train(
    training: Training,
    recipe: Recipe,
    loss: Callable[[nn.Module, Batch], Tensor],
    validation: Callable[[nn.Module], float] | None = None,
    log: Log | None = None,
    select: bool = True,
    moving: bool = False,
) -> History:
    """Train ``training.model`` in place and keep the weights that are best on the validation part.

    Args:
        training: model (its parameters that require gradients are in the optimizer), optimizer, batches.
        recipe: epochs and schedule.
        loss: (model, batch) -> scalar loss, called with the model in training mode.
        validation: model in eval mode -> a loss, lower is better; without it the last epoch's weights stay. It draws
            the same after each epoch: between epochs whose channel or latent drew differently, luck would choose.
        log: called with each epoch's row.
        select: choose an epoch by ``validation``; otherwise that is only noted, and the last epoch's weights stay.
        moving: what ``validation`` measures changes as training goes on, as where an adversary learns beside, see
            ``Plateau``.

    Raises:
        FloatingPointError: the loss stopped being finite.
    """
    model, optimizer = training.model, training.optimizer
    device = next(model.parameters()).device
    model.to(memory_format=torch.channels_last)  # convolutions run faster so, on CPUs as on GPUs
    steps = recipe.epochs * len(training.batches)  # type: ignore[arg-type]
    schedule = recipe.schedule(optimizer, steps) if recipe.schedule else None
    compiled = training.plain and steps >= COMPILED_STEPS and _compiler()
    stepped = cast(nn.Module, torch.compile(model)) if compiled else model
    checkpoint = Checkpoint.of_next_training() if training.also is not None else Checkpoint(None)
    patience = recipe.patience if validation and select else 0
    so_far = _SoFar(training, schedule, select, Plateau(recipe.epochs, patience, moving))
    if saved := checkpoint.load(device):
        so_far.load_state_dict(saved)
        for row in so_far.history.rows:
            (log or _silent)(row)
    while not so_far.over:
        epoch = len(so_far.history.rows) + 1
        row = {"epoch": float(epoch), "train_loss": _epoch(training, stepped, recipe.half, schedule, steps, loss)}
        if not math.isfinite(row["train_loss"]):
            raise FloatingPointError(f"the training loss is {row['train_loss']} in epoch {epoch}")
        if validation:
            model.eval()
            with torch.no_grad(), seeded("held out"), training.averaged():
                row["validation_loss"] = validation(model)
        so_far.take(row)
        (log or _silent)(row)
        checkpoint.save(so_far.state_dict(), device)
    so_far.restore()
    if training.average:
        training.average.settle()
    model.eval()
    return so_far.history


def _epoch(
    training: Training,
    stepped: nn.Module,
    half: bool,
    schedule: torch.optim.lr_scheduler.LRScheduler | None,
    steps: int,
    loss: Callable[[nn.Module, Batch], Tensor],
) -> float:
    """One pass, its steps through ``stepped``, which shares the model's weights; the mean loss."""
    device = next(training.model.parameters()).device
    # Half precision pays on CUDA, and on few CPUs; bfloat16 needs no loss scaling.
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=half or device.type == "cuda")
    training.model.train()
    total, count = torch.zeros((), device=device), 0
    for batch in training.batches:
        batch = tuple(_placed(part, device) for part in batch)
        training.optimizer.zero_grad(set_to_none=True)
        with autocast:
            value = loss(stepped, batch)
        value.backward()
        training.optimizer.step()
        if training.average:
            training.average.follow()
        if schedule and schedule.last_epoch < steps:
            schedule.step()
        total, count = total + value.detach().float(), count + 1
    return float(total) / max(count, 1)


@dataclass
class _SoFar:
    """All that a training has made of itself: what a checkpoint holds."""

    training: Training
    schedule: torch.optim.lr_scheduler.LRScheduler | None
    select: bool
    plateau: Plateau
    history: History = field(default_factory=History)
    best: float = math.inf
    kept: dict[str, Any] | None = None

    @property
    def over(self) -> bool:
        """Whether no epoch is left, or none is worth its while."""
        return self.plateau.over

    def take(self, row: dict[str, float]) -> None:
        """Note an epoch; keep its weights if they are the best; lower the rate where nothing is gained any more."""
        self.history.rows.append(row)
        loss = row.get("validation_loss", math.inf)
        if self.select and loss < self.best:
            self.best, self.history.best_epoch = loss, int(row["epoch"])
            self.kept = {key: value.detach().clone() for key, value in self.training.model.state_dict().items()}
        if self.plateau.lowers(loss):
            if self.plateau.moving:
                self.best, self.kept = math.inf, None
            self.restore()
            for group in self.training.optimizer.param_groups:
                group["lr"] *= LOWERED
        self.history.cut_short = self.plateau.cut_short

    def restore(self) -> None:
        """Go back to the weights that are kept."""
        if self.kept is not None:
            self.training.model.load_state_dict(self.kept)

    @property
    def _parts(self) -> dict[str, Stateful]:
        parts: dict[str, Stateful] = {"model": self.training.model, "optimizer": self.training.optimizer}
        if self.training.average:
            parts["average"] = self.training.average
        if self.schedule:
            parts["schedule"] = self.schedule
        return {**parts, **(self.training.also or {})}

    def state_dict(self) -> dict[str, Any]:
        """Of the training and of all that changes with it."""
        states = {name: part.state_dict() for name, part in self._parts.items()}
        progress = {"history": vars(self.history), "plateau": self.plateau.state_dict()}
        return {**states, **progress, "best": self.best, "kept": self.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        self.history, self.best, self.kept = History(**state["history"]), state["best"], state["kept"]
        self.plateau.load_state_dict(state["plateau"])


def _compiler() -> bool:
    """Whether kernels can be built here, for a CPU or a GPU."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None


def _silent(row: dict[str, float]) -> None:
    """Nobody asked for the rows."""


def _placed(part: Tensor, device: torch.device) -> Tensor:
    if part.ndim == 4 and part.is_floating_point():
        return part.to(device, non_blocking=True, memory_format=torch.channels_last)
    return part.to(device, non_blocking=True)


class Shuffled:
    """Batches of aligned tensors in a fresh random order on each pass (drawn from torch's global state).

    Args:
        tensors: of equal length; may be memory-mapped, rows are copied batch by batch.
        batch_size: the last, smaller batch is dropped (it upsets batch statistics) unless it is the only one.
    """

    def __init__(self, tensors: tuple[Tensor, ...], batch_size: int) -> None:
        self.tensors, self.count = tensors, len(tensors[0])
        self.batch_size = min(batch_size, self.count)

    def __len__(self) -> int:
        return self.count // max(self.batch_size, 1)

    def __iter__(self) -> Any:
        order = torch.randperm(self.count)
        for step in range(len(self)):
            rows = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield tuple(tensor[rows] for tensor in self.tensors)
