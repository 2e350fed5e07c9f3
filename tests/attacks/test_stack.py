"""The stack against independent least squares, and against the attacks that it is made of."""

from typing import Any

import numpy as np
import pytest
import torch

from splitleak.attacks.base import Attack
from splitleak.attacks.decoder import Decoder
from splitleak.attacks.knowledge import BlackBox, Memo
from splitleak.attacks.nearest_neighbor import NearestNeighbor
from splitleak.attacks.ridge import Ridge
from splitleak.attacks.stack import GREY, PENALTIES, PixelSums, PixelWeights, Stack, _solved
from splitleak.attacks.toy import toy_knowledge
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import to_float
from splitleak.victims.toy import CHANNELS, toy_images

LIGHT = Stack(trainings=2, width=16, epochs=6)


def noisy(knows: Any, sigma: float) -> BlackBox:
    """The same adversary of a device that adds normal noise."""
    send, resend = knows.send, knows.resend

    def channel(features: torch.Tensor) -> torch.Tensor:
        return features + sigma * torch.randn_like(features)

    knows.send, knows.resend = lambda images: channel(send(images)), lambda part, rows: channel(resend(part, rows))
    with seeded("intercepted"):
        knows.intercepted = channel(knows.intercepted)
    assert isinstance(knows, BlackBox)
    return knows


def summed(answers: torch.Tensor, images: torch.Tensor, folds: int = 5) -> PixelSums:
    sums = PixelSums(answers.shape[1], folds)
    for number, rows in enumerate(torch.arange(len(answers)).split(7)):
        sums.add(answers[rows], images[rows], number % folds)
    return sums


@pytest.mark.parametrize("penalty", [0.01, 1.0])
def test_each_pixel_is_an_augmented_least_squares(penalty: float) -> None:
    with seeded("pixels"):
        images = torch.rand(40, 3, 1, 2)
        answers = images[:, None] + 0.2 * torch.randn(40, 3, 3, 1, 2)
    solved = _solved(summed(answers, images).products.sum(0), penalty)
    told, true = answers.flatten(2).double().numpy(), images.flatten(1).double().numpy()
    centre = told.mean((0, 1))
    unit = ((told - centre) ** 2).mean()
    # the oracle: rows of answers and a one, with the pull appended, and all pixels' rows together for what they share
    rows = np.concatenate([told - centre, np.ones((len(told), 1, 6))], 1)
    shared = np.linalg.lstsq(rows.transpose(0, 2, 1).reshape(-1, 4), (true - centre).reshape(-1), rcond=None)[0]
    pull = np.diag(np.sqrt(penalty * len(told) * np.array([unit, unit, unit, 1.0])))
    fresh = torch.rand(3, 3, 3, 1, 2)
    said = PixelWeights(solved.weights, solved.offsets)(fresh).flatten(1).numpy()
    for pixel in range(6):
        target = np.concatenate([true[:, pixel] - centre[pixel], pull @ shared])
        expected = np.linalg.lstsq(np.vstack([rows[:, :, pixel], pull]), target, rcond=None)[0]
        np.testing.assert_allclose(solved.weights[pixel].numpy(), expected[:3], rtol=1e-3, atol=1e-4)
        of_fresh = (
            (fresh.flatten(2)[:, :, pixel].numpy() - centre[pixel]) @ expected[:3] + expected[3] + centre[pixel]
        )
        np.testing.assert_allclose(said[:, pixel], of_fresh.clip(0, 1), atol=1e-3)


def test_an_answer_that_is_right_gets_all_the_weight() -> None:
    with seeded("pixels"):
        images, wrong = torch.rand(100, 3, 4, 4), torch.rand(100, 3, 4, 4)
    weights = summed(torch.stack([wrong, images], 1), images).weights(lambda row: None)
    fresh = torch.rand(2, 2, 3, 4, 4)
    torch.testing.assert_close(weights(fresh), fresh[:, 1], atol=1e-3, rtol=0)


def test_pixels_share_their_weights_unless_they_differ() -> None:
    chosen: list[list[float]] = []
    with seeded("pixels"):
        images = torch.rand(60, 3, 6, 6)
        errors = 0.1 * torch.randn(60, 2, 3, 6, 6)
    for shares in (torch.ones(2, 3, 6, 6), torch.stack([torch.zeros(3, 6, 6), torch.ones(3, 6, 6)]).mul(6)):
        where = shares.clone()
        if shares[0].sum() == 0:
            where[:, :, :, 3:] = shares.flip(0)[:, :, :, 3:]
        rows: list[dict[str, float]] = []
        summed((images[:, None] + errors * where), images).weights(rows.append)
        losses = [row["validation_loss"] for row in rows]
        chosen.append([losses[0], losses[-1]])
    assert len(losses) == len(PENALTIES)
    assert chosen[0][1] < chosen[0][0], "one weight for all, where every pixel is alike"
    assert chosen[1][0] < chosen[1][1], "weights of their own, where the attacks are good at different places"


def test_without_photos_to_choose_by_all_pixels_share_their_weights() -> None:
    images = torch.rand(5, 3, 2, 2)
    sums = PixelSums(1, 5)
    sums.add(images[:, None] / 2 + GREY / 2, images, 0)
    assert sums.weights(lambda row: None).weights.std() < 1e-6


@pytest.mark.parametrize("sigma", [0.3, 1.0])
def test_it_does_at_least_as_well_as_the_best_that_it_is_made_of(sigma: float) -> None:
    images = to_float(toy_images(48, seed=3))
    errors = []
    parts: tuple[Attack[Any], ...] = (Ridge(), Ridge(window="whole"), NearestNeighbor(), Decoder(width=16, epochs=6))
    for attack in (LIGHT, *parts):
        knows = noisy(toy_knowledge(attack)[0], sigma)
        with seeded("attack"):
            answer = attack.fit(knows)
        with torch.no_grad():
            errors.append(float((answer(knows.intercepted) - images).square().mean()))
    assert errors[0] < 1.01 * min(errors[1:])


def test_trainings_differ_and_the_first_is_the_decoders_own() -> None:
    kept: dict[str, Memo] = {}

    def memory(what: str, module: str, about: Any, build: Any) -> Memo:
        if what not in kept:
            with seeded("memory", what):
                kept[what] = build()
        return kept[what]

    knows, _ = toy_knowledge(LIGHT)
    knows.memory = memory
    with seeded("attack"):
        LIGHT.fit(knows)  # type: ignore[arg-type]
    first, second = kept
    assert second == f"{first}, training 2"
    assert not torch.equal(kept[first].tensors["picture"], kept[second].tensors["picture"])
    alone, _ = toy_knowledge(Decoder())
    alone.memory = memory
    asked = alone.queries
    Decoder(width=16, epochs=6).fit(alone)  # type: ignore[arg-type]
    assert len(kept) == 2, "the decoder is recalled"
    assert alone.queries - asked == kept[first].queries < knows.queries


def test_releases_of_other_photos_tell_it_nothing() -> None:
    knows, _ = toy_knowledge(LIGHT)
    assert isinstance(knows, BlackBox)
    noisy(knows, 0.3)
    images = to_float(toy_images(48, seed=3))
    with seeded("attack"):
        answer = LIGHT.fit(knows)
    with torch.no_grad():
        wrong = float((answer(knows.intercepted.roll(1, 0)) - images).square().mean())
    assert wrong > 0.95 * float((to_float(knows.images["auxiliary"]).mean(0) - images).square().mean())
    assert knows.release_shape == (CHANNELS, 2, 2)
