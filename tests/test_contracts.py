"""Every discovered plugin keeps its contract, and the checks notice one that does not."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import pytest
import torch
from annotated_types import Ge
from torch import Tensor

from splitleak.attacks.base import (
    Answer,
    Attack,
    Linkage,
    Reconstruction,
    Reconstructor,
    Requirement,
    Scene,
    knowledge_of,
)
from splitleak.attacks.checks import check_attack
from splitleak.attacks.decoder import Decoder
from splitleak.attacks.inverse_network import InverseNetwork
from splitleak.attacks.knowledge import BlackBox, QueryFree, WhiteBox
from splitleak.attacks.mean_image import MeanImage
from splitleak.attacks.ridge import Ridge
from splitleak.attacks.toy import TOY_TOKENS, toy_knowledge
from splitleak.defenses.base import Calibration, CalibrationBatch, Channel, Defense
from splitleak.defenses.checks import check_defense, toy_channel, toy_of
from splitleak.experiments.planning import plugins
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.tensors import to_float
from splitleak.victims.toy import toy_images

ATTACKS = plugins.attack_classes()
DEFENSES = plugins.defense_classes()
LIGHTER: dict[str, dict[str, Any]] = {
    "blockwise_decoder": {"width": 32},
    "deep_image_prior": {"steps": 40, "width": 8, "weight": 0.0, "learning_rate": 0.03},
    "latent_search": {"epochs": 8, "width": 16, "steps": 30, "activation_steps": 30, "weight": 0.01},
    "decoder": {"width": 32},
    "flow_prior": {"width": 16, "flow_epochs": 6, "steps": 10, "begin": 0.9, "stride": 4.0},
    "fora": {"steps": 300, "learning_rate": 1e-2, "width": 16, "decoder_epochs": 8},
    "inverse_network": {"epochs": 25},
    "sdar": {
        "steps": 100,
        "learning_rate": 1e-2,
        "feature_critic": 1.0,
        "critic_learning_rate": 3e-3,
        "decoder_learning_rate": 1e-3,
        "width": 16,
    },
    "shadow_model": {"learning_rate": 1e-2, "width": 16, "decoder_epochs": 8},
    "refine": {"width": 16, "steps": 50},
    "rmle": {"steps": 200},
    "stack": {"width": 16, "epochs": 8, "trainings": 1},
    "token_order": {"width": 16, "order_epochs": 2, "epochs": 15},
}
"""Settings of the slow ones under which the toy is still easy."""
NEEDED: dict[str, dict[str, Any]] = {
    "chain": {
        "parts": [
            {"name": "channel_subset", "keep": 0.5},
            {"name": "gaussian_noise", "sigma": 0.5},
            {"name": "quantisation", "bits": 4},
        ]
    },
    "adversarial_perturbation": {"training_steps": 20},
    "cloak": {"steps": 60},
    "disco": {"steps": 3},
}
"""Settings that have no default, and lighter ones."""
SLOW = {"adversarial_training", "flow_prior", "latent_search", "refine", "rmle"}
"""They take long, and lighter settings would not do."""


def each(names: Iterable[str]) -> list[Any]:
    """Names of plugins, the slow ones marked."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in names]


@pytest.mark.parametrize("name", each(ATTACKS))
def test_attack(name: str) -> None:
    assert check_attack(ATTACKS[name].from_mapping(LIGHTER.get(name, {}))) == []


