"""How strong an adversary a plan declares."""

from dataclasses import dataclass
from typing import Literal

Photos = Literal["own", "train"]
"""An adversary's photos: of its own, which nobody else has, or the first of those that the victim was trained on."""


@dataclass(frozen=True)
class Threat:
    """The same for every attack.

    ``adaptive``: the attack is fitted to the defended edge; otherwise to the undefended one, and what it then
    attacks is what the cloud receives, which has the shape that it was fitted to. ``sends``: how many releases of
    each image are intercepted. ``budget``: how many releases may be asked for, None for no limit. ``photos``: which
    ones the attack learns from.
    """

    adaptive: bool = True
    sends: int = 1
    budget: int | None = None
    photos: Photos = "own"

    @property
    def label(self) -> str:
        """What sets it apart from the default; empty for that."""
        facts = [] if self.adaptive else ["unaware"]
        facts += [f"{self.sends} sends"] if self.sends > 1 else []
        return ", ".join([*facts, *(["training photos"] if self.photos == "train" else [])])

    def column(self, attack: str) -> str:
        """An attack under this threat, as tables and pictures name it."""
        return f"{attack} ({self.label})" if self.label else attack
