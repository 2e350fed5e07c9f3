"""A private attribute read from what is sent: the judge's score, and the attack."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from splitleak.attacks.base import Answer, AttributeInference, Scene
from splitleak.attacks.checks import check_attack
from splitleak.attacks.infer_attribute import InferAttribute
from splitleak.attacks.knowledge import AttackerPart, BlackBox
from splitleak.attacks.toy import CLASSES, TARGETS, TOY_SCENE, toy_knowledge
from splitleak.experiments.judge.metrics.attributes import balanced_accuracy, chance_of_balanced_accuracy
from splitleak.experiments.judge.scores import Truth, score_answers
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.seeding import seeded

labelled = st.integers(2, 5).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        st.lists(st.tuples(st.integers(-1, classes - 1), st.integers(0, classes - 1)), min_size=2, max_size=40),
    )
)


def one_hot(predicted: list[int], classes: int) -> Tensor:
    return torch.eye(classes)[predicted]


@settings(max_examples=100, deadline=None)
@given(labelled)
def test_balanced_accuracy_is_the_mean_recall(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    classes, pairs = drawn
    labels = torch.tensor([label for label, _ in pairs])
    values = balanced_accuracy(one_hot([guess for _, guess in pairs], classes), labels).numpy()
    recall = [
        np.mean([guess == label for label, guess in pairs if label == wanted])
        for wanted in range(classes)
        if any(label == wanted for label, _ in pairs)
    ]
    assert (np.isnan(values) == (labels.numpy() < 0)).all()
    if recall:
        assert np.nanmean(values) == pytest.approx(np.mean(recall))
        assert chance_of_balanced_accuracy(labels) == pytest.approx(1 / len(recall))


def test_a_constant_answer_scores_chance_however_rare_a_class() -> None:
    labels = torch.tensor([0] * 95 + [1] * 5)
    for always in (0, 1):
        assert balanced_accuracy(one_hot([always] * 100, 2), labels).mean().item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        (torch.zeros(3, 2), torch.zeros(4, dtype=torch.int64)),
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(3, 2), torch.full((3,), 2)),
        (torch.full((3, 2), torch.nan), torch.zeros(3, dtype=torch.int64)),
    ],
    ids=["lengths differ", "no classes", "a class without a score", "not a number"],
)
def test_what_cannot_be_scored_is_refused(scores: Tensor, labels: Tensor) -> None:
    with pytest.raises(ValueError, match="scores"):
        balanced_accuracy(scores, labels)


def truth(**attributes: list[int]) -> Truth:
    labels = {name: torch.tensor(values) for name, values in attributes.items()}
    return Truth(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), labels, task="mask")


def test_the_first_label_that_is_not_the_task_is_scored() -> None:
    of = truth(mask=[0, 1, 0, 1], glasses=[0, 0, 1, -1], sex=[1, 1, 0, 0])
    scores = score_answers(InferAttribute(), one_hot([0, 1, 1, 1], 2), of)
    assert scores.values["balanced_accuracy"].tolist()[:3] == [0.75, 0.0, 1.5]
    assert scores.values["balanced_accuracy"][3].isnan()
    assert scores.references == {"balanced_accuracy": {"chance": 0.5}}
    named = score_answers(InferAttribute(attribute="sex"), one_hot([1, 1, 0, 0], 2), of)
    assert named.values["balanced_accuracy"].mean() == 1


def test_where_all_targets_are_alike_the_metric_is_absent() -> None:
    of = truth(mask=[0, 1, 0, 1], glasses=[1, 1, -1, 1])
    assert score_answers(InferAttribute(), one_hot([1, 1, 1, 1], 2), of).values == {}


def test_a_named_attribute_that_the_photos_lack_is_refused() -> None:
    scene = Scene((4, 2, 2), (3, 32, 32), task="mask", attributes=("mask",))
    for carried, said in ((("mask",), "mask"), ((), "no labels")):
        attack, there = InferAttribute(attribute="sex"), replace(scene, attributes=carried)
        assert attack.inapplicable(there) is None
        with pytest.raises(InvalidInputError, match=f"the photos carry {said}"):
            attack.check(there)


def test_without_a_label_beside_the_task_there_is_nothing_to_infer() -> None:
    scene = Scene((4, 2, 2), (3, 32, 32), task="mask", attributes=("mask",))
    reason = "infer_attribute does not apply: it needs labels beside the task, and the photos carry none"
    assert InferAttribute().inapplicable(scene) == reason
    assert InferAttribute().inapplicable(replace(scene, attributes=())) == reason
    assert InferAttribute().inapplicable(replace(scene, attributes=("mask", "sex"))) is None


def knowledge(labels: Mapping[AttackerPart, Tensor]) -> BlackBox:
    knows, _ = toy_knowledge(InferAttribute())
    assert isinstance(knows, BlackBox)
    return replace(knows, labels={part: {**knows.labels[part], "light": of} for part, of in labels.items()})


def test_unknown_labels_are_left_out_and_not_asked_for() -> None:
    toy, _ = toy_knowledge(InferAttribute())
    light = {part: of["light"].clone() for part, of in toy.labels.items()}
    light["auxiliary"][64:] = -1
    light["validation"][:] = -1
    knows = knowledge(light)
    rows: list[dict[str, float]] = []
    knows.log = rows.append
    with seeded("test"):
        InferAttribute(epochs=2, batch_size=32).fit(knows)
    assert knows.queries == 2 * 64
    assert all("validation_loss" not in row for row in rows)


def test_one_class_teaches_nothing() -> None:
    toy, _ = toy_knowledge(InferAttribute())
    with pytest.raises(InvalidInputError, match="'light' is the same on all auxiliary photos"):
        InferAttribute().fit(knowledge({part: torch.ones_like(of["light"]) for part, of in toy.labels.items()}))


def test_a_rare_class_is_read_too() -> None:
    """One bright picture in twenty: plain accuracy would be had by never saying so."""
    toy, _ = toy_knowledge(InferAttribute())
    light = {part: of["light"].clone() for part, of in toy.labels.items()}
    bright = light["auxiliary"].nonzero().flatten()
    light["auxiliary"][bright[len(bright) // 10 :]] = -1
    knows = knowledge(light)
    with seeded("test"):
        answer = InferAttribute().fit(knows)
        said = answer(knows.intercepted).argmax(1)
    assert said.bincount(minlength=2).min() > TARGETS / 5


@dataclass(frozen=True)
class _Constant(AttributeInference[BlackBox]):
    paper: ClassVar[str] = "a test's"

    def fit(self, knows: BlackBox) -> Answer:
        return lambda release: torch.zeros(len(release), len(CLASSES["light"]))


@dataclass(frozen=True)
class _WrongClasses(AttributeInference[BlackBox]):
    paper: ClassVar[str] = "a test's"

    def fit(self, knows: BlackBox) -> Answer:
        return lambda release: torch.full((len(release), 5), torch.inf)


@pytest.mark.parametrize(
    ("attack", "promise"),
    [(_Constant(), "reads the attribute better than chance"), (_WrongClasses(), "answers with scores")],
    ids=["constant", "wrong classes"],
)
def test_the_contract_checks_notice(attack: AttributeInference[Any], promise: str) -> None:
    assert any(promise in problem for problem in check_attack(attack))


def test_an_attribute_that_the_toy_lacks_is_named() -> None:
    assert "sex" not in TOY_SCENE.attributes
    with pytest.raises(InvalidInputError, match="attribute = 'sex'"):
        check_attack(InferAttribute(attribute="sex"))
