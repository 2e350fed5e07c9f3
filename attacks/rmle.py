"""Regularised maximum likelihood: the image that the edge device turns into what was intercepted."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from splitleak.attacks.base import Reconstruction, Reconstructor
from splitleak.attacks.knowledge import WhiteBox
from splitleak.attacks.optimise import (
    Distance,
    Matcher,
    Point,
    Schedule,
    Space,
    best_on_validation,
    search,
    total_variation,
)
from splitleak.victims.settings import doc

WEIGHTS = (0.0, 0.01, 0.1, 1.0, 10.0)
"""Of the prior, tried on validation photos where none is given; for as many steps, which are a prior too."""
GREY = 0.5
ITERATIONS = 5
"""Passes over the photos, for principal axes that differ little in length."""


@dataclass(frozen=True)
class Rmle(Reconstruction[WhiteBox]):
    """Gradient descent on an image until its release matches, under a prior on images.

    All targets of a batch are searched for at once, each with its own convergence. ``tv`` is the published
    attack: pixels move, from grey, under total variation. ``gaussian`` replaces the prior by the Gaussian with
    the mean and covariance of the adversary's photos: principal components move, whitened, under their squared
    norm; with a linear encoder and Gaussian noise its optimum is the posterior mean.
    """

    paper: ClassVar[str] = (
        "He, Zhang, Lee, Model Inversion Attacks Against Collaborative Inference, ACSAC 2019 (tv); gaussian: ours"
    )
    per_image: ClassVar[bool] = True

    prior: Annotated[Literal["tv", "gaussian"], doc("what is held against an image")] = "tv"
    distance: Annotated[Distance, doc("between releases")] = "mse"
    steps: Annotated[int, Gt(0), doc("at most; published: 500 for shallow cuts, 5000 for deep ones")] = 500
    learning_rate: Annotated[float, Gt(0), doc("of Adam; published: 1e-2 shallow, 1e-3 deep")] = 1e-2
    weight: Annotated[float | None, Ge(0), doc("of the prior; none: the best on a few validation photos")] = None
    beta: Annotated[float, Gt(0), doc("exponent of total variation")] = 1.0
    components: Annotated[int, Gt(0), doc("principal components of the Gaussian, at most")] = 512
    draws: Annotated[int, Gt(0), doc("sends averaged in each step where the channel is random")] = 4

    def fit(self, knows: WhiteBox) -> Reconstructor:
        """Measure the features' spread, and choose the prior's weight where none is given."""
        matcher = Matcher.measure(knows, self.distance, self.draws)
        space = self._pixels(knows) if self.prior == "tv" else gaussian_space(knows, self.components)
        schedule = Schedule(self.steps, self.learning_rate)

        def attempt(weight: float, release: Tensor) -> Tensor:
            return search(space, matcher(release), weight, schedule, knows.log)

        weights = [self.weight] if self.weight is not None else self._weights(matcher, space, knows)
        weight = best_on_validation(knows, weights, attempt)
        knows.log({"weight": weight, "noise": matcher.noise})
        return lambda release: attempt(weight, release)

    def _weights(self, matcher: Matcher, space: Space, knows: WhiteBox) -> list[float]:
        if self.prior == "tv":
            return list(WEIGHTS)
        # Bayes: features' squared error over twice the noise's variance, plus half the squared norm of the point
        size = space.start(knows.intercepted[:1])[0][0].numel()
        exact = matcher.noise * size / knows.intercepted[0].numel()
        return [*([exact] if exact > 0 else []), *(size / 1000 * weight for weight in (1e-4, *WEIGHTS[1:]))]

    def _pixels(self, knows: WhiteBox) -> Space:
        return Space(
            start=lambda release: [torch.full((len(release), *knows.image_shape), GREY, device=knows.device)],
            images=lambda point: point[0],
            penalty=lambda point, images: total_variation(images, self.beta),
            project=_clamp,
        )


def _clamp(point: Point) -> None:
    point[0].clamp_(0, 1)


def gaussian_space(knows: WhiteBox, components: int) -> Space:
    """Images as mean + whitened principal components of the auxiliary photos; starts at the mean."""
    mean, axes = principal_axes(knows, components)

    def images(point: Point) -> Tensor:
        pixels: Tensor = mean + point[0] @ axes
        return pixels.reshape(-1, *knows.image_shape).clamp(0, 1)

    return Space(
        start=lambda release: [torch.zeros(len(release), len(axes), device=knows.device)],
        images=images,
        penalty=lambda point, images: point[0].square().mean(1),
    )


def principal_axes(knows: WhiteBox, components: int) -> tuple[Tensor, Tensor]:
    """Mean (pixels,) of the auxiliary photos and their principal axes (count, pixels), as long as they spread.

    Subspace iteration (Halko, Martinsson, Tropp, SIAM Review 2011) over batches of photos, for all of them as floats
    need not fit the memory.
    """
    count = len(knows.images["auxiliary"])
    mean = _total(photos.flatten(1).sum(0) for photos in knows.image_batches()) / count

    def centred() -> Iterator[Tensor]:
        return (photos.flatten(1) - mean for photos in knows.image_batches())

    axes = torch.randn(len(mean), min(components, count - 1, len(mean)), device=knows.device)
    for _ in range(ITERATIONS):
        axes, _ = torch.linalg.qr(axes)
        axes = _total(some.T @ (some @ axes) for some in centred())
    axes, _ = torch.linalg.qr(axes)
    covariance = _total((some @ axes).T @ (some @ axes) for some in centred()) / (count - 1)
    variances, vectors = torch.linalg.eigh(covariance)
    return mean, (axes @ vectors * variances.clamp_min(0).sqrt()).T


def _total(parts: Iterator[Tensor]) -> Tensor:
    total = next(parts)
    for part in parts:
        total += part
    return total
