"""Who is it: how well embeddings of a photo, of its reconstruction or of its release single out its person."""

from dataclasses import dataclass

import torch
from torch import Tensor

from splitleak.experiments.judge.rules import FAR


@dataclass(frozen=True)
class Comparisons:
    """Every probe against every gallery item but its own: probe i shows the photo of gallery item i.

    ``distances``: Euclidean, float64 (m, n); ``genuine``: bool (m, n), two photos of one person; ``impostor``:
    of two people. Photos of unknown people are compared with nobody.
    """

    distances: Tensor
    genuine: Tensor
    impostor: Tensor

    @classmethod
    def of(cls, probes: Tensor, gallery: Tensor, identities: Tensor) -> "Comparisons":
        """Compare embeddings.

        Args:
            probes: (m, d), m <= n.
            gallery: (n, d).
            identities: int64 (n,) of the gallery, -1 where unknown.

        Raises:
            ValueError: the shapes do not fit, or a value is not finite.
        """
        fits = probes.ndim == gallery.ndim == 2 and len(probes) <= len(gallery) == len(identities)
        if not fits or probes.shape[1] != gallery.shape[1]:
            raise ValueError(
                f"{tuple(probes.shape)} probes and {tuple(gallery.shape)} gallery items of {len(identities)} photos"
            )
        if not (probes.isfinite().all() and gallery.isfinite().all()):
            raise ValueError("embeddings must be finite")
        # matrix products would round equal distances apart, and ties must stay ties
        distances = torch.cdist(probes.double(), gallery.double(), compute_mode="donot_use_mm_for_euclid_dist")
        known = (identities[: len(probes), None] >= 0) & (identities >= 0)
        same = identities[: len(probes), None] == identities
        others = ~torch.eye(len(probes), len(gallery), dtype=torch.bool)
        return cls(distances, known & same & others, known & ~same)

    @property
    def counted(self) -> Tensor:
        """Bool (m,): probes with another photo of their person and one of somebody else to compare with."""
        return self.genuine.any(1) & self.impostor.any()


def rank_1(comparisons: Comparisons) -> Tensor:
    """Whether the nearest gallery item shows the same person (closed-set identification), (m,).

    Among equally near ones the share of them that do: embeddings that tell nothing score chance, not the order of
    the photos. Not a number for a probe that does not count.
    """
    comparable = comparisons.genuine | comparisons.impostor
    distances = comparisons.distances.masked_fill(~comparable, torch.inf)
    nearest = (distances == distances.amin(1, keepdim=True)) & comparable
    return _share(nearest & comparisons.genuine, nearest).where(comparisons.counted, torch.nan)


def chance_of_rank_1(comparisons: Comparisons) -> Tensor:
    """What ``rank_1`` expects of a gallery in random order: same-person items over all compared ones, (m,)."""
    comparable = comparisons.genuine | comparisons.impostor
    return _share(comparisons.genuine, comparable).where(comparisons.counted, torch.nan)


def true_accepts(comparisons: Comparisons, far: float = FAR) -> Tensor:
    """True accept rate where a share ``far`` of the impostor pairs is accepted (verification), (m,).

    One threshold for all pairs; of each probe the share of its genuine pairs that lie below it, so that every
    photo weighs the same, however many there are of its person. Pairs at the threshold are accepted with the
    probability that makes the false accept rate exactly ``far`` (the ROC curve's straight segments): embeddings
    that tell nothing score ``far``. Not a number for a probe that does not count.
    """
    impostors = comparisons.distances[comparisons.impostor].sort().values
    if not len(impostors):
        return torch.full((len(comparisons.distances),), torch.nan, dtype=torch.float64)
    threshold = impostors[int(far * len(impostors) + 1e-9)]  # a share of 0.01 of 700 is 7.000000000000001
    below, at = (float(share.double().mean()) for share in (impostors < threshold, impostors == threshold))
    nearer, tied = comparisons.distances < threshold, comparisons.distances == threshold
    accepted = nearer.double() + tied.double() * ((far - below) / at)
    return _share(accepted * comparisons.genuine, comparisons.genuine).where(comparisons.counted, torch.nan)


def person_shares(comparisons: Comparisons, people: Tensor) -> Tensor:
    """What each probe weighs where every person weighs the same, float64 (m,) of sum 1; ``people``: int64 (m,)."""
    shares = torch.zeros(len(people), dtype=torch.float64)
    _, person, counts = people[comparisons.counted].unique(return_inverse=True, return_counts=True)
    shares[comparisons.counted] = 1 / (len(counts) * counts[person].double())
    return shares


def constant_rank_1(comparisons: Comparisons, shares: Tensor) -> float:
    """The mean rank-1 of the best answer that is the same for all probes: it names whoever weighs most.

    Two probes of one person cannot both name the other unless the answer names that person, so this is a floor beside
    chance for whoever never looked. ``shares``: of each probe, (m,), such as ``person_shares``.
    """
    own = torch.eye(*comparisons.genuine.shape, dtype=torch.bool)  # where it names the photo itself, another is next
    return float((shares @ (comparisons.genuine | own).double()).max())


def constant_true_accepts(comparisons: Comparisons, shares: Tensor, far: float = FAR) -> float:
    """The mean true accept rate at ``far`` of the best answer that is the same for all probes.

    Such an answer puts the gallery in one order, and a threshold accepts its first items for everybody. Each item
    brings the genuine pairs and the impostors of its column: best is the order of most genuine for an impostor
    (Dantzig's fractional knapsack, Operations Research 1957), the last item accepted in part.
    """
    genuine = comparisons.genuine.double()
    gains = shares @ (genuine / genuine.sum(1, keepdim=True).clamp_min(1))
    costs = comparisons.impostor.double().sum(0)
    order = (costs / gains).argsort()[: int((gains > 0).sum())]  # no gain: infinitely dear, or not a number
    spent = costs[order].cumsum(0)
    left = far * costs.sum() - (spent - costs[order])
    return float((gains[order] * (left / costs[order]).clamp(0, 1)).sum())


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """Row sums of the part over those of the whole, float64 (m,)."""
    return part.double().sum(1) / whole.double().sum(1)
