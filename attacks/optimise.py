"""Search for the image whose release is the intercepted one: what all white-box attacks share."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from splitleak.attacks.edge import Edge
from splitleak.attacks.knowledge import WhiteBox
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import to_float
from splitleak.victims.training import Log

Distance = Literal["mse", "cosine"]
Point = list[Tensor]
"""What moves in a search: tensors whose first axis is that of the images."""
T = TypeVar("T")

MEASURED = 256
"""Photos from which the spread of each feature is estimated."""
TRIED = 16
"""Photos of the validation part on which a setting is chosen."""
LEAST_SHARE = 0.01
"""Of the mean variance: a feature that hardly varies must not outweigh all others."""
HELD = 2**31
"""Bytes that a batch of searches keeps for its gradient. The same everywhere: if it followed the free memory, random
draws, and so results, would depend on the machine."""
SMOOTHING = 0.9
"""Of the objective, whose single values jump where a channel draws at random."""


@dataclass(frozen=True)
class Space:
    """Where a search looks for images.

    ``start``: releases (n, ...) -> the first point. ``images``: point -> (n, 3, h, w) in [0, 1], differentiable.
    ``penalty``: (point, images) -> (n,), what the prior holds against them. ``project``: called after each step,
    changes the point in place.
    """

    start: Callable[[Tensor], Point]
    images: Callable[[Point], Tensor]
    penalty: Callable[[Point, Tensor], Tensor]
    project: Callable[[Point], None] = lambda point: None


@dataclass(frozen=True)
class FeatureLoss:
    """How far candidates' releases are from the intercepted ones: images (n, 3, h, w) -> (n,).

    ``mse``: mean over the features of the squared difference, each in units of the feature's ``variance`` over
    photos (1 on average between a photo and the mean). ``cosine``: one minus the cosine. Places that the defence
    left blank (``mask`` false) do not count, and at the others candidates are compared by what they would send there:
    a device that chooses by the photo what it sends does not choose anew for them. With ``draws`` above one the loss,
    and with it the gradient, is averaged over the channel's randomness (expectation over transformation, Athalye et
    al., ICML 2018).
    """

    edge: Edge
    release: Tensor
    mask: Tensor
    variance: Tensor
    distance: Distance = "mse"
    draws: int = 1

    def __call__(self, images: Tensor) -> Tensor:
        """Of each image, (n,)."""
        sends = self.edge.several(images, self.draws, like=self.release)
        return torch.stack([self._once(sent) for sent in sends]).mean(0)

    def _once(self, sent: Tensor) -> Tensor:
        if self.distance == "cosine":
            return 1 - F.cosine_similarity((sent * self.mask).flatten(1), (self.release * self.mask).flatten(1))
        error = (sent - self.release).square() / self.variance * self.mask
        return error.flatten(1).sum(1) / self.mask.flatten(1).sum(1).clamp_min(1)

    def keep(self, rows: Tensor) -> "FeatureLoss":
        """Of these images only."""
        return replace(self, release=self.release[rows], mask=self.mask[rows])


@dataclass(frozen=True)
class Matcher:
    """Makes the loss for intercepted releases; what it measured on the adversary's own photos is shared.

    ``noise``: the variance of one feature over repeated sends of one photo, in units of its variance over photos;
    0 for a channel without randomness.
    """

    knows: WhiteBox
    variance: Tensor
    noise: float
    distance: Distance
    draws: int

    @classmethod
    def measure(cls, knows: WhiteBox, distance: Distance = "mse", draws: int = 4) -> "Matcher":
        """``draws`` counts only where the channel is random."""
        photos = to_float(knows.images["auxiliary"][:MEASURED].to(knows.device))
        first, second = (torch.cat([knows.query(chunk) for chunk in photos.split(64)]) for _ in range(2))
        variance = first.float().var(0)
        variance = variance + LEAST_SHARE * variance.mean().clamp_min(torch.finfo(torch.float32).tiny)
        noise = float(((first - second).square().mean(0) / 2 / variance).mean())
        return cls(knows, variance, noise, distance, draws if noise > 0 else 1)

    def __call__(self, release: Tensor) -> FeatureLoss:
        """The loss for these intercepted releases (n, ...)."""
        mask = self.knows.arrived(release)
        return FeatureLoss(self.knows.edge, release, mask, self.variance, self.distance, self.draws)


@dataclass(frozen=True)
class Schedule:
    """Adam for at most ``steps``; an image stops when ``patience`` steps brought less than ``tolerance`` of gain."""

    steps: int
    learning_rate: float
    patience: int = 100
    tolerance: float = 1e-3


@dataclass(frozen=True)
class Found:
    """``images`` (n, 3, h, w) in [0, 1], and the ``point`` of the space that they came from."""

    images: Tensor
    point: Point


def search(space: Space, loss: FeatureLoss, weight: float, schedule: Schedule, log: Log = lambda row: None) -> Tensor:
    """The images that ``find`` finds."""
    return find(space, loss, weight, schedule, log).images


def find(space: Space, loss: FeatureLoss, weight: float, schedule: Schedule, log: Log = lambda row: None) -> Found:
    """The images with the least ``loss + weight * penalty`` that were met, each by itself.

    Images share the steps but nothing else; one that has converged leaves the batch. The learning rate falls to
    a tenth along a cosine. ``log`` gets the mean objective now and then. Where the gradient of all images together
    would keep more than ``HELD``, some are searched for after the others.
    """
    point = space.start(loss.release)
    rows = torch.arange(len(loss.release), device=loss.release.device)
    found = [
        _descend(space, [part[some] for part in point], loss.keep(some), weight, schedule, log)
        for some in rows.split(at_a_time(lambda few: _objective(space, loss, point, few), len(rows)))
    ]
    parts = zip(*(some.point for some in found), strict=True)
    return Found(torch.cat([some.images for some in found]), [torch.cat(part) for part in parts])


def _objective(space: Space, loss: FeatureLoss, point: Point, rows: Tensor) -> Tensor:
    some = [part[rows].detach().requires_grad_() for part in point]
    images = space.images(some)
    return loss.keep(rows)(images) + space.penalty(some, images)


def at_a_time(objective: Callable[[Tensor], Tensor], count: int) -> int:
    """How many of ``count`` images keep less than ``HELD`` for their gradient; ``objective``: rows -> a tensor.

    What one more image keeps is measured, with random draws that nothing else sees.
    """
    if count < 2:
        return max(count, 1)
    one, two = (_kept(objective, torch.arange(few)) for few in (1, 2))
    return max(1, min(count, HELD // max(two - one, 1)))


def _kept(objective: Callable[[Tensor], Tensor], rows: Tensor) -> int:
    """Bytes kept between the forward and the backward pass."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), seeded("kept"), saved_tensors_hooks(note, lambda tensor: tensor):
        kept = objective(rows)  # as long as it lives, no storage is used again
    del kept
    return sum(sizes.values())


