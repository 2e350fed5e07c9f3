"""The contract of an attack as checks, for every plugin and for a user's own file."""

import statistics
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from splitleak.attacks.base import Attack, AttributeInference, Linkage, Reconstruction, Staged
from splitleak.attacks.declared import UndeclaredError, as_declared
from splitleak.attacks.knowledge import QueryFree
from splitleak.attacks.mean_image import MeanImage
from splitleak.attacks.toy import (
    AUXILIARY,
    CLASSES,
    TARGETS,
    TASK,
    TOY_SCENE,
    TOY_TOKENS,
    BrokenDeviceError,
    given_away,
    identities_of,
    labels_of,
    takes_tokens,
    toy_knowledge,
)
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import check_images, to_float
from splitleak.victims.toy import broken_promises, left_as_found, toy_images

MARGIN = 0.1
"""By how much an attack must do better than chance: the toy is easy, and with few targets luck is worth less."""

FLOOR_SHARE = 0.95
"""Of the mean image's squared error: what an attack must at least make of a release that is not the picture's."""

STARTS = 3
"""Of a training that now and then finds nothing, from an unlucky start."""

Check = Callable[["_Trials"], None]


def check_attack(attack: Attack[Any]) -> list[str]:
    """Try an attack on a toy victim; returns the promises it breaks, empty when it keeps all.

    An exception that the attack raises by itself is not a broken promise but a bug, and is not caught.

    Raises:
        InvalidInputError: the attack does not apply to the toy victim, or its settings ask for what is not there.
    """
    scene = TOY_TOKENS if takes_tokens(attack) else TOY_SCENE
    if reason := attack.inapplicable(scene):
        raise InvalidInputError(f"{reason}: the toy victim cannot show whether it keeps its contract")
    attack.check(scene)
    trials = _Trials(attack)
    answers_in_form, *tells_something = _checks_of_kind(attack)
    behaves: list[Check] = [
        answers_in_form,
        _leaves_what_it_is_given,
        _leaves_what_it_is_given_when_interrupted,
        _same_seed_same_answer,
    ]
    # of one that stops at what it did not declare, or answers in another form, it makes no sense to ask more
    for checks in ([_states_its_facts, _declares_what_it_uses], behaves, [] if attack.floor else tells_something):
        if broken := broken_promises(checks, trials):
            return broken
    return []


def _checks_of_kind(attack: Attack[Any]) -> tuple[Check, ...]:
    """The check of the answer's form, then the checks that it tells what is in the release, and that alone."""
    match attack:
        case Reconstruction():
            beats = _beats_the_mean_image_where_given_away if attack.by_distribution else _beats_the_mean_image
            return _answers_with_images, _shows_its_stages_truly, _falls_to_the_floor_with_shuffled_releases, beats
        case Linkage():
            return (
                _answers_with_embeddings,
                _links_people_better_than_chance,
                _links_nobody_with_shuffled_releases,
            )
        case AttributeInference():
            return (
                _answers_with_scores,
                _reads_the_attribute_better_than_chance,
                _reads_nothing_with_shuffled_releases,
            )
    raise TypeError(f"{attack.name} answers with nothing that is known: subclass Reconstruction, for example")


class _Trials:
    """Two fits under one seed, which all checks share: a learned attack takes its time."""

    def __init__(self, attack: Attack[Any]) -> None:
        self.attack = attack
        self.damage: AssertionError | None = None
        self.stages: list[Tensor] | None = None

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
                reconstruct = self.attack.fit(as_declared(knows, self.attack))
                with torch.no_grad():
                    answer = reconstruct(knows.intercepted)
                    self.stages = reconstruct.stages(knows.intercepted) if isinstance(reconstruct, Staged) else None
        except AssertionError as error:
            self.damage = error
        return answer


def _tensors(knows: QueryFree) -> tuple[Tensor, ...]:
    labels = [label for of_part in knows.labels.values() for label in of_part.values()]
    return (knows.intercepted, *knows.images.values(), *labels, *(knows.identities or {}).values())


def _states_its_facts(trials: _Trials) -> None:
    attack = trials.attack
    assert attack.paper, "the class attribute 'paper' is empty"
    assert type(attack).from_mapping(attack.to_mapping()) == attack, "its settings do not survive a round trip"


def _declares_what_it_uses(trials: _Trials) -> None:
    try:
        _ = trials.first
    except UndeclaredError as error:
        raise AssertionError(error) from None


def _answers_with_images(trials: _Trials) -> None:
    answer = trials.first
    _is_of_form(answer, (TARGETS, *TOY_SCENE.image_shape))
    try:
        check_images(answer, "the answer")
    except ValueError as error:
        raise AssertionError(error) from None


def _shows_its_stages_truly(trials: _Trials) -> None:
    answer, stages = trials.first, trials.stages
    if stages is None:
        return
    assert torch.equal(stages[-1], answer), "the last of its stages is not what it answers with"
    for maps in stages:
        assert maps.ndim == 4, f"a stage has the shape {tuple(maps.shape)} instead of (n, channels, rows, columns)"
        assert len(maps) == TARGETS, f"a stage shows {len(maps)} images of {TARGETS}"
        assert maps.isfinite().all(), "a stage is not finite"


def _answers_with_embeddings(trials: _Trials) -> None:
    _is_of_form(trials.first, (TARGETS, trials.first.shape[-1]))
    assert trials.first.isfinite().all(), "its embeddings are not finite"


def _answers_with_scores(trials: _Trials) -> None:
    _is_of_form(trials.first, (TARGETS, len(CLASSES[_attribute(trials)])))
    assert trials.first.isfinite().all(), "its scores are not finite"


