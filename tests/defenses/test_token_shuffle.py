"""Tokens change places, and nothing else of them does."""

from pathlib import Path

import pytest
import torch
from small_vit import SIDE, TARGETS, WIDTH, Vit, features, vit_tail
from tiny import HEAD, MEAN, NONE, RIDGE, run_plan
from torch import Tensor, nn

from splitleak.defenses.chain import Chain
from splitleak.defenses.checks import check_defense
from splitleak.defenses.gaussian_noise import GaussianNoise
from splitleak.defenses.token_shuffle import TokenShuffle
from splitleak.defenses.tokens import aligned_mean
from splitleak.victims.cuts import split
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.models import make_network
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import to_float
from splitleak.victims.toy import toy_images

SHAPE = (SIDE**2 + 1, WIDTH)
VIT = """
from torchvision.models import VisionTransformer

def small(classes, size):
    return VisionTransformer(size, 8, 2, 2, 32, 64, num_classes=classes)
"""


def sent(defense: TokenShuffle, tokens: Tensor, seed: int = 0) -> Tensor:
    with seeded("shuffle", seed):
        return defense.channel(tuple(tokens.shape[1:])).send(tokens)


def order_of(tokens: Tensor, release: Tensor) -> Tensor:
    """Which token stands at each place, (n, t)."""
    return torch.cdist(release, tokens).argmin(2)


def test_all_tokens_arrive_in_an_order_that_each_send_of_each_photo_has_for_itself() -> None:
    tokens = features(Vit, 3, TARGETS)
    orders = [order_of(tokens, sent(TokenShuffle(), tokens, seed)) for seed in range(2)]
    for order in orders:
        assert torch.equal(order.sort(1).values, torch.arange(SHAPE[0]).expand(TARGETS, -1))
        assert len(order.unique(dim=0)) == TARGETS
    assert not torch.equal(*orders)


def test_a_class_token_stays_in_front_and_every_place_is_as_likely() -> None:
    tokens = torch.arange(17.0)[None, :, None].expand(4000, -1, 2)
    order = sent(TokenShuffle(), tokens)[..., 0].long()
    assert (order[:, 0] == 0).all()
    assert (order[:, 1:] >= 1).all()
    counts = nn.functional.one_hot(order[:, 1:] - 1, 16).sum(0)
    assert (counts - 250).abs().max() < 5 * 250**0.5


@pytest.mark.parametrize(("front", "stay"), [(None, 2), (0, 0), (5, 5)])
def test_what_stays_in_front_can_be_said(front: int | None, stay: int) -> None:
    tokens = torch.arange(18.0)[None, :, None].expand(500, -1, 1)  # a class and a distillation token
    moved = (sent(TokenShuffle(front=front), tokens) != tokens).any(0).flatten()
    assert moved.tolist() == [False] * stay + [True] * (18 - stay)


def test_a_share_changes_places_from_none_to_all() -> None:
    tokens = torch.arange(17.0)[None, :, None].expand(300, -1, 1)
    most = []
    for share in (0.0, 0.25, 0.5, 1.0):
        moved = (sent(TokenShuffle(share=share), tokens) != tokens).flatten(1).sum(1)
        assert int(moved.max()) <= round(16 * share)
        most.append(float(moved.float().mean()))
    # of m tokens in a random order one stays where it is, on average
    assert most == pytest.approx([0, 3, 7, 15], abs=0.3)
    assert torch.equal(sent(TokenShuffle(share=0.0), tokens), tokens)


def test_a_tail_that_treats_all_places_alike_answers_as_before() -> None:
    tokens, tail = features(Vit, 3, TARGETS), vit_tail()
    torch.testing.assert_close(tail(sent(TokenShuffle(), tokens)), tail(tokens), atol=1e-5, rtol=1e-4)


def test_several_sends_are_put_in_one_order_and_tell_no_more_than_one_does() -> None:
    tokens = features(Vit, 3, TARGETS)
    sends = torch.stack([sent(TokenShuffle(), tokens, seed) for seed in range(3)], 1)
    merged = TokenShuffle().channel(SHAPE).merge(sends)
    torch.testing.assert_close(merged, sends[:, 0])
    assert (sends.mean(1) - sends[:, 0]).norm() > 0.2 * sends[:, 0].norm(), "the plain mean would have lost them"


