"""What query-free attacks share, and the shadow that is learned through the tail."""

from collections.abc import Callable
from dataclasses import replace
from statistics import median

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from splitleak.attacks.base import Scene
from splitleak.attacks.checks import share_of_floor
from splitleak.attacks.decoder import Decoder
from splitleak.attacks.fora import Fora
from splitleak.attacks.knowledge import About, BlackBox, Memo, QueryFree
from splitleak.attacks.shadow import Received, Shadow, ShadowAttack
from splitleak.attacks.shadow_model import LEAST_SHARE, MomentLoss, ShadowModel
from splitleak.attacks.toy import toy_knowledge
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import to_float
from splitleak.victims.toy import CHANNELS, CLASSES, left_as_found

QUICK_SHADOW = ShadowModel(epochs=2, width=16, decoder_epochs=1)
QUICK_FORA = Fora(steps=50, width=16, decoder_epochs=1)


class Memory:
    """Keeps all memos by their name, and the names in the order in which they were made."""

    def __init__(self) -> None:
        self.kept: dict[str, Memo] = {}

    def __call__(self, what: str, module: str, about: About, build: Callable[[], Memo]) -> Memo:
        key = f"{module} {about} {what}"
        if key not in self.kept:
            with seeded("memory", what):
                self.kept[key] = build()
        return self.kept[key]


def knowledge() -> QueryFree:
    knows, _ = toy_knowledge(ShadowModel())
    return knows


def test_needs_a_task() -> None:
    scene = Scene(release_shape=(96, 2, 2), image_shape=(3, 32, 32))
    for lacking in (scene, replace(scene, attributes=("kind",))):
        reason = "it needs a tail that was trained on labels, and the victim has no task"
        assert ShadowModel().inapplicable(lacking) == f"shadow_model does not apply: {reason}"
    assert ShadowModel().inapplicable(replace(scene, task="kind", attributes=("kind",))) is None
    assert Fora().inapplicable(scene) is None


def test_needs_labelled_photos() -> None:
    knows = knowledge()
    unknown = {part: {"kind": torch.full_like(labels["kind"], -1)} for part, labels in knows.labels.items()}
    with pytest.raises(InvalidInputError, match="no photo of the auxiliary part"):
        ShadowModel().fit(replace(knows, labels=unknown))


