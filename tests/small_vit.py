"""A small transformer over patches, and who attacks a device that sends its tokens."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from splitleak.attacks.decoder import Decoder
from splitleak.attacks.knowledge import BlackBox
from splitleak.attacks.toy import toy_knowledge
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import to_float
from splitleak.victims.toy import toy_images

TARGETS, PATCH, SIDE, WIDTH, CLASSES = 48, 8, 4, 48, 3
Channel = Callable[[Tensor], Tensor]


class Vit(nn.Module):
    """Photos (n, 3, 32, 32) -> a class token and 16 patches (n, 17, 48), with positions and two layers."""

    def __init__(self) -> None:
        super().__init__()
        with seeded("vit"):
            self.patches = nn.Conv2d(3, WIDTH, PATCH, stride=PATCH)
            self.pos_embedding = nn.Parameter(0.3 * torch.randn(SIDE**2, WIDTH))
            self.front = nn.Parameter(torch.randn(1, 1, WIDTH))
            layer = nn.TransformerEncoderLayer(WIDTH, 4, 96, dropout=0.0, batch_first=True, norm_first=True)
            self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.pos_embedding
        out: Tensor = self.layers(torch.cat([self.front.expand(len(tokens), 1, -1), tokens], 1))
        return out


def vit_tail() -> nn.Module:
    """What follows: a layer that treats all places alike, and an answer that is read from the class token."""
    with seeded("vit tail"):
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 96, dropout=0.0, batch_first=True, norm_first=True)
        return nn.Sequential(layer, _ClassToken(), nn.Linear(WIDTH, CLASSES)).eval().requires_grad_(False)


class _ClassToken(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0]


@cache
def features(encoder: Callable[[], nn.Module], seed: int, count: int) -> Tensor:
    with torch.no_grad():
        return torch.cat([encoder()(chunk) for chunk in to_float(toy_images(count, seed)).split(64)])


def adversary(channel: Channel, encoder: Callable[[], nn.Module] = Vit) -> BlackBox:
    """Of a device whose tokens go through the channel; the toy's photos."""
    knows: Any = toy_knowledge(Decoder())[0]
    stored = {"auxiliary": features(encoder, 1, 384), "validation": features(encoder, 2, 64)}
    knows.new_encoder, knows.send = encoder, lambda images: channel(encoder()(images))
    knows.resend = lambda part, rows: channel(stored[part][rows])
    with seeded("intercepted"):
        knows.intercepted = channel(features(encoder, 3, TARGETS))
    assert isinstance(knows, BlackBox)
    return knows
