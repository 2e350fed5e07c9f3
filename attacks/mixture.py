"""A channel that adds one of a few patterns to the features, and which of them a release most likely holds."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

FEW, SENDS, PAIRED = 16, 256, 256
"""Sends of one photo that tell whether the channel draws at all (two patterns are seldom the same so often), sends of
it in which every pattern should occur, and photos that are sent twice."""
RELEASES_LOOKED_AT = SENDS + 2 * PAIRED
"""At most."""
MOST = SENDS // 4
"""Patterns that are looked for: of more, too few sends would fall to each."""
GAP, GAPS = 1.1, 5
"""By what factor two sends with different patterns are further apart than any with the same, and how many of the
widest gaps between distances are tried."""
UNEXPLAINED = 0.1
"""Of what two sends of another photo differ by, beyond what sends with one pattern do: the share that differences of
patterns may leave. The rest would depend on the photo, and could not be subtracted."""
LEFT = 0.5
"""Of the patterns' power: the share that the likeliest pattern may leave on photos that were held out. At one half
about as many patterns are mistaken as not, and a mistaken one does twice the harm of one that stays."""
HELD_OUT = 4
"""One photo in so many of those that were sent twice."""
LEAST_SHARE = 0.01
"""Of the features' mean variance, added to every variance: a sample of photos spans few directions."""

Send = Callable[[Tensor], Tensor]
"""Rows (n,) of the adversary's own photos -> their releases (n, ...), with the channel's randomness drawn afresh."""


@dataclass(frozen=True)
class Mixture:
    """Release (n, *shape) -> the same less its likeliest pattern, (n, *shape); differentiable while that is the same.

    ``patterns``: (k, *shape), with mean 0: what all have in common is no secret of a send, and the cloud's half was
    trained with it. ``weights`` (k, entries), ``offsets`` (k,): the likeliest pattern is that of the greatest
    ``weights @ release + offsets``, which is linear discriminant analysis: features are taken as normal, with one
    covariance around each pattern.
    """

    patterns: Tensor
    weights: Tensor
    offsets: Tensor

    def __call__(self, release: Tensor) -> Tensor:
        """Subtract."""
        return release - self.patterns[self.likeliest(release)]

    def likeliest(self, release: Tensor) -> Tensor:
        """Number of each release's pattern, (n,)."""
        return (release.detach().float().flatten(1) @ self.weights.T + self.offsets).argmax(1)

    @property
    def name(self) -> str:
        """By its numbers."""
        numbers = b"".join(tensor.cpu().numpy().tobytes() for tensor in self.tensors().values())
        return f"{len(self.patterns)} patterns {hashlib.sha256(numbers).hexdigest()[:24]}"

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], device: torch.device) -> Self | None:
        """The one that was kept as tensors; None where there was none."""
        return cls(**{name: tensor.to(device) for name, tensor in tensors.items()}) if tensors else None

    def tensors(self) -> dict[str, Tensor]:
        """To keep."""
        return {"patterns": self.patterns, "weights": self.weights, "offsets": self.offsets}


def look_for_mixture(send: Send, photos: int) -> Mixture | None:
    """The patterns that the channel adds, learned from its answers; None where it does anything else.

    One photo is sent many times: with few patterns its sends fall into groups, each around features plus a pattern.
    Other photos are sent twice: their two sends must differ by the difference of two patterns, whichever photo it is,
    which also tells the patterns and so the features. From these features follows what is the likeliest pattern of a
    release that was sent once, and held-out photos tell whether it is right often enough to be subtracted.

    Noise that is drawn afresh makes no groups, and what a mask takes away differs from photo to photo. A channel
    without randomness costs ``FEW`` releases, one without groups ``SENDS``, a mixture ``2 * PAIRED`` more.

    Args:
        send: counts the releases.
        photos: how many the adversary has.
    """
    seen = _see(send, photos)
    if seen is None or len(seen.pairs) < HELD_OUT:
        return None
    patterns, pairs = seen.patterns, seen.pairs
    held_out = torch.arange(len(pairs), device=patterns.device) % HELD_OUT == 0
    weights, offsets = _discriminant(pairs[~held_out].features, patterns)
    mixture = Mixture(patterns.view(len(patterns), *seen.shape), weights, offsets)
    return mixture if pairs[held_out].left_by(mixture, patterns) < LEFT else None


def patterns_added(send: Send, photos: int) -> int:
    """How many patterns the channel adds one of to whatever photo it is; 0 where it does anything else, or nothing.

    Whether a single send tells which of them it was, so that it can be subtracted, is not asked: see
    ``look_for_mixture``, whose arguments these are.
    """
    seen = _see(send, photos)
    return len(seen.patterns) if seen and len(seen.pairs) else 0


