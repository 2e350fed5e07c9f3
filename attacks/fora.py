"""An encoder whose features have the distribution of those intercepted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Le, MultipleOf
from torch import Tensor, nn

from splitleak.attacks.grid import as_grid
from splitleak.attacks.knowledge import QueryFree
from splitleak.attacks.shadow import ROUND, Draws, Shadow, ShadowAttack
from splitleak.victims.settings import doc
from splitleak.victims.tensors import to_float
from splitleak.victims.training import Batch, Recipe, Training, train

BANDWIDTHS = tuple(2.0**power for power in range(-3, 2))
"""Squared, of the five kernels, in units of the mean squared distance; as in the authors' code."""
COMPARED = 512
"""Photos and releases whose distributions are compared to choose the weights to keep."""
WIDTH, LARGEST, LEAK = 128, 4, 0.2
"""Of the critic: channels, side of the last grid, slope below zero."""


@dataclass(frozen=True)
class Fora(ShadowAttack):
    """Train an encoder whose features are distributed as the received ones are (feature-oriented reconstruction).

    The encoder's features are compared without the channel's draws, the decoder then learns through them. With both
    behind the noise the shadow of a toy was worse in three of three starts: .80 to .95 of the mean image's error in
    the place of .68, with noise as large as the features' spread.
    """

    paper: ClassVar[str] = (
        "Xu et al., A Stealthy Wrongdoer: Feature-Oriented Reconstruction Attack against Split Learning, CVPR 2024"
    )

    by_distribution: ClassVar[bool] = True

    steps: Annotated[int, Gt(0), MultipleOf(ROUND), doc("of training an encoder; published: 40 000")] = 1000
    mix: Annotated[float, Ge(0), Le(1), doc("weight of the discrepancy; the critic has the rest")] = 0.8
    learning_rate: Annotated[float, Gt(0), doc("of the encoder's Adam, as published")] = 1e-4
    critic_learning_rate: Annotated[float, Gt(0), doc("of the critic's Adam, as published")] = 3e-4
    penalty: Annotated[float, Ge(0), doc("weight of the critic's gradient penalty")] = 10.0
    batch_size: Annotated[int, Gt(1), doc("photos, and as many releases, in a step")] = 64

    def shadow(self, knows: QueryFree) -> Shadow:
        """The trained shadow, in eval mode and frozen; gradients reach its input."""
        return Shadow.recalled(knows, self.what(knows), lambda shadow: self._trained(shadow, knows))

    def _trained(self, shadow: Shadow, knows: QueryFree) -> dict[str, Tensor]:
        received = shadow.received.features
        critic = Critic(received, self.critic_learning_rate, self.penalty)

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            images, theirs = batch
            own = shadow.undrawn(to_float(images))
            # half precision would drown the small differences that are left between the distributions
            with torch.autocast(own.device.type, enabled=False):
                critic.learn(own.detach(), theirs)
                value: Tensor = self.mix * discrepancy(own, theirs) - (1 - self.mix) * critic(own).mean()
            return value

        def validation(model: nn.Module) -> float:
            images = knows.images["validation"][:COMPARED].to(knows.device)
            own = torch.cat([shadow.undrawn(to_float(chunk)) for chunk in images.split(64)])
            return float(discrepancy(own, received[:COMPARED]))

        recipe = Recipe(self.steps // ROUND, lambda parameters: torch.optim.Adam(parameters, self.learning_rate))
        draws = Draws((knows.images["auxiliary"],), (received,), self.batch_size)
        optimizer = recipe.optimizer(shadow.parameters())
        train(Training(shadow, optimizer, draws), recipe, loss, validation, knows.log)
        return shadow.state_dict()


def discrepancy(own: Tensor, theirs: Tensor) -> Tensor:
    """Squared maximum mean discrepancy between two samples, (n, ...) and (m, ...): a scalar.

    mean k(own, own') + mean k(theirs, theirs') - 2 mean k(own, theirs), without the pairs of a point with itself: an
    unbiased estimate, 0 on average (and so negative at times) where both have one distribution. k is a sum of five
    Gaussian kernels exp(-d^2 / 2 s^2), s^2 between 1/8 and 2 times the mean squared distance of the two samples'
    points, through which no gradient flows. At most 10.

    Gretton et al., A Kernel Two-Sample Test, JMLR 2012; several kernels: Long et al., Learning Transferable Features
    with Deep Adaptation Networks, ICML 2015.
    """
    points = torch.cat([own, theirs]).flatten(1)
    points = points - points.mean(0).detach()  # distances stay, their rounding errors shrink
    squares = points.square().sum(1)
    distances = (squares[:, None] + squares - 2 * points @ points.T).clamp_min(0)
    pairs = len(points) * (len(points) - 1)
    unit = (distances.detach().sum() / pairs).clamp_min(torch.finfo(points.dtype).tiny)
    kernel = torch.stack([torch.exp(-distances / (2 * width * unit)) for width in BANDWIDTHS]).sum(0)
    count = len(own)
    within = _mean_off_diagonal(kernel[:count, :count]) + _mean_off_diagonal(kernel[count:, count:])
    return within - 2 * kernel[:count, count:].mean()


def _mean_off_diagonal(square: Tensor) -> Tensor:
    return (square.sum() - square.diagonal().sum()) / (len(square) * (len(square) - 1))


class Critic(nn.Module):
    """Tells received features (higher scores) from a shadow's: (n, *shape) -> (n, 1), trained as it is used.

    A Wasserstein critic with a gradient penalty (Gulrajani et al., Improved Training of Wasserstein GANs, NIPS
    2017). It sees features in units of their root mean square spread, so that its settings hold for any cut.
    """

    def __init__(self, received: Tensor, learning_rate: float, penalty: float) -> None:
        super().__init__()
        self.penalty = penalty
        self.mean = received.mean()
        self.spread = received.var(0).mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
        channels, rows, columns = as_grid(received[:1]).shape[1:]
        layers: list[nn.Module] = [nn.Conv2d(channels, WIDTH, 3, padding=1), nn.LeakyReLU(LEAK)]
        while max(rows, columns) > LARGEST:
            layers += [nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1), nn.LeakyReLU(LEAK)]
            rows, columns = -(-rows // 2), -(-columns // 2)
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(WIDTH * rows * columns, 1)).to(received.device)
        self.optimizer = torch.optim.Adam(self.layers.parameters(), learning_rate)

    def forward(self, features: Tensor) -> Tensor:
        """Scores."""
        scores: Tensor = self.layers(self._grid(features))
        return scores

    def _grid(self, features: Tensor) -> Tensor:
        return as_grid((features - self.mean) / self.spread)

    def learn(self, own: Tensor, theirs: Tensor) -> None:
        """One step, on as many features of the shadow as received ones."""
        self.optimizer.zero_grad(set_to_none=True)
        gap = self(own).mean() - self(theirs).mean()
        loss = gap + self.penalty * gradient_penalty(self.layers, *(self._grid(part) for part in (own, theirs)))
        loss.backward()
        self.optimizer.step()


def gradient_penalty(critic: Callable[[Tensor], Tensor], own: Tensor, theirs: Tensor) -> Tensor:
    """Mean squared difference from 1 of the norm of the critic's gradient, at random points between the samples.

    Args:
        critic: (n, ...) -> scores (n, 1), each from its own row only.
        own: (n, ...).
        theirs: of the same shape; row i is paired with row i.

    Returns:
        A scalar through which the critic's parameters get a gradient.
    """
    share = torch.rand(len(own), *[1] * (own.ndim - 1), device=own.device)
    points = (share * own + (1 - share) * theirs).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    excess: Tensor = gradient.flatten(1).norm(dim=1) - 1
    return excess.square().mean()
