"""Noise that was learned to be large where the task does not mind."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from splitleak.defenses.base import Calibration, Channel, Defense, labels_of, needs_task
from splitleak.defenses.laplace_noise import laplace_like
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.settings import doc

LEARNING_RATE = 0.02
"""Of Adam, in units of the features' root mean square."""

Sampling = Literal["ordered", "elementwise"]
"""Of the noise: in the order of one learned tensor, or each element by itself."""


@dataclass(frozen=True)
class Shredder(Defense):
    """Learn noise tensors with the network frozen, and send features + noise drawn from what was learned.

    Each tensor starts as Laplace noise and lowers cross-entropy - ``weight`` times its mean magnitude. The task can
    so bear noise of a size that, drawn blindly, would destroy it. What is drawn for each image is of two kinds:

    - ``ordered``, as the conference version draws: one of the tensors is picked, as many values are drawn from the
      Laplace distribution that fits its values, and they are laid out in its order. Order statistics of thousands
      of values hardly vary, so this adds one of ``tensors`` nearly fixed patterns and protects next to nothing. At C4
      (24 192 features, scale 2) 0.022 of a noise of 1.07 (root mean squares) was left after the likeliest pattern
      was subtracted, and a decoder rebuilt what it rebuilds without a defence, 17.50 against 17.52 dB.
      Every attack here that may query subtracts it, and the report flags it as ``few-patterns``.
    - ``elementwise``, as the code of the first version does: each element has a Laplace distribution of its own,
      with the mean of that element over the learned tensors, and their standard deviation as its scale. Nothing is
      fixed but the means, which are all that is left of what was learned.
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
    sampling: Annotated[Sampling, doc("of the noise for each image: the conference version's, the first one's")] = (
        "ordered"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sampling == "elementwise" and self.tensors < 2:
            raise InvalidInputError(
                "shredder.tensors = 1: sampling = 'elementwise' takes each element's spread over the tensors; "
                "learn at least 2"
            )

    def inapplicable(self, shape: tuple[int, ...], task: str | None) -> str | None:
        """The noise is learned on the task."""
        return needs_task(self.name, "learns what noise the task can bear", task)

    def channel(self, shape: tuple[int, ...]) -> Channel:
        """Adds drawn noise."""
        return _OrderedNoise(shape, self) if self.sampling == "ordered" else _ElementwiseNoise(shape, self)


def learned_noise(settings: Shredder, shape: tuple[int, ...], calibration: Calibration) -> Iterator[Tensor]:
    """The tensors (*shape), one after another."""
    unit = calibration.root_mean_square()
    for _ in range(settings.tensors):
        start = settings.scale * laplace_like(torch.empty(shape, device=calibration.device))
        noise = nn.Parameter(start)  # in units of the root mean square
        optimizer = torch.optim.Adam([noise], LEARNING_RATE)
        for batch in calibration.cycle(settings.steps):
            with torch.enable_grad():
                logits = calibration.tail(batch.features + unit * noise)
                task = calibration.loss(logits, labels_of(batch, "shredder"))
                (gradient,) = torch.autograd.grad(task - settings.weight * noise.abs().mean(), noise)
            noise.grad = gradient
            optimizer.step()
        yield unit * noise.detach()


class _OrderedNoise(Channel):
    center: Tensor
    b: Tensor
    ranks: Tensor

    def __init__(self, shape: tuple[int, ...], settings: Shredder) -> None:
        super().__init__()
        self.shape, self.settings = shape, settings
        self.register_buffer("center", torch.zeros(settings.tensors))
        self.register_buffer("b", torch.zeros(settings.tensors))
        self.register_buffer("ranks", torch.zeros(settings.tensors, *shape, dtype=torch.int32))

    def calibrate(self, calibration: Calibration) -> None:
        for number, tensor in enumerate(learned_noise(self.settings, self.shape, calibration)):
            noise = tensor.flatten()
            # the maximum-likelihood fit: the median, and the mean distance from it
            self.center[number] = noise.median()
            self.b[number] = (noise - noise.median()).abs().mean()
            self.ranks[number] = noise.argsort().argsort().view(self.shape)

    def send(self, features: Tensor) -> Tensor:
        picked = torch.randint(len(self.b), (len(features),), device=features.device)
        columns = [-1, *[1] * (features.ndim - 1)]
        drawn = laplace_like(features).flatten(1).sort(1).values
        noise = drawn.gather(1, self.ranks[picked].flatten(1).long()).view_as(features)
        return features + self.center[picked].view(columns) + self.b[picked].view(columns) * noise


class _ElementwiseNoise(Channel):
    mean: Tensor
    scale: Tensor

    def __init__(self, shape: tuple[int, ...], settings: Shredder) -> None:
        super().__init__()
        self.shape, self.settings = shape, settings
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.zeros(shape))

    def calibrate(self, calibration: Calibration) -> None:
        learned = torch.stack(list(learned_noise(self.settings, self.shape, calibration)))
        self.mean.copy_(learned.mean(0))
        self.scale.copy_(learned.std(0, correction=0))

    def send(self, features: Tensor) -> Tensor:
        return features + self.mean + self.scale * laplace_like(features)
