"""Tokens that a toy channel shuffles or withholds are put back, of a small transformer and of torchvision's."""

from functools import cache, partial
from itertools import permutations
from typing import Any

import pytest
import torch
from small_vit import SIDE, TARGETS, WIDTH, Channel, Vit, adversary, features
from torch import Tensor, nn

from splitleak.attacks.base import Attack, Scene
from splitleak.attacks.decoder import Decoder
from splitleak.attacks.knowledge import BlackBox
from splitleak.attacks.places import Matcher, assigned, places_of, shades
from splitleak.attacks.ridge import Ridge
from splitleak.attacks.token_order import TokenOrder, _Order, placed
from splitleak.attacks.toy import TOY_SCENE, TOY_TOKENS
from splitleak.defenses.token_shuffle import TokenShuffle
from splitleak.victims.cuts import split
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.models import make_network
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import to_float
from splitleak.victims.toy import toy_images

LIGHT = TokenOrder(width=16, epochs=4, order_width=32, order_epochs=8)
DECODER = Decoder(width=16, epochs=4)


def shuffled(tokens: Tensor, keep: int | None = None, first: int = 0) -> tuple[Tensor, Tensor]:
    """Some tokens in an order drawn afresh for each photo, and the place of each (-1: the class token); ``first`` are
    never sent."""
    order = first + torch.rand(tokens.shape[0], tokens.shape[1] - first).argsort(1)[:, :keep]
    return tokens.gather(1, order[..., None].expand(-1, -1, tokens.shape[2])), order - 1


SHUFFLE: Channel = lambda tokens: shuffled(tokens)[0]  # noqa: E731
SHIPPED: Channel = TokenShuffle().channel((SIDE**2 + 1, WIDTH)).send
BACKWARDS: Channel = lambda tokens: tokens.flip(1)  # noqa: E731
NOISY: Channel = lambda tokens: tokens + 0.3 * torch.randn_like(tokens)  # noqa: E731


def order_of(knows: BlackBox) -> _Order:
    with seeded("order"):
        return LIGHT._ordered(knows).eval()


def error(attack: Attack[Any], knows: BlackBox, roll: int = 0) -> float:
    with seeded("attack"):
        answer = attack.fit(knows)
    with torch.no_grad():
        return float((answer(knows.intercepted.roll(roll, 0)) - to_float(toy_images(TARGETS, 3))).square().mean())


def floor(knows: BlackBox) -> float:
    mean = to_float(knows.images["auxiliary"]).mean(0)
    return float((mean - to_float(toy_images(TARGETS, 3))).square().mean())


@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (2, 4), (4, 5)])
def test_the_assignment_is_the_best_of_all(rows: int, columns: int) -> None:
    scores = torch.randn(6, rows, columns, generator=torch.Generator().manual_seed(0))
    for one, found in zip(scores, assigned(scores), strict=True):
        totals = {order: float(one[range(rows), order].sum()) for order in permutations(range(columns), rows)}
        assert tuple(found.tolist()) == max(totals, key=lambda order: totals[order])


def test_who_fits_worst_is_put_nowhere() -> None:
    scores = torch.tensor([[[0.0, -5.0], [-9.0, -8.0], [-5.0, 0.0]]])
    assert places_of(scores).tolist() == [[0, 2, 1]]


def test_shades_are_the_mean_colours_of_a_patchs_quarters() -> None:
    images = torch.rand(2, 3, 32, 32)
    told = shades(images, 4).view(2, 4, 4, 3, 2, 2)
    torch.testing.assert_close(told[1, 2, 3, 1, 0, 1], images[1, 1, 16:20, 28:32].mean())


def test_tokens_are_put_where_they_belong() -> None:
    tokens = torch.rand(1, 3, 2)
    at, there = placed(tokens, torch.tensor([[2, 4, 0]]), 4)
    assert torch.equal(at[0], torch.stack([tokens[0, 2], torch.zeros(2), tokens[0, 0], torch.zeros(2)]))
    assert there.tolist() == [[True, False, True, False]]


def test_photos_tell_which_token_shows_which_patch() -> None:
    knows = adversary(SHUFFLE)
    with seeded("match"):
        matcher = Matcher.learned(knows, SIDE)
        tokens, places = shuffled(features(Vit, 3, TARGETS))
    found = places_of(matcher(tokens, to_float(toy_images(TARGETS, 3))))
    assert (found == places.where(places >= 0, SIDE**2)).float().mean() > 0.9


