"""When a training has nothing more to gain."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

LOWERED = 0.1
"""What the learning rate is multiplied with where validation stalls."""
RESERVED = 0.2
"""Share of the ceiling, at its end, that is trained at the lower rate even where validation has not stalled."""


@dataclass
class Plateau:
    """Watches a validation loss: when is the rate lowered, when is training over?

    The rate is lowered, once, when ``patience`` epochs in a row brought no new record; training ends when the same
    happens again, or with the last of ``epochs``, the ceiling. A record is a new lowest loss. Where the loss is
    ``moving``, because an adversary who counts in it learns beside the network, early epochs look good for no other
    reason than that the adversary knew little then: a new highest loss is a record too, so that nothing ends while
    the adversary still gains, and what was lowest before the rate was lowered does not compare with what comes after.
    """

    epochs: int
    patience: int
    moving: bool = False
    losses: list[float] = field(default_factory=list)
    lowered: int = 0
    """The epoch after which the rate was lowered, 0 before that."""

    @property
    def stalled(self) -> bool:
        """Whether patience has ended, since the rate was lowered or since the beginning."""
        latest = max(self.lowered, _latest_record(self.losses, self.moving, self.lowered if self.moving else 0))
        return bool(self.patience) and len(self.losses) - latest >= self.patience

    @property
    def over(self) -> bool:
        """Whether training ends here."""
        return len(self.losses) >= self.epochs or (self.lowered > 0 and self.stalled)

    @property
    def cut_short(self) -> bool:
        """Whether the ceiling ended it: a longer training might have gained more."""
        return bool(self.patience) and self.over and not (self.lowered and self.stalled)

    def lowers(self, loss: float) -> bool:
        """Note an epoch's loss; whether to lower the rate now."""
        self.losses.append(loss)
        left = self.epochs - len(self.losses)
        if not self.patience or self.lowered or not left:
            return False
        if self.stalled or left <= RESERVED * self.epochs:
            self.lowered = len(self.losses)
        return bool(self.lowered)

    def state_dict(self) -> dict[str, Any]:
        """What it has seen."""
        return {"losses": list(self.losses), "lowered": self.lowered}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.losses, self.lowered = list(state["losses"]), state["lowered"]


def _latest_record(losses: Sequence[float], moving: bool, start: int) -> int:
    """The latest epoch, counted from 1, that was a record of those after ``start``."""
    considered = losses[start:]
    if not considered:
        return start
    lowest = considered.index(min(considered))
    highest = considered.index(max(considered)) if moving else 0
    return start + 1 + max(lowest, highest)
