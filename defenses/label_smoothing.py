"""Train the network to be less sure of its answers: what a class does not need is then told less."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch.nn.functional as F
from annotated_types import Ge, Lt
from torch import Tensor, nn

from splitleak.defenses.base import Calibration, Channel, Defense, Retrains
from splitleak.defenses.fitting import SplitModel, trained_effect
from splitleak.victims.settings import doc


@dataclass(frozen=True)
class LabelSmoothing(Defense):
    """Train the whole network on (1 - ``smoothing``) * cross-entropy + ``smoothing`` * that to a uniform answer.

    Smoothed labels draw the photos of a class together before the last layer. Nothing is removed from a release and
    nothing is hidden in it: a baseline that costs neither bytes nor time, for defences that cost some.
    """

    paper: ClassVar[str] = (
        "Liu et al., Partitioning for Intrinsic Model Inversion Resistance in Collaborative Inference, ICML 2026; "
        "smoothing: Szegedy et al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016"
    )
    strength: ClassVar[str] = "smoothing"
    strengths: ClassVar[tuple[float, ...]] = (0.01, 0.1, 0.3, 0.9)
    of_classes: ClassVar[bool] = True
    retrains: ClassVar[Retrains] = "network"
    uses_photos: ClassVar[bool] = False

    smoothing: Annotated[float, Ge(0), Lt(1), doc("share of each label that all classes get alike")] = 0.3

    def objective(self, calibration: Calibration, channel: Channel) -> nn.Module:
        """What smoothed labels add to cross-entropy."""
        return _Smoothing(self.smoothing)

    def statistic(self, calibration: Calibration) -> float:
        """How much less sure of its answers the network is after a short training."""
        images = next(calibration.batches()).images

        def sure(model: SplitModel) -> float:
            return float(model(images).softmax(1).amax(1).mean())

        return trained_effect(self, calibration, sure)


class _Smoothing(nn.Module):
    def __init__(self, smoothing: float) -> None:
        super().__init__()
        self.smoothing = smoothing

    def forward(self, images: Tensor, features: Tensor, release: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        logarithms = F.log_softmax(logits.float(), 1)
        return -self.smoothing * (logarithms.mean() + F.nll_loss(logarithms, labels))