@pytest.mark.parametrize("name", each(DEFENSES))
def test_defense(name: str) -> None:
    assert check_defense(DEFENSES[name].from_mapping(NEEDED.get(name, {}))) == []


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("clipped_noise", {"mechanism": "laplace"}),
        ("keyed_mixing", {"form": "permutation"}),
        ("multi_server", {"servers": 3}),
        ("cloak", {"suppress": 0.3, "steps": 60}),
        pytest.param(
            "chain",
            {"parts": [{"name": "disco", "steps": 3}, {"name": "information_bottleneck"}, {"name": "top_k"}]},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_defense_variants(name: str, settings: dict[str, Any]) -> None:
    assert check_defense(DEFENSES[name].from_mapping(settings)) == []


@pytest.mark.parametrize(
    "variant",
    [
        Ridge(window=3),
        Decoder(architecture="upsample", batch_size=16, learning_rate=3e-3, epochs=8),
        Decoder(architecture="transpose_light", batch_size=16, learning_rate=3e-3, epochs=8),
        Decoder(architecture="transpose_medium", batch_size=16, learning_rate=3e-3, epochs=8),
        InverseNetwork(variant="batch_norm", epochs=6),
        Decoder(objective="structure", width=16, epochs=8),
        pytest.param(Decoder(objective="perceptual", width=16, epochs=8, repaint_epochs=2), marks=pytest.mark.slow),
        pytest.param(Decoder(objective="identity", width=16, epochs=8, repaint_epochs=2), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_attack_variants(variant: Attack[Any]) -> None:
    assert check_attack(variant) == []


@pytest.mark.parametrize("selection", ["first", "random", "variance", "saliency", "leakage"])
def test_channel_subset_selections(selection: str) -> None:
    assert check_defense(DEFENSES["channel_subset"].from_mapping({"selection": selection})) == []


@pytest.mark.parametrize("name", [name for name in DEFENSES if name != "chain"])
def test_a_defence_that_applies_without_a_task_asks_for_no_label(name: str) -> None:
    defense = DEFENSES[name].from_mapping(NEEDED.get(name, {}))
    calibration = toy_of(defense)
    shape = tuple(next(calibration.batches()).features.shape[1:])
    assert defense.inapplicable(shape, "task") is None
    if defense.inapplicable(shape, None) is None:
        few = next(calibration.batches())
        unlabelled = [CalibrationBatch(few.images[:4], few.features[:4], None)]
        toy_channel(defense, replace(calibration, batches=lambda: iter(unlabelled)))
        if perturb := defense.perturb((3, 32, 32)):
            perturb.calibrate(replace(calibration, batches=lambda: iter(unlabelled)))


def test_a_defence_that_needs_a_task_says_so() -> None:
    for name, what in (
        ("nopeek", "changes training"),
        ("disco", "learns which channels the task can spare"),
        ("dp_sgd", "changes training"),
        ("shredder", "learns what noise the task can bear"),
        ("channel_subset", "selects channels by 'saliency', which asks what the task needs"),
    ):
        reason = DEFENSES[name].from_mapping({}).inapplicable((96, 2, 2), None)
        assert reason == f"{name} does not apply: it {what}, and the victim has no task"


def test_a_chain_applies_where_its_parts_do() -> None:
    def chained(*names: str) -> str | None:
        return (
            DEFENSES["chain"].from_mapping({"parts": [{"name": name} for name in names]}).inapplicable((5, 8), None)
        )

    assert chained("top_k", "quantisation") is None
    reason = "chain: its part nopeek does not apply: it changes training, and the victim has no task"
    assert chained("bottleneck", "nopeek") == reason


def test_knowledge_is_what_the_attack_declares() -> None:
    assert knowledge_of(MeanImage) is QueryFree
    assert knowledge_of(Ridge) is BlackBox
    knows, _ = toy_knowledge(MeanImage())
    assert not hasattr(knows, "query")
    knows, _ = toy_knowledge(Ridge())
    assert not hasattr(knows, "edge")


class _Peeking(Reconstruction[WhiteBox]):
    paper: ClassVar[str] = "a test's"

    def fit(self, knows: WhiteBox) -> Reconstructor:
        knows.edge.train()
        return lambda release: torch.full((len(release), 3, 32, 32), 0.5)


class _Normalised(Reconstruction[QueryFree]):
    paper: ClassVar[str] = "a test's"

    def fit(self, knows: QueryFree) -> Reconstructor:
        return lambda release: torch.full((len(release), 3, 32, 32), -1.0)


class _InPlace(Reconstruction[BlackBox]):
    paper: ClassVar[str] = "a test's"

    def fit(self, knows: BlackBox) -> Reconstructor:
        def reconstruct(release: Tensor) -> Tensor:
            release.zero_()
            return torch.full((len(release), 3, 32, 32), 0.5)

        return reconstruct


class _Knowing(Reconstruction[QueryFree]):
    """Holds the targets, in another order than the releases."""

    paper: ClassVar[str] = "a test's"

    def fit(self, knows: QueryFree) -> Reconstructor:
        return lambda release: to_float(toy_images(len(release), seed=3)).roll(1, 0)


class _LabelReader(MeanImage):
    """Looks at labels that it does not declare, and does nothing with them."""

    def fit(self, knows: QueryFree) -> Reconstructor:
        assert knows.labels["auxiliary"]["light"].ndim == 1
        return super().fit(knows)


class _DeclaredLabelReader(_LabelReader):
    requires: ClassVar[frozenset[Requirement]] = frozenset({"labels"})


class _LateReceiver(MeanImage):
    """Looks at the cloud's half only when it answers."""

    def fit(self, knows: QueryFree) -> Reconstructor:
        answer = super().fit(knows)
        return lambda release: answer(knows.receive(release))


class _OfTokens(MeanImage):
    requires: ClassVar[frozenset[Requirement]] = frozenset({"tokens", "several sends", "tail"})

    def fit(self, knows: QueryFree) -> Reconstructor:
        assert knows.release_shape == TOY_TOKENS.release_shape
        assert knows.tail(knows.receive(knows.intercepted)).shape[1:] == (3,)
        assert knows.new_encoder()(to_float(toy_images(1))).shape[1:] == TOY_TOKENS.release_shape
        return super().fit(knows)


def test_what_an_attack_uses_it_must_declare() -> None:
    for attack, field, requirement in ((_LabelReader(), "labels", "labels"), (_LateReceiver(), "receive", "tail")):
        (problem,) = check_attack(attack)
        assert problem == (
            f"declares what it uses: it uses '{field}': declare requires = frozenset({{'{requirement}'}})"
        )
    assert check_attack(_DeclaredLabelReader()) == []


def test_an_attack_on_tokens_is_checked_on_tokens() -> None:
    assert check_attack(_OfTokens()) == []


def test_an_attack_that_cannot_be_tried_is_not_said_to_keep_its_contract() -> None:
    class Picky(_LabelReader):
        def lacks(self, scene: Scene) -> Iterator[tuple[str, str]]:
            yield "the moon", "it is day"

    with pytest.raises(InvalidInputError, match="picky does not apply: it needs the moon, and it is day: the toy"):
        check_attack(Picky())


class _KnowingPeople(Linkage[QueryFree]):
    """Knows who is on the targets, in another order than the releases."""

    paper: ClassVar[str] = "a test's"

    def fit(self, knows: QueryFree) -> Answer:
        def embed(release: Tensor) -> Tensor:
            bright = (to_float(toy_images(len(release), seed=3)).mean((2, 3)) > 0.5).float()
            return bright.roll(1, 0)

        return embed


@pytest.mark.parametrize(
    ("attack", "promise"),
    [
        (_Knowing, "falls to the floor"),
        (_KnowingPeople, "links nobody"),
        (_Peeking, "leaves what"),
        (_Normalised, "answers with images"),
        (_InPlace, "leaves what"),
    ],
)
def test_attack_checks_notice(attack: type[Attack[Any]], promise: str) -> None:
    assert any(promise in problem for problem in check_attack(attack()))


@dataclass(frozen=True)
class _Toothless(Defense):
    """Its strength does nothing: the defence that never trains."""

    paper: ClassVar[str] = "a test's"
    strength: ClassVar[str] = "sigma"
    strengths: ClassVar[tuple[float, ...]] = (0.0, 1.0, 2.0)
    sigma: Annotated[float, Ge(0)] = 1.0

    def channel(self, shape: tuple[int, ...]) -> Channel:
        return _Frozen()


class _Frozen(Channel):
    def send(self, features: Tensor) -> Tensor:
        return features + 0.1


class _Overwriting(Channel):
    def send(self, features: Tensor) -> Tensor:
        return features.mul_(0.5)


class _Lossy(Channel):
    def pack(self, release: Tensor) -> bytes:
        return super().pack(release.half())


class _Unrestorable(Channel):
    scale = 1.0

    def calibrate(self, calibration: Calibration) -> None:
        self.scale = 2.0

    def send(self, features: Tensor) -> Tensor:
        return features * self.scale


def _defense(channel: type[Channel]) -> Defense:
    class Made(Defense):
        paper: ClassVar[str] = "a test's"

        def channel(self, shape: tuple[int, ...]) -> Channel:
            return channel()

    return Made()


@pytest.mark.parametrize(
    ("defense", "promise"),
    [
        (_Toothless(), "strength moves its statistic"),
        (_defense(_Overwriting), "sends without side effects"),
        (_defense(_Lossy), "packs exactly"),
        (_defense(_Unrestorable), "is restored from its state"),
    ],
    ids=["toothless", "overwriting", "lossy", "unrestorable"],
)
def test_defense_checks_notice(defense: Defense, promise: str) -> None:
    assert any(promise in problem for problem in check_defense(defense))


@dataclass(frozen=True)
class _Mean(Reconstruction[QueryFree]):
    """Never looks at the release, and does not say so."""

    paper: ClassVar[str] = "a test's"

    def fit(self, knows: QueryFree) -> Reconstructor:
        mean = MeanImage().fit(knows)
        return lambda release: mean(release)


@dataclass(frozen=True)
class _MeanByDistribution(_Mean):
    """Says that it knows the device by the distribution of its features."""

    by_distribution: ClassVar[bool] = True


def test_no_attack_may_be_as_good_as_the_mean_only() -> None:
    assert any("beats the mean image" in problem for problem in check_attack(_Mean()))
    assert any(
        "a device that its features' distribution" in problem for problem in check_attack(_MeanByDistribution())
    )
    declared = [name for name, cls in ATTACKS.items() if cls.by_distribution]
    assert declared == ["fora", "sdar", "shadow_model"]
