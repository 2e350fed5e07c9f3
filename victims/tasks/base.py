"""The contract of a task: what a network's outputs mean, how they are trained, and what they are worth on a photo."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from splitleak.victims.data.base import Form
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.settings import Settings

Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs, targets) of a batch -> scalar."""

CANDIDATES = 64
"""Photos whose targets are tried as everybody's answer, where a task knows no better one that ignores the photo."""


@dataclass(frozen=True)
class Task(Settings, ABC):
    """What a victim predicts of a photo; a plugin.

    Targets are a tensor with a row for each photo, in the form that ``form`` names (see ``Form``). Predictions are in
    that form too, so that a target is a perfect prediction.

    ``form``: of the labels that it needs. ``metric``: how the utility is called wherever it is shown. ``label``: the
    label of the data that a task in a file of its own predicts; None: the one that the plan names.
    """

    form: ClassVar[Form]
    metric: ClassVar[str]
    label: ClassVar[str | None] = None

    @abstractmethod
    def outputs(self, classes: int, size: int) -> tuple[int | None, ...]:
        """The shape of a network's outputs for one photo of ``size`` pixels; None: of any length."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What training makes small: a scalar, the mean over the photos; float32 outputs and targets, (n, ...)."""

    @abstractmethod
    def predict(self, outputs: Tensor) -> Tensor:
        """What outputs (n, ...) say of each photo, in the targets' form."""

    @abstractmethod
    def utility(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """What the prediction of each photo is worth, float64 (n,) in [0, 1]; 1 of a perfect one."""

    def chance(self, targets: Tensor) -> float:
        """The mean utility of a good answer that is the same for all photos: what needs no network.

        By default the best of the targets themselves, the first few of them.
        """
        tried = (self.utility(one.expand_as(targets), targets).mean() for one in targets[:CANDIDATES])
        return float(torch.stack(list(tried)).max())

    def summary(self, predictions: Tensor, targets: Tensor) -> dict[str, float]:
        """What is known of all photos together beside the mean utility, by name."""
        return {}

    def check(self, outputs: tuple[int, ...], classes: int, size: int) -> None:
        """Whether a network says as much as the task asks; ``outputs``: the shape of its own for one photo.

        Raises:
            InvalidInputError: it has another number of outputs, or another shape of them.
        """
        right = self.outputs(classes, size)
        if len(outputs) == len(right) and all(r in (None, o) for o, r in zip(outputs, right, strict=True)):
            return
        raise InvalidInputError(
            f"the network's outputs have the shape {outputs}, but the task has {classes} classes"
            f"{'' if len(right) == 1 else f' and takes {_shown(right)}'}: "
            "let the network's function take the parameter 'classes', or leave the task out"
        )


def _shown(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('any' if length is None else str(length) for length in shape)})"
