"""Each flag is raised by what it names and by nothing less, and every output shows it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from splitleak.experiments.judge.doubts import converged, cut_off, overfitted
from splitleak.experiments.judge.flags import FLAGS, Evidence, flags_of
from splitleak.experiments.judge.statistics.interval import Array
from splitleak.experiments.judge.statistics.matched import Setting
from splitleak.experiments.judge.statistics.pareto import area, pareto
from splitleak.experiments.judge.statistics.relative import relative

SOUND = Evidence(photos=500, seeds=3, draws=3)


def _photos(mean: float, seed: int = 0, photos: int = 100) -> Array:
    """PSNR (1, photos): photos are as hard for one attack as for another."""
    hard = np.random.default_rng(0).normal(0, 2, (1, 500))[:, :photos]
    values: Array = mean + hard + np.random.default_rng(seed).normal(0, 0.2, (1, photos))
    return values


RAISING = {
    "white-box-below-black-box": replace(SOUND, leakage=_photos(19.5, 1, 60), black_box=_photos(20, 2)),
    "below-floor": replace(SOUND, leakage=_photos(13.5, 1), floor=_photos(14, 2)),
    "not-converged": replace(SOUND, converged=False),
    "defence-cut-short": replace(SOUND, cut_short=True),
    "overfitted": replace(SOUND, overfitted=True),
    "zero-gradient": replace(SOUND, gradient=0.0),
    "one-draw": replace(SOUND, seeds=1, draws=1, random=True),
    "one-training": replace(SOUND, seeds=1),
    "untried-photos": replace(SOUND, untried=1),
    "overlap": replace(SOUND, overlap=1),
    "few-photos": replace(SOUND, photos=49),
    "utility-not-matched": replace(SOUND, unmatched=True),
    "unaware-attacker": replace(SOUND, adaptive=False),
    "epsilon-without-sensitivity": replace(SOUND, unbounded=True),
    "epsilon-refuted": replace(SOUND, refuted=True),
    "information-above-claim": replace(SOUND, talkative=True),
    "defence-absent": replace(SOUND, absent=True),
    "frozen-draw": replace(SOUND, frozen=True),
    "few-patterns": replace(SOUND, patterns=2),
    "answers-without-release": replace(SOUND, floor=_photos(13, 1), shuffled=_photos(14, 2)),
    "range-cut-off": replace(SOUND, cut_off=0.06),
}
SILENT = {
    "no evidence": SOUND,
    "a better white box": replace(SOUND, leakage=_photos(20.5, 1), black_box=_photos(20, 2)),
    "an equal white box": replace(SOUND, leakage=_photos(20, 1), black_box=_photos(20, 2)),
    "at the floor": replace(SOUND, leakage=_photos(14, 1), floor=_photos(14, 2), shuffled=_photos(14, 3)),
    "a hair below the floor": replace(SOUND, leakage=_photos(13.95, 1), floor=_photos(14, 1)),
    "the floor itself": replace(SOUND, floors=True, leakage=_photos(14, 1), floor=_photos(14.5, 2)),
    "converged": replace(SOUND, converged=True),
    "trained until it stalled": replace(SOUND, cut_short=False),
    "not overfitted": replace(SOUND, overfitted=False),
    "a gradient": replace(SOUND, gradient=1e-6),
    "one draw of what does not vary": replace(SOUND, draws=1),
    "a single photo": replace(SOUND, leakage=_photos(1, 1, 1), floor=_photos(14, 2, 1)),
    "several seeds of one draw": replace(SOUND, draws=1, random=True),
    "enough photos": replace(SOUND, photos=50),
    "shuffled releases below the floor": replace(SOUND, floor=_photos(13, 1), shuffled=_photos(12, 2)),
}


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_is_raised_by_what_it_names(name: str) -> None:
    beside = {"one-draw": ("one-training",)}  # one draw under several seeds is several
    assert set(flags_of(RAISING[name])) == {name, *beside.get(name, ())}


def test_a_person_counts_once_in_a_flag() -> None:
    """Fifty photos of which forty show one man on whom the attack fails are below the floor by that man alone."""
    worse = np.full((1, 50), 14.0) + np.random.default_rng(1).normal(0, 0.2, (1, 50))
    worse[:, :40] -= 2
    evidence = replace(SOUND, leakage=worse, floor=np.full((1, 50), 14.0))
    assert flags_of(evidence) == ("below-floor",)
    assert flags_of(replace(evidence, groups=[0] * 40 + list(range(1, 11)))) == ()


def test_seeds_that_disagree_raise_no_flag_of_one_of_them() -> None:
    floor, apart = _photos(14, 2), np.array([[-3.0], [2.9]])
    both = replace(SOUND, leakage=np.vstack([floor, floor]) + apart, floor=np.vstack([floor, floor]))
    assert flags_of(replace(both, leakage=both.leakage[:1], floor=floor)) == ("below-floor",)  # type: ignore[index]
    assert flags_of(both) == ()


@pytest.mark.parametrize("case", SILENT)
def test_what_is_sound_raises_none(case: str) -> None:
    assert flags_of(SILENT[case]) == ()


def test_a_gradient_that_is_no_number_counts_as_none() -> None:
    assert flags_of(replace(SOUND, gradient=float("nan"))) == ("zero-gradient",)


def _training(*losses: float) -> list[dict[str, float]]:
    return [{"epoch": float(epoch), "validation_loss": loss} for epoch, loss in enumerate(losses, 1)]


def _search(*losses: float) -> list[dict[str, float]]:
    return [{"step": float(step), "images_left": 4.0, "loss": loss} for step, loss in enumerate(losses)]


FLAT, FALLING = (1.0, 0.5, 0.3, 0.299), (1.0, 0.8, 0.6, 0.4)


def test_a_curve_has_converged_when_its_end_brings_little() -> None:
    assert converged(_training(*FLAT)) is True
    assert converged(_training(*FALLING)) is False
    assert converged(_search(*FALLING)) is False
    assert converged(_training(1.0)) is False  # nothing shows it
    assert converged([]) is None
    assert converged([{"penalty": 0.1, "validation_loss": 0.2}]) is None  # a grid of settings is no curve
    # the loss of a network that overfits rises again, and its best epoch was kept
    assert converged(_training(1.0, 0.5, 0.4, 0.45, 0.6)) is True


def test_a_curve_is_overfitted_when_its_best_lies_long_before_a_worse_end() -> None:
    assert overfitted(_training(1.0, 0.5, 0.4, 0.45, 0.6)) is True
    assert overfitted(_training(1.0, 0.5, 0.4, 0.41, 0.42)) is False  # a thirtieth of the gain is luck
    assert overfitted(_training(1.0, 0.6, 0.5, 0.4, 0.6)) is False  # one epoch past the best
    assert overfitted(_training(*FLAT)) is False
    assert overfitted(_training(*FALLING)) is False
    assert overfitted(_training(0.5, 0.6, 0.7, 0.8, 0.9)) is False  # it never learned: another fault
    assert overfitted([*_training(1.0, 0.5, 0.4, 0.45, 0.6), *_training(*FLAT)]) is True  # one of several networks
    assert overfitted(_search(1.0, 0.5, 0.4, 0.45, 0.6)) is None  # a search learns nothing by heart


def test_all_trainings_count_and_of_the_searches_the_last() -> None:
    assert converged([*_training(*FLAT), *_training(*FALLING)]) is False
    assert converged([*_training(*FALLING), *_training(*FLAT)]) is False
    assert converged([*_training(*FLAT), *_search(*FALLING), *_search(*FLAT)]) is True
    assert converged([*_training(*FLAT), *_search(*FLAT), *_search(*FALLING)]) is False


def test_a_dark_range_that_is_cut_off() -> None:
    images = torch.arange(256, dtype=torch.uint8).repeat(2, 3, 16, 1)
    assert cut_off(images, images.clamp(min=64)) == pytest.approx(0.25, abs=0.01)
    assert cut_off(images, images) == 0
    # an attack that only rebuilds greyer than the truth does not pile up at its darkest value
    assert cut_off(images, (images.float() * 0.5 + 64).to(torch.uint8)) < 0.05


def test_what_still_leaks_is_relative_to_floor_and_undefended() -> None:
    floor, undefended = _photos(13, 1), _photos(23, 2)
    half = relative(_photos(18, 3), undefended, floor)
    assert half is not None
    assert half.mean == pytest.approx(0.5, abs=0.02)
    assert half.low < 0.5 < half.high
    assert half.high - half.low < 0.05  # what makes a photo hard cancels
    assert relative(floor, undefended, floor) == (0, 0, 0)
    assert relative(undefended, undefended, floor) == (1, 1, 1)
    assert relative(floor, _photos(13.2, 4), floor) is None  # nothing leaked before
    fewer = relative(_photos(18, 3, 40), undefended, floor)
    assert fewer is not None
    assert fewer.mean == pytest.approx(0.5, abs=0.03)


def _setting(utility: float, leakage: float, noise: float = 0.0) -> Setting:
    random = np.random.default_rng(int(100 * leakage))
    return Setting(
        utility + noise * random.normal(size=(1, 200)),
        np.full((1, 200), leakage) + noise * random.normal(size=(1, 200)),
    )


def test_the_pareto_set_is_of_settings_that_no_other_beats() -> None:
    settings = [_setting(0.9, 24), _setting(0.9, 20), _setting(0.8, 22), _setting(0.7, 15), _setting(0.7, 15)]
    members, shares = pareto(settings)
    assert members == [False, True, False, True, True]  # equals do not beat each other
    assert shares == [0, 1, 0, 1, 1]


def test_membership_is_as_sure_as_the_photos_make_it() -> None:
    close = [_setting(0.9, 20.00, 1.0), _setting(0.9, 20.01, 1.0), _setting(0.9, 30, 1.0)]
    _, shares = pareto(close)
    assert all(0.1 < share < 1 for share in shares[:2])
    assert shares[2] < 0.6  # in the set only where its utility happens to be the highest


def test_a_member_is_one_in_half_of_the_resamples() -> None:
    random = np.random.default_rng(2)
    settings = [Setting(random.normal(0.9, 0.3, (1, 50)), random.normal(20, 3, (1, 50))) for _ in range(12)]
    means = [(setting.utility.mean(), setting.leakage.mean()) for setting in settings]
    undominated = [
        not any(u >= useful and v <= leaks and (u, v) != (useful, leaks) for u, v in means) for useful, leaks in means
    ]
    members, shares = pareto(settings)
    assert members == [best and share >= 0.5 for best, share in zip(undominated, shares, strict=True)]
    assert 0 < sum(members) < sum(undominated)


def test_the_area_is_that_of_the_staircase() -> None:
    reference = _setting(0.9, 24)
    assert area(reference, [_setting(0.9, 20)], 0.1).mean == pytest.approx(20)
    assert area(reference, [_setting(0.85, 14)], 0.1).mean == pytest.approx((24 + 14) / 2)
    assert area(reference, [_setting(0.5, 1)], 0.1).mean == pytest.approx(24)  # not within ten points
    assert area(reference, [_setting(0.88, 20), _setting(0.84, 14), _setting(0.82, 30)], 0.1).mean == pytest.approx(
        0.2 * 24 + 0.4 * 20 + 0.4 * 14
    )
