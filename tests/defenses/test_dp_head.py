"""Private training of the last layer: what trains, what is accounted for, and that something is learned."""

import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from opacus.accountants import RDPAccountant
from torch import Tensor, nn

from splitleak.defenses.chain import Chain
from splitleak.defenses.dp_sgd import DPSGD
from splitleak.defenses.dropout import Dropout
from splitleak.defenses.fitting import Budget, Examples, Outcome, SplitModel, fit_head
from splitleak.defenses.head import last_linear
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.seeding import seeded
from splitleak.victims.toy import toy_encoder, toy_images
from splitleak.victims.training import Shuffled, Training

BUDGET = Budget(epochs=30, batch_size=32, learning_rate=1e-3)


def coloured(photos: int, seed: int) -> Examples:
    """Is there more red or more blue?"""
    images = toy_images(photos, seed)
    means = images.float().mean((2, 3))
    return Examples(images, (means[:, 0] > means[:, 2]).long())


def network() -> SplitModel:
    with seeded("network"):
        tail = nn.Sequential(nn.Flatten(), nn.Linear(384, 32), nn.Hardswish(), nn.Linear(32, 2))
    return SplitModel(toy_encoder(), tail)


def trained(model: SplitModel, defense: DPSGD, photos: int = 400) -> Outcome:
    with seeded("private"):
        parts = coloured(photos, 1), coloured(100, 2)
        return fit_head(model, *parts, BUDGET, defense.prepare, defense.copies)


@pytest.mark.parametrize("copies", [0, 2])
def test_epsilon_8_is_far_above_chance_and_only_the_last_layer_has_moved(copies: int) -> None:
    model, before = network(), network().state_dict()
    outcome = trained(model, DPSGD(8.0, copies=copies))
    part = coloured(300, 3)
    with torch.no_grad():
        accuracy = (model(part.images / 255).argmax(1) == part.labels).float().mean()
    assert accuracy > 0.62
    assert part.labels.float().mean() == pytest.approx(0.5, abs=0.06)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"tail.3.weight", "tail.3.bias"}
    assert outcome.spent is not None
    assert 0.9 * 8 < outcome.spent[0] <= 8


def test_the_budget_is_what_opacus_counts_for_the_noise_and_the_steps_that_were_taken() -> None:
    layer = nn.Linear(4, 2).train()
    photos = Shuffled((torch.randn(60, 4), torch.zeros(60, dtype=torch.long)), 8)
    private = DPSGD(3.0, share=0.25).prepare(Training(layer, torch.optim.SGD(layer.parameters(), 1.0), photos), 5)
    steps = 0
    for _ in range(5):
        for inputs, labels in private.batches:
            private.optimizer.zero_grad()
            F.cross_entropy(private.model(inputs), labels).backward()
            private.optimizer.step()
            steps += 1
    accountant = RDPAccountant()
    accountant.history = [(private.optimizer.noise_multiplier, 0.25, steps)]  # type: ignore[attr-defined]
    assert steps == 20
    assert private.spent is not None
    assert private.spent()[0] == pytest.approx(accountant.get_epsilon(1e-5))
    assert private.spent()[0] <= 3.0


def test_copies_are_averaged_before_clipping_so_that_a_photo_moves_a_step_no_farther() -> None:
    def step(inputs: Tensor) -> Tensor:
        layer = nn.Linear(4, 2, bias=False).train()
        nn.init.zeros_(layer.weight)
        photos = Shuffled((inputs, torch.zeros(len(inputs), dtype=torch.long)), 8)
        defense = DPSGD(math.inf, clip=0.5, learning_rate=1.0, averaging=0.0)
        private = defense.prepare(Training(layer, torch.optim.SGD(layer.parameters(), 1.0), photos), 1)
        logits = private.model(inputs)
        labels = torch.zeros(logits.shape[:2].numel(), dtype=torch.long)
        F.cross_entropy(logits.flatten(0, 1), labels).backward()
        private.optimizer.step()
        return layer.weight.detach()

    small, large = torch.full((1, 3, 4), 0.1), torch.full((1, 3, 4), 100.0)
    gradient = torch.stack([torch.full((4,), 0.05), torch.full((4,), -0.05)])
    assert torch.allclose(step(small), gradient, atol=1e-6), "the mean of three alike is each of them"
    assert step(large).norm() == pytest.approx(0.5, rel=1e-4)
    opposite = torch.cat([small, -small], 1)
    assert step(opposite).norm() < 1e-6


def test_large_steps_are_gathered_of_few_gradients_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def weights(at_once: int) -> Tensor:
        monkeypatch.setattr("splitleak.defenses.dp_sgd.GRADIENTS_AT_ONCE", at_once)
        model = network()
        trained(model, DPSGD(math.inf), photos=60)
        return model.state_dict()["tail.3.weight"]

    assert torch.allclose(weights(66 * 7), weights(2**26), atol=1e-5)


class Ending(nn.Module):
    """A linear layer and something behind it."""

    def __init__(self, behind: nn.Module) -> None:
        super().__init__()
        self.layer, self.behind = nn.Linear(4, 4), behind

    def forward(self, inputs: Tensor) -> Tensor:
        made: Tensor = self.behind(self.layer(inputs))
        return made


def _unfit() -> Iterator[nn.Module]:
    yield nn.Conv2d(3, 4, 1)
    yield Ending(nn.Softmax(1))
    yield Ending(nn.ReLU(inplace=True))
    twice = nn.Linear(4, 4)
    yield nn.Sequential(twice, twice)


@pytest.mark.parametrize("unfit", list(_unfit()), ids=["none", "softmax", "in place", "twice"])
def test_a_network_that_ends_otherwise_is_refused_beforehand(unfit: nn.Module) -> None:
    inputs = torch.rand(2, 3, 4, 4) if isinstance(unfit, nn.Conv2d) else torch.rand(2, 4)
    for defense in (DPSGD(), Chain((Dropout(0.5), DPSGD()))):
        with pytest.raises(InvalidInputError, match=r"dp_sgd: .* does not end in a linear layer.* trains = 'tail'"):
            defense.check(unfit, inputs)
    ends = Ending(nn.Identity())
    assert last_linear(ends, torch.rand(2, 4)) is ends.layer


def test_public_statistics_stay_and_one_photo_does_not_see_another() -> None:
    half = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8))
    with torch.no_grad():
        half.train()(5 * torch.rand(16, 3, 4, 4))
        half[1].weight.uniform_(0.5, 2)
    photos = torch.rand(4, 3, 4, 4)
    fixed = DPSGD().adapt(half)
    assert torch.allclose(fixed.train()(photos), half.eval()(photos), atol=1e-5)
    assert torch.allclose(fixed(photos[:1]), fixed(photos)[:1], atol=1e-6)
    DPSGD(trains="tail").check(half, photos[:2])
    assert isinstance(half[1], nn.BatchNorm2d), "the given half stays as it was"


def test_a_chain_trains_what_its_private_part_says_and_copies_need_the_last_layer() -> None:
    assert Chain((Dropout(0.5), DPSGD(trains="tail"))).anew().scope == "tail"
    assert Chain((Dropout(0.5), DPSGD(copies=3))).anew().copies == 3
    with pytest.raises(InvalidInputError, match="copies need trains = 'head'"):
        DPSGD(trains="network", copies=1)
