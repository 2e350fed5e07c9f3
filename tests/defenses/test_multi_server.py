"""Shares that do not overlap, tails of their own, and an adversary that holds what it is declared to hold."""

from itertools import permutations
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import HEAD, NONE, RIDGE, run_plan
from torch import Tensor, nn

from splitleak.attacks.linear import linear_map
from splitleak.defenses.base import Channel
from splitleak.defenses.chain import Chain
from splitleak.defenses.checks import toy_calibration, toy_channel
from splitleak.defenses.fitting import Budget, Examples, SplitModel, fit
from splitleak.defenses.multi_server import MultiServer, _SharingChannel, equal_shares
from splitleak.defenses.quantisation import Quantisation
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.seeding import seeded
from splitleak.victims.toy import CHANNELS, toy_tail


def sharing(defense: MultiServer) -> tuple[_SharingChannel, Tensor]:
    channel, toy_features = toy_channel(defense, toy_calibration())
    assert isinstance(channel, _SharingChannel)
    return channel, toy_features


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(3, 6), st.integers(0, 10**6))
def test_shares_are_equal_and_the_best_of_all_such(servers: int, channels: int, seed: int) -> None:
    with seeded("scores", seed):
        scores = torch.rand(servers, channels)
    owner = equal_shares(scores)
    assert sorted(owner.tolist()) == sorted(k % servers for k in range(channels))
    divisions = set(permutations(owner.tolist()))
    best = max(sum(float(scores[k, c]) for c, k in enumerate(division)) for division in divisions)
    assert float(scores[owner, torch.arange(channels)].sum()) == pytest.approx(best, abs=1e-5)


def test_every_channel_goes_to_one_server() -> None:
    channel, _ = sharing(MultiServer(5))
    masks = channel.masks().detach().round()
    assert torch.equal(masks.sum(0), torch.ones(CHANNELS))
    assert masks.sum(1).tolist() == [20, 19, 19, 19, 19]


@pytest.mark.parametrize("colluding", [1, 2, 3, 4])
def test_an_adversary_holds_the_shares_of_those_who_collude_and_means_elsewhere(colluding: int) -> None:
    channel, features = sharing(MultiServer(4, colluding))
    held, there = channel.intercepted(channel.send(features)), channel.arrived(features)
    assert torch.equal(held[there], features[there])
    assert int(there[0, :, 0, 0].sum()) == colluding * CHANNELS // 4
    means = torch.cat([batch.features for batch in toy_calibration().batches()]).mean((0, 2, 3), keepdim=True)[0]
    torch.testing.assert_close(held[~there], means.expand_as(features)[~there], atol=1e-5, rtol=1e-4)


def test_when_all_collude_nothing_is_secret_and_one_server_is_no_defence() -> None:
    for defense in (MultiServer(4, 4), MultiServer(1)):
        channel, features = sharing(defense)
        assert torch.equal(channel.intercepted(channel.send(features)), features)
        assert channel.arrived(features).all()
        assert defense.statistic(toy_calibration()) == 0
    one, features = sharing(MultiServer(1))
    torch.testing.assert_close(MultiServer(1).cloud(toy_tail(), one)(features), toy_tail()(features))


def test_the_threat_must_be_possible() -> None:
    with pytest.raises(InvalidInputError, match=r"multi_server.colluding = 0: .*greater than or equal to 1"):
        MultiServer(4, 0)
    with pytest.raises(InvalidInputError, match="colluding = 5: there are 4 servers; at most these collude"):
        MultiServer(4, 5)
    assert MultiServer(8).inapplicable((96, 2, 2), None) is None
    reason = "multi_server does not apply: 3 channels are too few for 8 servers"
    assert MultiServer(8).inapplicable((3, 2, 2), None) == reason
    with pytest.raises(InvalidInputError, match="chain: multi_server puts several servers in the tail's place"):
        Chain((MultiServer(), Quantisation()))


