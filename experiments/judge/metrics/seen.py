"""What is seen of a protected device from outside."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Probe:
    """What was seen of a device from outside, on some photos of the validation part.

    ``absent``: what is sent is bit for bit what the undefended device sends. ``frozen``: noise is claimed, but two
    sends of a photo are the same; or, claimed or not, what is added is the same for all photos, or for all that
    stand in one place of a batch. ``patterns``: how many there are where a device that draws at random only picks
    which of a few it adds to the photo's features, see ``patterns_added``; 0 elsewhere. ``unbounded``: an epsilon is
    claimed for a query, but what is sent moves as far as the features do. ``epsilon_at_least``: what an adversary
    proves about an epsilon that is claimed for a query, see ``audited_epsilon``; above the claim, the claim is
    false. None where none is claimed.
    """

    absent: bool = False
    frozen: bool = False
    patterns: int = 0
    unbounded: bool = False
    epsilon_at_least: float | None = None
