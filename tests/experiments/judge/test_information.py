"""Bits: closed forms of Gaussian channels, the error's direction, and Fano's bound by enumeration."""

import math

import numpy as np
import pytest
import torch
from tiny import HEAD, link_stages
from torch import Tensor

from splitleak.experiments.cells.build import cells_of
from splitleak.experiments.judge.metrics.information import (
    fano_rank_1,
    gaussian_information,
    mean_image_errors,
    usable_bits,
)
from splitleak.experiments.judge.scores import Truth, score_images
from splitleak.experiments.planning.names import CACHE
from splitleak.experiments.planning.plan import read_plan
from splitleak.experiments.stages.bounds import BoundsStage
from splitleak.experiments.store.store import Store
from splitleak.victims.seeding import seeded

FALLING = 1000 * torch.arange(1, 301).double() ** -1.5
"""Variances of 300 values, which fall as those of features do."""


def drawn(photos: int, variances: Tensor, seed: int) -> Tensor:
    """Independent values of these variances, turned into other directions, about a mean that tells nothing."""
    with seeded("turn", len(variances)):
        turn, _ = torch.linalg.qr(torch.randn(len(variances), len(variances), dtype=torch.float64))
    with seeded("features", seed):
        return 7 + torch.randn(photos, len(variances), dtype=torch.float64) * variances.sqrt() @ turn


def closed_form(variances: Tensor) -> float:
    return float((1 + variances).log2().sum() / 2)


def estimates(variances: Tensor, aimed: int, measured: int) -> float:
    found = [
        gaussian_information(drawn(aimed, variances, seed), drawn(measured, variances, 100 + seed))
        for seed in range(8)
    ]
    return float(np.mean(found))


def test_with_many_photos_it_is_the_closed_form() -> None:
    assert estimates(FALLING[:20], 1000, 1000) == pytest.approx(closed_form(FALLING[:20]), rel=0.005)


def test_with_few_photos_it_errs_upward_where_the_plain_determinant_errs_downward() -> None:
    exact = closed_form(FALLING)
    few, more = estimates(FALLING, 60, 60), estimates(FALLING, 500, 200)
    assert exact < more < few < 1.5 * exact
    assert more == pytest.approx(exact, rel=0.1)
    covariance = torch.cov(drawn(60, FALLING, 0).T)
    assert float(torch.logdet(torch.eye(300).double() + covariance)) / math.log(4) < 0.8 * exact


def test_more_noise_and_fewer_sends_tell_less() -> None:
    aimed, measured = drawn(400, FALLING[:20], 1), drawn(400, FALLING[:20], 2)
    one, four = (gaussian_information(scale * aimed, scale * measured) for scale in (1.0, 2.0))
    # a mean of four sends has half the noise
    assert four - one == pytest.approx(closed_form(4 * FALLING[:20]) - closed_form(FALLING[:20]), rel=0.01)
    assert one < four < 4 * one
    assert gaussian_information(torch.ones(5, 3), torch.ones(5, 3)) == 0
    with pytest.raises(ValueError, match="two photos"):
        gaussian_information(torch.ones(1, 3), torch.ones(5, 3))


@pytest.mark.parametrize("people", [2, 5, 40])
@pytest.mark.parametrize("right", [0.5, 0.7, 0.999])
def test_fano_is_met_where_all_errors_are_alike(people: int, right: float) -> None:
    """Information of a channel that names the right person so often, else any other, by enumeration."""
    table = np.full((people, people), (1 - right) / (people - 1) / people)
    np.fill_diagonal(table, right / people)
    rows, columns = table.sum(1, keepdims=True), table.sum(0, keepdims=True)
    bits = float((table * np.log2(table / (rows * columns))).sum())
    assert fano_rank_1(max(0.0, bits), people) == pytest.approx(right, abs=1e-6)


