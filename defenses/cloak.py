"""Noise on the image itself, learned to be large where the task does not look."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from splitleak.defenses.base import Calibration, Defense, Perturbation, labels_of, needs_task
from splitleak.victims.settings import doc

LEARNING_RATE = 0.05
SMALLEST = 0.01
"""Standard deviation of the noise that training starts from."""


@dataclass(frozen=True)
class Cloak(Defense):
    """The encoder sees x + mu + s * noise, with a shift mu and a scale s learned for each pixel.

    With both halves of the network frozen, mu and s lower cross-entropy - ``weight`` * log(mean of s). With
    ``suppress``, the paper's second stage, the pixels with the largest scales are not blurred but replaced by
    learned constants, the same in every image, and only the others carry noise.
    """

    paper: ClassVar[str] = (
        "Mireshghallah et al., Not All Features Are Equal: Discovering Essential Features for Preserving Prediction "
        "Privacy, WWW 2021"
    )
    strength: ClassVar[str] = "weight"
    strengths: ClassVar[tuple[float, ...]] = (1e-4, 0.1, 1.0, 10.0)

    weight: Annotated[float, Ge(0), doc("of the noise's scale against the task")] = 1.0
    largest: Annotated[float, Gt(0), doc("standard deviation of the noise, at most; a pixel is in [0, 1]")] = 2.0
    suppress: Annotated[float, Ge(0), Le(1), doc("share of the pixels that constants replace")] = 0.0
    steps: Annotated[int, Gt(0), doc("of training mu and s, and then the constants")] = 150

    def inapplicable(self, shape: tuple[int, ...], task: str | None) -> str | None:
        """The noise is learned on the task."""
        return needs_task(self.name, "learns what the task needs of a photo", task)

    def perturb(self, image_shape: tuple[int, ...]) -> Perturbation:
        """Learned noise on the images."""
        return _Cloaking(image_shape, self)

    def statistic(self, calibration: Calibration) -> float:
        """The mean scale of the noise."""
        cloaking = _Cloaking(tuple(next(calibration.batches()).images.shape[1:]), self).to(calibration.device)
        cloaking.calibrate(calibration)
        return float(cloaking.scale.detach().mean())


class _Cloaking(Perturbation):
    mu: Tensor
    rho: Tensor
    shown: Tensor
    constants: Tensor

    def __init__(self, image_shape: tuple[int, ...], settings: Cloak) -> None:
        super().__init__()
        self.settings = settings
        share = torch.tensor(min(SMALLEST / settings.largest, 0.5))
        self.register_buffer("mu", torch.zeros(image_shape))
        self.register_buffer("rho", torch.full(image_shape, float(share.logit())))
        self.register_buffer("shown", torch.ones(image_shape))
        self.register_buffer("constants", torch.full(image_shape, 0.5))

    @property
    def scale(self) -> Tensor:
        """Standard deviation of each pixel's noise."""
        return self.settings.largest * torch.sigmoid(self.rho)

    def calibrate(self, calibration: Calibration) -> None:
        self._learn([self.mu, self.rho], calibration)
        hidden = round(self.settings.suppress * self.rho.numel())
        if hidden:
            self.shown.view(-1)[self.rho.flatten().topk(hidden).indices] = 0
            self._learn([self.constants], calibration)

    def _learn(self, tensors: list[Tensor], calibration: Calibration) -> None:
        for tensor in tensors:
            tensor.requires_grad_(True)
        optimizer = torch.optim.Adam(tensors, LEARNING_RATE)
        for batch in calibration.cycle(self.settings.steps):
            with torch.enable_grad():
                logits = calibration.tail(calibration.encoder(self(batch.images)))
                task = calibration.loss(logits, labels_of(batch, "cloak"))
                loss = task - self.settings.weight * self.scale.mean().log()
                gradients = torch.autograd.grad(loss, tensors, allow_unused=True)
            for tensor, gradient in zip(tensors, gradients, strict=True):
                tensor.grad = gradient
            optimizer.step()
        for tensor in tensors:
            tensor.requires_grad_(False).grad = None

    def forward(self, images: Tensor) -> Tensor:
        noisy = images + self.mu + self.scale * torch.randn_like(images)
        return self.shown * noisy + (1 - self.shown) * self.constants
