"""Each defence does what its formula says."""

import math
from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from splitleak.defenses.chain import Chain
from splitleak.defenses.channel_subset import ChannelSubset, Selection
from splitleak.defenses.checks import toy_calibration, toy_channel
from splitleak.defenses.dp_sgd import DPSGD
from splitleak.defenses.dropout import Dropout
from splitleak.defenses.gaussian_noise import GaussianNoise
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.seeding import seeded
from splitleak.victims.training import Shuffled, Training, adamw, train


@pytest.mark.parametrize("sigma", [0.1, 1.0, 4.0])
def test_gaussian_noise_has_the_distribution_that_it_states(sigma: float) -> None:
    calibration = toy_calibration()
    channel, features = toy_channel(GaussianNoise(sigma), calibration)
    everything = torch.cat([batch.features for batch in calibration.batches()])
    std = sigma * everything.square().mean().sqrt().item()
    with seeded("noise"):
        noise = (channel.send(features) - features).flatten()
    guarantee = channel.guarantee()
    assert guarantee is not None
    assert guarantee.noise_std == pytest.approx(std, rel=1e-5)
    assert math.isinf(guarantee.epsilon), "no sensitivity is enforced, so there is no epsilon"
    assert stats.kstest(noise.double().numpy(), "norm", (0, std)).pvalue > 1e-3


def test_gaussian_noise_is_drawn_afresh() -> None:
    channel, features = toy_channel(GaussianNoise(1.0), toy_calibration())
    assert not torch.equal(channel.send(features), channel.send(features))


def test_unsent_channels_are_absent_and_filled_with_their_mean() -> None:
    calibration = toy_calibration()
    channel, features = toy_channel(ChannelSubset(0.25), calibration)
    release, received = channel.send(features), channel.receive(channel.send(features))
    assert release.shape[1] == 24
    kept = torch.tensor([any(torch.equal(maps, sent) for sent in release[0]) for maps in features[0]])
    assert torch.equal(received[:, kept], release)
    mean = torch.cat([batch.features for batch in calibration.batches()]).mean((0, 2, 3))
    torch.testing.assert_close(received[:, ~kept].mean((0, 2, 3)), mean[~kept])
    assert received[:, ~kept].std(0).max() == 0
    assert len(channel.pack(release[0])) < 0.3 * len(channel.pack(features[0]))


def test_selections_choose_what_they_say() -> None:
    calibration = toy_calibration()
    features = torch.cat([batch.features for batch in calibration.batches()])

    def kept(selection: Selection) -> set[int]:
        channel, _ = toy_channel(ChannelSubset(0.1, selection), calibration)
        return set(channel.get_buffer("kept").tolist())

    assert kept("first") == set(range(10))
    assert kept("variance") == set(features.movedim(1, 0).flatten(1).var(1).topk(10).indices.tolist())
    assert len(kept("random")) == 10
    assert len({frozenset(kept(selection)) for selection in ("first", "random", "variance", "saliency")}) == 4


def test_saliency_finds_the_channels_that_the_task_uses() -> None:
    calibration = toy_calibration()
    head = calibration.tail[1]  # type: ignore[index]
    with torch.no_grad():
        weight = head.weight.view(-1, 96, 4)
        weight[:, 20:] = 0
    channel, _ = toy_channel(ChannelSubset(20 / 96, "saliency"), calibration)
    assert channel.get_buffer("kept").tolist() == list(range(20))


def test_saliency_needs_labels() -> None:
    calibration = toy_calibration()
    unlabelled = [type(batch)(batch.images, batch.features, None) for batch in calibration.batches()]
    with pytest.raises(InvalidInputError, match="task"):
        ChannelSubset(0.5).channel((96, 2, 2)).calibrate(replace(calibration, batches=lambda: iter(unlabelled)))


def _private_training(epsilon: float) -> tuple[Training, torch.nn.Module]:
    with seeded("private"):
        model = torch.nn.Linear(4, 2).train()
        recipe = adamw(0.01, epochs=2)
        photos = Shuffled((torch.randn(64, 4), torch.randint(0, 2, (64,))), batch_size=8)
        prepared = DPSGD(epsilon).prepare(Training(model, recipe.optimizer(model.parameters()), photos), 2)
        train(prepared, recipe, lambda net, batch: torch.nn.functional.cross_entropy(net(batch[0]), batch[1]))
    return prepared, model


@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_private_training_spends_its_budget_and_no_more(epsilon: float) -> None:
    prepared, _ = _private_training(epsilon)
    assert prepared.spent is not None
    spent, delta = prepared.spent()
    assert 0.8 * epsilon < spent <= epsilon
    assert delta == 1e-5


def test_without_a_budget_nothing_is_promised() -> None:
    prepared, _ = _private_training(math.inf)
    assert prepared.spent is not None
    assert math.isinf(prepared.spent()[0])


def test_private_training_clips_each_photo() -> None:
    """Without noise and with one photo a step, no update may exceed the clipping norm times the rate."""
    model = torch.nn.Linear(4, 2).train()
    before = model.weight.detach().clone(), model.bias.detach().clone()
    photos = Shuffled((100 * torch.randn(8, 4), torch.randint(0, 2, (8,))), batch_size=8)
    training = Training(model, torch.optim.SGD(model.parameters(), lr=1.0), photos)
    prepared = DPSGD(math.inf, clip=0.5).prepare(training, 1)
    inputs, labels = photos.tensors
    prepared.optimizer.zero_grad()
    torch.nn.functional.cross_entropy(prepared.model(inputs), labels).backward()
    prepared.optimizer.step()
    moved = torch.cat([(model.weight - before[0]).flatten(), model.bias - before[1]]).norm()
    assert 0 < moved <= 0.5 + 1e-5


def test_group_normalisation_replaces_batch_normalisation() -> None:
    half = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 1), torch.nn.BatchNorm2d(32))
    fixed = DPSGD().adapt(half)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fixed.modules())
    assert any(isinstance(module, torch.nn.GroupNorm) for module in fixed.modules())


class Attention(nn.Module):
    """A table of its own that is no parameter, as windowed attention has."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("index", torch.arange(4))
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.scale[self.index]


class Silent(nn.Module):
    """One weight is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        left: Tensor = self.used(inputs)
        return left


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (nn.Sequential(nn.Linear(4, 4), Attention()), "no gradients of single photos for 1 layers with buffers: 1$"),
        (Silent(), r"gets no gradients of single photos for 2 of its weights: idle.weight, idle.bias$"),
    ],
)
def test_dp_sgd_refuses_beforehand_what_opacus_cannot_train(network: nn.Module, reason: str) -> None:
    tail = DPSGD(trains="tail")
    for defense in (tail, Chain((Dropout(0.5), tail))):
        with pytest.raises(InvalidInputError, match=reason):
            defense.check(network, torch.rand(2, 4))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    tail.check(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), torch.rand(2, 3, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