def _descend(space: Space, start: Point, loss: FeatureLoss, weight: float, schedule: Schedule, log: Log) -> Found:
    with torch.enable_grad():
        point = [part.detach().clone().requires_grad_() for part in start]
        optimizer = torch.optim.Adam(point, lr=schedule.learning_rate)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, schedule.steps, eta_min=schedule.learning_rate / 10
        )
        progress = _Progress.of(Found(space.images(point), point), schedule)
        for step in range(schedule.steps):
            images = space.images(point)
            objective = loss(images) + weight * space.penalty(point, images)
            going = progress.note(step, Found(images, point), objective.detach())
            if step % max(1, schedule.steps // 20) == 0:
                log({"step": float(step), "images_left": float(len(going)), "loss": float(objective.detach().mean())})
            if not going.any():
                break
            optimizer.zero_grad(set_to_none=True)
            objective.sum().backward()
            optimizer.step()
            decay.step()
            with torch.no_grad():
                space.project(point)
            if not going.all():
                rows = going.nonzero().flatten()
                point, loss = _keep(point, optimizer, rows), loss.keep(rows)
                progress.keep(rows)
    return progress.best


@dataclass
class _Progress:
    """The best so far of each search, by its smoothed objective, and which of them still improve."""

    best: Found
    schedule: Schedule
    rows: Tensor
    smooth: Tensor
    least: Tensor
    reference: Tensor

    @classmethod
    def of(cls, start: Found, schedule: Schedule) -> "_Progress":
        infinite = torch.full((len(start.images),), torch.inf, device=start.images.device)
        rows = torch.arange(len(start.images), device=start.images.device)
        best = Found(start.images.detach().clone(), [part.detach().clone() for part in start.point])
        return cls(best, schedule, rows, infinite, infinite.clone(), infinite.clone())

    def note(self, step: int, now: Found, objective: Tensor) -> Tensor:
        """Returns which images go on, bool (n,)."""
        # the first value stands for itself: there is nothing yet to smooth it with
        self.smooth = torch.where(
            self.smooth.isinf(), objective, SMOOTHING * self.smooth + (1 - SMOOTHING) * objective
        )
        better = self.smooth < self.least
        for kept, part in zip([self.best.images, *self.best.point], [now.images, *now.point], strict=True):
            kept[self.rows[better]] = part.detach()[better]
        self.least = torch.minimum(self.least, self.smooth)
        going = torch.ones_like(better)
        if step and step % self.schedule.patience == 0:
            going = self.least < (1 - self.schedule.tolerance) * self.reference
            self.reference = self.least.clone()
        return going

    def keep(self, rows: Tensor) -> None:
        self.rows, self.smooth = self.rows[rows], self.smooth[rows]
        self.least, self.reference = self.least[rows], self.reference[rows]


def _keep(point: Point, optimizer: torch.optim.Optimizer, rows: Tensor) -> Point:
    """The point of these images only, and in the optimizer what it remembers of them."""
    kept = [part.detach()[rows].requires_grad_() for part in point]
    for old, new in zip(point, kept, strict=True):
        state: dict[str, Any] = optimizer.state.pop(old, {})  # a part that the images do not use has none
        # the step count is shared, everything else has the part's shape
        optimizer.state[new] = {
            key: value[rows] if isinstance(value, Tensor) and value.shape == old.shape else value
            for key, value in state.items()
        }
    optimizer.param_groups[0]["params"] = kept
    return kept


def total_variation(images: Tensor, beta: float = 1.0) -> Tensor:
    """Mean over pixels of (dv^2 + dh^2)^(beta / 2) (Mahendran & Vedaldi, CVPR 2015), (n,)."""
    down = images[:, :, 1:, :-1] - images[:, :, :-1, :-1]
    right = images[:, :, :-1, 1:] - images[:, :, :-1, :-1]
    # the small constant keeps the gradient finite where neighbours are equal
    return (down.square() + right.square() + 1e-8).pow(beta / 2).flatten(1).mean(1)


def best_on_validation(knows: WhiteBox, candidates: Iterable[T], attempt: Callable[[T, Tensor], Tensor]) -> T:
    """The setting whose reconstructions of the adversary's own validation photos have the least squared error.

    Args:
        knows: its validation photos are encoded once, and all candidates see the same releases.
        candidates: of equals the first is taken.
        attempt: (setting, releases) -> images.
    """
    listed = list(candidates)
    if len(listed) == 1:
        return listed[0]
    photos = to_float(knows.images["validation"][:TRIED].to(knows.device))
    releases = knows.query(photos)
    errors = []
    for number, candidate in enumerate(listed):
        errors.append(float((attempt(candidate, releases) - photos).square().mean()))
        knows.log({"candidate": float(number), "validation_loss": errors[-1]})
    return listed[errors.index(min(errors))]
