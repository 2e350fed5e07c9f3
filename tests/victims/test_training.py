"""The one training loop keeps the best weights, stops on nonsense, and draws nothing behind the caller's back."""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from splitleak.victims.seeding import seed_of, seeded
from splitleak.victims.training import Batch, History, Recipe, Shuffled, Training, _compiler, adamw, train


class Counter(nn.Module):
    """Its one weight grows by 1 with each step of SGD on ``-weight`` at learning rate 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.register_buffer("passes", torch.zeros(()))

    def forward(self) -> Tensor:
        if self.training:
            self.passes += 1
        return self.weight


def plain_sgd(epochs: int) -> Recipe:
    return Recipe(epochs, lambda parameters: torch.optim.SGD(parameters, lr=1.0))


def count_up(
    epochs: int,
    validation: Callable[[nn.Module], float] | None = None,
    log: Callable[[dict[str, float]], None] | None = None,
    loss: Callable[[nn.Module, Batch], Tensor] = lambda model, batch: -model(),
    steps: int = 2,
    select: bool = True,
) -> tuple[Counter, History]:
    model, recipe = Counter(), plain_sgd(epochs)
    batches = Shuffled((torch.zeros(steps * 3),), 3)
    training = Training(model, recipe.optimizer(model.parameters()), batches)
    return model, train(training, recipe, loss, validation, log, select)


@pytest.mark.parametrize(
    ("losses", "best"), [([5.0, 1.0, 3.0], 2), ([3.0, 2.0, 1.0], 3), ([1.0, 2.0, 3.0], 1), ([2.0, 1.0, 1.0], 2)]
)
def test_the_best_epochs_weights_are_kept(losses: list[float], best: int) -> None:
    remaining = iter(losses)
    model, history = count_up(3, validation=lambda model: next(remaining))
    assert history.best_epoch == best
    assert model.weight.item() == 2 * best, "two steps an epoch"
    assert model.passes.item() == 2 * best, "buffers belong to the weights"
    assert not model.training


def test_the_last_weights_stay_where_none_are_to_be_selected() -> None:
    remaining = iter([1.0, 2.0, 3.0])
    model, history = count_up(3, validation=lambda model: next(remaining), select=False)
    assert model.weight.item() == 6
    assert [row["validation_loss"] for row in history.rows] == [1.0, 2.0, 3.0]


def test_without_validation_the_last_weights_stay() -> None:
    model, history = count_up(3)
    assert model.weight.item() == 6
    assert history.best_epoch == 0
    assert "validation_loss" not in history.rows[0]
    assert not model.training


def test_kept_weights_are_a_copy() -> None:
    """Later steps write into the parameters in place; a reference to them would keep the last epoch."""
    values = iter([0.0, 1.0, 1.0, 1.0])
    model, _ = count_up(4, validation=lambda model: next(values))
    assert model.weight.item() == 2


def test_rows_are_logged_epoch_by_epoch() -> None:
    rows: list[dict[str, float]] = []
    _, history = count_up(3, validation=lambda model: 10 - float(model.weight), log=rows.append)
    # the loss before each step: minus the number of steps so far
    expected = [
        {"epoch": 1, "train_loss": -0.5, "validation_loss": 8},
        {"epoch": 2, "train_loss": -2.5, "validation_loss": 6},
        {"epoch": 3, "train_loss": -4.5, "validation_loss": 4},
    ]
    assert rows == expected
    assert history.rows == expected
    assert all(isinstance(value, float) for row in rows for value in row.values())


def test_modes_are_set_for_each_call() -> None:
    modes: list[tuple[str, bool, bool]] = []

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        modes.append(("loss", model.training, torch.is_grad_enabled()))
        return -model()

    def validation(model: nn.Module) -> float:
        modes.append(("validation", model.training, torch.is_grad_enabled()))
        return 0.0

    count_up(2, validation, loss=loss, steps=1)
    assert modes == [("loss", True, True), ("validation", False, False)] * 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_the_training(value: float) -> None:
    calls = 0

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        nonlocal calls
        calls += 1
        return model() * (value if calls == 4 else 1.0) + (value if calls == 4 else 0.0)

    with pytest.raises(FloatingPointError, match="epoch 2"):
        count_up(5, loss=loss)
    assert calls == 4, "it goes on after the epoch"


def test_batches_reach_the_loss_whole_and_in_step() -> None:
    images, labels = torch.arange(12.0).reshape(6, 2), torch.arange(6)
    seen: list[Tensor] = []

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        assert torch.equal(batch[0][:, 0], 2.0 * batch[1])
        seen.append(batch[1])
        return -model()

    model, recipe = Counter(), plain_sgd(1)
    train(Training(model, recipe.optimizer(model.parameters()), Shuffled((images, labels), 2)), recipe, loss)
    assert sorted(torch.cat(seen).tolist()) == list(range(6))


def test_the_schedule_moves_with_each_step_and_ends_with_the_training() -> None:
    rates: list[float] = []
    model, recipe = nn.Linear(2, 1), adamw(0.1, epochs=4)
    optimizer = recipe.optimizer(model.parameters())

    def loss(network: nn.Module, batch: Batch) -> Tensor:
        rates.append(optimizer.param_groups[0]["lr"])
        return network(batch[0]).square().mean()

    train(Training(model, optimizer, Shuffled((torch.ones(10, 2),), 2)), recipe, loss)
    assert len(rates) == 20
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(0.1, rel=0.01)
    assert peak == pytest.approx(0.2 * 20, abs=1), "one fifth of the steps up, the rest down"
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 1e-4


class Growing:
    """More batches on later passes than ``len`` says, as Poisson sampling under DP-SGD may give."""

    passes = 0

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[Batch]:
        self.passes += 1
        return iter([(torch.ones(2, 2),)] * (1 + self.passes))


def test_more_batches_than_announced_do_no_harm() -> None:
    model, recipe = nn.Linear(2, 1), adamw(0.1, epochs=3)
    training = Training(model, recipe.optimizer(model.parameters()), Growing())
    history = train(training, recipe, lambda network, batch: network(batch[0]).square().mean())
    assert len(history.rows) == 3


def learned(seed: int) -> dict[str, Tensor]:
    with seeded("data"):
        inputs = torch.randn(40, 3, 4, 4)
        labels = inputs.mean((1, 2, 3)).gt(0).long()
    with seeded("training", seed):
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(16, 2)
        )
        recipe = adamw(1e-2, 3)
        training = Training(model, recipe.optimizer(model.parameters()), Shuffled((inputs, labels), 8))
        train(training, recipe, lambda network, batch: F.cross_entropy(network(batch[0]), batch[1]))
    return model.state_dict()


def test_the_same_seed_gives_the_same_weights() -> None:
    first, again, other = learned(0), learned(0), learned(1)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["5.weight"], other["5.weight"])


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 50), batch_size=st.integers(1, 60))
def test_shuffled_gives_every_row_at_most_once_and_whole_batches_only(count: int, batch_size: int) -> None:
    rows = torch.arange(count)
    batches = Shuffled((rows, 10 * rows), batch_size)
    passed = list(batches)
    size = min(batch_size, count)
    assert len(batches) == len(passed) == count // size
    assert all(len(first) == size and torch.equal(second, 10 * first) for first, second in passed)
    seen = torch.cat([first for first, _ in passed]).tolist()
    assert len(seen) == len(set(seen)) == count - count % size
    assert set(seen) <= set(range(count))


def test_shuffled_covers_everything_over_passes_in_ever_fresh_orders() -> None:
    batches = Shuffled((torch.arange(20),), 6)
    with seeded("passes"):
        passes = [torch.cat([rows for (rows,) in batches]).tolist() for _ in range(12)]
    assert len({tuple(order) for order in passes}) == 12
    assert set().union(*passes) == set(range(20)), "the rows that are dropped change from pass to pass"
    assert passes[0] != sorted(passes[0])


def test_shuffled_order_follows_torchs_seed() -> None:
    def order(seed: int) -> list[int]:
        with seeded(seed):
            return torch.cat([rows for (rows,) in Shuffled((torch.arange(20),), 5)]).tolist()

    assert order(0) == order(0)
    assert order(0) != order(1)


def test_seeded_leaves_the_callers_random_state_alone() -> None:
    torch.manual_seed(11)
    expected = torch.rand(4)
    torch.manual_seed(11)
    with seeded("block", 1):
        inside = torch.rand(4)
    assert torch.equal(torch.rand(4), expected)
    torch.manual_seed(12)
    with seeded("block", 1):
        assert torch.equal(torch.rand(4), inside), "what ran before must not matter"
    with seeded("block", 2):
        assert not torch.equal(torch.rand(4), inside)


def test_seeded_restores_the_state_after_an_error_too() -> None:
    before = torch.get_rng_state()

    def fail() -> None:
        with seeded("block"):
            torch.rand(4)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.equal(torch.get_rng_state(), before)


def test_validation_meets_the_same_draws_after_each_epoch() -> None:
    drawn: list[float] = []
    with seeded("validation"):
        count_up(3, validation=lambda model: drawn.append(float(torch.randn(()))) or drawn[-1])  # type: ignore[func-returns-value]
    assert len(set(drawn)) == 1


def test_seeds_depend_on_meaning_and_fit_torch() -> None:
    assert seed_of("victim", 3) == 1091765573590238274, "the same on every machine, run and version"
    assert seed_of("victim", 3) != seed_of("victim", 4)
    assert seed_of("a", "b") != seed_of("ab")
    for number in range(100):
        assert 0 <= seed_of(number) < 2**63


@pytest.mark.slow
@pytest.mark.skipif(not _compiler(), reason="no C++ compiler here")
def test_a_long_training_is_compiled_and_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: compiled.append(model) or compile_(model))

    def trained() -> tuple[list[float], nn.Module]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1))
        images = torch.rand(32, 3, 8, 8)
        recipe = adamw(1e-2, epochs=3)
        training = Training(model, recipe.optimizer(model.parameters()), Shuffled((images,), 8), plain=True)
        history = train(training, recipe, lambda network, batch: network(batch[0]).square().mean())
        return [row["train_loss"] for row in history.rows], model

    plain, model = trained()
    assert not compiled  # a dozen steps
    monkeypatch.setattr("splitleak.victims.training.COMPILED_STEPS", 12)
    fast, same = trained()
    assert compiled == [same]
    assert fast == pytest.approx(plain, rel=1e-4)
    assert list(same.state_dict()) == list(model.state_dict())
    for one, other in zip(same.parameters(), model.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-4)
