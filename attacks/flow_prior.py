"""A flow that learned what photos look like, in turns with steps towards the intercepted release."""

from dataclasses import dataclass
from itertools import product
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Lt, MultipleOf
from torch import Tensor, nn

from splitleak.attacks.base import Reconstructor
from splitleak.attacks.decoder import ByDecoder
from splitleak.attacks.knowledge import WhiteBox
from splitleak.attacks.learning import learned
from splitleak.attacks.networks.flow import Velocity, to_signed
from splitleak.attacks.optimise import FeatureLoss, Matcher, at_a_time, best_on_validation
from splitleak.victims.settings import doc
from splitleak.victims.tensors import to_float
from splitleak.victims.training import Batch, Recipe, Shuffled, adamw

STRIDES, BEGINNINGS = (0.3, 2.0, 12.0), (0.0, 0.5, 0.95)
"""Tried on validation photos where none is given."""
BATCH, LEARNING_RATE = 32, 2e-3
EPOCHS, LEAST_STEPS = 20, 2000
"""Of training the flow; more epochs where the photos are few."""
ROWS = 20
"""Of the log for each walk, at most."""


@dataclass(frozen=True)
class FlowPrior(ByDecoder[WhiteBox]):
    """Move a picture towards the release, lose it in noise and paint it anew, in turns (plug-and-play flow matching).

    A small flow learns once, for all defences, what the adversary's photos look like. Times t run from ``begin`` to
    1. At each, x moves against the gradient of the feature loss; x_t = t x + (1 - t) e mixes it with fresh noise e;
    and the mean over a few e of x_t + (1 - t) v(x_t, t), the flow's guess where that noise comes from, is the next x.
    It starts at the answer of ``decoder``, trained once if both are in a plan, and forgets the more of it the earlier
    it begins. The step is ``stride`` (1 - t) times the one that would bring the loss, if it were linear, down to what
    the channel's noise leaves of it for the photo itself (Polyak, Introduction to Optimization, 1987): so it needs
    no unit, and leaves alone what is explained. Strides above 1 make up for what the painting takes back. Published
    steps are a constant times the gradient, and t begins at 0.

    No gain was seen yet on photos: on built-in faces of 64 px, cut at features.6 of MobileNetV3-Large, with 400
    photos, flow_width 16, 40 epochs of the flow and 25 steps, it ends 0.48 dB below the decoder that it starts from
    (standard error 0.05, n = 24; SSIM 0.35 against 0.51). On smooth toy pictures it takes more than three tenths of
    the error off a weak decoder's answer.
    """

    paper: ClassVar[str] = (
        "Martin, Gagneux, Hagemann, Steidl, PnP-Flow: Plug-and-Play Image Restoration with Flow Matching, ICLR 2025; "
        "on features, and from a decoder's answer: ours"
    )
    per_image: ClassVar[bool] = True

    flow_width: Annotated[int, Ge(16), MultipleOf(8), doc("channels of the flow at its first grid")] = 32
    flow_epochs: Annotated[int | None, Gt(0), doc("of the flow; default 20, at least 2000 steps")] = None
    steps: Annotated[int, Gt(0), doc("from begin to 1; published: 100")] = 50
    noises: Annotated[int, Gt(0), doc("averaged in each step; published: 5")] = 2
    begin: Annotated[
        float | None, Ge(0), Lt(1), doc("first time; none: the best on a few validation photos; published: 0")
    ] = None
    stride: Annotated[float | None, Ge(0), doc("of the steps; none: the best on a few validation photos")] = None
    draws: Annotated[int, Gt(0), doc("sends averaged in each step where the channel is random")] = 4

    def fit(self, knows: WhiteBox) -> Reconstructor:
        """Train or recall decoder and flow, then choose beginning and stride where none is given."""
        decode = self.decoder.fit(knows)
        walk = _Walk(self, knows, decode, Matcher.measure(knows, draws=self.draws), self._flow(knows))
        beginnings = BEGINNINGS if self.begin is None else (self.begin,)
        strides = STRIDES if self.stride is None else (self.stride,)
        begin, stride = best_on_validation(knows, product(beginnings, strides), lambda way, z: walk(*way, z))
        knows.log({"begin": begin, "stride": stride, "noise": walk.matcher.noise})
        return lambda release: walk(begin, stride, release)

    def _flow(self, knows: WhiteBox) -> Velocity:
        photos = {part: Shuffled((images,), BATCH) for part, images in knows.images.items()}
        recipe = self._recipe(len(photos["auxiliary"]))

        def made() -> Velocity:
            return Velocity(*knows.image_shape[1:], self.flow_width).to(knows.device)

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            pictures = to_signed(to_float(batch[0].to(knows.device)))
            noise, times = torch.randn_like(pictures), torch.rand(len(pictures), device=pictures.device)
            return F.mse_loss(model(_between(pictures, noise, times), times), pictures - noise)

        def build() -> dict[str, Tensor]:
            flow = made()
            flow.begin_from(knows.image_batches())
            return learned(flow, recipe, photos["auxiliary"], photos["validation"], loss, knows)

        state = knows.remember(f"flow of {self.flow_width} in {recipe.epochs} epochs", build, about="images")
        flow = made()
        flow.load_state_dict(state)
        return flow.eval().requires_grad_(False)

    def _recipe(self, steps: int) -> Recipe:
        return adamw(LEARNING_RATE, self.flow_epochs or max(EPOCHS, -(-LEAST_STEPS // steps)))


def _between(pictures: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    time = times[:, None, None, None]
    return time * pictures + (1 - time) * noise


@dataclass(frozen=True)
class _Walk:
    """(begin, stride, releases (n, ...)) -> images; see ``FlowPrior``."""

    settings: FlowPrior
    knows: WhiteBox
    decode: Reconstructor
    matcher: Matcher
    flow: Velocity

    def __call__(self, begin: float, stride: float, release: Tensor) -> Tensor:
        with torch.no_grad():
            start = self.decode(release)
        loss = self.matcher(release)
        rows = torch.arange(len(release), device=release.device)
        parts = rows.split(at_a_time(lambda few: loss.keep(few)(start[few].requires_grad_()), len(rows)))
        return torch.cat([self._walked(begin, stride, start[some], loss.keep(some)) for some in parts])

    @torch.no_grad()
    def _walked(self, begin: float, stride: float, images: Tensor, loss: FeatureLoss) -> Tensor:
        steps = self.settings.steps
        for step in range(steps):
            time = begin + (1 - begin) * step / steps
            left, gradient = _slope(loss, images)
            if step % max(1, steps // ROWS) == 0:
                self.knows.log({"step": float(step), "loss": float(left.mean())})
            # the photo itself, sent once more, would be off by the noise of two sends
            unexplained = (left - 2 * self.matcher.noise).clamp_min(0)
            steepness = gradient.square().flatten(1).sum(1).clamp_min(torch.finfo(torch.float32).tiny)
            length = stride * (1 - time) * unexplained / steepness
            images = self._painted(images - length[:, None, None, None] * gradient, time)
        return images

    def _painted(self, images: Tensor, time: float) -> Tensor:
        """The flow's guess at pictures that noise hides at this time, in the mean over some noise."""
        pictures, times = to_signed(images.clamp(0, 1)), images.new_full((len(images),), time)
        noises = (torch.randn_like(pictures) for _ in range(self.settings.noises))
        guesses = [self.flow.picture(_between(pictures, noise, times), times) for noise in noises]
        return ((torch.stack(guesses).mean(0) + 1) / 2).clamp(0, 1)


def _slope(loss: FeatureLoss, images: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each image, (n,), and its gradient, zero where none reaches the images."""
    with torch.enable_grad():
        candidates = images.detach().requires_grad_()
        losses = loss(candidates)
        if not losses.requires_grad:
            return losses, torch.zeros_like(images)
        (gradient,) = torch.autograd.grad(losses.sum(), candidates)
    return losses.detach(), gradient
