"""Search a defence's strength for the one at which so much is lost."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Literal, get_type_hints

from splitleak.defenses.base import Defense
from splitleak.victims.errors import InvalidInputError

DECADE = 10.0
DECADES_BEYOND = 2
"""How far beyond the strongest listed strength a search goes, where even that loses less."""
DIGITS = 3
"""Of a strength that is tried: what differs by less is one strength."""
SLACK = 1e-9
"""Of a comparison of shares of photos: sums of them are rounded."""

Scale = Literal["linear", "log", "odds"]
"""On which strengths are halved: as they are, by their logarithm, or by that of value / (1 - value)."""


@dataclass(frozen=True)
class Range:
    """Where a strength is searched: ``weakest`` to ``strongest``, in either order of the numbers.

    ``outermost``: a weakest strength that is listed but has no place on the scale, such as an infinite epsilon.
    ``beyond``: what is tried in turn where even the strongest loses less. ``whole``: integers only.
    """

    weakest: float
    strongest: float
    scale: Scale = "linear"
    whole: bool = False
    outermost: float | None = None
    beyond: tuple[float, ...] = ()

    def between(self, weak: float, strong: float) -> float | None:
        """Half way on the scale; None where that is one of both. From the outermost it is a decade to the next."""
        if weak == self.outermost:
            middle = strong * (DECADE if math.isinf(weak) else 1 / DECADE)
        else:
            ends = (self._placed(weak) + self._placed(strong)) / 2
            middle = self._taken(ends)
        middle = self.rounded(middle)
        return None if middle in (weak, strong) else middle

    def further(self, steps: int) -> float:
        """So many decades beyond the strongest."""
        away = math.copysign(steps * math.log(DECADE), self._placed(self.strongest) - self._placed(self.weakest))
        return self.rounded(self._taken(self._placed(self.strongest) + away))

    def rounded(self, value: float) -> float:
        """As it is tried."""
        if self.whole:
            return round(value)
        if self.scale == "odds" and value > 0.5:  # near 1 the digits that count are those of what is left
            return 1 - float(f"{1 - value:.{DIGITS}g}")
        return float(f"{value:.{DIGITS}g}")

    def _placed(self, value: float) -> float:
        if self.scale == "linear":
            return value
        return math.log(value) if self.scale == "log" else math.log(value / (1 - value))

    def _taken(self, place: float) -> float:
        if self.scale == "linear":
            return place
        return math.exp(place) if self.scale == "log" else 1 / (1 + math.exp(-place))


def range_of(defense: Defense) -> Range:
    """From the ends of its ``strengths``, which are numbers.

    The scale is of odds where all are within (0, 1) and 1 is refused, logarithmic where all are positive and span
    a decade or more, else linear.
    """
    listed = defense.strengths
    assert defense.strength is not None
    inner = [value for value in listed if math.isfinite(value)]
    outermost = None if inner == [*listed] else listed[0]
    if inner[0] == 0 and _spans_decades(inner[1:]):
        outermost, inner = inner[0], inner[1:]
    if all(0 < value < 1 for value in inner) and not _takes(defense, 1.0):
        scale: Scale = "odds"
    else:
        scale = "log" if _spans_decades(inner) else "linear"
    whole = get_type_hints(type(defense))[defense.strength] is int
    found = Range(inner[0], inner[-1], scale, whole, outermost)
    if scale == "linear":
        return found
    further = dict.fromkeys(found.further(step) for step in range(1, DECADES_BEYOND + 1))
    return replace(found, beyond=tuple(value for value in further if _takes(defense, value)))


def _spans_decades(values: list[float]) -> bool:
    return bool(values) and min(values) > 0 and max(values) / min(values) >= DECADE


def _takes(defense: Defense, value: float) -> bool:
    assert defense.strength is not None
    try:
        replace(defense, **{defense.strength: value})
    except InvalidInputError:
        return False
    return True


@dataclass
class Search:
    """What a search saw: ``lost`` by strength, as they were tried; ``value`` or ``reason`` is how it ended."""

    lost: dict[float, float] = field(default_factory=dict)
    value: float | None = None
    reason: str | None = None


def search(
    loss: Callable[[float], float], within: Range, asked: float, tolerance: float, most: int, name: str = "strength"
) -> Search:
    """Look for a strength that loses ``asked``, give or take ``tolerance``, by bisection.

    The middle comes first, then the end on the side where the answer lies, and then halves; an end is only tried
    where it matters.

    Args:
        loss: what a strength loses; called once for each.
        most: trials.
        name: of the strength, for the reason.
    """
    seen = Search()
    weak: float | None = None  # the strongest that loses too little, and the weakest that loses too much
    strong: float | None = None
    weaker = [within.weakest, *([] if within.outermost is None else [within.outermost])]
    stronger = [within.strongest, *within.beyond]
    trial = within.between(within.weakest, within.strongest)
    if trial is None:
        trial = within.weakest
    while trial is not None and len(seen.lost) < most:
        seen.lost[trial] = loss(trial)
        if abs(seen.lost[trial] - asked) <= tolerance + SLACK:
            seen.value = trial
            return seen
        if seen.lost[trial] < asked:
            weak = trial
        else:
            strong = trial
        if weak is not None and strong is not None:
            trial = within.between(weak, strong)
        else:
            trial = _next(stronger if strong is None else weaker, seen.lost)
    seen.reason = (
        _not_monotone(seen.lost, within, tolerance, name)
        or _out_of_reach(weak, strong, seen.lost, name, trial is None)
        or _between(weak, strong, seen.lost, name, trial is None)
    )
    return seen


def _next(ends: Iterable[float], tried: Mapping[float, float]) -> float | None:
    return next((end for end in ends if end not in tried), None)


def _not_monotone(lost: Mapping[float, float], within: Range, tolerance: float, name: str) -> str | None:
    """Where a stronger one lost less, by more than two that lose the same may differ."""
    upwards = within.strongest > within.weakest
    for weak, strong in combinations(sorted(lost, reverse=not upwards), 2):
        if lost[weak] - lost[strong] > 2 * tolerance + SLACK:
            return f"its losses do not rise with {name}: {_told(name, weak, lost)}, {_told(name, strong, lost)}"
    return None


def _out_of_reach(
    weak: float | None, strong: float | None, lost: Mapping[float, float], name: str, exhausted: bool
) -> str | None:
    """All that was tried lies on one side."""
    if (weak is None) == (strong is None) or not exhausted:
        return None
    if strong is None:
        assert weak is not None
        return f"even the strongest that was tried loses less: {_told(name, weak, lost)}"
    return f"even the weakest loses more: {_told(name, strong, lost)}"


def _between(
    weak: float | None, strong: float | None, lost: Mapping[float, float], name: str, exhausted: bool
) -> str:
    """The loss jumps, or the trials were too few."""
    nearest = " and ".join(_told(name, one, lost) for one in (weak, strong) if one is not None)
    return f"{name} jumps over it: {nearest}" if exhausted else f"not found in {len(lost)} trainings: {nearest}"


def _told(name: str, value: float, lost: Mapping[float, float]) -> str:
    return f"{name} = {value:g} loses {points(lost[value])}"


def points(share: float) -> str:
    """Such as ``2.9 points``."""
    return f"{100 * share:.1f} points"