def test_behind_noise_several_sends_are_averaged_token_by_token() -> None:
    tokens = features(Vit, 3, TARGETS)
    with seeded("noise"):
        noisy = torch.stack([tokens + 0.1 * torch.randn_like(tokens) for _ in range(16)], 1)
    sends = torch.stack([sent(TokenShuffle(), one, seed) for seed, one in enumerate(noisy.unbind(1))], 1)
    merged = aligned_mean(sends, 1)
    truth = tokens.gather(1, order_of(tokens, sends[:, 0])[..., None].expand_as(tokens))
    assert float((merged - truth).square().mean().sqrt()) == pytest.approx(0.1 / 4, rel=0.15)


def test_without_positions_a_token_does_not_tell_where_its_patch_stood() -> None:
    images = to_float(toy_images(4))
    moved = images.roll((8, 16), (2, 3))  # whole patches

    def same(encoder: nn.Module) -> bool:
        one, other = (encoder(photos)[:, 1:].view(4, SIDE, SIDE, WIDTH) for photos in (images, moved))
        return torch.allclose(one.roll((1, 2), (1, 2)), other, atol=1e-5)

    vit = Vit()
    assert not same(vit)
    assert same(TokenShuffle(positions=False).adapt(vit))
    assert not same(vit), "the given half is left as it was"
    assert not any("pos_embedding" in name for name, _ in TokenShuffle(positions=False).adapt(vit).named_parameters())


def test_the_embedding_of_a_network_that_was_cut_is_found(tmp_path: Path) -> None:
    file = tmp_path / "vit.py"
    file.write_text(VIT)
    network = make_network(f"{file}:small", 3, 32)
    halves = split(network, "vit", "encoder.layers.encoder_layer_0", 32)
    defense = TokenShuffle(positions=False)
    defense.check(nn.Sequential(halves.encoder, halves.tail), torch.rand(2, 3, 32, 32))
    adapted = defense.adapt(halves.encoder)
    assert adapted.state_dict().keys() == halves.encoder.state_dict().keys()
    assert not torch.equal(adapted(torch.rand(1, 3, 32, 32)), halves.encoder(torch.rand(1, 3, 32, 32)))
    assert float(adapted.get_buffer("body.encoder.pos_embedding").abs().max()) == 0
    with pytest.raises(InvalidInputError, match="no parameter called pos_embedding or pos_embed; leave it at true"):
        defense.check(halves.tail, torch.rand(2, 17, 32))


def test_it_applies_to_tokens_only() -> None:
    reason = "token_shuffle does not apply: it acts on tokens, and the victim sends none"
    assert TokenShuffle().inapplicable((96, 2, 2), "mask") == TokenShuffle().inapplicable((96,), "mask") == reason
    assert TokenShuffle().inapplicable((17, 48), None) is None
    assert "of 2 tokens 1 stay" in str(TokenShuffle().inapplicable((2, 48), None))
    assert "the victim has no task" in str(TokenShuffle(positions=False).inapplicable((17, 48), None))
    assert TokenShuffle(positions=False).retrains == "network"


def test_variants_keep_the_contract() -> None:
    assert check_defense(TokenShuffle(positions=False)) == []
    channel = Chain((GaussianNoise(0.5), TokenShuffle())).channel(SHAPE)
    assert channel.send(torch.rand(2, *SHAPE)).shape == (2, *SHAPE)


def test_a_plan_runs_it_with_and_without_positions_and_says_where_it_does_not_apply(tmp_path: Path) -> None:
    (tmp_path / "vit.py").write_text(VIT)
    vit = HEAD.replace('"mobilenet_v3_small"', '"vit.py:small"').replace(
        "features.2.block.1", "encoder.layers.encoder_layer_0"
    )
    swept = '[[defenses]]\nname = "token_shuffle"\npositions = [true, false]\n'
    results, _, _ = run_plan(vit + NONE + swept + MEAN + RIDGE, tmp_path)
    assert [result["traceback"] for result in results] == [None] * 6
    psnr = {(r["defence"]["label"], r["attack"]["name"]): r["metrics"]["psnr"]["mean"] for r in results}
    floor = psnr["none", "mean_image"]
    # what is left is the colour of the whole photo, of which every token tells something
    for positions in ("True", "False"):
        assert psnr[f"token_shuffle positions={positions}", "ridge"] < floor + 0.25 * (psnr["none", "ridge"] - floor)
    maps, _, _ = run_plan(HEAD + swept + RIDGE, _made(tmp_path / "maps"), shared=True)
    assert {(result["status"], result["metrics"] == {}) for result in maps} == {("does not apply", True)}


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
