"""A decoder's blocks learn what the victim computes at their depth."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitleak.attacks.blockwise_decoder import BlockwiseDecoder, _Depths
from splitleak.attacks.edge import PlainEdge
from splitleak.attacks.knowledge import WhiteBox
from splitleak.attacks.toy import toy_knowledge
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import to_float
from splitleak.victims.toy import toy_images

ATTACK = BlockwiseDecoder(width=16, epochs=6)


def encoder() -> nn.Sequential:
    """Photos (n, 3, 32, 32) -> maps (n, 8, 16, 16), then (n, 12, 8, 8), of which what is negative is cut off."""
    with seeded("two grids"):
        return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Tanh(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU()).eval()


@pytest.fixture(scope="module")
def knows() -> WhiteBox:
    known, _ = toy_knowledge(ATTACK)
    assert isinstance(known, WhiteBox)
    device = PlainEdge(encoder().requires_grad_(False))
    return replace(
        known,
        edge=device,
        send=device,
        resend=lambda part, rows: device(to_float(known.images[part][rows])),
        intercepted=device(to_float(toy_images(4, seed=3))),
    )


def test_the_last_activation_on_each_grid_is_taken_in_units_of_its_spread(knows: WhiteBox) -> None:
    depths, (first, bent, *_) = _Depths(knows), encoder()
    assert depths.channels == {(16, 16): 8, (8, 8): 12}
    own, others = to_float(knows.images["auxiliary"][:64]), to_float(toy_images(5, seed=4))
    with torch.no_grad():
        inner, seen = bent(first(own)), bent(first(others))
        expected = (seen - inner.mean((0, 2, 3), keepdim=True)) / inner.std((0, 2, 3), keepdim=True)
    torch.testing.assert_close(depths(others)[(16, 16)], expected)
    assert not any(layer._forward_hooks for layer in knows.edge.modules())


def test_a_map_that_never_changes_is_nothing_to_learn(knows: WhiteBox) -> None:
    dead = encoder()
    with torch.no_grad():
        dead[0].weight[0], dead[0].bias[0] = 0, 1
    depths = _Depths(replace(knows, edge=PlainEdge(dead)))
    assert depths(to_float(toy_images(5)))[(16, 16)][:, 0].eq(0).all()


@pytest.mark.parametrize(("weight", "taught"), [(0.0, False), (0.1, True)])
def test_blocks_tell_activations_of_photos_that_they_never_saw(knows: WhiteBox, weight: float, taught: bool) -> None:
    with seeded("fit"):
        network = replace(ATTACK, weight=weight)._taught(knows).eval()
    photos = to_float(toy_images(32, seed=5))
    with torch.no_grad():
        _, told = network(knows.edge(photos))
    true = _Depths(knows)(photos)
    assert list(told) == [(16, 16)]
    assert (_share(told[(16, 16)], true[(16, 16)]) < 0.3) == taught


def _share(told: Tensor, true: Tensor) -> float:
    """Of what varies: what was not told."""
    return float(F.mse_loss(told, true) / true.square().mean())
