"""The search for a strength: what it finds is what was asked for, and what it cannot find it explains."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import pytest
from annotated_types import Ge, Lt
from hypothesis import given
from hypothesis import strategies as st

from splitleak.defenses.base import Defense
from splitleak.defenses.clipped_noise import ClippedNoise
from splitleak.defenses.dropout import Dropout
from splitleak.defenses.gaussian_noise import GaussianNoise
from splitleak.defenses.quantisation import Quantisation
from splitleak.experiments.planning.plugins import defense_classes
from splitleak.experiments.stages.bisection import Range, Search, range_of, search
from splitleak.victims.settings import doc

HALF = 0.005
NOISE = Range(0.01, 32.0, "log")
BITS = Range(16, 1, "log", whole=True)
SEARCHED = [cls for cls in defense_classes().values() if cls.strength]
asked_shares = st.floats(0.02, 0.3)


def rising(steepness: float, middle: float) -> Callable[[float], float]:
    """Loses nothing, then up to half, as accuracy does under noise."""
    return lambda strength: 0.5 / (1 + math.exp(-steepness * (math.log(strength) - middle)))


@given(st.floats(0.5, 4), st.floats(-2, 2), asked_shares)
def test_a_smooth_loss_is_met(steepness: float, middle: float, asked: float) -> None:
    loss, calls = rising(steepness, middle), list[float]()

    def counted(strength: float) -> float:
        calls.append(strength)
        return loss(strength)

    seen = search(counted, NOISE, asked, HALF, most=20)
    if seen.value is None:
        assert seen.reason is not None
        assert "even the weakest loses more" in seen.reason
        assert loss(NOISE.weakest) > asked
    else:
        assert abs(loss(seen.value) - asked) <= HALF + 1e-9
        assert seen.reason is None
    assert len(calls) == len(set(calls)), "a strength was trained twice"
    assert dict.fromkeys(calls) == dict.fromkeys(seen.lost)


def test_seven_trainings_meet_what_noise_usually_loses() -> None:
    met = [search(rising(1.5, middle / 4), NOISE, 0.03, HALF, most=7).value for middle in range(4, 13)]
    assert all(met)


@given(st.lists(st.floats(0, 0.3), min_size=16, max_size=16).map(sorted), asked_shares)
def test_whole_strengths_are_met_or_jump_over_it(losses: list[float], asked: float) -> None:
    table = dict(zip(range(16, 0, -1), losses, strict=True))
    seen = search(table.__getitem__, BITS, asked, HALF, most=16, name="bits")
    within = [bits for bits, lost in table.items() if abs(lost - asked) <= HALF + 1e-9]
    assert (seen.value in within) if within else seen.value is None
    assert all(isinstance(bits, int) for bits in seen.lost)
    if seen.reason and "jumps over it" in seen.reason:
        weak = max(bits for bits in seen.lost if table[bits] > asked)
        assert weak + 1 in seen.lost, "there was a strength between"
        assert f"bits = {weak} loses" in seen.reason


@given(st.randoms(use_true_random=False), st.floats(0.001, 0.05), st.integers(2, 12), asked_shares)
def test_noise_on_the_losses_never_makes_it_claim_too_much(
    random: object, deviation: float, most: int, asked: float
) -> None:
    gauss: Callable[[float, float], float] = random.gauss  # type: ignore[attr-defined]
    loss = rising(2, 1)
    seen = search(lambda strength: loss(strength) + gauss(0, deviation), NOISE, asked, HALF, most)
    assert 1 <= len(seen.lost) <= most
    assert (seen.value is None) == (seen.reason is not None)
    if seen.value is not None:
        assert abs(seen.lost[seen.value] - asked) <= HALF + 1e-9


def told(loss: Callable[[float], float], within: Range = NOISE, most: int = 10) -> Search:
    return search(loss, within, 0.03, HALF, most, name="sigma")


def test_what_loses_too_little_says_so_with_the_strongest_that_was_tried() -> None:
    seen = told(lambda strength: 0.001, replace(NOISE, beyond=(320.0,)))
    assert seen.reason == "even the strongest that was tried loses less: sigma = 320 loses 0.1 points"
    assert len(seen.lost) == 3, "trainings were spent where nothing could be found"


def test_what_loses_too_much_says_so_with_the_weakest() -> None:
    seen = told(lambda strength: 0.2)
    assert seen.reason == "even the weakest loses more: sigma = 0.01 loses 20.0 points"
    assert len(seen.lost) == 2


def test_losses_that_fall_again_are_named() -> None:
    losses = iter([0.10, 0.001, 0.12, 0.02, 0.0])
    seen = told(lambda strength: next(losses), most=5)
    assert seen.reason is not None
    assert seen.reason.startswith("its losses do not rise with sigma")


def test_too_few_trainings_are_named() -> None:
    seen = told(lambda strength: 0.0 if strength < 1.234 else 0.2, most=4)
    assert seen.reason is not None
    assert seen.reason.startswith("not found in 4 trainings: sigma = ")


def test_a_step_is_named_once_nothing_lies_between() -> None:
    seen = told(lambda strength: 0.0 if strength < 1.234 else 0.2, most=60)
    assert seen.reason == "sigma jumps over it: sigma = 1.23 loses 0.0 points and sigma = 1.24 loses 20.0 points"


def test_beyond_the_strongest_a_decade_each_time_as_far_as_the_plugin_takes_it() -> None:
    assert range_of(GaussianNoise()) == Range(0.01, 32.0, "log", beyond=(320.0, 3200.0))
    assert told(lambda strength: 0.03 if strength == 320 else 0.0, range_of(GaussianNoise())).value == 320


def test_shares_that_end_below_one_are_halved_by_their_odds() -> None:
    within = range_of(Dropout())
    assert within.scale == "odds"
    assert within.beyond == pytest.approx((0.999, 0.9999), abs=1e-4)
    assert within.between(0.1, 0.9) == pytest.approx(0.5)


def test_an_infinite_end_is_tried_only_where_the_weakest_finite_one_loses_more() -> None:
    within = range_of(ClippedNoise())
    assert (within.weakest, within.strongest, within.outermost) == (1e4, 1.0, math.inf)
    assert math.inf not in told(lambda epsilon: 0.05 if epsilon < 300 else 0.0, within).lost
    seen = told(lambda epsilon: 0.05 if epsilon < 3e5 else 0.03 if epsilon < 1e7 else 0.0, within)
    assert seen.value is not None
    assert 3e5 <= seen.value < 1e7
    assert math.inf in seen.lost


def test_bits_are_whole() -> None:
    within = range_of(Quantisation())
    assert (within.weakest, within.strongest, within.whole, within.beyond) == (16, 1, True, ())
    assert within.between(3, 2) is None


@dataclass(frozen=True)
class _FromZero(Defense):
    paper: ClassVar[str] = "none"
    strength: ClassVar[str] = "weight"
    strengths: ClassVar[tuple[float, ...]] = (0.0, 0.1, 10.0)

    weight: Annotated[float, Ge(0), doc("of something")] = 1.0


@dataclass(frozen=True)
class _Narrow(_FromZero):
    strengths: ClassVar[tuple[float, ...]] = (0.0, 0.5, 1.0)

    weight: Annotated[float, Ge(0), Lt(2), doc("of something")] = 1.0


def test_zero_has_no_place_among_decades() -> None:
    within = range_of(_FromZero())
    assert (within.weakest, within.outermost, within.scale) == (0.1, 0.0, "log")
    assert within.between(0.0, 0.1) == pytest.approx(0.01)
    assert range_of(_Narrow()) == Range(0.0, 1.0)


@pytest.mark.parametrize("cls", SEARCHED, ids=lambda cls: cls.name)
def test_every_defence_takes_what_a_search_tries(cls: type[Defense]) -> None:
    assert cls.strength is not None
    defense = cls(**{cls.strength: cls.strengths[-1]})
    within = range_of(defense)
    middle = within.between(within.weakest, within.strongest)
    assert middle is not None
    assert min(within.weakest, within.strongest) < middle < max(within.weakest, within.strongest)
    ends = [within.weakest, within.strongest, middle, *within.beyond]
    ends += [] if within.outermost is None else [within.outermost]
    for strength in ends:
        assert getattr(replace(defense, **{cls.strength: strength}), cls.strength) == strength
