"""The networks of attacks: trained, and selected under the same draws after each epoch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from splitleak.attacks.base import Attack
from splitleak.attacks.decoder import Decoder
from splitleak.attacks.infer_attribute import InferAttribute
from splitleak.attacks.inverse_network import InverseNetwork
from splitleak.attacks.knowledge import BlackBox, QueryFree
from splitleak.attacks.latent_search import LatentSearch
from splitleak.attacks.learning import learned
from splitleak.attacks.reidentify import Reidentify
from splitleak.attacks.ridge import Ridge
from splitleak.attacks.toy import toy_knowledge
from splitleak.victims.checkpoints import resumable
from splitleak.victims.seeding import seeded
from splitleak.victims.training import Batch, Recipe, Shuffled


def _listening(rows: list[dict[str, float]]) -> QueryFree:
    knows, _ = toy_knowledge(Ridge())
    knows.log = rows.append
    return knows


def _recipe(learning_rate: float, epochs: int) -> Recipe:
    return Recipe(epochs, lambda parameters: torch.optim.SGD(parameters, lr=learning_rate))


def _noisy(model: nn.Module, batch: Batch) -> Tensor:
    (x,) = batch
    return (model(x) - x + torch.randn_like(x)).square().mean()


def test_what_is_held_out_meets_the_same_draws_after_each_epoch() -> None:
    rows: list[dict[str, float]] = []
    data = torch.randn(20, 2)
    learned(
        nn.Linear(2, 2), _recipe(0.0, 3), Shuffled((data,), 8), [(data[:8],), (data[8:],)], _noisy, _listening(rows)
    )
    assert len({row["validation_loss"] for row in rows}) == 1
    assert len({row["train_loss"] for row in rows}) == 3  # training sees fresh ones


def test_the_mean_is_over_images_not_batches() -> None:
    rows: list[dict[str, float]] = []
    data = torch.tensor([[0.0], [0.0], [0.0], [2.0]])

    def value(model: nn.Module, batch: Batch) -> Tensor:
        return batch[0].mean() + 0 * model(batch[0]).sum()

    learned(nn.Linear(1, 1), _recipe(0.0, 1), [(data,)] * 2, [(data[:3],), (data[3:],)], value, _listening(rows))
    assert rows[0]["validation_loss"] == 0.5


def test_keeps_the_weights_that_were_best_on_what_was_held_out() -> None:
    with seeded("diverging"):
        network, data = nn.Linear(1, 1, bias=False), torch.ones(8, 1)

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            error: Tensor = (model(batch[0]) - 3).square().mean()
            return error

        rows: list[dict[str, float]] = []
        # each step overshoots further than the last one
        state = learned(network, _recipe(1.05, 5), [(data,)] * 3, [(data,)], loss, _listening(rows))
    best = min(row["validation_loss"] for row in rows)
    assert best == rows[0]["validation_loss"] < rows[-1]["validation_loss"]
    assert float((state["weight"] - 3).square()) == pytest.approx(best)
    assert not network.training


@pytest.mark.parametrize("attack", [Reidentify(epochs=3), InferAttribute(epochs=3)], ids=lambda attack: attack.name)
def test_linkers_meet_the_same_draws_after_each_epoch(attack: Attack[Any]) -> None:
    knows, _ = toy_knowledge(attack)
    assert isinstance(knows, BlackBox)
    resend, sent = knows.resend, []

    def noisy(part: Any, rows: Tensor) -> Tensor:
        release = resend(part, rows)
        release = release + torch.randn_like(release)
        if part == "validation":
            sent.append(release)
        return release

    knows.resend = noisy
    with seeded("drawn"):
        attack.fit(knows)
    epochs = torch.cat(sent).chunk(3)
    assert torch.equal(epochs[0], epochs[1])
    assert torch.equal(epochs[0], epochs[2])


@pytest.mark.parametrize(
    "attack",
    [
        Decoder(width=16, epochs=1),
        Decoder(architecture="upsample", epochs=1),
        InverseNetwork(epochs=1),
        LatentSearch(epochs=1, steps=1, activation_steps=0, restarts=1, weight=0.0),
    ],
    ids=lambda attack: f"{attack.name} {getattr(attack, 'architecture', '')}",
)
def test_what_may_be_compiled_draws_nothing(attack: Attack[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiled network has a generator of its own: the same seed would give another answer from there on."""
    steps = 0

    def watched(network: nn.Module) -> Callable[..., Any]:
        def step(*given: Any) -> Any:
            nonlocal steps
            steps, before = steps + 1, torch.get_rng_state()
            output = network(*given)
            assert torch.equal(torch.get_rng_state(), before), f"{type(network).__name__} draws at random"
            return output

        return step

    monkeypatch.setattr("splitleak.victims.training.COMPILED_STEPS", 0)
    monkeypatch.setattr("splitleak.victims.training._compiler", lambda: True)
    monkeypatch.setattr(torch, "compile", watched)
    knows, _ = toy_knowledge(attack)
    with seeded("plain"):
        attack.fit(knows)
    assert steps > 0


class KilledError(Exception):
    """Stands for the end of the process."""


def _attacked(killed_in: int | None) -> tuple[Tensor, int, list[dict[str, float]], int]:
    """Answer, queries and training curve of a decoder behind a channel that draws; how many batches were sent."""
    rows: list[dict[str, float]] = []
    knows, _ = toy_knowledge(Decoder())
    assert isinstance(knows, BlackBox)
    resend, batches = knows.resend, 0

    def noisy(part: str, which: Tensor) -> Tensor:
        nonlocal batches
        batches += 1
        release = resend(part, which)  # type: ignore[arg-type]
        return release + 0.1 * torch.randn_like(release)

    def log(row: dict[str, float]) -> None:
        if row["epoch"] == killed_in:
            raise KilledError
        rows.append(row)

    knows.resend, knows.log = noisy, log  # type: ignore[assignment]
    with seeded("attack"):
        answer = Decoder(width=16, epochs=4).fit(knows)
        return answer(knows.intercepted), knows.queries, rows, batches


@pytest.mark.parametrize("killed_in", [1, 2, 4])
@pytest.mark.parametrize("damaged", [False, True])
def test_a_killed_training_goes_on_to_the_same_answer(killed_in: int, damaged: bool, tmp_path: Path) -> None:
    answer, queries, rows, batches = _attacked(None)
    with pytest.raises(KilledError), resumable(tmp_path, seconds_between=0):
        _attacked(killed_in)
    saved = list(tmp_path.glob("*.pt"))
    assert len(saved) == (killed_in > 1)
    if damaged and saved:
        content = saved[0].read_bytes()
        saved[0].write_bytes(content[: len(content) // 2])
    with resumable(tmp_path):
        again, asked, resumed, sent = _attacked(None)
    assert torch.equal(again, answer)
    assert (asked, resumed) == (queries, rows)
    assert (sent < batches) == (killed_in > 1 and not damaged), "what was trained is not trained again"
