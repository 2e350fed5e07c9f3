"""The contract of an attack as checks, for every plugin and for a user's own file."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from attacks.base import Attack, AttackerPart, BlackBox, QueryFree, WhiteBox, knowledge_of
from attacks.mean_image import MeanImage
from victims.seeding import seeded
from victims.tensors import check_images, to_float
from victims.toy import left_as_found, toy_encoder, toy_images, toy_tail

AUXILIARY, VALIDATION, TARGETS = 384, 64, 48


class _BrokenDeviceError(RuntimeError):
    """What the toy device raises when a check wants to see an attack interrupted."""


def check_attack(attack: Attack[Any]) -> list[str]:
    """Try an attack on a toy victim; returns the promises it breaks, empty when it keeps all.

    An exception that the attack raises by itself is not a broken promise but a bug, and is not caught.
    """
    checks: list[Callable[[Attack[Any]], None]] = [
        _states_its_facts,
        _answers_with_images,
        _same_seed_same_answer,
        _leaves_what_it_is_given,
        _leaves_what_it_is_given_when_interrupted,
    ]
    if not attack.floor:
        checks.append(_beats_the_mean_image)
    broken = []
    for check in checks:
        try:
            check(attack)
        except AssertionError as error:
            broken.append(f"{check.__name__.strip('_').replace('_', ' ')}: {error}")
    return broken


def toy_knowledge(attack: Attack[Any], breaks_after: int | None = None) -> tuple[QueryFree, nn.Module]:
    """What the attack declares to know, on the toy victim, and the toy's edge device.

    Args:
        attack: decides the kind of knowledge.
        breaks_after: the device raises when it is asked for the release of more photos than this.
    """
    encoder = toy_encoder()
    images: dict[AttackerPart, Tensor] = {
        "auxiliary": toy_images(AUXILIARY, seed=1),
        "validation": toy_images(VALIDATION, seed=2),
    }
    served = 0

    def send(batch: Tensor) -> Tensor:
        nonlocal served
        served += len(batch)
        if breaks_after is not None and served > breaks_after:
            raise _BrokenDeviceError
        release: Tensor = encoder(batch)
        return release

    kind = knowledge_of(type(attack))
    facts: dict[str, Any] = {
        "images": images,
        "intercepted": encoder(to_float(toy_images(TARGETS, seed=3))).detach(),
        "tail": toy_tail(),
        "architecture": "a random linear encoder",
        "device": torch.device("cpu"),
    }
    if issubclass(kind, BlackBox):
        facts |= {"send": send, "resend": lambda part, rows: send(to_float(images[part][rows]))}
    if issubclass(kind, WhiteBox):
        facts["edge"] = encoder
    return kind(**facts), encoder


def _attack(attack: Attack[Any]) -> Tensor:
    knows, _ = toy_knowledge(attack)
    with seeded("check"):
        reconstruct = attack.fit(knows)
        with torch.no_grad():
            return reconstruct(knows.intercepted)


def _states_its_facts(attack: Attack[Any]) -> None:
    assert attack.paper, "the class attribute 'paper' is empty"
    assert type(attack).from_mapping(attack.to_mapping()) == attack, "its settings do not survive a round trip"


def _answers_with_images(attack: Attack[Any]) -> None:
    answer = _attack(attack)
    wanted = (TARGETS, 3, *toy_images(1).shape[2:])
    assert tuple(answer.shape) == wanted, f"it answers {tuple(answer.shape)} instead of {wanted}"
    assert answer.dtype == torch.float32, f"it answers {answer.dtype} instead of float32"
    try:
        check_images(answer, "the answer")
    except ValueError as error:
        raise AssertionError(error) from None


def _same_seed_same_answer(attack: Attack[Any]) -> None:
    assert torch.equal(_attack(attack), _attack(attack)), "two fits under the same seed differ"


def _leaves_what_it_is_given(attack: Attack[Any]) -> None:
    knows, encoder = toy_knowledge(attack)
    with left_as_found(encoder, knows.tail, tensors=(knows.intercepted, *knows.images.values())):
        reconstruct = attack.fit(knows)
        with torch.no_grad():
            reconstruct(knows.intercepted)


def _leaves_what_it_is_given_when_interrupted(attack: Attack[Any]) -> None:
    knows, encoder = toy_knowledge(attack, breaks_after=AUXILIARY // 2)
    with (
        suppress(_BrokenDeviceError),
        left_as_found(encoder, knows.tail, tensors=(knows.intercepted, *knows.images.values())),
    ):
        attack.fit(knows)


def _beats_the_mean_image(attack: Attack[Any]) -> None:
    images = to_float(toy_images(TARGETS, seed=3))
    error, floor = ((rebuilt - images).square().mean().item() for rebuilt in (_attack(attack), _attack(MeanImage())))
    assert error < floor, (
        f"on an undefended toy encoder its squared error is {error:.4f}, the mean image's {floor:.4f}"
    )
