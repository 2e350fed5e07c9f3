"""The deep image prior: for each image a network of its own, moved until its picture has the intercepted release."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.func import functional_call, vmap

from splitleak.attacks.base import Reconstruction, Reconstructor
from splitleak.attacks.knowledge import WhiteBox
from splitleak.attacks.networks.skip import SkipNetwork
from splitleak.attacks.optimise import Matcher, Point, Schedule, Space, best_on_validation, search, total_variation
from splitleak.victims.settings import doc

WEIGHTS = (0.0, 0.1, 1.0)
"""Of total variation, tried on validation photos where none is given."""
ANNEALING = (1.0, 0.2, 0.05, 0.0)
"""The input noise's level in each quarter of the steps, in units of its first; published: 10, 2, 0.5, 0."""


@dataclass(frozen=True)
class DeepImagePrior(Reconstruction[WhiteBox]):
    """Fit the weights of an untrained convolutional network, one for each image, to the release.

    Such a network paints natural pictures sooner than noise, so nobody's photos are needed: those of the adversary
    only choose the weight of total variation. The networks of a batch start from the same weights and share the
    random input. Noise on that input, less of it as the search goes on, keeps them from fitting the channel's.
    """

    paper: ClassVar[str] = (
        "A. Singh et al., DISCO: Dynamic and Invariant Sensitive Channel Obfuscation for Deep Neural Networks, "
        "CVPR 2021 (its likelihood maximisation attack); D. Ulyanov et al., Deep Image Prior, CVPR 2018"
    )
    per_image: ClassVar[bool] = True

    steps: Annotated[int, Gt(0), doc("published: 10 000 to 25 000")] = 1000
    learning_rate: Annotated[float, Gt(0), doc("of Adam, as published")] = 1e-2
    weight: Annotated[float | None, Ge(0), doc("of total variation; none: the best on a few validation photos")] = (
        None
    )
    width: Annotated[int, Gt(0), doc("channels of the network's first level; published: 16")] = 16
    input_noise: Annotated[float, Ge(0), doc("at first, in standard deviations of the input")] = 0.1
    draws: Annotated[int, Gt(0), doc("sends averaged in each step where the channel is random")] = 4

    def fit(self, knows: WhiteBox) -> Reconstructor:
        """Choose the weight of total variation where none is given."""
        matcher = Matcher.measure(knows, draws=self.draws)
        height, width = knows.image_shape[1:]
        network = SkipNetwork(height, width, self.width).to(knows.device)
        noise = torch.rand(1, self.width, height, width, device=knows.device)

        painters = _Painters(network, noise, self.input_noise, self.steps)

        def attempt(weight: float, release: Tensor) -> Tensor:
            # a network's picture changes in leaps: none is left behind for a while without gain
            schedule = Schedule(self.steps, self.learning_rate, patience=self.steps)
            return search(painters.space(), matcher(release), weight, schedule, knows.log)

        weight = best_on_validation(knows, WEIGHTS if self.weight is None else (self.weight,), attempt)
        knows.log({"weight": weight})
        return lambda release: attempt(weight, release)


@dataclass(frozen=True)
class _Painters:
    """Copies of one network, one for each image: points are their weights, and the steps that they have taken."""

    network: SkipNetwork
    noise: Tensor
    input_noise: float
    steps: int

    def space(self) -> Space:
        """Where searches look: the noise falls with the steps of each."""
        return Space(self._start, self._images, lambda point, images: total_variation(images), self._count)

    def _start(self, release: Tensor) -> Point:
        weights = [weight.detach().expand(len(release), *weight.shape) for weight in self.network.parameters()]
        return [*weights, torch.zeros(len(release), device=release.device)]

    def _images(self, point: Point) -> Tensor:
        *weights, done = point
        quarter = min(4 * int(done[0]) // self.steps, len(ANNEALING) - 1)
        level = self.input_noise * ANNEALING[quarter] * self.noise.std()
        seen = self.noise + level * torch.randn_like(self.noise)
        images: Tensor = vmap(self._paint, in_dims=(None, *(0 for _ in weights)))(seen, *weights)
        return images

    def _paint(self, noise: Tensor, *weights: Tensor) -> Tensor:
        names = [name for name, _ in self.network.named_parameters()]
        painted: Tensor = functional_call(self.network, dict(zip(names, weights, strict=True)), (noise,))
        return painted[0]

    def _count(self, point: Point) -> None:
        point[-1] += 1
