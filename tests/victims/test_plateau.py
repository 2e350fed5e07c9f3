"""Training ends when validation has nothing more to give, and says where a ceiling came first."""

from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from splitleak.victims.checkpoints import resumable
from splitleak.victims.plateau import LOWERED, Plateau
from splitleak.victims.training import History, Shuffled, Training, adamw, train, until_it_stalls


def ended(losses: list[float], epochs: int, patience: int = 2, moving: bool = False) -> Plateau:
    plateau = Plateau(epochs, patience, moving)
    for loss in losses:
        if plateau.over:
            break
        plateau.lowers(loss)
    return plateau


def test_the_rate_is_lowered_when_patience_ends_and_training_ends_when_it_ends_again() -> None:
    plateau = ended([5, 4, 4.5, 4.5, 3, 3.5, 3.5, 1, 1], epochs=50)
    assert (plateau.lowered, len(plateau.losses)) == (4, 7)
    assert not plateau.cut_short


def test_the_last_fifth_of_a_ceiling_has_the_lower_rate_and_the_ceiling_is_told() -> None:
    plateau = ended([float(10 - epoch) for epoch in range(10)], epochs=10)
    assert (plateau.lowered, len(plateau.losses)) == (8, 10)
    assert plateau.cut_short


@pytest.mark.parametrize(("patience", "trained"), [(0, 6), (2, 5)])
def test_without_patience_every_epoch_is_trained(patience: int, trained: int) -> None:
    plateau = ended([1.0] + [2.0] * 20, epochs=6, patience=patience)
    assert len(plateau.losses) == trained
    assert not plateau.cut_short


def test_where_an_adversary_learns_beside_nothing_ends_while_the_loss_still_rises() -> None:
    rising = [float(epoch) for epoch in range(6)]
    assert ended([*rising, 3, 3, 3, 3], epochs=50).lowered == 3, "its first epoch was its best"
    plateau = ended([*rising, 3, 3, 3, 3, 3], epochs=50, moving=True)
    assert (plateau.lowered, len(plateau.losses)) == (8, 11)


class Weight(nn.Module):
    """Each step adds the learning rate to it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self) -> Tensor:
        return self.weight


def counted(
    losses: list[float], epochs: int, moving: bool = False, interrupted_in: float = 0
) -> tuple[Weight, History]:
    model, remaining = Weight(), iter(losses)
    recipe = until_it_stalls(adamw(1.0, epochs), patience=2)
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    training = Training(model, optimizer, Shuffled((torch.zeros(1),), 1), also={})

    def log(row: dict[str, float]) -> None:
        if row["epoch"] == interrupted_in:
            raise KeyboardInterrupt
        if interrupted_in and row["epoch"] > interrupted_in:
            raise AssertionError

    return model, train(training, recipe, lambda net, _: -net(), lambda _: next(remaining), log, moving=moving)


def test_lowering_goes_back_to_the_best_weights_and_the_best_of_all_are_kept() -> None:
    model, history = counted([5, 4, 6, 6, 3, 7, 7], epochs=50)
    assert len(history.rows) == 7
    assert history.best_epoch == 5
    assert model.weight.item() == pytest.approx(2 + LOWERED), (
        "two epochs, back from four to two, and one lowered step"
    )


def test_of_a_moving_loss_only_epochs_at_the_lower_rate_compare() -> None:
    model, history = counted([1, 4, 3, 3, 2.5, 3.5, 3, 3], epochs=50, moving=True)
    assert history.best_epoch == 5
    assert model.weight.item() == pytest.approx(4 + LOWERED)


def test_a_training_that_was_killed_stalls_where_it_would_have(tmp_path: Path) -> None:
    losses = [5.0, 4, 6, 6, 3, 7, 7]
    whole, history = counted(losses, 50)
    with suppress(KeyboardInterrupt), resumable(tmp_path, seconds_between=0):
        counted(losses, 50, interrupted_in=6)
    with resumable(tmp_path):
        resumed, again = counted(losses[5:], 50)
    assert again == history
    assert resumed.weight.item() == whole.weight.item()
