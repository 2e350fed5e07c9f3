"""What did not travel is not taken for a value."""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from splitleak.attacks.blanks import better_at_mean
from splitleak.attacks.decoder import Decoder
from splitleak.attacks.knowledge import AttackerPart, BlackBox
from splitleak.attacks.networks.standard import Standardised
from splitleak.attacks.toy import toy_knowledge
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import to_float
from splitleak.victims.toy import toy_images

DROPPED = 0.7
OFFSET = 2.0
"""Far from zero, as features behind an activation are: a zero in their place is loud."""


def is_there(release: Tensor) -> Tensor:
    return release != 0


def test_the_mean_of_what_arrived_stands_where_nothing_did() -> None:
    with seeded("blanks"):
        features = 5 + 2 * torch.randn(4000, 3, 2, 2)
        sent = features * (torch.rand(4000, 3, 2, 2) < torch.tensor([0.1, 0.5, 1.0])[:, None, None])
    standard = Standardised((3, 2, 2), is_there)
    standard.begin_from(sent.split(1000))
    values = standard(sent)
    assert torch.equal(values[sent == 0], torch.zeros(int((sent == 0).sum())))
    torch.testing.assert_close(values[sent != 0], (features[sent != 0] - 5) / 2, atol=0.3, rtol=0.1)


def drop(features: Tensor) -> Tensor:
    return features * (torch.rand_like(features) > DROPPED)


def keep_large(features: Tensor) -> Tensor:
    return F.relu(features - OFFSET)


def adversary(leave_out: Callable[[Tensor], Tensor], arrived: bool = True) -> BlackBox:
    """Behind a toy device that leaves out some features."""
    knows, encoder = toy_knowledge(Decoder())
    assert isinstance(knows, BlackBox)
    images = knows.images

    def send(photos: Tensor) -> Tensor:
        return leave_out(OFFSET + encoder(photos))

    def resend(part: AttackerPart, rows: Tensor) -> Tensor:
        return send(to_float(images[part][rows]))

    with seeded("sent"), torch.no_grad():
        sent = send(to_float(toy_images(48, seed=3)))
    told = replace(knows, intercepted=sent, send=send, resend=resend)
    return replace(told, arrived=is_there) if arrived else told


def test_a_blank_that_is_chance_is_replaced_and_one_that_tells_something_is_not() -> None:
    assert better_at_mean(adversary(drop)) is is_there
    assert better_at_mean(adversary(keep_large)) is None


def test_places_that_are_always_empty_or_never_are_no_blanks() -> None:
    knows = adversary(drop)
    everywhere = torch.ones_like(knows.intercepted, dtype=torch.bool)
    assert better_at_mean(replace(knows, arrived=lambda release: everywhere[: len(release)])) is None
    everywhere[:, :10] = False
    assert better_at_mean(replace(knows, arrived=lambda release: everywhere[: len(release)])) is None
    assert knows.queries == 0


def test_who_knows_what_is_blank_rebuilds_better() -> None:
    photos, errors = to_float(toy_images(48, seed=3)), {}
    for told in (False, True):
        knows = adversary(drop, told)
        with seeded("blanks"):
            rebuilt = Decoder(width=16, epochs=8).fit(knows)(knows.intercepted).detach()
        errors[told] = float((rebuilt - photos).square().mean())
    assert errors[True] < 0.9 * errors[False]
