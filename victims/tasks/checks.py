"""The contract checks of a task: what everybody who measures relies on."""

import math

import torch
from torch import Tensor

from splitleak.victims.data.base import Form
from splitleak.victims.seeding import seeded
from splitleak.victims.tasks.base import Task
from splitleak.victims.toy import broken_promises

PHOTOS, CLASSES, SIZE, THINGS, ANCHORS = 24, 3, 8, 2, 16
STEPS, RATE = 200, 0.1


def check_task(task: Task) -> list[str]:
    """One line for each promise that a task breaks on toy outputs and targets; none where it keeps all."""
    return broken_promises(
        (
            _a_target_is_a_perfect_prediction,
            _utility_is_a_share_of_each_photo,
            _predictions_have_the_targets_form,
            _loss_is_a_mean_that_training_makes_small,
            _training_is_worth_more_than_chance,
            _inputs_are_left_as_found,
        ),
        task,
    )


def toy_targets(form: Form) -> Tensor:
    """Labels of a few photos that do not exist, in one of the forms."""
    with seeded("toy targets", form):
        numbers = torch.arange(PHOTOS) % CLASSES
        if form == "class":
            return numbers
        if form == "mask":
            mask = numbers[:, None, None].repeat(1, SIZE, SIZE)
            mask[:, : SIZE // 2] = 0
            return mask.to(torch.uint8)
        if form == "values":
            return torch.rand(PHOTOS, CLASSES) * 2 - 1
        corners = torch.rand(PHOTOS, THINGS, 2) * 0.3 + torch.tensor([[0.0, 0.0], [0.5, 0.5]])
        labels = (numbers[:, None] + torch.arange(THINGS)) % CLASSES
        return torch.cat([corners, corners + 0.2, labels[..., None]], 2)


def toy_outputs(task: Task, targets: Tensor) -> Tensor:
    """What an untrained network could say of these photos; a boxes' row begins with a default box."""
    shape = [ANCHORS if length is None else length for length in task.outputs(CLASSES, SIZE)]
    with seeded("toy outputs"):
        outputs = 0.1 * torch.randn(len(targets), *shape)
    if task.form == "boxes":
        side = math.isqrt(ANCHORS)
        middle = (torch.stack([torch.arange(ANCHORS) % side, torch.arange(ANCHORS) // side], 1) + 0.5) / side
        outputs[..., :4] = torch.cat([middle - 0.125, middle + 0.125], 1)
    return outputs


def _learned(task: Task) -> tuple[Tensor, Tensor, Tensor]:
    """Targets, outputs before, and those that gradient descent on the loss makes of them."""
    targets = toy_targets(task.form)
    before = toy_outputs(task, targets)
    fixed = 4 if task.form == "boxes" else 0
    moved = before[..., fixed:].clone().requires_grad_()
    optimizer = torch.optim.Adam([moved], RATE)
    for _ in range(STEPS):
        optimizer.zero_grad()
        task.loss(torch.cat([before[..., :fixed], moved], -1), targets).backward()
        optimizer.step()
    return targets, before, torch.cat([before[..., :fixed], moved.detach()], -1)


def _a_target_is_a_perfect_prediction(task: Task) -> None:
    targets = toy_targets(task.form)
    worth = task.utility(targets, targets)
    assert bool((worth == 1).all()), f"a target predicts itself with a utility of {float(worth.min()):g}, not 1"


def _utility_is_a_share_of_each_photo(task: Task) -> None:
    targets = toy_targets(task.form)
    worth = task.utility(task.predict(toy_outputs(task, targets)), targets)
    assert worth.shape == (len(targets),), f"utility has the shape {tuple(worth.shape)}, not ({len(targets)},)"
    assert worth.dtype == torch.float64, f"utility is {worth.dtype}, not torch.float64"
    assert bool(((worth >= 0) & (worth <= 1)).all()), "utility leaves the range from 0 to 1"
    chance = task.chance(targets)
    assert 0 <= chance <= 1, f"chance is {chance:g}, outside 0 to 1"


def _predictions_have_the_targets_form(task: Task) -> None:
    targets = toy_targets(task.form)
    said = task.predict(toy_outputs(task, targets))
    assert len(said) == len(targets), f"{len(said)} predictions for {len(targets)} photos"
    if task.form != "boxes":
        assert said.shape == targets.shape, f"predictions are {tuple(said.shape)}, targets {tuple(targets.shape)}"


def _loss_is_a_mean_that_training_makes_small(task: Task) -> None:
    targets, before, after = _learned(task)
    first, last = task.loss(before, targets), task.loss(after, targets)
    assert first.ndim == 0, f"the loss has the shape {tuple(first.shape)}, not ()"
    assert bool(last < first), f"gradient descent on the loss ends at {float(last):g}, above {float(first):g}"
    twice = task.loss(before.repeat(2, *[1] * (before.ndim - 1)), targets.repeat(2, *[1] * (targets.ndim - 1)))
    assert math.isclose(float(twice), float(first), rel_tol=1e-3), "the loss grows with the photos: take the mean"


def _training_is_worth_more_than_chance(task: Task) -> None:
    targets, _, after = _learned(task)
    worth, chance = float(task.utility(task.predict(after), targets).mean()), task.chance(targets)
    assert worth > chance, f"outputs with a small loss are worth {worth:.1%}, a constant answer {chance:.1%}"


def _inputs_are_left_as_found(task: Task) -> None:
    targets = toy_targets(task.form)
    outputs = toy_outputs(task, targets)
    before = outputs.clone(), targets.clone()
    task.loss(outputs, targets)
    task.utility(task.predict(outputs), targets)
    assert torch.equal(before[0], outputs), "it changed the outputs that it was given"
    assert torch.equal(before[1], targets), "it changed the targets that it was given"
