"""Which class a photo is of."""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from splitleak.victims.data.base import Form
from splitleak.victims.tasks.base import Task


@dataclass(frozen=True)
class Classification(Task):
    """One class for each photo, by the highest of as many logits; utility is whether it is right."""

    form: ClassVar[Form] = "class"
    metric: ClassVar[str] = "accuracy"

    def outputs(self, classes: int, size: int) -> tuple[int | None, ...]:
        """Logits."""
        return (classes,)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy; targets int64 (n,)."""
        return F.cross_entropy(outputs, targets)

    def predict(self, outputs: Tensor) -> Tensor:
        """The likeliest class, int64 (n,)."""
        return outputs.argmax(1)

    def utility(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """1 where it is right, else 0."""
        return (predictions == targets).double()

    def chance(self, targets: Tensor) -> float:
        """The share of the commonest class."""
        return float(targets.bincount().max() / len(targets))


CLASSIFICATION = Classification()
"""It has no settings."""