def test_fano_allows_no_less_than_the_best_guess_reaches() -> None:
    """Channels drawn at random: the likeliest person behind each release is right at most so often."""
    random = np.random.default_rng(0)
    for people in (2, 6, 15):
        table = random.exponential(size=(people, 8)) ** 3
        table /= table.sum(1, keepdims=True) * people
        bits = float((table * np.log2(table / (table.sum(1, keepdims=True) * table.sum(0)))).sum())
        assert table.max(0).sum() <= fano_rank_1(bits, people) < 1
    assert fano_rank_1(0.0, 8) == 1 / 8
    assert fano_rank_1(3.0, 8) == fano_rank_1(1e4, 8) == fano_rank_1(0.0, 1) == 1.0


def test_usable_bits_are_the_rate_of_a_gaussian_source() -> None:
    errors, floor = torch.tensor([0.01, 0.04, 0.09, 0.0]), torch.tensor([0.04, 0.04, 0.04, 0.04])
    found = usable_bits(errors, floor, 12)
    assert found[:3].tolist() == pytest.approx([12.0, 0.0, 0.0])  # a quarter of the error: one bit for each value
    assert found[3] == pytest.approx(6 * math.log2(0.04 * 12 * 255**2))  # exact but for the rounding to bytes


def test_they_are_scored_against_the_mean_of_known_photos() -> None:
    with seeded("bits"):
        known, photos = (torch.randint(256, (count, 3, 8, 8), dtype=torch.uint8) for count in (90, 70))
    floor = mean_image_errors(known, photos)
    mean = (known.numpy() / 255).mean(0)
    assert floor.tolist() == pytest.approx(((photos.numpy() / 255 - mean) ** 2).mean((1, 2, 3)).tolist())
    half = ((photos.double() + 255 * torch.from_numpy(mean)) / 2).round().to(torch.uint8)
    scores = score_images(half, Truth(photos, floor=floor))
    assert scores.values["usable_bits"].tolist() == pytest.approx([192.0] * 70, rel=0.02)
    assert "usable_bits" not in score_images(half, Truth(photos)).values


PLAN = (
    HEAD
    + '[[defenses]]\nname = "gaussian_noise"\nsigma = [2.0, 100.0]\n[[defenses]]\nname = "laplace_noise"\n'
    + '[[attacks]]\nname = "mean_image"\n'
)


def test_a_device_states_its_bits(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("bits")
    (folder / "plan.toml").write_text(PLAN)
    link_stages(folder / "runs" / CACHE)
    store = Store(folder / "runs" / CACHE, torch.device("cpu"))
    protected = {cell.defense.label: cell.protect for cell in cells_of(read_plan(folder / "plan.toml"))}
    weak, strong = (protected[f"gaussian_noise sigma={sigma}"] for sigma in (2.0, 100.0))
    found = {sends: BoundsStage(strong, sends).load(store) for sends in (1, 2500)}
    weaker = BoundsStage(weak).load(store)
    assert BoundsStage(protected["laplace_noise"]).load(store) is None
    assert found[1] is not None
    assert found[2500] is not None
    assert weaker is not None
    assert weaker.information_bits is not None
    # 2500 sends have a fiftieth of the noise: as much as one send with sigma = 2
    assert found[2500].information_bits == pytest.approx(weaker.information_bits, rel=1e-3)
    assert found[2500].dfil == pytest.approx(2500 * found[1].dfil, rel=1e-3)
    assert found[1].information_bits is not None
    assert 0 < found[1].information_bits < weaker.information_bits
    data = strong.victim.data.load(store)
    assert data.identities is not None
    people = len(set(data.identities["target"].tolist()) - {-1})
    assert found[1].people == people
    assert found[1].rank1_at_most == fano_rank_1(found[1].information_bits, people)
    # beside the features themselves: their values, taken one by one, tell at least what they tell together
    features = strong.stored_features("validation", store)
    assert features is not None
    noise = strong.facts(store)["guarantees"][0]["noise_std"]
    alone = closed_form(features.double().flatten(1).var(0) / noise**2)
    assert found[1].information_bits < 1.1 * alone