class _Seen(NamedTuple):
    """``patterns``: (k, entries), with mean 0; ``pairs``: sends that they explain; ``shape``: of one release."""

    patterns: Tensor
    pairs: "_Pairs"
    shape: torch.Size


def _see(send: Send, photos: int) -> _Seen | None:
    """The patterns that explain by what two sends of any photo differ; None where there are none such."""
    one = torch.zeros(SENDS, dtype=torch.long)
    few = send(one[:FEW]).float()
    if (few == few[0]).all():
        return None
    sends = torch.cat([few, send(one[FEW:]).float()])
    grouped = _grouped(sends.flatten(1))
    if grouped is None:
        return None
    patterns = grouped.centres - grouped.centres.mean(0)
    rows = torch.arange(1, 1 + min(PAIRED, photos - 1))
    pairs = _explained(send(rows).float().flatten(1), send(rows).float().flatten(1), patterns, grouped.within)
    return None if pairs is None else _Seen(patterns, pairs, sends.shape[1:])


class _Grouped(NamedTuple):
    """``centres``: (k, entries), the groups' means; ``within``: mean squared distance of two of one group."""

    centres: Tensor
    within: float


def _grouped(sends: Tensor) -> _Grouped | None:
    """Groups among points (n, entries) that lie nearer to one another than to any other; None without such."""
    points = sends - sends.mean(0)
    # differences one by one: the sends of one group may be equal to the last digit
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    ordered = distances[tuple(torch.triu_indices(len(points), len(points), 1))].sort().values
    ordered = ordered.clamp_min(1e-6 * float(ordered[-1]))
    gaps = ordered[1:] / ordered[:-1]
    for place in gaps.topk(GAPS).indices:
        if gaps[place] < GAP:
            break
        near = distances < ordered[place : place + 2].prod().sqrt()
        groups, member = near.unique(dim=0, return_inverse=True)
        # each knows the same others as they do
        if 2 <= len(groups) <= MOST and torch.equal((near.float() @ near.float()) > 0, near):
            sizes = groups.sum(1, keepdim=True)
            centres = torch.zeros(len(groups), points.shape[1], device=points.device).index_add_(0, member, points)
            off_diagonal = near.sum() - len(near)
            return _Grouped(centres / sizes, float((distances.square() * near).sum() / off_diagonal))
    return None


@dataclass(frozen=True)
class _Pairs:
    """Two sends of n photos that were made with different patterns: ``first``, ``second`` are the patterns' numbers.

    ``features``: (n, entries), the sends less their patterns, and their mean.
    """

    features: Tensor
    first: Tensor
    second: Tensor

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: Tensor) -> "_Pairs":
        return _Pairs(self.features[rows], self.first[rows], self.second[rows])

    def left_by(self, mixture: Mixture, patterns: Tensor) -> float:
        """Share of the patterns' power that is left when their likeliest is subtracted from each send."""
        true = torch.cat([self.first, self.second])
        said = mixture.likeliest(self.features.repeat(2, 1) + patterns[true])
        return float((patterns[true] - patterns[said]).square().sum() / patterns[true].square().sum())


def _explained(first: Tensor, second: Tensor, patterns: Tensor, within: float) -> _Pairs | None:
    """Two sends (n, entries) of several photos with their patterns; None where these do not explain the difference.

    Pairs with one pattern in both are left out: they look alike whichever it is.
    """
    difference = first - second
    along = difference @ patterns.T
    apart = torch.cdist(patterns, patterns).square()
    squares = difference.square().sum(1)
    residual = squares[:, None, None] - 2 * (along[:, :, None] - along[:, None, :]) + apart
    least, place = residual.flatten(1).min(1)
    if float(least.mean()) - within > UNEXPLAINED * (float(squares.mean()) - within):
        return None
    a, b = place // len(patterns), place % len(patterns)
    features = (first - patterns[a] + second - patterns[b]) / 2
    return _Pairs(features, a, b)[a != b]


def _discriminant(features: Tensor, patterns: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (k, entries) and offsets (k,) of ``Mixture``, from features (n, entries) without patterns (k, entries).

    The covariance is that of the sample plus a share of the mean variance in every direction, inverted in the
    sample's span (Woodbury); a common factor does not change which pattern is the likeliest.
    """
    mean = features.mean(0)
    centred = features - mean
    least = LEAST_SHARE * centred.square().mean().clamp_min(torch.finfo(torch.float32).tiny)
    gram = centred @ centred.T
    gram.diagonal().add_(len(centred) * least)
    weights = patterns - torch.linalg.solve(gram, centred @ patterns.T).T @ centred
    return weights, -weights @ mean - (patterns * weights).sum(1) / 2
