"""Identity counts each person once, beside two floors: against brute force over people, names and orders."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from splitleak.attacks.infer_attribute import InferAttribute
from splitleak.attacks.mean_image import MeanImage
from splitleak.attacks.reidentify import Reidentify
from splitleak.experiments.judge.metrics.identity import (
    Comparisons,
    constant_rank_1,
    constant_true_accepts,
    person_shares,
    rank_1,
    true_accepts,
)
from splitleak.experiments.judge.scores import Recogniser, Truth, identity_merit, score_identity, score_links
from splitleak.experiments.judge.statistics.groups import person_means
from splitleak.experiments.judge.statistics.interval import interval
from splitleak.victims.seeding import seeded


@st.composite
def photographed(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Coarse embeddings and who is on the photos; some unknown, some on one photo alone."""
    people = torch.tensor(draw(st.lists(st.integers(-1, 3), min_size=4, max_size=12)))
    values = draw(st.lists(st.integers(-2, 2), min_size=len(people), max_size=len(people)))
    return torch.tensor(values).float()[:, None], people


def by_hand(values: Tensor, people: Tensor) -> list[float]:
    """The mean of each person whose photos count, in order of their numbers."""
    own: dict[int, list[float]] = {}
    for value, person in zip(values.tolist(), people.tolist(), strict=True):
        if not np.isnan(value):
            own.setdefault(person, []).append(value)
    return [float(np.mean(own[person])) for person in sorted(own)]


@settings(max_examples=100, deadline=None)
@given(photographed())
def test_each_person_counts_once(drawn: tuple[Tensor, Tensor]) -> None:
    embeddings, people = drawn
    comparisons = Comparisons.of(embeddings, embeddings, people)
    if not comparisons.counted.any():
        return
    values = rank_1(comparisons)
    assert person_means(values, people).tolist() == pytest.approx(by_hand(values, people))
    shares = person_shares(comparisons, people)
    assert float(shares @ values.nan_to_num()) == pytest.approx(np.mean(by_hand(values, people)))
    seeds = torch.stack([values, 1 - values])
    assert np.array_equal(person_means(seeds, people)[0], person_means(values, people))


def test_one_man_on_many_photos_is_one_man() -> None:
    """He is recognised nine times in ten, the 20 others, on two photos each, once in ten."""
    people = torch.cat([torch.zeros(40), 1 + torch.arange(40) // 2]).long()
    values = torch.cat([torch.tensor([1.0] * 36 + [0.0] * 4), torch.tensor(([1.0] + [0.0] * 9) * 4)])
    assert values.mean() == pytest.approx(0.5)
    means = person_means(values, people)
    assert means.shape == (21,)
    assert means.mean() == pytest.approx((0.9 + 20 * 0.1) / 21)
    found = interval(means)
    assert found.mean == pytest.approx(float(means.mean()))
    assert found.low < found.mean < found.high < 0.5


def test_photos_of_others_are_refused() -> None:
    with pytest.raises(ValueError, match="people"):
        person_means(torch.zeros(3), torch.zeros(2, dtype=torch.int64))


def constant_answers(people: Tensor) -> tuple[list[Comparisons], Tensor]:
    """Every order in which an answer that is the same for all photos can put the gallery."""
    orders = permutations(range(len(people)))
    probes = torch.zeros(len(people), 1)
    return [Comparisons.of(probes, torch.tensor(order).float()[:, None] + 1, people) for order in orders], people


@pytest.mark.parametrize("people", [[0, 0, 1, 1, 1, 2], [0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 1, -1]])
@pytest.mark.parametrize("far", [0.01, 0.2, 0.5])
def test_no_constant_answer_is_above_its_floor(people: list[int], far: float) -> None:
    orders, who = constant_answers(torch.tensor(people))
    shares = person_shares(orders[0], who)
    named = [float(shares @ rank_1(one).nan_to_num()) for one in orders]
    assert constant_rank_1(orders[0], shares) == pytest.approx(max(named))
    accepted = [float(shares @ true_accepts(one, far).nan_to_num()) for one in orders]
    assert constant_true_accepts(orders[0], shares, far) == pytest.approx(max(accepted))


def test_scores_stand_beside_both_floors() -> None:
    people = torch.tensor([0] * 6 + [1] * 2 + [2] * 2)
    with seeded("floors"):
        photos = people[:, None].double() + 0.01 * torch.rand(10, 1, dtype=torch.float64)
        rebuilt = torch.zeros(10, 1, dtype=torch.float64)  # of whom never looked: everybody is person 0
    truth = Truth(
        torch.zeros(10, 3, 8, 8, dtype=torch.uint8),
        identities=people,
        recogniser=Recogniser(photos, lambda _: rebuilt),
    )
    scores = score_links(rebuilt, photos, truth)
    assert scores.values["rank1"].tolist() == [1.0] * 6 + [0.0] * 4
    person = scores.references["rank1"]
    assert person["constant"] == pytest.approx(1 / 3)  # far above chance, and still nobody was recognised
    assert person_means(scores.values["rank1"], people).mean() == pytest.approx(person["constant"])
    assert person["chance"] == pytest.approx((5 / 9 + 1 / 9 + 1 / 9) / 3)
    assert person["ceiling"] == 1.0
    assert scores.references["tar_at_far_1"]["chance"] == pytest.approx(0.01)
    assert scores.references["tar_at_far_1"]["constant"] >= 0.01


def test_what_an_attack_reaches_on_other_people_counts_each_once() -> None:
    people = torch.tensor([0] * 6 + [1] * 2)
    grey = torch.zeros(8, 3, 16, 16, dtype=torch.uint8)
    photos = people[:, None].double()
    truth = Truth(grey, identities=people, recogniser=Recogniser(photos, lambda images: torch.zeros(len(images), 1)))
    # who always names person 0 is right on six of eight photos, and about one of two people
    assert identity_merit(MeanImage(), grey, truth) == pytest.approx(0.5)
    assert identity_merit(MeanImage(), grey[:7], truth) == pytest.approx(0.5)
    assert identity_merit(Reidentify(), photos, truth) == 1.0
    assert identity_merit(InferAttribute(), torch.zeros(8, 2), truth) is None
    assert identity_merit(Reidentify(), photos, Truth(grey)) is identity_merit(MeanImage(), grey, Truth(grey)) is None


def test_the_first_answers_are_sought_among_all_photos() -> None:
    people = torch.tensor([0, 0, 1, 1])
    telling = (100 * people[:, None, None, None]).expand(4, 3, 16, 16).to(torch.uint8)
    truth = Truth(
        telling,
        identities=people,
        recogniser=Recogniser(people[:, None].double(), lambda images: images[:, :1, 0, 0].double() / 100),
    )
    grey = torch.zeros_like(telling)
    assert score_identity(MeanImage(), telling, truth).values["rank1"].tolist() == [1.0] * 4
    assert score_identity(MeanImage(), grey, truth).values["rank1"].mean() == 0.5
    for attack, answers in ((MeanImage(), telling), (Reidentify(), people[:, None].double())):
        first = score_identity(attack, answers, truth, 1)
        assert first.values["rank1"].tolist() == [1.0]  # though no other of the first photos shows this person
    assert not score_identity(InferAttribute(), torch.zeros(4, 2), truth).values