def test_a_shuffle_is_undone_without_ever_having_seen_the_order() -> None:
    order = order_of(adversary(SHUFFLE))
    tokens, places = shuffled(features(Vit, 3, TARGETS))
    with torch.no_grad():
        assert (order.places(tokens) == places.where(places >= 0, SIDE**2)).float().mean() > 0.98
        rows_right = (order(tokens) == features(Vit, 3, TARGETS)[:, 1:]).all(2).float().mean()
    assert rows_right > 0.98


@pytest.mark.parametrize(("channel", "step"), [(BACKWARDS, -1), (NOISY, 1)], ids=["backwards", "noisy"])
def test_an_order_that_is_the_same_in_each_photo_needs_no_transformer(channel: Channel, step: int) -> None:
    order = order_of(adversary(channel))
    assert order.fixed.tolist() == [SIDE**2, *range(SIDE**2)][::step]


def test_what_did_not_arrive_is_filled_in() -> None:
    knows = adversary(lambda tokens: shuffled(tokens, keep=10, first=1)[0])
    order, whole = order_of(knows), features(Vit, 3, TARGETS)[:, 1:]
    tokens, places = shuffled(features(Vit, 3, TARGETS), keep=10, first=1)
    _, there = placed(tokens, places, SIDE**2)
    with torch.no_grad():
        filled = order(tokens)
    missed, empty = (((x - whole)[~there]).square().mean() for x in (filled, order.standard.centre))
    assert missed < 0.8 * empty
    assert (filled - whole)[there].square().mean() < 0.1 * empty


def test_behind_a_shuffle_it_does_what_no_decoder_does() -> None:
    knows, bare = adversary(SHIPPED), adversary(lambda tokens: tokens)
    undone, stock, undefended = error(LIGHT, knows), error(DECODER, adversary(SHIPPED)), error(DECODER, bare)
    assert stock > 0.9 * floor(knows) > undone
    assert undone < undefended + 0.1 * (floor(knows) - undefended)
    assert error(LIGHT, knows, roll=1) > 0.95 * floor(knows)


def test_queries_of_both_are_counted_and_budgeted() -> None:
    knows = adversary(SHUFFLE)
    LIGHT.fit(knows)
    assert knows.queries > 384 * (LIGHT.order_epochs + 4)
    knows = adversary(SHUFFLE)
    knows.budget = 1000
    with pytest.raises(RuntimeError, match="may have 1000"):
        LIGHT.fit(knows)


def test_it_does_not_apply_where_there_are_no_tokens() -> None:
    assert LIGHT.inapplicable(TOY_TOKENS) is None
    reason = LIGHT.inapplicable(TOY_SCENE)
    assert reason == "token_order does not apply: it needs releases that are tokens, and these are not"
    assert LIGHT.inapplicable(Scene((17, 48), (3, 32, 32), tokens=True, queries=False)) is not None


def test_a_token_alone_has_no_order() -> None:
    knows = adversary(lambda tokens: tokens[:, :1], lambda: nn.Sequential(Vit(), nn.AdaptiveAvgPool2d((1, WIDTH))))
    with pytest.raises(InvalidInputError, match="1 tokens of a photo have no order; four are the fewest"):
        LIGHT.fit(knows)


@cache
def _vit_b_16(cut: str = "encoder.layers.encoder_layer_1.add_1") -> nn.Module:
    with seeded("vit_b_16"):
        halves = split(make_network("vit_b_16", 3, 32), "vit_b_16", cut, 32)
    return halves.encoder.requires_grad_(False).eval()


@pytest.mark.slow
def test_torchvisions_vit_is_cut_and_attacked() -> None:
    bare = partial(adversary, lambda tokens: tokens, _vit_b_16)
    assert bare().release_shape == (5, 768)
    for attack, share in ((Ridge(), 0.7), (Ridge(window="whole"), 0.7), (Decoder(width=16, epochs=8), 0.9)):
        assert error(attack, bare()) < share * floor(bare())
    knows = adversary(SHUFFLE, _vit_b_16)
    attack = TokenOrder(width=16, epochs=8, order_width=32, order_epochs=8)
    assert error(attack, knows) < 0.95 * floor(knows)
