"""What is merged is what is alike, nothing is lost in the mean, and the cloud weighs it as ToMe does."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small_vit import SIDE, TARGETS, WIDTH, Vit, features
from torch import Tensor

from splitleak.defenses.checks import check_defense
from splitleak.defenses.token_reduction import TokenReduction
from splitleak.defenses.token_shuffle import TokenShuffle
from splitleak.defenses.tokens import merge_alike
from splitleak.victims.seeding import seeded

SHAPE = (SIDE**2 + 1, WIDTH)
HEADER = 120
"""Bytes that a packed release may have beyond its payload."""


def slow_merge(tokens: Tensor, count: int) -> list[tuple[Tensor, int]]:
    """Of one photo, (t, d), token by token."""
    left = [(token, 1) for token in tokens]
    while len(left) > count:
        candidates, others = left[::2], left[1::2]
        likeness = [[float(F.cosine_similarity(a[0], b[0], dim=0)) for b in others] for a in candidates]
        ranked = sorted(range(len(candidates)), key=lambda i: -max(likeness[i]))
        go = min(len(left) - count, len(candidates))
        joined = [[other] for other in others]
        for i in ranked[:go]:
            joined[likeness[i].index(max(likeness[i]))].append(candidates[i])
        merged = []
        for group in joined:
            size = sum(n for _, n in group)
            merged.append((torch.stack([token * n for token, n in group]).sum(0) / size, size))
        left = [candidates[i] for i in ranked[go:]] + merged
    return left


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 14), st.integers(1, 14), st.integers(0, 10**6))
def test_merging_is_what_a_slow_one_does(tokens: int, count: int, seed: int) -> None:
    with seeded("tokens", seed):
        given_tokens = torch.randn(2, tokens, 5)
    count = min(count, tokens)
    merged, sizes = merge_alike(given_tokens, torch.ones(2, tokens), count)
    assert merged.shape == (2, count, 5)
    for photo in range(2):
        slow = slow_merge(given_tokens[photo], count)
        assert sizes[photo].tolist() == [size for _, size in slow]
        torch.testing.assert_close(merged[photo], torch.stack([token for token, _ in slow]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("keep", [0.06, 0.25, 0.5, 0.8])
def test_no_token_is_dropped_and_the_mean_is_kept(keep: float) -> None:
    tokens = features(Vit, 3, TARGETS)
    release = TokenReduction(keep).channel(SHAPE).send(tokens)
    assert release.shape == (TARGETS, 1 + max(1, round(16 * keep)), WIDTH + 1)
    assert torch.equal(release[:, 0, :-1], tokens[:, 0]), "the class token stays in front"
    sizes = release[:, 1:, -1:]
    assert (sizes.sum(1) == 16).all()
    torch.testing.assert_close((release[:, 1:, :-1] * sizes).sum(1), tokens[:, 1:].sum(1), atol=1e-4, rtol=1e-4)


def test_keeping_all_sends_all_as_they_are() -> None:
    tokens = features(Vit, 3, TARGETS)
    channel = TokenReduction(1.0).channel(SHAPE)
    release = channel.send(tokens)
    assert torch.equal(release[..., :-1], tokens)
    assert torch.equal(channel.receive(release), tokens)


def test_those_that_are_most_alike_go_first() -> None:
    with seeded("kinds"):
        kinds = torch.randn(12, 8)
        times = torch.tensor([1, 1, 1, 2, 1, 2, 1, 2, 1, 1, 1, 2])
    tokens = torch.cat([torch.zeros(1, 8), kinds.repeat_interleave(times, 0)])[None]
    release = TokenReduction(12 / 16).channel((17, 8)).send(tokens)
    nearest = torch.cdist(release[0, 1:, :-1], kinds).min(1)
    assert nearest.values.max() < 1e-5
    assert torch.equal(release[0, 1:, -1], times[nearest.indices])


def test_the_cloud_attends_to_a_merged_token_in_proportion_to_its_size() -> None:
    channel = TokenReduction(0.3).channel(SHAPE)
    tokens = features(Vit, 3, TARGETS)
    release = channel.send(tokens)
    query = torch.randn(TARGETS, 3, WIDTH)
    received = channel.receive(release)
    assert received.shape == tokens.shape
    merged, sizes = release[..., :-1], release[:, None, :, -1]
    proportional = F.scaled_dot_product_attention(query, merged, merged, attn_mask=sizes.log())
    repeated = F.scaled_dot_product_attention(query, received, received)
    torch.testing.assert_close(repeated, proportional, atol=1e-5, rtol=1e-4)


def test_fewer_tokens_are_farther_from_what_was_there_and_cost_fewer_bytes() -> None:
    tokens = features(Vit, 3, TARGETS)
    distances, sizes = [], []
    for keep in (1.0, 0.75, 0.5, 0.25, 0.06):
        channel = TokenReduction(keep).channel(SHAPE)
        release = channel.send(tokens)
        # each token of a photo has one beside it, so order does not count
        distances.append(float(torch.cdist(tokens, channel.receive(release)).min(2).values.mean()))
        sizes.append(len(channel.pack(release[0])))
        assert sizes[-1] <= 4 * release[0].numel() + HEADER
    assert distances == sorted(distances)
    assert distances[0] < 1e-2 < distances[1]
    assert sizes == sorted(sizes, reverse=True)


def test_several_sends_are_one() -> None:
    channel, tokens = TokenReduction(0.5).channel(SHAPE), features(Vit, 3, TARGETS)
    sends = torch.stack([channel.send(tokens) for _ in range(3)], 1)
    torch.testing.assert_close(channel.merge(sends), sends[:, 0])


def test_a_size_that_was_blurred_on_the_way_still_leads_to_a_full_set_of_tokens() -> None:
    channel, tokens = TokenReduction(0.5).channel(SHAPE), features(Vit, 3, TARGETS)
    release = channel.send(tokens)
    noisy = torch.cat([release[..., :-1], release[..., -1:] + 5 * torch.randn(TARGETS, 9, 1)], 2)
    received = channel.receive(noisy)
    assert received.shape == tokens.shape
    assert torch.equal(channel.receive(release + 0.0), channel.receive(release))


def test_gradients_reach_a_white_box() -> None:
    tokens = features(Vit, 3, 2).clone().requires_grad_()
    TokenReduction(0.5).channel(SHAPE).send(tokens).square().sum().backward()
    assert tokens.grad is not None
    assert (tokens.grad.norm(dim=2) > 0).all()


def test_it_applies_to_tokens_only_and_keeps_the_contract_without_positions() -> None:
    reason = "token_reduction does not apply: it acts on tokens, and the victim sends none"
    assert TokenReduction().inapplicable((96, 2, 2), "mask") == reason
    assert check_defense(TokenReduction(positions=False)) == []
    assert TokenShuffle(front=1).channel((9, 8)).send(torch.rand(2, 9, 8)).shape == (2, 9, 8)
