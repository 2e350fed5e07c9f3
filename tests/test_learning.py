"""The networks of attacks: trained, and selected under the same draws after each epoch."""

import pytest
import torch
from torch import Tensor, nn

from attacks.learning import learned
from victims.seeding import seeded
from victims.training import Batch, Recipe, Shuffled


def _recipe(learning_rate: float, epochs: int) -> Recipe:
    return Recipe(epochs, lambda parameters: torch.optim.SGD(parameters, lr=learning_rate))


def _noisy(model: nn.Module, batch: Batch) -> Tensor:
    (x,) = batch
    return (model(x) - x + torch.randn_like(x)).square().mean()


def test_what_is_held_out_meets_the_same_draws_after_each_epoch() -> None:
    rows: list[dict[str, float]] = []
    data = torch.randn(20, 2)
    learned(nn.Linear(2, 2), _recipe(0.0, 3), Shuffled((data,), 8), [(data[:8],), (data[8:],)], _noisy, rows.append)
    assert len({row["validation_loss"] for row in rows}) == 1
    assert len({row["train_loss"] for row in rows}) == 3  # training sees fresh ones


def test_the_mean_is_over_images_not_batches() -> None:
    rows: list[dict[str, float]] = []
    data = torch.tensor([[0.0], [0.0], [0.0], [2.0]])

    def value(model: nn.Module, batch: Batch) -> Tensor:
        return batch[0].mean() + 0 * model(batch[0]).sum()

    learned(nn.Linear(1, 1), _recipe(0.0, 1), [(data,)] * 2, [(data[:3],), (data[3:],)], value, rows.append)
    assert rows[0]["validation_loss"] == 0.5


def test_keeps_the_weights_that_were_best_on_what_was_held_out() -> None:
    with seeded("diverging"):
        network, data = nn.Linear(1, 1, bias=False), torch.ones(8, 1)

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            error: Tensor = (model(batch[0]) - 3).square().mean()
            return error

        rows: list[dict[str, float]] = []
        # each step overshoots further than the last one
        state = learned(network, _recipe(1.05, 5), [(data,)] * 3, [(data,)], loss, rows.append)
    best = min(row["validation_loss"] for row in rows)
    assert best == rows[0]["validation_loss"] < rows[-1]["validation_loss"]
    assert float((state["weight"] - 3).square()) == pytest.approx(best)
    assert not network.training
