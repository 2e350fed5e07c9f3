"""The contract of an attack as checks, for every plugin and for a user's own file."""

from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from attacks.base import Attack, AttackerPart, BlackBox, QueryFree, WhiteBox, knowledge_of
from attacks.mean_image import MeanImage
from victims.seeding import seeded
from victims.tensors import check_images, to_float
from victims.toy import broken_promises, left_as_found, toy_encoder, toy_images, toy_tail

AUXILIARY, VALIDATION, TARGETS = 384, 64, 48


class _BrokenDeviceError(RuntimeError):
    """What the toy device raises when a check wants to see an attack interrupted."""


def check_attack(attack: Attack[Any]) -> list[str]:
    """Try an attack on a toy victim; returns the promises it breaks, empty when it keeps all.

    An exception that the attack raises by itself is not a broken promise but a bug, and is not caught.
    """
    trials = _Trials(attack)
    checks: list[Callable[[_Trials], None]] = [
        _states_its_facts,
        _answers_with_images,
        _leaves_what_it_is_given,
        _leaves_what_it_is_given_when_interrupted,
        _same_seed_same_answer,
    ]
    if not attack.floor:
        checks.append(_beats_the_mean_image)
    return broken_promises(checks, trials)


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
        "new_encoder": toy_encoder,
        "device": torch.device("cpu"),
    }
    if issubclass(kind, BlackBox):
        facts |= {"send": send, "resend": lambda part, rows: send(to_float(images[part][rows]))}
    if issubclass(kind, WhiteBox):
        facts["edge"] = encoder
    return kind(**facts), encoder


class _Trials:
    """Two fits under one seed, which all checks share: a learned attack takes its time."""

    def __init__(self, attack: Attack[Any]) -> None:
        self.attack = attack
        self.damage: AssertionError | None = None

    @cached_property
    def first(self) -> Tensor:
        """The answer of a fit that is watched for side effects."""
        return self._answer()

    @cached_property
    def second(self) -> Tensor:
        """The answer of another fit."""
        return self._answer()

    def _answer(self) -> Tensor:
        knows, encoder = toy_knowledge(self.attack)
        answer = torch.empty(0)
        try:
            with left_as_found(encoder, knows.tail, tensors=_tensors(knows)), seeded("check"):
                reconstruct = self.attack.fit(knows)
                with torch.no_grad():
                    answer = reconstruct(knows.intercepted)
        except AssertionError as error:
            self.damage = error
        return answer


def _tensors(knows: QueryFree) -> tuple[Tensor, ...]:
    return (knows.intercepted, *knows.images.values())


def _states_its_facts(trials: _Trials) -> None:
    attack = trials.attack
    assert attack.paper, "the class attribute 'paper' is empty"
    assert type(attack).from_mapping(attack.to_mapping()) == attack, "its settings do not survive a round trip"


def _answers_with_images(trials: _Trials) -> None:
    answer, wanted = trials.first, (TARGETS, 3, *toy_images(1).shape[2:])
    assert tuple(answer.shape) == wanted, f"it answers {tuple(answer.shape)} instead of {wanted}"
    assert answer.dtype == torch.float32, f"it answers {answer.dtype} instead of float32"
    try:
        check_images(answer, "the answer")
    except ValueError as error:
        raise AssertionError(error) from None


def _same_seed_same_answer(trials: _Trials) -> None:
    assert torch.equal(trials.first, trials.second), "two fits under the same seed differ"


def _leaves_what_it_is_given(trials: _Trials) -> None:
    _ = trials.first
    if trials.damage:
        raise trials.damage


def _leaves_what_it_is_given_when_interrupted(trials: _Trials) -> None:
    knows, encoder = toy_knowledge(trials.attack, breaks_after=AUXILIARY // 2)
    with suppress(_BrokenDeviceError), left_as_found(encoder, knows.tail, tensors=_tensors(knows)):
        trials.attack.fit(knows)


def _beats_the_mean_image(trials: _Trials) -> None:
    images, floor_images = to_float(toy_images(TARGETS, seed=3)), _Trials(MeanImage()).first
    error, floor = ((rebuilt - images).square().mean().item() for rebuilt in (trials.first, floor_images))
    assert error < floor, (
        f"on an undefended toy encoder its squared error is {error:.4f}, the mean image's {floor:.4f}"
    )
