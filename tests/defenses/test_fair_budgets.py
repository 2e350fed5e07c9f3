"""What stands behind a defence is trained until the whole loss stalls on the validation part."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitleak.defenses.dp_sgd import DPSGD
from splitleak.defenses.fitting import Budget, Examples, SplitModel, fit
from splitleak.victims.seeding import seeded


def examples(photos: int, seed: int) -> Examples:
    with seeded("examples", seed):
        labels = torch.randint(0, 2, (photos,))
        features = torch.randn(photos, 4) + 2 * F.one_hot(labels, 4).float()
    return Examples(torch.zeros(photos, 3, 2, 2, dtype=torch.uint8), labels, features)


def fitted(objective: nn.Module | None, epochs: int = 60, patience: int = 3) -> tuple[SplitModel, list[float], bool]:
    with seeded("fitted"):
        model = SplitModel(nn.Identity(), nn.Linear(4, 2))
        budget = Budget(epochs, 16, 0.05, patience)
        history = fit(model, examples(128, 0), examples(64, 1), budget, objective).history
    return model, [row["validation_loss"] for row in history.rows], history.cut_short


def test_training_ends_below_the_ceiling_with_the_best_weights_and_says_when_it_could_not() -> None:
    model, losses, cut_short = fitted(None)
    assert len(losses) < 60
    assert not cut_short
    held_out = examples(64, 1)
    assert held_out.features is not None
    kept = float(F.cross_entropy(model.tail(held_out.features), held_out.labels).detach())
    assert kept == pytest.approx(min(losses), rel=1e-5)
    assert fitted(None, epochs=5)[2], "five epochs are not enough here"


class Quiet(nn.Module):
    """Wants small logits; asks itself which batches it meets, and counts them as a thing that learns beside does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("asked", torch.zeros(()))
        self.sizes: list[int] = []

    def forward(self, images: Tensor, features: Tensor, release: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        assert torch.is_grad_enabled(), "an adversary that learns beside could not take its step"
        self.sizes.append(len(labels))
        self.get_buffer("asked").add_(1)
        return 3 * logits.square().mean()


def test_with_an_objective_the_whole_loss_is_what_stalls_and_what_chooses() -> None:
    objective = Quiet()
    model, losses, cut_short = fitted(objective)
    held_out = examples(64, 1)
    assert held_out.features is not None
    logits = model.tail(held_out.features).detach()
    whole = float(F.cross_entropy(logits, held_out.labels) + 3 * logits.square().mean())
    assert not cut_short
    assert any(loss == pytest.approx(whole, rel=1e-5) for loss in losses)
    assert whole == pytest.approx(min(losses), rel=0.01)
    assert set(objective.sizes) == {16}, "on the validation part as in training"
    assert objective.get_buffer("asked") == 8 * len(losses), "what it saw of the validation part it forgot"


def test_private_training_takes_the_steps_that_were_accounted_for_and_chooses_none_of_them() -> None:
    model = SplitModel(nn.Identity(), nn.Linear(4, 2))
    budget = Budget(12, 16, 0.05, patience=1)
    outcome = fit(model, examples(128, 0), examples(64, 1), budget, prepare=DPSGD(8.0, averaging=0.0).prepare)
    assert len(outcome.history.rows) == 12
    assert outcome.history.best_epoch == 0
    assert not outcome.history.cut_short
    assert outcome.spent is not None
    assert math.isfinite(outcome.spent[0])
