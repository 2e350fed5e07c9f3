"""Every kind of task keeps the contract, and measures what its name says."""

import pytest
import torch

from splitleak.experiments.planning.plugins import task_classes
from splitleak.experiments.tools.templates.task import MyTask
from splitleak.victims.data.base import IGNORED
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.tasks.base import Task
from splitleak.victims.tasks.checks import check_task, toy_targets
from splitleak.victims.tasks.detection import MOST, Detection
from splitleak.victims.tasks.segmentation import Segmentation


@pytest.mark.parametrize("task", [*task_classes().values(), MyTask], ids=lambda task: task.name)
def test_a_task_keeps_its_contract(task: type[Task]) -> None:
    assert check_task(task()) == []


def test_each_form_but_values_has_one_built_in_task() -> None:
    assert sorted(task.form for task in task_classes().values()) == ["boxes", "class", "mask"]


class Lenient(MyTask):
    """Says of everything that it is perfect, and sums its loss."""

    def utility(self, predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(targets), dtype=torch.float64)

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (outputs - targets).square().sum()


def test_a_task_that_breaks_promises_is_told_which() -> None:
    broken = "\n".join(check_task(Lenient()))
    assert "training is worth more than chance" in broken
    assert "take the mean" in broken


def test_intersection_over_union_is_of_the_classes_that_a_photo_shows() -> None:
    target = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, IGNORED]]], dtype=torch.uint8)
    said = torch.tensor([[[0, 0, 0, 1], [0, 0, 1, 2]]], dtype=torch.uint8)
    # of class 0: 4 of 5; of class 1: 2 of 3; the pixel that is ignored may be anything
    assert Segmentation().utility(said, target).tolist() == pytest.approx([(4 / 5 + 2 / 3) / 2])
    assert Segmentation().utility(torch.full_like(said, 2), target).tolist() == [0]


def test_the_constant_mask_is_the_commonest_class_of_each_place() -> None:
    targets = torch.tensor([[[0, 1]], [[0, 1]], [[1, 1]]], dtype=torch.uint8)
    assert Segmentation().chance(targets) == pytest.approx((1 + 1 + 1 / 2) / 3)


def boxes(*rows: list[float]) -> torch.Tensor:
    return torch.tensor([rows])


THERE = boxes([0.0, 0.0, 0.4, 0.4, 0], [0.5, 0.5, 0.9, 0.9, 1], [-1, -1, -1, -1, -1])


def test_f1_counts_each_thing_once_and_its_class() -> None:
    twice = boxes([0.0, 0.0, 0.4, 0.4, 0, 0.9], [0.0, 0.0, 0.4, 0.41, 0, 0.8], [0.5, 0.5, 0.9, 0.9, 0, 0.8])
    # one of three boxes is right, of two things: the second finds nothing new, the third names the wrong class
    assert Detection().utility(twice, THERE).tolist() == pytest.approx([2 * 1 / (3 + 2)])
    unsure = boxes([0.0, 0.0, 0.4, 0.4, 0, 0.9], [0.5, 0.5, 0.9, 0.9, 0, 0.4])
    assert Detection().utility(unsure, THERE).tolist() == pytest.approx([2 * 1 / (1 + 2)])
    beside = boxes([0.2, 0.0, 0.6, 0.4, 0, 0.9])  # a third of the union
    assert Detection().utility(beside, THERE).tolist() == [0]


def test_nothing_said_of_nothing_is_right() -> None:
    nothing = torch.full((1, 2, 5), -1.0)
    assert Detection().utility(nothing, nothing).tolist() == [1]
    assert Detection().utility(nothing, THERE).tolist() == [0]


def test_the_mean_average_precision_of_the_truth_is_one() -> None:
    pytest.importorskip("faster_coco_eval")
    targets = toy_targets("boxes")
    sure = torch.cat([targets, torch.ones(*targets.shape[:2], 1)], 2)
    found = Detection().summary(sure, targets)
    assert found == {"mAP": pytest.approx(1), "mAP at IoU 0.5": pytest.approx(1)}
    wrong = sure.clone()
    wrong[..., 4] = (wrong[..., 4] + 1) % 3
    assert Detection().summary(wrong, targets)["mAP"] < 0.1


def test_decisions_are_of_a_fixed_number_of_rows_the_likeliest_first() -> None:
    outputs = torch.randn(2, 30, 4 + 4 + 1 + 2)
    outputs[..., :4] = torch.tensor([0.1, 0.1, 0.5, 0.5])
    outputs[..., 4:8] = 0
    said = Detection().predict(outputs)
    assert said.shape == (2, MOST, 6)
    assert (said[..., 5].diff(dim=1) <= 0).all()
    assert said[..., 4].max() <= 1


def test_a_network_with_other_outputs_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"\(4,\), but the task has 3 classes and takes \(3, 8, 8\)"):
        Segmentation().check((4,), 3, 8)
    Detection().check((312, 12), 3, 96)
    with pytest.raises(InvalidInputError, match=r"takes \(any, 12\)"):
        Detection().check((312, 13), 3, 96)
