"""The decoder that a network is trained against."""

import pytest
import torch
from scipy.ndimage import uniform_filter
from torch import Tensor, nn

from splitleak.defenses.adversarial_training import AdversarialTraining
from splitleak.defenses.base import Channel
from splitleak.defenses.checks import toy_calibration
from splitleak.defenses.surrogate import AdversarialTerm, Likeness, SurrogateDecoder
from splitleak.victims.seeding import seeded
from splitleak.victims.structure import WINDOW, structural_similarity

NOTHING = torch.zeros(())


def test_the_decoder_knows_something_before() -> None:
    calibration = toy_calibration()
    batch = next(calibration.batches())
    with seeded("term"):
        term = AdversarialTerm(calibration, Channel(), 1.0)
    with torch.no_grad():
        assert float(term.surrogate.error(batch.features, batch.images).mean()) < 0.8


def test_the_mean_image_is_one_unit_away_in_pixels_and_in_shapes() -> None:
    calibration = toy_calibration()
    images = torch.cat([batch.images for batch in calibration.batches()])
    mean = images.mean(0).expand_as(images)
    for structure in (0.0, 0.4, 1.0):
        distance = Likeness.of(calibration, structure)
        assert float(distance(mean, images).mean()) == pytest.approx(1, rel=1e-4)
        assert float(distance(images, images).abs().max()) < 1e-5
    assert Likeness.of(calibration, 0.0).pixels == pytest.approx(float(images.var(0, correction=0).mean()), rel=1e-4)


def test_structural_similarity_is_that_of_whole_windows() -> None:
    with seeded("pictures"):
        first, second = torch.rand(2, 3, 1, 24, 24)

    def windows(values: Tensor) -> Tensor:
        filtered = uniform_filter(values.double().numpy(), size=(0, 0, WINDOW, WINDOW), origin=(0, 0, -4, -4))
        return torch.from_numpy(filtered)[..., : 24 - WINDOW + 1 : WINDOW // 2, : 24 - WINDOW + 1 : WINDOW // 2]

    a, b = windows(first), windows(second)
    both = windows(first * second) - a * b
    spread = windows(first.square()) - a.square() + windows(second.square()) - b.square()
    slow = ((2 * a * b + 1e-4) * (2 * both + 9e-4) / ((a.square() + b.square() + 1e-4) * (spread + 9e-4))).mean(
        (1, 2, 3)
    )
    torch.testing.assert_close(structural_similarity(first, second).double(), slow, rtol=1e-3, atol=1e-4)


def test_the_adversary_learns_and_its_error_counts_up_to_the_floor() -> None:
    calibration = toy_calibration()
    batch = next(calibration.batches())
    images, features = batch.images, batch.features
    with seeded("term"):
        term = AdversarialTerm(calibration, Channel(), weight=2.0)

        def value(photos: Tensor, release: Tensor) -> Tensor:
            answer: Tensor = term(photos, release, release, NOTHING, None)
            return answer

        noise = (torch.rand_like(images) > 0.5).float()  # farther from any answer than photos are from their mean
        assert float(value(noise, features).detach()) == pytest.approx(-2.0)
        values = [float(value(images, features).detach()) for _ in range(80)]
    assert values[0] < values[-1] - 0.1
    assert values[-1] > -1.2
    release = features.clone().requires_grad_()
    value(images, release).backward()
    assert release.grad is not None
    assert float(release.grad.abs().max()) > 0


@pytest.mark.parametrize("steps", [1, 3])
def test_the_decoder_takes_its_steps_in_training_and_none_in_eval_mode(steps: int) -> None:
    calibration = toy_calibration()
    batch = next(calibration.batches())
    term = AdversarialTraining(decoder_steps=steps).objective(calibration, Channel())
    assert isinstance(term, AdversarialTerm)
    learned = []
    term.surrogate.learn = lambda *given: learned.append(given) or 0.0  # type: ignore[method-assign, func-returns-value]
    for mode, expected in ((True, steps), (False, 0)):
        learned.clear()
        term.train(mode)(batch.images, batch.features, batch.features, NOTHING, None)
        assert len(learned) == expected


def test_a_structural_adversary_asks_for_shapes() -> None:
    """A picture that is right but for its brightness everywhere is near in shapes and far in pixels."""
    calibration = toy_calibration()
    images = next(calibration.batches()).images
    brighter = (0.5 * images + 0.5).clamp(0, 1)
    blurred = nn.functional.avg_pool2d(images, 9, 1, 4, count_include_pad=False)
    pixels, shapes = Likeness.of(calibration, 0.0), Likeness.of(calibration, 1.0)
    assert float(pixels(brighter, images).mean()) > float(pixels(blurred, images).mean())
    assert float(shapes(brighter, images).mean()) < float(pixels(brighter, images).mean())


def test_the_decoder_answers_with_pictures() -> None:
    calibration = toy_calibration()
    features = next(calibration.batches()).features
    answer = SurrogateDecoder(tuple(features.shape[1:]), 32, 32)(features)
    assert answer.shape == (len(features), 3, 32, 32)
    assert 0 <= float(answer.detach().min()) <= float(answer.detach().max()) <= 1