def test_unlabelled_photos_are_left_out() -> None:
    knows = knowledge()
    blanks = {part: photos.clone() for part, photos in knows.images.items()}
    labels = {part: {"kind": named["kind"].clone()} for part, named in knows.labels.items()}
    for part in blanks:
        labels[part]["kind"][1::2] = -1
        blanks[part][1::2] = 0  # what they show makes no difference either
    states = []
    for images in (knows.images, blanks):
        with seeded("left out"):
            states.append(QUICK_SHADOW.shadow(replace(knows, images=images, labels=labels)).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("attack", [QUICK_SHADOW, QUICK_FORA], ids=lambda attack: attack.name)
def test_leaves_the_tail_as_found_and_asks_for_nothing(attack: ShadowAttack) -> None:
    knows = knowledge()
    knows.tail = nn.Sequential(nn.BatchNorm2d(CHANNELS), nn.Dropout(), nn.Flatten(), nn.Linear(CHANNELS * 4, CLASSES))
    assert not isinstance(knows, BlackBox)
    with left_as_found(knows.tail, tensors=(knows.intercepted,)):
        attack.fit(knows)
    assert all(parameter.grad is None for parameter in knows.tail.parameters())
    assert knows.queries == 0


def test_the_tail_understands_the_shadow() -> None:
    knows = knowledge()
    images, labels = to_float(knows.images["validation"]), knows.labels["validation"]["kind"]
    with seeded("understood"):
        shadow = ShadowModel(match=0.0).shadow(knows)
        accuracy = float((knows.tail(shadow(images)).argmax(1) == labels).float().mean())
    assert accuracy > 0.9


def test_matching_keeps_the_features_where_those_received_are() -> None:
    knows = knowledge()
    images, moments = to_float(knows.images["validation"]), MomentLoss.of(knows.intercepted)
    distances = []
    for match in (0.0, 1.0):
        with seeded("matched"):
            distances.append(float(moments(ShadowModel(match=match).shadow(knows)(images))))
    assert distances[1] < 1 < distances[0]


@settings(max_examples=40, deadline=None)
@given(
    own=st.integers(1, 7),
    theirs=st.integers(2, 7),
    shape=st.sampled_from([(1,), (5,), (3, 2), (4, 3, 2)]),
    scale=st.floats(0.01, 100),
    seed=st.integers(0, 1000),
)
def test_moment_loss_in_double_precision(
    own: int, theirs: int, shape: tuple[int, ...], scale: float, seed: int
) -> None:
    with seeded("moments", seed):
        first, second = scale * torch.randn(own, *shape), scale * (1 + torch.randn(theirs, *shape))
    a, b = first.double().numpy(), second.double().numpy()
    unit = b.var(0).mean()
    spreads = [np.sqrt(part.var(0) + LEAST_SHARE * unit) for part in (a, b)]
    expected = ((a.mean(0) - b.mean(0)) ** 2 + (spreads[0] - spreads[1]) ** 2).mean() / unit
    assert float(MomentLoss.of(second)(first)) == pytest.approx(expected, rel=1e-3)


def test_moment_loss_of_constant_features_has_a_gradient() -> None:
    features = torch.zeros(4, 3, requires_grad=True)
    MomentLoss.of(torch.randn(8, 3))(features).backward()  # type: ignore[no-untyped-call]
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_a_shadow_tells_nothing_that_no_release_tells() -> None:
    knows = knowledge()
    knows.receive = lambda release: release.index_fill(1, torch.arange(10), 0.25)
    shadow = Shadow(knows)
    features = shadow(to_float(knows.images["validation"]))
    assert (features[:, :10] == 0.25).all()
    assert (features[:, 10:].std(0) > 0).all()
    assert not Received.by(knows).varies[:10].any()


@pytest.mark.parametrize("attack", [QUICK_SHADOW, QUICK_FORA], ids=lambda attack: attack.name)
def test_who_inverts_a_shadow_meets_the_defence_that_is_known(attack: ShadowAttack) -> None:
    knows, sent = knowledge(), []

    def noisy(encoder: nn.Module, images: Tensor) -> Tensor:
        features: Tensor = encoder(images)
        sent.append(features.requires_grad)
        return features + torch.randn_like(features)

    knows.as_received = noisy
    with seeded("met"):
        attack.fit(knows)
        shadow = attack.shadow(knows)
        photos = to_float(knows.images["validation"])
        draws = torch.stack([shadow(photos) for _ in range(2)])
    assert (True in sent) == (attack is QUICK_SHADOW)  # while the encoder learned; FORA's learns without
    assert sent.count(False) > 2 * len(photos) / 64  # and while the decoder did
    assert float((draws[0] - draws[1]).std()) == pytest.approx(2**0.5, rel=0.05)


def test_recovers_an_encoder_that_tail_and_distribution_give_away() -> None:
    attack = ShadowModel(learning_rate=1e-2, width=16, decoder_epochs=8)
    assert median(share_of_floor(attack, start) for start in range(3)) < 0.5
    assert share_of_floor(attack, start=0, shuffle=1) > 1, "given the releases of others"


def test_known_noise_is_not_taken_for_features() -> None:
    knows = knowledge()
    clean = knows.intercepted
    std = 2 * float(clean.std(0).mean())
    with seeded("noise"):
        knows.intercepted = clean + std * torch.randn_like(clean)
    images, spreads = to_float(knows.images["validation"]), []
    for as_received in (
        lambda encoder, photos: encoder(photos) + std * torch.randn(len(photos), *clean.shape[1:]),
        None,
    ):
        imitating = replace(knows, as_received=as_received) if as_received else knows
        with seeded("taken"):
            spreads.append(float(ShadowModel(epochs=10).shadow(imitating).encoder(images).var(0).mean()))
    assert spreads[0] < 2 * clean.var(0).mean() < spreads[1]


@pytest.mark.parametrize("attack", [QUICK_SHADOW, QUICK_FORA], ids=lambda attack: attack.name)
def test_a_shadow_is_trained_once(attack: ShadowAttack) -> None:
    memory, answers = Memory(), []
    for variant in (attack, attack, replace(attack, width=32)):
        knows = replace(knowledge(), memory=memory)
        with seeded("once"), torch.no_grad():
            with torch.enable_grad():
                reconstruct = variant.fit(knows)
            answers.append(reconstruct(knows.intercepted))
    assert torch.equal(answers[0], answers[1])
    assert len(memory.kept) == 3  # one shadow, two decoders
    assert knows.seconds_recalled > 0


def test_its_decoder_is_not_taken_for_the_devices() -> None:
    memory = Memory()
    with seeded("both"):
        QUICK_SHADOW.fit(replace(knowledge(), memory=memory))
        before = len(memory.kept)
        black_box, _ = toy_knowledge(Decoder())
        Decoder(width=16, epochs=1).fit(replace(black_box, memory=memory))  # type: ignore[arg-type]
    assert len(memory.kept) == before + 1


def test_a_shadow_can_be_searched_as_published_photo_by_photo() -> None:
    attack = ShadowModel(epochs=2, inversion="search", search_steps=30)
    assert attack.per_image
    assert not ShadowModel().per_image
    knows = knowledge()
    memory = knows.memory = Memory()
    releases = knows.intercepted[:3]
    with seeded("search"):
        answers = attack.fit(knows)(releases)
    assert answers.shape == (3, *knows.image_shape)
    assert not any("decoder" in name for name in memory.kept)
    with seeded("search"):
        assert not torch.equal(attack.fit(knows)(releases + 1), answers)
