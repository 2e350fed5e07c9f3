"""Classification is one task among others, and computes bit by bit what it did when it was the only one."""

from pathlib import Path

import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import nn

from splitleak.defenses.fitting import Budget, Examples, SplitModel, fit
from splitleak.experiments.planning.plan import read_plan
from splitleak.experiments.run.run import Run
from splitleak.victims.seeding import seeded
from splitleak.victims.tasks.classification import CLASSIFICATION
from splitleak.victims.tensors import to_float
from splitleak.victims.toy import toy_encoder, toy_images, toy_tail

SALIENT = '[[defenses]]\nname = "channel_subset"\nkeep = 0.25\nselection = "saliency"\n'
ACCURACY = 0.6826923076923077
"""Of the tiny plan, before there were other tasks."""


def test_loss_decision_and_chance_are_those_of_one_class() -> None:
    with seeded("logits"):
        logits, labels = torch.randn(64, 5), torch.randint(5, (64,))
    assert torch.equal(CLASSIFICATION.loss(logits, labels), F.cross_entropy(logits, labels))
    said = CLASSIFICATION.predict(logits)
    assert torch.equal(said, logits.argmax(1))
    assert torch.equal(CLASSIFICATION.utility(said, labels), (logits.argmax(1) == labels).double())
    assert CLASSIFICATION.chance(labels) == float(labels.bincount().max() / 64)


def test_training_on_the_task_is_training_on_cross_entropy() -> None:
    images = toy_images(32)
    labels = toy_tail()(toy_encoder()(images / 255)).argmax(1)
    models = [SplitModel(toy_encoder(), toy_tail()) for _ in range(2)]
    for model, loss in zip(models, (F.cross_entropy, CLASSIFICATION.loss), strict=True):
        with seeded("fit"):
            part = Examples(images, labels)
            fit(model, part, part, Budget(2, 8, 1e-2), task_loss=loss)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, other)


def test_the_mean_times_the_photos_has_the_gradient_of_the_sum() -> None:
    """What saliency is made of; 37 is no power of two."""
    tail, labels = nn.Linear(6, 4), torch.arange(37) % 4
    with seeded("features"):
        features = torch.randn(37, 6, requires_grad=True)
    (sums,) = torch.autograd.grad(F.cross_entropy(tail(features), labels, reduction="sum"), features)
    (means,) = torch.autograd.grad(37 * CLASSIFICATION.loss(tail(features), labels), features)
    assert torch.equal(sums, means)


def test_a_run_tells_the_cross_entropy_and_accuracy_of_its_networks(tmp_path: Path) -> None:
    """Computed here from the weights that it kept; losses of a training differ by 0.001 from kernel to kernel."""
    text = tiny.HEAD + tiny.NONE + SALIENT + tiny.RIDGE
    results, _, store = tiny.run_plan(text, tmp_path, shared=True)
    told = {result["defence"]["name"]: result for result in results}
    run = Run.of(read_plan(tmp_path / "plan.toml"), tmp_path / "runs")
    stages = {cell.protect.defense.name: cell.protect for cell in run.cells}
    assert told.keys() == {"none", "channel_subset"}
    for name, result in told.items():
        stage = stages[name]
        model, data = stage.load(store), stage.victim.data.load(store)
        assert data.labels is not None
        logits = {part: model(to_float(data.images[part])) for part in ("validation", data.measured)}
        (row,) = result["training"]["defence"]
        expected = float(F.cross_entropy(logits["validation"], data.labels["validation"]))
        assert row["validation_loss"] == pytest.approx(expected, abs=1e-5)
        right = (logits[data.measured].argmax(1) == data.labels[data.measured]).double().tolist()
        utility = result["utility"]
        assert (utility["metric"], utility["values"], utility["mean"]) == ("accuracy", right, pytest.approx(ACCURACY))
