"""Which class: how well scores read an attribute whose classes may be of very different sizes."""

import torch
from torch import Tensor


def balanced_accuracy(scores: Tensor, labels: Tensor) -> Tensor:
    """The mean over classes of the share recognised, as one value per photo; float64 (n,).

    correct * n / (classes * photos of the class), with n the photos whose label is known and classes those that
    occur: the mean over these photos is the balanced accuracy (Brodersen et al., ICPR 2010). Not a number where
    the label is unknown.

    Args:
        scores: (n, classes), highest for the likeliest class.
        labels: int64 (n,), -1 where unknown.

    Raises:
        ValueError: the shapes do not fit, or a score is not a number.
    """
    known = labels >= 0
    if scores.ndim != 2 or len(scores) != len(labels) or labels.amax() >= scores.shape[1]:
        raise ValueError(f"{tuple(scores.shape)} scores for labels up to {labels.amax()} of {len(labels)} photos")
    if scores.isnan().any():
        raise ValueError("scores must be numbers")
    counts = labels[known].bincount(minlength=scores.shape[1]).double()
    correct = (scores.argmax(1) == labels).double()
    weights = known.sum() / ((counts > 0).sum() * counts[labels])
    return (correct * weights).where(known, torch.nan)


def chance_of_balanced_accuracy(labels: Tensor) -> float:
    """What guessing scores, however it guesses: one over the number of classes that occur."""
    return 1 / max(1, len(labels[labels >= 0].unique()))
