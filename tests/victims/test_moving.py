"""Moved copies are the same photos, seen a little otherwise."""

import math

import pytest
import torch
from torch import Tensor

from splitleak.victims import moving
from splitleak.victims.moving import AUGMENTATIONS, cropped, flipped, moved, turned
from splitleak.victims.seeding import seeded

STILL = {"SCALE": 0.0, "TURN": 0.0, "SHIFT": 0.0, "GAIN": 0.0, "OFFSET": 0.0}
SIDE = 65


def only(monkeypatch: pytest.MonkeyPatch, **changes: float) -> None:
    for name, value in {**STILL, **changes}.items():
        monkeypatch.setattr(moving, name, value)


def dots(count: int, row: float, column: float) -> Tensor:
    """Images with one round spot."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    spot = (-((y - row) ** 2 + (x - column) ** 2) / 8).exp()
    return spot.expand(count, 3, SIDE, SIDE)


def places(images: Tensor) -> Tensor:
    """Row and column of each image's centre of mass, (n, 2), from the image's middle."""
    weights = images.mean(1) / images.mean(1).sum((1, 2), keepdim=True)
    at = torch.arange(SIDE) - SIDE // 2
    return torch.stack([(weights.sum(2) * at).sum(1), (weights.sum(1) * at).sum(1)], 1)


def test_without_movement_half_are_mirrored_and_the_others_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch)
    images = torch.rand(200, 3, 9, 8)
    with seeded("mirror"):
        seen = moved(images)
    same, flipped = ((seen - other).abs().amax((1, 2, 3)) < 1e-5 for other in (images, images.flip(3)))
    assert (same ^ flipped).all()
    assert 70 < same.sum() < 130


def test_a_spot_goes_where_its_shift_and_angle_and_size_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    spot = dots(300, SIDE // 2 - 20, SIDE // 2)
    for change, most in (({"SHIFT": 0.1}, 0.1 * SIDE), ({"TURN": 0.2}, 20 * 0.2), ({"SCALE": 0.1}, 20 * 0.1 / 0.9)):
        only(monkeypatch, **change)
        with seeded("spot"):
            offsets = places(moved(spot)) - torch.tensor([-20.0, 0.0])
        assert float(offsets.abs().max()) < most + 0.2, change
        reached = offsets.abs().amax(0)
        assert float(reached.max()) > 0.9 * most / (1.1 if "SCALE" in change else 1), change
        if "TURN" in change:
            assert float(reached[0]) < 1, "a turn moves what is above the middle to the side"
            assert float(offsets[:, 1].min()) < 0 < float(offsets[:, 1].max())
        if "SCALE" in change:
            assert float(reached[1]) < 0.2
            assert float(offsets[:, 0].min()) < 0 < float(offsets[:, 0].max())


def test_light_changes_every_pixel_of_an_image_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, GAIN=0.1, OFFSET=0.05)
    ramp = torch.linspace(0.2, 0.8, 16).expand(100, 3, 16, 16).transpose(2, 3)  # alike from left to right
    seen = moved(ramp)
    gain = (seen[:, 0, -1, 0] - seen[:, 0, 0, 0]) / 0.6
    offset = seen[:, 0, 0, 0] - 0.2 * gain
    torch.testing.assert_close(seen, ramp * gain[:, None, None, None] + offset[:, None, None, None])
    assert 0.9 <= gain.min() < 0.92
    assert 1.08 < gain.max() <= 1.1001
    assert -0.0501 <= offset.min() < -0.04
    assert 0.04 < offset.max() <= 0.0501


def test_copies_are_images_that_differ_and_are_drawn_again_from_a_seed() -> None:
    images = torch.rand(8, 3, 32, 32)
    with seeded("copies"):
        first, other = moved(images), moved(images)
    with seeded("copies"):
        assert torch.equal(moved(images), first)
    assert not torch.equal(first, other)
    assert first.min() >= 0
    assert first.max() <= 1
    assert math.isfinite(float(first.sum()))


def test_a_crop_shifts_by_whole_pixels_and_fills_with_black() -> None:
    images = torch.rand(300, 3, 16, 16) + 0.1
    with seeded("crop"):
        seen = cropped(images)
    shifts = set()
    for photo, crop in zip(images, seen, strict=True):
        found = [
            (down, across, mirrored)
            for down in range(-2, 3)
            for across in range(-2, 3)
            for mirrored in (False, True)
            if torch.equal(crop, shifted(photo.flip(2) if mirrored else photo, down, across))
        ]
        assert len(found) == 1
        shifts |= set(found)
    assert len(shifts) == 5 * 5 * 2


def shifted(photo: Tensor, down: int, across: int) -> Tensor:
    """The slow way: every pixel by itself."""
    other = torch.zeros_like(photo)
    _, height, width = photo.shape
    for row in range(height):
        for column in range(width):
            if 0 <= row + down < height and 0 <= column + across < width:
                other[:, row, column] = photo[:, row + down, column + across]
    return other


def test_a_flip_mirrors_half_and_a_turn_reaches_as_far_as_it_says() -> None:
    images = torch.rand(200, 3, 8, 8)
    with seeded("flip"):
        seen = flipped(images)
    mirrored = (seen == images.flip(3)).all(3).all(2).all(1)
    assert ((seen == images).all(3).all(2).all(1) ^ mirrored).all()
    assert 70 < mirrored.sum() < 130
    with seeded("turn"):
        offsets = places(turned(dots(300, SIDE // 2, SIDE // 2)))
    assert 0.85 * 0.1 * SIDE < float(offsets.abs().max()) < 0.1 * SIDE * 1.4


def test_augmentations_keep_the_shape_and_the_range() -> None:
    images = torch.rand(4, 3, 32, 24)
    for name, change in AUGMENTATIONS.items():
        seen = change(images)
        assert seen.shape == images.shape, name
        assert seen.min() >= 0, name
        assert seen.max() <= 1 + 1e-6, name
    assert torch.equal(AUGMENTATIONS["none"](images), images)
