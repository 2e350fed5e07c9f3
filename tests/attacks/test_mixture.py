"""A channel that adds one of a few patterns is undone before any attack; one that does anything else is let be."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from splitleak.attacks.base import Attack, Staged
from splitleak.attacks.decoder import Decoder
from splitleak.attacks.edge import PlainEdge
from splitleak.attacks.knowledge import BlackBox, Memo, WhiteBox
from splitleak.attacks.mixture import FEW, PAIRED, RELEASES_LOOKED_AT, SENDS, look_for_mixture
from splitleak.attacks.nearest_neighbor import NearestNeighbor
from splitleak.attacks.ridge import Ridge
from splitleak.attacks.rmle import Rmle
from splitleak.attacks.shadow_model import ShadowModel
from splitleak.attacks.toy import toy_knowledge
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import to_float
from splitleak.victims.toy import CHANNELS, toy_images

TARGETS = 48


class _Channel(nn.Module):
    """Toy features (n, 96, 2, 2) -> the same, with randomness drawn afresh."""

    def __init__(self, draw: Callable[[Tensor, Tensor], Tensor], patterns: int = 8) -> None:
        super().__init__()
        self.draw = draw
        with seeded("patterns"):
            self.patterns = 2 * torch.randn(patterns, CHANNELS, 2, 2) + 1

    def forward(self, features: Tensor) -> Tensor:
        return self.draw(features, self.patterns[torch.randint(len(self.patterns), (len(features),))])


def _added(features: Tensor, pattern: Tensor) -> Tensor:
    return features + pattern + 0.02 * torch.randn_like(features)


OTHERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "normal noise": lambda features, _: features + torch.randn_like(features),
    "heavy-tailed noise": lambda features, _: (
        features + torch.randn_like(features) / torch.rand(len(features), 1, 1, 1)
    ),
    "dropout": lambda features, _: features * (torch.rand_like(features) < 0.5),
    "dropped channels": lambda features, _: features * (torch.rand(len(features), CHANNELS, 1, 1) < 0.5),
    "one of a few masks": lambda features, pattern: features * (pattern > 0),
    "one of a few gains": lambda features, pattern: features * pattern.mean((1, 2, 3), keepdim=True),
    "one of two values": lambda features, _: (features > torch.rand(len(features), 1, 1, 1)).float(),
}


def behind(channel: Callable[[Tensor], Tensor], attack: Attack[Any]) -> Any:
    """What the attack's kind of adversary knows where the toy's device has this channel."""
    knows, encoder = toy_knowledge(attack)
    with seeded("intercepted"):
        knows.intercepted = channel(knows.intercepted)
    if isinstance(knows, BlackBox):
        send, resend = knows.send, knows.resend
        knows.send, knows.resend = (
            lambda images: channel(send(images)),
            lambda part, rows: channel(resend(part, rows)),
        )
    if isinstance(knows, WhiteBox):
        assert isinstance(channel, nn.Module)
        knows.edge = PlainEdge(encoder, channel)
    return knows


def error(answer: Callable[[Tensor], Tensor], knows: Any) -> float:
    with torch.no_grad():
        return float((answer(knows.intercepted) - to_float(toy_images(TARGETS, seed=3))).square().mean())


@pytest.mark.parametrize("patterns", [2, 8, 32])
def test_the_patterns_are_found_whatever_the_photos_add_to_them(patterns: int) -> None:
    channel = _Channel(_added, patterns)
    knows = behind(channel, Ridge())
    with seeded("look"):
        mixture = knows.mixture()
    assert mixture is not None
    assert knows.queries == SENDS + 2 * PAIRED == RELEASES_LOOKED_AT
    true = channel.patterns - channel.patterns.mean(0)
    apart = torch.cdist(mixture.patterns.flatten(1), true.flatten(1)) / true.flatten(1).norm(dim=1)
    assert apart.min(0).values.max() < 0.02
    assert (apart < 0.02).sum() == patterns == len(mixture.patterns)


@pytest.mark.parametrize("name", OTHERS)
def test_what_adds_no_patterns_is_left_alone(name: str) -> None:
    knows = behind(_Channel(OTHERS[name]), Ridge())
    with seeded("look"):
        assert knows.mixture() is None


@pytest.mark.parametrize("name", ["normal noise", "dropout"])
def test_where_nothing_is_found_an_attack_answers_as_if_nobody_had_looked(name: str) -> None:
    answers = []
    for run in (Ridge().fit, Ridge().fitted):
        knows = behind(_Channel(OTHERS[name]), Ridge())
        with seeded("attack"):
            answers.append(run(knows)(knows.intercepted))
    assert torch.equal(*answers)


def test_a_channel_that_draws_nothing_costs_a_few_releases() -> None:
    knows, _ = toy_knowledge(Ridge())
    assert isinstance(knows, BlackBox)
    assert knows.mixture() is None
    assert knows.queries == FEW


@pytest.mark.parametrize("budget", [RELEASES_LOOKED_AT, 10 * RELEASES_LOOKED_AT - 1])
def test_a_small_budget_is_not_spent_on_a_look(budget: int) -> None:
    knows = behind(_Channel(_added), Ridge())
    knows.budget = budget
    assert (knows.mixture(), knows.queries) == (None, 0)
    knows.budget = 10 * RELEASES_LOOKED_AT
    assert knows.mixture() is not None


def test_patterns_that_the_features_drown_are_not_subtracted() -> None:
    knows = behind(_Channel(lambda features, pattern: features + 1e-4 * pattern[:, :1, :1, :1]), Ridge())
    assert knows.mixture() is None
    assert knows.queries == RELEASES_LOOKED_AT


LEARNED = [
    Ridge(),
    Ridge(window="whole"),
    NearestNeighbor(),
    Decoder(width=16, epochs=8),
]


@pytest.mark.parametrize("attack", LEARNED, ids=str)
def test_every_learned_attack_does_as_if_there_were_no_patterns(attack: Attack[Any]) -> None:
    bare = behind(_Channel(lambda features, _: _added(features, torch.zeros(()))), attack)
    knows, stock = (behind(_Channel(_added), attack) for _ in range(2))
    with seeded("attack"):
        best = error(attack.fit(bare), bare)
    with seeded("attack"):
        undone = error(attack.fitted(knows), knows)
    assert undone < 1.1 * best
    assert knows.queries > RELEASES_LOOKED_AT
    with seeded("attack"):
        assert undone < error(attack.fit(stock), stock)


def test_a_search_sees_the_device_behind_the_step() -> None:
    attack = Rmle(steps=1)
    knows, images = behind(_Channel(_added), attack), to_float(toy_images(TARGETS, seed=3)).requires_grad_()
    mixture = knows.mixture()
    with seeded("sent"):
        sent = knows.behind(mixture, mixture.name).edge(images)
    undefended = toy_knowledge(attack)[1](images)
    assert (sent - undefended).std(0).max() < 0.05, "all that is left is what all patterns share"
    (through,) = torch.autograd.grad(sent.sum(), images, retain_graph=True)
    (bare,) = torch.autograd.grad(undefended.sum(), images)
    torch.testing.assert_close(through, bare)
    with seeded("attack"):
        assert attack.fitted(knows)(knows.intercepted).shape == images.shape


def test_releases_of_other_photos_tell_no_more_behind_the_step() -> None:
    knows = behind(_Channel(_added), Ridge())
    images = to_float(toy_images(TARGETS, seed=3))
    with seeded("attack"), torch.no_grad():
        wrong = float((Ridge().fitted(knows)(knows.intercepted.roll(1, 0)) - images).square().mean())
    assert wrong > 0.95 * float((to_float(knows.images["auxiliary"]).mean(0) - images).square().mean())


def test_who_may_not_ask_does_not_look() -> None:
    attack = ShadowModel(epochs=1, decoder_epochs=1)
    knows = behind(_Channel(_added), attack)
    assert attack.fitted(knows)(knows.intercepted).shape == (TARGETS, 3, 32, 32)
    assert knows.queries == 0


def test_stages_are_shown_behind_the_step() -> None:
    attack = Decoder(width=16, epochs=1)
    knows = behind(_Channel(_added), attack)
    with seeded("attack"):
        answer = attack.fitted(knows)
    assert isinstance(answer, Staged)
    with torch.no_grad():
        assert torch.equal(answer.stages(knows.intercepted)[-1], answer(knows.intercepted))


def test_the_look_is_remembered_and_what_is_learned_behind_it_goes_by_the_patterns() -> None:
    kept: dict[str, Memo] = {}

    def memory(what: str, module: str, about: Any, build: Callable[[], Memo]) -> Memo:
        with seeded("memory", what):
            return kept.setdefault(what, kept.get(what) or build())

    counted = []
    for _ in range(2):
        knows = behind(_Channel(_added), Decoder())
        knows.memory = memory
        Decoder(width=16, epochs=1).fitted(knows)
        counted.append(knows.queries)
    look, decoder = kept
    assert look == "mixture"
    assert decoder.startswith("decoder")
    assert " behind 8 patterns " in decoder
    assert counted == [RELEASES_LOOKED_AT + kept[decoder].queries] * 2
    assert knows.seconds_recalled > 0


def test_few_photos_are_enough_to_say_that_nothing_was_found() -> None:
    def send(rows: Tensor) -> Tensor:
        return _Channel(_added)(torch.zeros(len(rows), CHANNELS, 2, 2))

    with seeded("look"):
        assert look_for_mixture(send, 1) is None
