"""How the search for a strength ended, as cells store it and reports read it."""

from pydantic import BaseModel, ConfigDict

HALF_A_POINT = 0.005
"""How far from what was asked for a strength may lie on the validation part, if that tells so little apart."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Tried(_Part):
    """A strength and the accuracy on the validation part behind it."""

    strength: int | float
    accuracy: float


class Found(_Part):
    """How the search for a strength ended, and what it saw.

    ``asked``: the share of accuracy that may be lost. ``strength``: the field. ``value``: what was found for it; None
    where nothing was, and then ``reason`` says why. ``undefended``: the accuracy that is lost from. ``photos``: of
    the validation part; ``tolerance``: how far off a loss may be; ``seed``: of the victim that all was trained for.
    """

    asked: float
    strength: str | None = None
    value: int | float | None = None
    reason: str | None = None
    undefended: float | None = None
    tried: tuple[Tried, ...] = ()
    photos: int = 0
    tolerance: float = HALF_A_POINT
    seed: int = 0

    @property
    def ordered(self) -> tuple[tuple[int | float, float], ...]:
        """Strengths by size, each with what it loses."""
        undefended = self.undefended or 0.0
        return tuple(sorted((one.strength, undefended - one.accuracy) for one in self.tried))

    @property
    def lost(self) -> float | None:
        """On the validation part, at what was found."""
        return dict(self.ordered).get(self.value) if self.value is not None else None

    @property
    def text(self) -> str:
        """One line."""
        trainings = f"{len(self.tried)} training{'' if len(self.tried) == 1 else 's'}"
        if self.lost is None:
            tried = f" ({trainings})" if self.tried else ""
            return f"no strength that loses {100 * self.asked:g} points: {self.reason}{tried}"
        grain = f", within {100 * self.tolerance:.1f} points" if self.tolerance > HALF_A_POINT else ""
        return (
            f"found by bisection: {self.strength} {self.value:g} at {100 * self.lost:.1f} points lost on validation "
            f"({trainings}, {self.photos:,} photos{grain})"
        )


def tolerance_on(photos: int) -> float:
    """Half a point, or one photo where that is more."""
    return max(HALF_A_POINT, 1 / photos)
