"""Of each block exactly the lowest coefficients go, and training draws a class together."""

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from splitleak.defenses.checks import toy_calibration, toy_channel
from splitleak.defenses.frequency_removal import TO_YUV, FrequencyRemoval, distance_within, zigzag
from splitleak.victims.seeding import seeded

FIRST = [(0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (0, 2), (0, 3), (1, 2), (2, 1), (3, 0), (4, 0), (3, 1)]
"""Row and column of coefficients as JPEG orders them (ITU-T T.81, figure 5)."""


def images_of(height: int, width: int) -> torch.Tensor:
    with seeded("images", height, width):
        return torch.rand(2, 3, height, width)


def test_coefficients_are_ordered_as_in_jpeg() -> None:
    assert [divmod(number, 8) for number in zigzag()[:12].tolist()] == FIRST
    assert sorted(zigzag().tolist()) == list(range(64))


@pytest.mark.parametrize("removed", [1, 10, 33])
def test_it_removes_those_and_leaves_the_others_as_they_were(removed: int) -> None:
    images = images_of(16, 24)
    left = FrequencyRemoval(removed).perturb((3, 16, 24))(images)
    before, after = (np.einsum("uc,nchw->nuhw", TO_YUV, of.double().numpy() - 0.5) for of in (images, left))
    gone = {divmod(number, 8) for number in zigzag()[:removed].tolist()}
    for row, column in ((0, 0), (8, 16)):
        was, now = (
            dctn(of[:, :, row : row + 8, column : column + 8], axes=(2, 3), norm="ortho") for of in (before, after)
        )
        for place in np.ndindex(8, 8):
            expected = 0.0 if place in gone else was[:, :, place[0], place[1]]
            np.testing.assert_allclose(now[:, :, place[0], place[1]], expected, atol=1e-5)


def test_from_the_photo_itself_to_plain_grey() -> None:
    images = images_of(32, 32)
    assert torch.equal(FrequencyRemoval(0).perturb((3, 32, 32))(images), images)
    grey = FrequencyRemoval(64).perturb((3, 32, 32))(images)
    torch.testing.assert_close(grey, torch.full_like(grey, 0.5))


def test_sides_that_are_no_multiple_of_eight_are_continued() -> None:
    images = images_of(13, 20)
    left = FrequencyRemoval(1).perturb((3, 13, 20))(images)
    assert left.shape == images.shape
    torch.testing.assert_close(left[..., :8, :8].mean((2, 3)), torch.full((2, 3), 0.5))
    grey = FrequencyRemoval(64).perturb((3, 13, 20))(images)
    torch.testing.assert_close(grey, torch.full_like(grey, 0.5))


def test_the_distance_is_to_the_mean_of_the_class() -> None:
    features, labels = torch.tensor([[0.0, 0.0], [2.0, 0.0], [5.0, 7.0]]), torch.tensor([1, 1, 0])
    assert float(distance_within(features, labels)) == pytest.approx((1 + 1) / 6)
    calibration = toy_calibration()
    defense = FrequencyRemoval(weight=3.0)
    channel, features = toy_channel(defense, calibration)
    objective = defense.objective(calibration, channel)
    assert objective is not None
    batch = next(calibration.batches())
    everything = torch.cat([batch.features.flatten(1) for batch in calibration.batches()])
    value = objective(batch.images, features, features, torch.zeros(()), batch.labels)
    unit = everything.var(0, correction=0).mean()
    assert float(value) == pytest.approx(float(3 * distance_within(features, batch.labels) / unit), rel=1e-4)
    assert FrequencyRemoval(weight=0.0).objective(calibration, channel) is None


def test_what_was_removed_is_partly_told_by_what_is_left() -> None:
    """Borders of areas say on which side it is brighter: a linear map finds more than the mean photo holds."""
    with seeded("areas"):
        edges = torch.rand(3000, 1, 1, 1) * 16
        heights = torch.rand(3000, 1, 1, 1)
    columns = torch.arange(16.0)
    images = 0.2 + 0.6 * heights * torch.sigmoid(columns - edges).expand(-1, 3, 16, 16)
    left = FrequencyRemoval(10).perturb((3, 16, 16))(images)
    low = (images - left)[:, 0, 0].double()
    known = torch.cat([left[:, 0, 0], torch.ones(3000, 1)], 1).double()
    fitted = torch.linalg.lstsq(known[:2000], low[:2000], driver="gelsd").solution
    error = (known[2000:] @ fitted - low[2000:]).square().mean()
    assert error < 0.5 * (low[2000:] - low[:2000].mean(0)).square().mean()
