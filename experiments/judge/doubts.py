"""What makes a score doubtful, as far as one cell tells: a training that stopped early, a range that is cut off."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from splitleak.experiments.judge.rules import GIVEN_BACK, PAST_BEST, STILL_GAINED, TAIL

if TYPE_CHECKING:  # a report looks at curves, and does without torch
    from torch import Tensor

Curve = list[tuple[float, float]]
"""Places on the axis with the losses there."""


def converged(history: Sequence[Mapping[str, float]]) -> bool | None:
    """Whether the curves of a training had flattened when it ended; None where there is none.

    A history holds one curve after the other: trainings have a row per ``epoch`` with a ``validation_loss``, searches
    one now and then with a ``step`` and a ``loss``. All trainings count, and of the searches the last. A curve of one
    row has not converged: nothing shows that it had.
    """
    found = [*trainings(history), *searches(history)[-1:]]
    return all(flat([loss for _, loss in curve]) for curve in found) if found else None


def trainings(history: Sequence[Mapping[str, float]]) -> list[Curve]:
    """Validation loss by epoch, a curve for each network that was trained."""
    return _curves(history, "epoch", "validation_loss")


def searches(history: Sequence[Mapping[str, float]]) -> list[Curve]:
    """Objective by step, a curve for each batch of images that was searched for."""
    return _curves(history, "step", "loss")


def _curves(history: Iterable[Mapping[str, float]], axis: str, loss: str) -> list[Curve]:
    """A new one begins where the axis goes back."""
    rows = [(row[axis], row[loss]) for row in history if axis in row and loss in row]
    begun, count = [], 0
    for index, (place, _) in enumerate(rows):
        count += index > 0 and place <= rows[index - 1][0]
        begun.append(count)
    return [[rows[index] for index in group] for _, group in groupby(range(len(rows)), begun.__getitem__)]


def flat(curve: Sequence[float]) -> bool:
    """Whether losses had flattened at their end."""
    tail = max(1, round(TAIL * len(curve)))
    if len(curve) <= tail:
        return False
    before, least = min(curve[:-tail]), min(curve)
    # what rises, or never fell, has nothing left to gain
    return before - least <= STILL_GAINED * max(curve[0] - least, 0.0)


def overfitted(history: Sequence[Mapping[str, float]]) -> bool | None:
    """Whether a network was trained long past its best, and lost by it; None where none was trained.

    Its kept weights are those of a rate that was still high: such a curve is flat, and yet tells of no limit.
    """
    found = [[loss for _, loss in curve] for curve in trainings(history)]
    return any(past_its_best(curve) for curve in found) if found else None


def past_its_best(curve: Sequence[float]) -> bool:
    """Whether the least loss lies well before the end, and the end gave a part of the gain back."""
    best = min(range(len(curve)), key=curve.__getitem__)
    gained = curve[0] - curve[best]
    return best + 1 < (1 - PAST_BEST) * len(curve) and curve[-1] - curve[best] > GIVEN_BACK * gained > 0


def cut_off(images: "Tensor", rebuilt: "Tensor") -> float:
    """How much of the dark range a reconstruction cannot reach, as a decoder that ends in a ReLU on signed values.

    Of each colour, the lesser of two shares of the pixels: those that were rebuilt at exactly the darkest value that
    occurs, and those of the true photos that are darker still. The largest of the colours, in [0, 1].

    Args:
        images: true photos, uint8 (n, 3, h, w).
        rebuilt: their reconstructions, uint8 (m, 3, h, w), of the first m.
    """
    shares = []
    for colour in range(rebuilt.shape[1]):
        made, true = rebuilt[:, colour], images[: len(rebuilt), colour]
        darkest = made.amin()
        counts = int((made == darkest).count_nonzero()), int((true < darkest).count_nonzero())
        shares.append(min(counts) / made.numel())
    return max(shares)
