"""The second stage of a decoder that aims at what people or machines see: from a blurred answer to a photo."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitleak.attacks.acquainted import Acquainted
from splitleak.attacks.base import Staged
from splitleak.attacks.blanks import better_at_mean
from splitleak.attacks.knowledge import BlackBox
from splitleak.attacks.networks.painter import Painter, PatchCritic
from splitleak.victims.seeding import seeded
from splitleak.victims.training import Batch, Training, adamw, train

Aim = Literal["perceptual", "identity"]

LEARNING_RATE, BATCH_SIZE = 1e-3, 16
CRITIC_WIDTH, CRITIC_LEARNING_RATE = 24, 4e-4
CRITIC_WEIGHT = 0.003
"""Beside a squared error of about 0.01."""


@dataclass(frozen=True)
class Weights:
    """Of the differences in ``Loss``, beside the squared error."""

    features: float
    embedding: float
    critic: float = CRITIC_WEIGHT


WEIGHTS: Mapping[Aim, Weights] = {
    "perceptual": Weights(features=0.05, embedding=0.0),
    "identity": Weights(features=0.02, embedding=0.05),
}


@dataclass(frozen=True)
class _Repainted(Staged):
    """What the painter makes of the regression's answer, the last of its stages."""

    regression: Staged
    painter: Painter

    def __call__(self, release: Tensor) -> Tensor:
        """Answer and paint over it."""
        return self._painted(release, self.regression(release))

    def stages(self, release: Tensor) -> list[Tensor]:
        """Those of the regression, its answer among them, then the photo."""
        seen = self.regression.stages(release)
        return [*seen, self._painted(release, seen[-1])]

    def _painted(self, release: Tensor, answer: Tensor) -> Tensor:
        painted: Tensor = self.painter(release, answer)
        return painted.float().clamp(0, 1)


@dataclass(frozen=True)
class Repainting:
    """Trains a painter on what ``regression`` answers, which stays as it is.

    ``what``: names the regression by all that shapes it; ``aim``: what the painted photo should keep of the true
    one; ``epochs``: passes over the auxiliary photos.
    """

    knows: BlackBox
    regression: Staged
    what: str
    aim: Aim
    epochs: int

    def fit(self) -> Staged:
        """Train the painter or recall it."""
        embedder = Acquainted.of(self.knows, people=self.aim == "identity")
        what = f"{self.aim} painter in {self.epochs} epochs on {self.what}"
        state = self.knows.remember(what, lambda: self._trained(embedder))
        painter = self._painter()
        painter.load_state_dict(state)
        painter.eval().requires_grad_(False)
        return _Repainted(self.regression, painter)

    def _painter(self) -> Painter:
        return (
            Painter(self.knows.release_shape, better_at_mean(self.knows))
            .to(self.knows.device)
            .to(memory_format=torch.channels_last)
        )

    def _trained(self, embedder: Acquainted) -> dict[str, Tensor]:
        knows, weights = self.knows, WEIGHTS[self.aim]
        painter = self._painter()
        painter.standard.begin_from(release for release, _ in knows.pairs(shuffle=False))
        critic = PatchCritic(CRITIC_WIDTH, CRITIC_LEARNING_RATE).to(knows.device)

        def answered(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
            release, images = batch
            with torch.no_grad():
                answer = self.regression(release)
            return images, answer, painter(release, answer).float()

        def apart(images: Tensor, painted: Tensor) -> Tensor:
            # an embedder that halves its grid hears odd pixels otherwise than even ones: each is either in turn
            shift = tuple(torch.randint(2, (2,)).tolist())
            shown, true = (one.roll(shift, (2, 3)) for one in (painted, images))
            seen = weights.features * embedder.difference(shown, true)
            said = weights.embedding * (1 - (embedder(shown) * embedder(true)).sum(1).mean())
            error: Tensor = F.mse_loss(painted, images) + seen + said
            return error

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            images, answer, painted = answered(batch)
            critic.learn(images, painted.detach(), answer)
            fooled: Tensor = critic(painted, answer).mean()
            return apart(images, painted) - weights.critic * fooled

        def validation(model: nn.Module) -> float:
            with seeded("held out"):
                held_out = [answered(batch) for batch in knows.pairs("validation", shuffle=False)]
                losses = [(float(apart(images, painted.clamp(0, 1))), len(images)) for images, _, painted in held_out]
            return sum(value * count for value, count in losses) / sum(count for _, count in losses)

        recipe = adamw(LEARNING_RATE, self.epochs)
        pairs = knows.pairs(batch_size=BATCH_SIZE)
        train(Training(painter, recipe.optimizer(painter.parameters()), pairs), recipe, loss, validation, knows.log)
        return painter.state_dict()