def _is_of_form(answer: Tensor, shape: tuple[int, ...]) -> None:
    assert tuple(answer.shape) == shape, f"it answers {tuple(answer.shape)} instead of {shape}"
    assert answer.dtype == torch.float32, f"it answers {answer.dtype} instead of float32"


def _attribute(trials: _Trials) -> str:
    """The label that an AttributeInference reads on the toy."""
    assert isinstance(trials.attack, AttributeInference)
    attribute = trials.attack.read(TASK, CLASSES)
    assert attribute, "it reads an attribute that the photos do not carry"
    return attribute


def _same_seed_same_answer(trials: _Trials) -> None:
    assert torch.equal(trials.first, trials.second), "two fits under the same seed differ"


def _leaves_what_it_is_given(trials: _Trials) -> None:
    _ = trials.first
    if trials.damage:
        raise trials.damage


def _leaves_what_it_is_given_when_interrupted(trials: _Trials) -> None:
    knows, encoder = toy_knowledge(trials.attack, breaks_after=AUXILIARY // 2)
    with suppress(BrokenDeviceError), left_as_found(encoder, knows.tail, tensors=_tensors(knows)):
        trials.attack.fit(knows)


def _beats_the_mean_image(trials: _Trials) -> None:
    error, floor = _errors(trials)
    assert error < floor, (
        f"on an undefended toy encoder its squared error is {error:.4f}, the mean image's {floor:.4f}"
    )


def _beats_the_mean_image_where_given_away(trials: _Trials) -> None:
    left = statistics.median(share_of_floor(trials.attack, start) for start in range(STARTS))
    assert left < 1, (
        f"on a device that its features' distribution gives away its squared error is {left:.2f} of the mean "
        f"image's, in the median of {STARTS} starts"
    )


def share_of_floor(attack: Attack[Any], start: int, shuffle: int = 0) -> float:
    """Squared error on the device of ``given_away``, as a multiple of the mean image's; with the pictures moved on by
    ``shuffle`` places."""
    knows, truth = given_away(start)
    with seeded("recover"), left_as_found(knows.tail, tensors=_tensors(knows)):
        reconstruct = attack.fit(as_declared(knows, attack))
        with torch.no_grad():
            rebuilt = reconstruct(knows.intercepted)
    error, floor = (made - truth.roll(shuffle, 0) for made in (rebuilt, truth.mean(0)))
    return float(error.square().mean() / floor.square().mean())


def _falls_to_the_floor_with_shuffled_releases(trials: _Trials) -> None:
    # its answer to one picture's release, held against another picture: what it knew from elsewhere would show
    error, floor = _errors(trials, shuffle=1)
    assert error > FLOOR_SHARE * floor, (
        f"given the release of another picture its squared error is {error:.4f}, less than the mean image's "
        f"{floor:.4f}: it knows the targets from elsewhere"
    )


def _errors(trials: _Trials, shuffle: int = 0) -> tuple[float, float]:
    """Squared errors of the attack and of the mean image, with the pictures moved on by ``shuffle`` places."""
    images = to_float(toy_images(TARGETS, seed=3)).roll(shuffle, 0)
    answers = (trials.first, _Trials(MeanImage()).first)
    error, floor = (float((rebuilt - images).square().mean()) for rebuilt in answers)
    return error, floor


def _links_people_better_than_chance(trials: _Trials) -> None:
    right, chance = _linked(trials)
    assert right > chance + MARGIN, (
        f"on an undefended toy encoder {right:.1%} of the releases are nearest to one of the same person, "
        f"of random embeddings {chance:.1%}"
    )


def _links_nobody_with_shuffled_releases(trials: _Trials) -> None:
    _falls_to_chance(*(_linked(trials, shuffle) for shuffle in (0, 1)))


def _linked(trials: _Trials, shuffle: int = 0) -> tuple[float, float]:
    """Shares of the releases nearest to one of the same person, and of chance; people moved on by ``shuffle``."""
    people = identities_of(toy_images(TARGETS, seed=3)).roll(shuffle)
    itself = torch.eye(TARGETS, dtype=torch.bool)
    same = (people[:, None] == people) & ~itself
    distances = torch.cdist(trials.first, trials.first).masked_fill(itself, torch.inf)
    nearest = distances == distances.amin(1, keepdim=True)  # several, where it says the same of several
    right, chance = (((same & of).sum(1) / of.sum(1)).mean().item() for of in (nearest, ~itself))
    return right, chance


def _reads_the_attribute_better_than_chance(trials: _Trials) -> None:
    right, chance = _read(trials)
    assert right > chance + MARGIN, (
        f"on an undefended toy encoder its balanced accuracy is {right:.1%}, that of guessing {chance:.1%}"
    )


def _reads_nothing_with_shuffled_releases(trials: _Trials) -> None:
    _falls_to_chance(*(_read(trials, shuffle) for shuffle in (0, 1)))


def _read(trials: _Trials, shuffle: int = 0) -> tuple[float, float]:
    """Balanced accuracy, and that of guessing; the truth moved on by ``shuffle`` places."""
    labels = labels_of(toy_images(TARGETS, seed=3))[_attribute(trials)].roll(shuffle)
    correct = (trials.first.argmax(1) == labels).float()
    recall = torch.stack([correct[labels == label].mean() for label in labels.unique()])
    return recall.mean().item(), 1 / len(recall)


def _falls_to_chance(with_its_own: tuple[float, float], shuffled: tuple[float, float]) -> None:
    gained, left = (right - chance for right, chance in (with_its_own, shuffled))
    assert left < gained / 2, (
        f"given the release of another picture it still is {left:.1%} better than chance, of {gained:.1%}: "
        "it knows the targets from elsewhere"
    )
