"""The toy adversary: what one who attacks the toy victim holds, for the contract's checks and for tests."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from splitleak.attacks.base import Attack, Scene, knowledge_of
from splitleak.attacks.edge import PlainEdge
from splitleak.attacks.knowledge import About, AttackerPart, BlackBox, Memo, QueryFree, WhiteBox
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import to_float
from splitleak.victims.toy import (
    CHANNELS,
    SIZE,
    STRIDE,
    toy_colours,
    toy_encoder,
    toy_gains,
    toy_halves,
    toy_images,
    toy_tail,
)

AUXILIARY, VALIDATION, TARGETS = 384, 64, 48
TASK, CLASSES = "kind", {"kind": ("round", "square", "flat"), "light": ("dark", "bright")}
SIDE = SIZE // STRIDE
# the toy's device draws nothing, so that two sends tell what one does
TOY_SCENE = Scene((CHANNELS, SIDE, SIDE), (3, SIZE, SIZE), TASK, tuple(CLASSES), identities=True, sends=2)
TOY_TOKENS = replace(TOY_SCENE, release_shape=(SIDE**2, CHANNELS), tokens=True)
"""The same, for an attack that requires tokens."""


class BrokenDeviceError(RuntimeError):
    """What the toy device raises when a check wants to see an attack interrupted."""


def toy_knowledge(attack: Attack[Any], breaks_after: int | None = None) -> tuple[QueryFree, nn.Module]:
    """What an adversary of the attack's kind holds, on the toy victim, and the toy's edge device.

    Args:
        attack: decides the kind, and whether tokens are sent.
        breaks_after: the device raises when it is asked for the release of more photos than this.
    """
    encoder, tail = toy_halves(takes_tokens(attack))
    images: dict[AttackerPart, Tensor] = {
        "auxiliary": toy_images(AUXILIARY, seed=1),
        "validation": toy_images(VALIDATION, seed=2),
    }
    served = 0

    def send(batch: Tensor) -> Tensor:
        nonlocal served
        served += len(batch)
        if breaks_after is not None and served > breaks_after:
            raise BrokenDeviceError
        release: Tensor = encoder(batch)
        return release

    kind = knowledge_of(type(attack))
    facts: dict[str, Any] = {
        "images": images,
        "labels": {part: labels_of(photos) for part, photos in images.items()},
        "classes": CLASSES,
        "identities": {part: identities_of(photos) for part, photos in images.items()},
        "task": TASK,
        "intercepted": encoder(to_float(toy_images(TARGETS, seed=3))).detach(),
        "tail": tail,
        "new_encoder": lambda: _untrained(toy_halves(takes_tokens(attack))[0]),
        "device": torch.device("cpu"),
    }
    if issubclass(kind, BlackBox):
        facts |= {"send": send, "resend": lambda part, rows: send(to_float(images[part][rows]))}
    if issubclass(kind, WhiteBox):
        facts["edge"] = PlainEdge(encoder)
    return kind(**facts), encoder


def given_away(start: int = 0) -> tuple[QueryFree, Tensor]:
    """An adversary who may ask nothing, of a device that its features' distribution and the tail give away; and the
    pictures that were sent, (n, 3, 16, 16) in [0, 1]. Whatever it remembers it learns from the given start."""

    def memory(what: str, module: str, about: About, build: Callable[[], Memo]) -> Memo:
        with seeded("memory", what, start):
            return build()

    with seeded("easy"):
        encoder = toy_gains().requires_grad_(False)
        tail = nn.Sequential(nn.Flatten(), nn.Linear(12, len(CLASSES[TASK]))).requires_grad_(False)
    truth = to_float(toy_colours(512, seed=3))
    images: dict[AttackerPart, Tensor] = {
        "auxiliary": toy_colours(256, seed=1),
        "validation": toy_colours(VALIDATION, seed=2),
    }
    labels = {part: {TASK: tail(encoder(to_float(shown))).argmax(1)} for part, shown in images.items()}
    facts: dict[str, Any] = {"labels": labels, "classes": CLASSES, "task": TASK, "memory": memory}
    return QueryFree(images, encoder(truth), tail, toy_gains, torch.device("cpu"), **facts), truth


def takes_tokens(attack: Attack[Any]) -> bool:
    """Whether the attack requires tokens, so that the toy must send them."""
    return "tokens" in attack.needed


def _untrained(encoder: nn.Module) -> nn.Module:
    """Its architecture with weights drawn from torch's global state."""
    return encoder.apply(lambda layer: layer.reset_parameters() if isinstance(layer, nn.Conv2d) else None)


def labels_of(images: Tensor) -> dict[str, Tensor]:
    """What the toy tail says of the pictures (the task), and whether they are bright."""
    floats = to_float(images)
    with torch.no_grad():
        kind = toy_tail()(toy_encoder()(floats)).argmax(1)
    return {"kind": kind, "light": (floats.mean((1, 2, 3)) > 0.5).long()}


def identities_of(images: Tensor) -> Tensor:
    """One of eight people, told apart by which of the mean red, green and blue are above one half, int64 (n,)."""
    above = to_float(images).mean((2, 3)) > 0.5
    return (above * torch.tensor([1, 2, 4])).sum(1)
