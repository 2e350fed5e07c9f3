"""A search in the latent of a generator, trained on the adversary's photos, for what explains the release."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor, nn

from splitleak.attacks.base import Reconstruction, Reconstructor
from splitleak.attacks.knowledge import WhiteBox
from splitleak.attacks.learning import learned
from splitleak.attacks.networks.variational import Autoencoder, Generator, LatentEncoder
from splitleak.attacks.optimise import (
    Matcher,
    Point,
    Schedule,
    Space,
    best_on_validation,
    find,
    total_variation,
)
from splitleak.victims.settings import doc
from splitleak.victims.tensors import to_float
from splitleak.victims.training import Batch, Recipe, Shuffled, adamw

WEIGHTS = (0.001, 0.01, 0.1, 1.0)
"""Of the prior, tried on validation photos where none is given."""
BATCH, LEARNING_RATE = 32, 3e-3
EPOCHS, LEAST_STEPS = 20, 1500
"""Of training the generator and the encoder; more epochs where the photos are few."""
WIDTHS = (32, 128)
"""Channels of the generator: as many as the image's shorter side has pixels, within these."""
SPREAD_OVER = 256
"""Random latents from which the spread of the generator's activations is measured."""


@dataclass(frozen=True)
class LatentSearch(Reconstruction[WhiteBox]):
    """Move the latent of a generator until the picture that it paints has the intercepted release.

    The published attack searches a StyleGAN2; here the generator is the decoder of a variational autoencoder
    that trains on the adversary's photos alone, once for all defences. Every image is searched for from several
    latents, under total variation, the latent's squared distance from its start and its divergence from N(0, 1);
    the one with the least feature loss, never the one nearest to the truth, goes on in the generator's first
    activations, where more pictures can be painted, and then in as many ``layers`` as are asked for, each around what
    was found in the one before. With ``encoder`` (the paper's ++ form) a network trained to
    tell the latent from the release gives the first start, and the others lie around it.
    """

    paper: ClassVar[str] = (
        "Z. Li et al., GAN You See Me? Enhanced Data Reconstruction Attacks against Split Inference, NeurIPS 2023; "
        "several layers: Fang et al., GIFD: A Generative Gradient Inversion Method with Feature Domain Optimization, "
        "ICCV 2023"
    )
    per_image: ClassVar[bool] = True

    start: Annotated[Literal["encoder", "random"], doc("of the latent")] = "encoder"
    restarts: Annotated[int, Gt(0), doc("starts for each image; published: 200 random ones, 1 with the encoder")] = 4
    steps: Annotated[int, Gt(0), doc("in the latent from each start, at most, as published")] = 100
    activation_steps: Annotated[int, Ge(0), doc("then in the activations; published: 8 000 to 20 000")] = 100
    layers: Annotated[int, Gt(0), doc("inner ones that are searched in turn, so many steps in each")] = 1
    radius: Annotated[
        float | None, Gt(0), doc("of the ball that a layer's shift stays in, in standard deviations; none: no ball")
    ] = None
    learning_rate: Annotated[float, Gt(0), doc("of Adam; published: 1e-2")] = 0.05
    weight: Annotated[float | None, Ge(0), doc("of the prior; none: the best on a few validation photos")] = None
    latent: Annotated[int, Gt(1), doc("numbers that the generator paints from")] = 128
    width: Annotated[
        int | None, Ge(16), doc("channels of the generator; default 32 to 128 with the image's side")
    ] = None
    epochs: Annotated[
        int | None, Gt(0), doc("of training generator and encoder; default 20, at least 1500 steps")
    ] = None
    draws: Annotated[int, Gt(0), doc("sends averaged in each step where the channel is random")] = 4

    @property
    def learns_from_copies(self) -> bool:
        """Always."""
        return True

    def fit(self, knows: WhiteBox) -> Reconstructor:
        """Train or recall generator and encoder, then choose the prior's weight where none is given."""
        matcher = Matcher.measure(knows, draws=self.draws)
        autoencoder = self._autoencoder(knows)
        encoder = self._encoder(autoencoder, knows) if self.start == "encoder" else None
        offsets = torch.randn(self.restarts, self.latent, device=knows.device)
        if encoder:
            offsets[0] = 0
        tour = _Search(self, knows, matcher, autoencoder.generator, encoder, offsets)
        weights = WEIGHTS if self.weight is None else (self.weight,)
        weight = best_on_validation(knows, weights, tour)
        knows.log({"weight": weight})
        return lambda release: tour(weight, release)

    def _autoencoder(self, knows: WhiteBox) -> Autoencoder:
        height, width = knows.image_shape[1:]
        least, most = WIDTHS
        channels = self.width or max(least, min(most, height, width))
        photos = {part: Shuffled((images,), BATCH) for part, images in knows.images.items()}
        recipe = self._recipe(len(photos["auxiliary"]))

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            images = to_float(batch[0].to(knows.device))
            bound: Tensor = model(images, torch.randn(len(images), self.latent, device=knows.device))
            return bound

        def made() -> Autoencoder:
            return Autoencoder(self.latent, height, width, channels).to(knows.device)

        def build() -> dict[str, Tensor]:
            network = made()
            network.generator.rest.begin_at(knows.image_batches())
            return learned(network, recipe, photos["auxiliary"], photos["validation"], loss, knows)

        what = f"autoencoder of {self.latent} and {channels} in {recipe.epochs} epochs"
        state = knows.remember(what, build, about="images")
        autoencoder = made()
        autoencoder.load_state_dict(state)
        return autoencoder.eval().requires_grad_(False)

    def _encoder(self, autoencoder: Autoencoder, knows: WhiteBox) -> LatentEncoder:
        pairs, held_out = knows.pairs(batch_size=BATCH), knows.pairs("validation", shuffle=False)
        recipe = self._recipe(len(pairs))

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            release, images = batch
            return F.mse_loss(model(release), autoencoder.latent_of(images))

        def made() -> LatentEncoder:
            return LatentEncoder(knows.release_shape, self.latent).to(knows.device)

        # latents mean nothing but to the generator that they come from: another one needs another encoder
        what = f"latent encoder for {_named(autoencoder.state_dict())} in {recipe.epochs} epochs"
        state = knows.remember(what, lambda: learned(made(), recipe, pairs, held_out, loss, knows))
        encoder = made()
        encoder.load_state_dict(state)
        return encoder.eval().requires_grad_(False)

    def _recipe(self, steps: int) -> Recipe:
        return adamw(LEARNING_RATE, self.epochs or max(EPOCHS, -(-LEAST_STEPS // steps)))


@dataclass(frozen=True)
class _Search:
    """(weight of the prior, releases (n, ...)) -> images; see ``LatentSearch``."""

    settings: LatentSearch
    knows: WhiteBox
    matcher: Matcher
    generator: Generator
    encoder: LatentEncoder | None
    offsets: Tensor

    def __call__(self, weight: float, release: Tensor) -> Tensor:
        settings = self.settings
        loss = self.matcher(release.repeat_interleave(settings.restarts, 0))
        schedule = Schedule(settings.steps, settings.learning_rate)
        found = find(self._latents(), loss, weight, schedule, self.knows.log)
        with torch.no_grad():
            best = loss(found.images).view(-1, settings.restarts).argmin(1)
        rows = best + settings.restarts * torch.arange(len(release), device=best.device)
        if not settings.activation_steps:
            return found.images[rows]
        return self._inside(weight, release, _latent([part[rows] for part in found.point]))

    def _inside(self, weight: float, release: Tensor, latent: Tensor) -> Tensor:
        """Images from the inner layers, one searched after the other."""
        settings, generator = self.settings, self.generator
        schedule, loss = Schedule(settings.activation_steps, settings.learning_rate), self.matcher(release)
        maps, others = (generator.activations(some) for some in (latent, self._random(latent.device)))
        for layer in range(min(settings.layers, generator.depth)):
            if layer:
                maps, others = (generator.deeper(some, layer - 1) for some in (maps, others))
            spread = others.std(0)
            found = find(self._around(maps, spread, layer), loss, weight, schedule, self.knows.log)
            maps = maps + spread * found.point[0]
        return found.images

    def _random(self, device: torch.device) -> Tensor:
        return torch.randn(SPREAD_OVER, self.settings.latent, device=device)

    def _latents(self) -> Space:
        """Points are shifts of the latent, and where each started from."""

        def start(release: Tensor) -> Point:
            first = torch.zeros(len(release), self.settings.latent, device=release.device)
            if self.encoder:
                first = self.encoder(release)
            return [self.offsets.repeat(len(release) // self.settings.restarts, 1), first]

        def penalty(point: Point, images: Tensor) -> Tensor:
            latent = _latent(point)
            mean, variance = latent.mean(1), latent.var(1)
            divergence = (mean.square() + variance - 1 - variance.log()) / 2
            return point[0].square().mean(1) + divergence + total_variation(images)

        return Space(start, lambda point: self.generator(_latent(point)), penalty)

    def _around(self, maps: Tensor, spread: Tensor, layer: int) -> Space:
        """Points are shifts of these maps of an inner layer in units of each one's spread, and the maps."""
        return Space(
            start=lambda release: [torch.zeros_like(maps), maps],
            images=lambda point: self.generator.paint(point[1].detach() + spread * point[0], layer),
            penalty=lambda point, images: point[0].square().flatten(1).mean(1) + total_variation(images),
            project=lambda point: into_ball(point[0], self.settings.radius),
        )


def into_ball(shift: Tensor, radius: float | None) -> None:
    """Shorten in place what is longer, of each image by the root mean square."""
    if radius is not None:
        lengths = shift.square().flatten(1).mean(1).sqrt()
        shift *= (radius / lengths.clamp_min(radius)).view(-1, *[1] * (shift.ndim - 1))


def _named(state: Mapping[str, Tensor]) -> str:
    """A digest of a network's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _latent(point: Point) -> Tensor:
    shift, start = point
    return start.detach() + shift