@pytest.mark.parametrize("colluding", [1, 4])
def test_bytes_are_those_to_all_servers_whoever_colludes(colluding: int) -> None:
    channel, features = sharing(MultiServer(4, colluding))
    whole = len(Channel().pack(features[0]))
    assert whole < len(channel.pack(features[0])) < whole + 4 * 100


def test_no_server_sees_what_another_is_sent() -> None:
    channel, features = sharing(MultiServer(3))
    servers = MultiServer(3).cloud(toy_tail(), channel).eval()
    logits: list[Tensor] = []
    for tail in servers.tails:
        tail.register_forward_hook(lambda tail, given, output: logits.append(output))
    servers(features)
    for server in range(3):
        before, changed = list(logits), features.clone()
        changed[:, channel.owner == server] += 1
        logits.clear()
        servers(changed)
        assert [not torch.equal(old, new) for old, new in zip(before, logits, strict=True)] == [
            number == server for number in range(3)
        ]
        logits.clear()
        servers(features)


class Hears(nn.Module):
    """A server that makes use of one half of the channels only."""

    def __init__(self, half: slice) -> None:
        super().__init__()
        self.half = half

    def forward(self, features: Tensor) -> Tensor:
        return 4 * features[:, self.half].unflatten(1, (-1, 2)).sum(1)


def test_masks_learn_to_send_each_server_what_its_tail_makes_use_of() -> None:
    with seeded("features"):
        labels = torch.randint(2, (64,))
        values = F.one_hot(labels, 2).float().repeat(1, 4) + 0.3 * torch.randn(64, 8)
    channel = MultiServer(2).channel((8,))
    servers = MultiServer(2).cloud(Hears(slice(0, 4)), channel)
    servers.tails[1] = Hears(slice(4, 8))
    assert channel.get_buffer("owner").tolist() == [0, 1] * 4
    images = torch.zeros(64, 3, 2, 2, dtype=torch.uint8)
    part = Examples(images, labels, values)
    with seeded("fit"):
        fit(SplitModel(nn.Identity(), servers, channel), part, part, Budget(30, 8, 0.05))
    assert channel.get_buffer("owner").tolist() == [0] * 4 + [1] * 4


def test_more_colluding_servers_never_hurt_the_attacker() -> None:
    calibration = toy_calibration(256)
    images = torch.cat([batch.images for batch in calibration.batches()])
    coarse = F.adaptive_avg_pool2d(images, 2).flatten(2).transpose(1, 2).flatten(0, 1)
    everything = torch.cat([batch.features for batch in calibration.batches()])
    errors = []
    for colluding in (1, 2, 4, 8, 16, 32):
        channel, _ = sharing(MultiServer(32, colluding))
        cells = channel.intercepted(everything).flatten(2).transpose(1, 2).flatten(0, 1)
        fitted, held_out = slice(0, 768), slice(768, 1024)

        def error(linear: nn.Module, cells: Tensor = cells, rows: slice = held_out) -> float:
            return float((linear(cells[rows]) - coarse[rows]).square().mean())

        linear = linear_map([(cells[fitted], coarse[fitted])], 768, error, lambda row: None)
        errors.append(error(linear))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 3 * errors[-1]


def test_a_plan_declares_who_colludes(tmp_path: Path) -> None:
    shared = '[[defenses]]\nname = "multi_server"\nservers = 8\ncolluding = [1, 4, 8]\n'
    results, _, _ = run_plan(HEAD + NONE + shared + RIDGE, tmp_path, shared=True)
    assert [result["traceback"] for result in results] == [None] * 4
    none, *psnr = (result["metrics"]["psnr"]["mean"] for result in results)
    assert psnr[2] == pytest.approx(none, abs=0.01), "with all of them it holds what an undefended victim sends"
    assert psnr[0] < psnr[1] < psnr[2]
    assert psnr[0] < none - 1
    sizes = {result["bytes"] for result in results[1:]}
    assert len(sizes) == 1
    assert sizes.pop() >= results[0]["bytes"]
    assert len({result["utility"]["mean"] for result in results[1:]}) == 1, "who colludes changes no answer"
