"""An attack says what it needs, and in one line why there is nothing for it to do."""

from dataclasses import dataclass, fields, replace
from typing import ClassVar, get_args

import pytest
import torch

from splitleak.attacks.base import Reconstruction, Reconstructor, Scene
from splitleak.attacks.declared import FIELDS, Sealed, UndeclaredError, as_declared
from splitleak.attacks.decoder import Decoder
from splitleak.attacks.fora import Fora
from splitleak.attacks.infer_attribute import InferAttribute
from splitleak.attacks.knowledge import QueryFree, WhiteBox
from splitleak.attacks.mean_image import MeanImage
from splitleak.attacks.needs import WORDS, Requirement
from splitleak.attacks.reidentify import Reidentify
from splitleak.attacks.ridge import Ridge
from splitleak.attacks.rmle import Rmle
from splitleak.attacks.shadow_model import ShadowModel
from splitleak.attacks.toy import TOY_SCENE, TOY_TOKENS, toy_knowledge

EVERYTHING: tuple[Requirement, ...] = get_args(Requirement)
BARE = replace(
    TOY_TOKENS, attributes=(), identities=False, sends=1, tokens=False, queries=False, weights=False, tail=False
)
"""Offers nothing at all."""


@dataclass(frozen=True)
class Greedy(Reconstruction[WhiteBox]):
    paper: ClassVar[str] = "a test's"
    requires: ClassVar[frozenset[Requirement]] = frozenset(
        {"tokens", "several sends", "identities", "labels", "tail"}
    )

    def fit(self, knows: WhiteBox) -> Reconstructor:
        raise NotImplementedError


class Greedier(Greedy):
    requires: ClassVar[frozenset[Requirement]] = frozenset({"tail"})


def test_needs_follow_from_the_kind_the_class_and_its_parents_in_a_fixed_order() -> None:
    assert MeanImage.needs() == ()
    assert Ridge.needs() == ("queries",)
    assert Rmle.needs() == ("queries", "weights")
    assert Reidentify.needs() == ("queries", "identities")
    assert InferAttribute.needs() == ("queries", "labels")
    assert Fora.needs() == ("tail",)
    assert ShadowModel.needs() == ("tail", "labels")
    assert Greedier.needs() == Greedy.needs() == EVERYTHING == tuple(WORDS)


@pytest.mark.parametrize("lacking", EVERYTHING)
def test_one_line_says_what_is_not_there(lacking: Requirement) -> None:
    assert Greedy().inapplicable(TOY_TOKENS) is None
    absent = {"labels": "attributes", "several sends": "sends"}.get(lacking, lacking)
    need, lack = WORDS[lacking]
    scene = replace(TOY_TOKENS, **{absent: getattr(BARE, absent)})
    assert Greedy().inapplicable(scene) == f"greedy does not apply: it needs {need}, and {lack}"
    assert MeanImage().inapplicable(BARE) is None


def test_an_old_scene_offers_what_every_victim_did() -> None:
    scene = Scene((4, 2, 2), (3, 32, 32))
    assert [name for name in EVERYTHING if scene.offers(name)] == ["queries", "weights", "tail"]


@pytest.mark.parametrize("shape", [(4, 3, 3), (4, 96), (12,)], ids=["maps", "tokens", "vector"])
def test_a_seed_decoder_does_not_apply_to_what_it_cannot_enlarge(shape: tuple[int, ...]) -> None:
    scene = replace(TOY_SCENE, release_shape=shape)
    assert "needs feature maps to enlarge 16 times" in str(Decoder(architecture="upsample").inapplicable(scene))
    assert Decoder().inapplicable(scene) is None
    assert Decoder(architecture="upsample").inapplicable(TOY_SCENE) is None


def test_what_is_not_declared_is_out_of_reach() -> None:
    knows, _ = toy_knowledge(Fora())
    sealed = as_declared(knows, Fora())
    assert sealed.receive(sealed.intercepted) is sealed.intercepted
    assert {field.name for field in fields(sealed) if isinstance(getattr(sealed, field.name), Sealed)} == {
        "labels",
        "classes",
        "identities",
    }
    uses = (
        lambda knows: knows.labels["auxiliary"],
        lambda knows: "auxiliary" in knows.labels,
        lambda knows: [*knows.classes],
        lambda knows: knows.classes.items(),
        lambda knows: knows.identities or {},
    )
    for use in uses:
        use(knows)
        with pytest.raises(UndeclaredError, match=r"declare requires = frozenset\(\{'(labels|identities)'\}\)"):
            use(sealed)


@pytest.mark.parametrize("field", ["tail", "receive"])
def test_the_clouds_half_must_be_declared(field: str) -> None:
    knows, _ = toy_knowledge(MeanImage())
    with pytest.raises(UndeclaredError, match=f"it uses '{field}': declare .*'tail'"):
        getattr(as_declared(knows, MeanImage()), field)(torch.zeros(1, 96, 2, 2))


def test_every_field_that_can_be_sealed_is_one() -> None:
    assert {name for names in FIELDS.values() for name in names} <= {field.name for field in fields(QueryFree)}
