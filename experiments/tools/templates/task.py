"""MyTask: what a victim predicts of a photo."""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from splitleak.victims.data.base import Form
from splitleak.victims.tasks.base import Task


# A frozen dataclass: a plan names it, and nobody changes it once it is made.
@dataclass(frozen=True)
class MyTask(Task):
    """How a head is turned and tilted: two numbers between -1 and 1, of the built-in faces."""

    # Facts of the class. label: which label of the data is predicted. form: what such a label is for a photo, one of
    # "class", "mask", "boxes" and "values" (victims/data/base.py says what tensors these are). metric: how tables and
    # figures call the utility.
    label: ClassVar[str] = "pose"
    form: ClassVar[Form] = "values"
    metric: ClassVar[str] = "closeness"

    # The shape that a network's outputs must have for one photo; ``classes`` is how many names the label has. It is
    # also how many outputs a network is built with.
    def outputs(self, classes: int, size: int) -> tuple[int | None, ...]:
        """A number for each of the label's names."""
        return (classes,)

    # What training makes small: outputs (n, ...), targets (n, ...) in the label's form -> a scalar, a mean.
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Squared error."""
        return F.mse_loss(outputs, targets)

    # Outputs -> predictions, in the form of the targets, so that a target would be a perfect prediction.
    def predict(self, outputs: Tensor) -> Tensor:
        """The outputs as they are."""
        return outputs

    # What each prediction is worth, float64 (n,): from 0 to 1, and 1 of a target itself.
    def utility(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """1 less the mean distance, 0 where it is 1 or more."""
        return (1 - (predictions - targets).abs().double().mean(1)).clamp(0, 1)

    # What needs no network: the mean utility of one answer for all photos. By default the best of the first targets.
    def chance(self, targets: Tensor) -> float:
        """Of the median."""
        return float(self.utility(targets.median(0).values.expand_as(targets), targets).mean())

    # Further: summary(predictions, targets), numbers of all photos together, such as an mAP.


# `splitleak check FILE` says whether the file keeps its contract.
# In a plan, where a path begins at the plan's folder or where the command runs:
#
#   [victim]
#   data = "faces"
#   task = "FILE:MyTask"
