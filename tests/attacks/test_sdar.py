"""Critics and decoder that know the class, and an encoder and a decoder that learn from what was intercepted."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from splitleak.attacks.base import Scene
from splitleak.attacks.checks import share_of_floor
from splitleak.attacks.knowledge import BlackBox, QueryFree
from splitleak.attacks.networks.labelled import LabelledCritic, LabelledDecoder
from splitleak.attacks.networks.standard import Standardised
from splitleak.attacks.sdar import Sdar, _Pair, _Tail
from splitleak.attacks.shadow import Shadow
from splitleak.attacks.toy import toy_knowledge
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.seeding import seeded
from splitleak.victims.toy import CHANNELS, CLASSES, left_as_found

QUICK = Sdar(steps=50, batch_size=16, width=16)


def knowledge() -> QueryFree:
    knows, _ = toy_knowledge(QUICK)
    return knows


def answer(knows: QueryFree, attack: Sdar = QUICK) -> Tensor:
    """To what was intercepted."""
    with seeded("answer"):
        reconstruct = attack.fit(knows)
        with torch.no_grad():
            return reconstruct(knows.intercepted)


@pytest.mark.parametrize("shape", [(6, 9, 5), (5, 2, 2), (3, 32, 32)], ids=str)
def test_a_critic_learns_what_is_real_of_which_class(shape: tuple[int, int, int]) -> None:
    """What is real of one class is not of the other: without the label there is nothing to learn."""
    with seeded("critic"):
        critic = LabelledCritic(shape, 2, 3e-3)
        labels = torch.arange(32) % 2
        bright = (2.0 * labels - 1)[:, None, None, None] + 0.1 * torch.randn(32, *shape)
        for _ in range(40):
            critic.learn((bright, labels), (bright, 1 - labels))
        critic.eval()
        real, made = critic(bright, labels), critic(bright, 1 - labels)
    assert real.shape == (32, 1)
    assert float((real - made).mean().detach()) > 0.5
    assert critic.unconvinced(bright, 1 - labels) > critic.unconvinced(bright, labels)


def test_features_are_put_on_one_scale_and_constants_stay_quiet() -> None:
    with seeded("scale"):
        features = torch.randn(400, 3, 2, 2) * torch.tensor([1.0, 100.0, 0.0])[:, None, None] + 7
    standard = Standardised((3, 2, 2))
    standard.begin_from([features])
    grid = standard(features)
    torch.testing.assert_close(grid.mean(0), torch.zeros(3, 2, 2), atol=1e-3, rtol=0)
    assert (grid[:, 1].std(0) - 1).abs().max() < 0.02
    assert grid[:, 0].std(0).max() < 0.2, "what hardly varies is not made loud"
    assert not grid[:, 2].any()


def test_a_decoder_paints_each_class_its_own_way() -> None:
    with seeded("classes"):
        decoder = LabelledDecoder((4, 2, 2), 3, 16, 16, 16).eval()
        features = torch.randn(1, 4, 2, 2).expand(3, 4, 2, 2)
        images = decoder(features, torch.arange(3))
    assert not torch.equal(images[0], images[1])
    assert not torch.equal(images[1], images[2])


def test_needs_a_task_and_labelled_photos() -> None:
    scene = Scene(release_shape=(96, 2, 2), image_shape=(3, 32, 32), attributes=("kind",))
    assert "it needs a tail that was trained on labels" in str(Sdar().inapplicable(scene))
    assert Sdar().inapplicable(replace(scene, task="kind")) is None
    knows = knowledge()
    unknown = {part: {"kind": torch.full_like(labels["kind"], -1)} for part, labels in knows.labels.items()}
    with pytest.raises(InvalidInputError, match="sdar: no photo of the auxiliary part carries a label"):
        Sdar().fit(replace(knows, labels=unknown))


def test_leaves_the_tail_as_found_and_asks_for_nothing() -> None:
    knows = knowledge()
    knows.tail = nn.Sequential(nn.BatchNorm2d(CHANNELS), nn.Dropout(), nn.Flatten(), nn.Linear(CHANNELS * 4, CLASSES))
    assert not isinstance(knows, BlackBox)
    with left_as_found(knows.tail, tensors=(knows.intercepted,)):
        answer(knows)
    assert all(parameter.grad is None for parameter in knows.tail.parameters())
    assert knows.queries == 0


def gradients(attack: Sdar, knows: QueryFree, theirs: Tensor) -> list[Tensor]:
    """Of encoder and decoder, in one step on 16 photos and these features."""
    with seeded("gradients"):
        tail = _Tail.of(knows)
        pair = _Pair(Shadow(knows), attack._decoder(tail, knows))
        photos, labels = (part[:16] for part in attack._labelled(knows, "auxiliary"))
        loss = attack._loss(tail, pair.decoder.standard, knows)
        loss(pair, (photos, labels, theirs, tail.decisions(theirs))).backward()  # type: ignore[no-untyped-call]
    return [
        torch.cat([parameter.grad.flatten() for parameter in network.parameters() if parameter.grad is not None])
        for network in (pair.shadow, pair.decoder)
    ]


@pytest.mark.parametrize("weight", ["feature_critic", "picture_critic"])
def test_each_network_learns_from_what_was_received_through_its_critic_alone(weight: str) -> None:
    knows = knowledge()
    theirs = knows.intercepted[:16]
    deaf = replace(QUICK, feature_critic=0.0, picture_critic=0.0)
    for attack in (deaf, replace(deaf, **{weight: 1.0})):
        one, other = gradients(attack, knows, theirs), gradients(attack, knows, -theirs)
        moved = [not torch.equal(a, b) for a, b in zip(one, other, strict=True)]
        assert moved == [attack.feature_critic > 0, attack.picture_critic > 0]


def test_encoder_and_decoder_meet_the_defence_that_is_known() -> None:
    knows, sent = knowledge(), []

    def noisy(encoder: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        features = encoder(images)
        sent.append(features.requires_grad)
        return features + 10 * torch.randn_like(features)

    plain = answer(knows)
    knows.as_received = noisy
    assert not torch.equal(answer(knows), plain)
    assert sent.count(True) == QUICK.steps


def test_recovers_an_encoder_that_tail_and_distribution_give_away() -> None:
    """With more weight on the features' critic than published, since few steps are taken."""
    attack = Sdar(steps=200, learning_rate=1e-2, feature_critic=1.0, critic_learning_rate=3e-3, width=16)
    attack = replace(attack, decoder_learning_rate=1e-3)
    assert share_of_floor(attack, start=0) < 0.5
    assert share_of_floor(attack, start=0, shuffle=1) > 1, "given the releases of others"
