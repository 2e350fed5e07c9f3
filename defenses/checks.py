"""The contract of a defence as checks, for every plugin and for a user's own file."""

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from splitleak.defenses.base import Calibration, CalibrationBatch, Channel, Defense, Guarantee, labels_of
from splitleak.defenses.fitting import Budget, Examples, SplitModel, fit
from splitleak.victims.checkpoints import resumable
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import to_bytes, to_float
from splitleak.victims.toy import CHANNELS, SIZE, STRIDE, broken_promises, left_as_found, toy_halves, toy_images
from splitleak.victims.training import Shuffled, Training, adamw, train

PHOTOS = 96
WEAKEST_SHARE = 0.1
"""The weakest strength may move the statistic by at most this share of what the strongest does."""


def check_defense(defense: Defense) -> list[str]:
    """Try a defence on a toy victim; returns the promises it breaks, empty when it keeps all.

    An exception that the defence raises by itself is not a broken promise but a bug, and is not caught.
    """
    checks: tuple[Callable[[Defense], None], ...] = (
        _states_its_facts,
        _restores_the_shape,
        _sends_without_side_effects,
        _same_seed_same_release,
        _packs_exactly,
        _is_restored_from_its_state,
        _calibrates_without_side_effects,
        _perturbs_images_into_images,
        _adds_a_finite_objective,
        _trains,
        _goes_on_from_a_checkpoint,
        _strength_moves_its_statistic,
    )
    return broken_promises(checks, defense)


