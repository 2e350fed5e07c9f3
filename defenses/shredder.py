"""Noise that was learned to be large where the task does not mind."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor, nn

from splitleak.defenses.base import Calibration, Channel, Defense, labels_of, needs_task
from splitleak.defenses.laplace_noise import laplace_like
from splitleak.victims.settings import doc

LEARNING_RATE = 0.02
"""Of Adam, in units of the features' root mean square."""


@dataclass(frozen=True)
class Shredder(Defense):
    """Learn noise tensors with the network frozen, and send features + noise drawn from what was learned.

    Each tensor starts as Laplace noise and lowers cross-entropy - ``weight`` times its mean magnitude. What is kept
    of it is the Laplace distribution that fits its values, and their order: for each image one of the tensors is
    picked, as many new values are drawn, and they are laid out in its order. The task can so bear noise of a size
    that, drawn blindly, would destroy it; but the order is nearly the same pattern in every image, and an
    attacker who learns from the device's answers may subtract it.
    """

    paper: ClassVar[str] = (
        "Mireshghallah et al., Shredder: Learning Noise Distributions to Protect Inference Privacy, ASPLOS 2020"
    )
    strength: ClassVar[str] = "scale"
    strengths: ClassVar[tuple[float, ...]] = (0.01, 0.5, 2.0, 8.0)

    scale: Annotated[float, Ge(0), doc("of the noise at the start, in the features' root mean square")] = 2.0
    weight: Annotated[float, Ge(0), doc("of the noise's magnitude; published: 1e-3")] = 1e-3
    tensors: Annotated[int, Gt(0), doc("learned, of which each image gets one")] = 8
    steps: Annotated[int, Gt(0), doc("of training each")] = 60

    def inapplicable(self, shape: tuple[int, ...], task: str | None) -> str | None:
        """The noise is learned on the task."""
        return needs_task(self.name, "learns what noise the task can bear", task)

    def channel(self, shape: tuple[int, ...]) -> Channel:
        """Adds drawn noise in a learned order."""
        return _OrderedNoise(shape, self)


class _OrderedNoise(Channel):
    center: Tensor
    b: Tensor
    ranks: Tensor

    def __init__(self, shape: tuple[int, ...], settings: Shredder) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("center", torch.zeros(settings.tensors))
        self.register_buffer("b", torch.zeros(settings.tensors))
        self.register_buffer("ranks", torch.zeros(settings.tensors, *shape, dtype=torch.int32))

    def calibrate(self, calibration: Calibration) -> None:
        unit = calibration.root_mean_square()
        for number in range(self.settings.tensors):
            noise = self._learned(calibration, unit).flatten()
            # the maximum-likelihood fit: the median, and the mean distance from it
            self.center[number] = noise.median()
            self.b[number] = (noise - noise.median()).abs().mean()
            self.ranks[number] = noise.argsort().argsort().view(self.ranks.shape[1:])

    def _learned(self, calibration: Calibration, unit: float) -> Tensor:
        start = self.settings.scale * laplace_like(torch.empty(self.ranks.shape[1:], device=calibration.device))
        noise = nn.Parameter(start)  # in units of the root mean square
        optimizer = torch.optim.Adam([noise], LEARNING_RATE)
        for batch in calibration.cycle(self.settings.steps):
            with torch.enable_grad():
                logits = calibration.tail(batch.features + unit * noise)
                task = F.cross_entropy(logits, labels_of(batch, "shredder"))
                (gradient,) = torch.autograd.grad(task - self.settings.weight * noise.abs().mean(), noise)
            noise.grad = gradient
            optimizer.step()
        return unit * noise.detach()

    def send(self, features: Tensor) -> Tensor:
        picked = torch.randint(len(self.b), (len(features),), device=features.device)
        columns = [-1, *[1] * (features.ndim - 1)]
        drawn = laplace_like(features).flatten(1).sort(1).values
        noise = drawn.gather(1, self.ranks[picked].flatten(1).long()).view_as(features)
        return features + self.center[picked].view(columns) + self.b[picked].view(columns) * noise
