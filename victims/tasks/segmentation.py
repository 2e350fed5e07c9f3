"""Which class each pixel is of."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from splitleak.victims.data.base import IGNORED, Form
from splitleak.victims.tasks.base import Task


@dataclass(frozen=True)
class Segmentation(Task):
    """A class for each pixel; utility is the mean intersection over union, of the classes that a photo shows.

    Per photo: of each class that the photo shows, the pixels that are rightly of it, as a share of those that are of
    it or said to be; the mean over these classes. Pixels that are ``IGNORED`` count nowhere.
    """

    form: ClassVar[Form] = "mask"
    metric: ClassVar[str] = "IoU"

    def outputs(self, classes: int, size: int) -> tuple[int | None, ...]:
        """Logits of each pixel."""
        return classes, size, size

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean cross-entropy of pixels; 0 where none counts."""
        known = (targets != IGNORED).sum().clamp_min(1)
        return F.cross_entropy(outputs, targets.long(), ignore_index=IGNORED, reduction="sum") / known

    def predict(self, outputs: Tensor) -> Tensor:
        """The likeliest class of each pixel, uint8 (n, size, size)."""
        return outputs.argmax(1).to(torch.uint8)

    def utility(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """The mean IoU of each photo; 1 where no pixel counts."""
        counted = targets != IGNORED
        total = count = torch.zeros(len(targets), dtype=torch.float64)
        for label in targets[counted].unique():
            said, there = (predictions == label) & counted, targets == label
            shown = there.flatten(1).any(1).double()
            both, either = (part.flatten(1).sum(1).double() for part in (said & there, said | there))
            total, count = total + shown * both / either.clamp_min(1), count + shown
        return torch.where(count > 0, total / count.clamp_min(1), 1.0)

    def chance(self, targets: Tensor) -> float:
        """Of the commonest class at each place, whatever the photo."""
        counts = torch.stack([(targets == label).sum(0) for label in range(int(_last(targets)) + 1)])
        constant = counts.argmax(0).to(torch.uint8)
        return float(self.utility(constant.expand_as(targets), targets).mean())


def _last(targets: Tensor) -> Tensor:
    return targets.where(targets != IGNORED, 0).max()
