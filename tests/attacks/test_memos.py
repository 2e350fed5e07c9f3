"""What an attack leaves to the next is the same whichever of them came first."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from splitleak.attacks.base import Attack
from splitleak.attacks.decoder import Decoder
from splitleak.attacks.flow_prior import FlowPrior
from splitleak.attacks.fora import Fora
from splitleak.attacks.inverse_network import InverseNetwork
from splitleak.attacks.knowledge import About, Memo, forgetful
from splitleak.attacks.latent_search import LatentSearch
from splitleak.attacks.sdar import Sdar
from splitleak.attacks.shadow_model import ShadowModel
from splitleak.attacks.stack import Stack
from splitleak.attacks.token_order import TokenOrder
from splitleak.attacks.toy import toy_knowledge
from splitleak.victims.seeding import seeded


@dataclass
class Noted:
    """A memory that keeps nothing and notes what it was given."""

    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def __call__(self, what: str, module: str, about: About, build: Any) -> Memo:
        memo = forgetful(what, module, about, build)
        self.tensors[what] = {name: value.clone() for name, value in memo.tensors.items()}
        return memo


@pytest.mark.parametrize(
    "attack",
    [
        Decoder(width=16, epochs=1),
        Decoder(architecture="upsample", epochs=1),
        InverseNetwork(epochs=1),
        FlowPrior(epochs=1, flow_epochs=1, flow_width=16, steps=1, begin=0.5, stride=0.1),
        LatentSearch(epochs=1, steps=1, activation_steps=0, restarts=1, weight=0.0),
        ShadowModel(epochs=1, decoder_epochs=1),
        Fora(steps=100, decoder_epochs=1),
        Sdar(steps=50, width=16),
        Stack(width=16, epochs=1),
        TokenOrder(width=16, epochs=1, order_epochs=1),
    ],
    ids=lambda attack: f"{attack.name} {getattr(attack, 'architecture', '')}",
)
def test_what_is_remembered_does_not_depend_on_who_asked_first(attack: Attack[Any]) -> None:
    noted = []
    for first in ("one", "another"):
        knows, _ = toy_knowledge(attack)
        knows.memory = Noted()
        with seeded(first):
            attack.fit(knows)
        noted.append(knows.memory.tensors)
    assert noted[0].keys() == noted[1].keys() != set()
    for what, tensors in noted[0].items():
        assert all(torch.equal(value, noted[1][what][name]) for name, value in tensors.items()), what