def takes_tokens(defense: Defense) -> bool:
    """Whether the toy must send tokens, since the defence has nothing to act on in maps."""
    shapes = ((CHANNELS, SIZE // STRIDE, SIZE // STRIDE), ((SIZE // STRIDE) ** 2, CHANNELS))
    on_maps, on_tokens = (defense.inapplicable(shape, "task") for shape in shapes)
    return on_maps is not None and on_tokens is None


def toy_calibration(photos: int = PHOTOS, tokens: bool = False) -> Calibration:
    """The toy victim's train part, in batches of 32, with labels that its tail gives; ``tokens``: it sends these."""
    encoder, tail = toy_halves(tokens)
    images = to_float(toy_images(photos, seed=1))
    with torch.no_grad():
        features = encoder(images)
        labels = tail(features).argmax(1)

    def batches() -> Iterator[CalibrationBatch]:
        for rows in torch.arange(photos).split(32):
            yield CalibrationBatch(images[rows], features[rows].clone(), labels[rows])

    return Calibration(batches, encoder, tail, torch.device("cpu"))


def toy_of(defense: Defense) -> Calibration:
    """The toy that gives the defence something to act on."""
    return toy_calibration(tokens=takes_tokens(defense))


def toy_channel(defense: Defense, calibration: Calibration) -> tuple[Channel, Tensor]:
    """The calibrated channel and one batch of the toy's features."""
    features = next(calibration.batches()).features
    with seeded("check"):
        channel = defense.channel(tuple(features.shape[1:])).eval()
        channel.calibrate(calibration)
    return channel, features


def _states_its_facts(defense: Defense) -> None:
    assert defense.paper, "the class attribute 'paper' is empty"
    assert type(defense).from_mapping(defense.to_mapping()) == defense, "its settings do not survive a round trip"
    names = {field.name for field in fields(defense)}
    assert defense.strength in names | {None}, f"strength = '{defense.strength}' is none of its fields"
    assert defense.strength is None or len(defense.strengths) > 1, "the class attribute 'strengths' lists no sweep"


def _restores_the_shape(defense: Defense) -> None:
    channel, features = toy_channel(defense, toy_of(defense))
    release = channel.send(features)
    assert len(release) == len(features), "the release has another number of images than were sent"
    received = channel.receive(release)
    assert received.shape == features.shape, f"the tail would get {tuple(received.shape)}"
    assert received.isfinite().all(), "the tail would get values that are not finite"
    held = channel.intercepted(release)
    assert held.shape == channel.arrived(held).shape == release.shape, (
        "what is intercepted has not the release's shape"
    )


def _sends_without_side_effects(defense: Defense) -> None:
    channel, features = toy_channel(defense, toy_of(defense))
    with left_as_found(channel, tensors=(features,)):
        release = channel.send(features)
        with left_as_found(tensors=(release,)):
            channel.receive(release)


def _same_seed_same_release(defense: Defense) -> None:
    channel, features = toy_channel(defense, toy_of(defense))
    releases = []
    for _ in range(2):
        with seeded("send"):
            releases.append(channel.send(features))
    assert torch.equal(*releases), "two sends under the same seed differ"


def _packs_exactly(defense: Defense) -> None:
    channel, features = toy_channel(defense, toy_of(defense))
    for release in channel.send(features)[:4]:
        packed = channel.pack(release)
        assert isinstance(packed, bytes), f"pack gives {type(packed).__name__}, not bytes"
        restored = channel.unpack(packed)
        assert restored.dtype == release.dtype, f"{release.dtype} is unpacked as {restored.dtype}"
        assert torch.equal(restored, release), "unpacking does not restore what was packed"


def _is_restored_from_its_state(defense: Defense) -> None:
    channel, features = toy_channel(defense, toy_of(defense))
    restored = defense.channel(tuple(features.shape[1:])).eval()
    restored.load_state_dict(channel.state_dict())
    received = []
    for one in (channel, restored):
        with seeded("send"):
            received.append(one(features))
    assert torch.equal(*received), "a channel restored from its settings and state behaves differently"
    assert channel.guarantee() == restored.guarantee(), "a restored channel guarantees something else"


def _calibrates_without_side_effects(defense: Defense) -> None:
    calibration = toy_of(defense)
    with left_as_found(calibration.encoder, calibration.tail):
        channel, _ = toy_channel(defense, calibration)
    guarantee = channel.guarantee()
    assert guarantee is None or isinstance(guarantee, Guarantee), "guarantee() gives no Guarantee"


def _perturbs_images_into_images(defense: Defense) -> None:
    images = next(toy_of(defense).batches()).images
    perturb = defense.perturb(tuple(images.shape[1:]))
    if perturb is None:
        return
    with left_as_found(tensors=(images,)):
        perturbed = perturb(images)
    assert perturbed.shape == images.shape, f"perturbed images are {tuple(perturbed.shape)}"
    assert perturbed.isfinite().all(), "perturbed images are not finite"


def _adds_a_finite_objective(defense: Defense) -> None:
    calibration = toy_of(defense)
    channel, _ = toy_channel(defense, calibration)
    objective = defense.objective(calibration, channel)
    if objective is None:
        return
    batch = next(calibration.batches())
    features = batch.features.requires_grad_()
    release = channel.send(features)
    value = objective(batch.images, features, release, calibration.tail(channel.receive(release)), batch.labels)
    assert value.ndim == 0, f"the objective is no scalar but {tuple(value.shape)}"
    assert value.isfinite(), "the objective is not finite"
    assert value.requires_grad, "no gradient flows through the objective"


def _trains(defense: Defense) -> None:
    """What ``prepare`` returns runs through the training loop and moves the model that it was given."""
    calibration = toy_of(defense)
    batch = next(calibration.batches())
    model = defense.cloud(defense.adapt(calibration.tail), toy_channel(defense, calibration)[0]).train()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    recipe = adamw(1e-2, epochs=1)
    assert batch.labels is not None
    training = Training(model, recipe.optimizer(model.parameters()), Shuffled((batch.features, batch.labels), 8))
    with seeded("train"):
        prepared = defense.prepare(training, recipe.epochs)
        train(prepared, recipe, lambda network, part: F.cross_entropy(network(part[0]), part[1]))
    moved = any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert moved, "training leaves the given model as it was"


def _goes_on_from_a_checkpoint(defense: Defense) -> None:
    """A training behind the defence that is interrupted ends as one that is not: its objective forgets nothing."""
    if defense.objective(calibration := toy_of(defense), toy_channel(defense, calibration)[0]) is None:
        return

    class InterruptedError(Exception):
        pass

    def trained(interrupted_in: float) -> dict[str, Tensor]:
        def log(row: dict[str, float]) -> None:
            if row["epoch"] == interrupted_in:
                raise InterruptedError

        with seeded("train"):
            calibration = toy_of(defense)
            channel, _ = toy_channel(defense, calibration)
            model = SplitModel(calibration.encoder, calibration.tail, channel).requires_grad_(True)
            batches = list(calibration.batches())
            labels = torch.cat([labels_of(batch, defense.name) for batch in batches])
            part = Examples(to_bytes(torch.cat([batch.images for batch in batches])), labels)
            fit(model, part, part, Budget(3, 32, 1e-3), defense.objective(calibration, channel), log=log)
        return model.state_dict()

    whole = trained(math.inf)
    with tempfile.TemporaryDirectory() as folder:
        with suppress(InterruptedError), resumable(Path(folder), seconds_between=0):
            trained(2)
        with resumable(Path(folder)):
            resumed = trained(math.inf)
    different = [name for name, value in whole.items() if not torch.equal(value, resumed[name])]
    assert not different, f"a training that goes on from a checkpoint ends elsewhere: {', '.join(different[:3])}"


def _strength_moves_its_statistic(defense: Defense) -> None:
    if defense.strength is None:
        return
    values, calibration = [], toy_of(defense)
    for strength in defense.strengths:
        with seeded("statistic"):
            values.append(replace(defense, **{defense.strength: strength}).statistic(calibration))
    listed = ", ".join(f"{strength}: {value:.3g}" for strength, value in zip(defense.strengths, values, strict=True))
    shape = "x".join(map(str, next(calibration.batches()).features.shape[1:]))
    grows = all(weaker < stronger for weaker, stronger in pairwise(values))
    assert grows, f"its statistic does not grow over 'strengths' ({listed}), on features of {shape}"
    assert values[0] <= WEAKEST_SHARE * values[-1], f"its weakest strength is far from no defence ({listed})"
