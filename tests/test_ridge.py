"""The linear attack against an independent least-squares solution."""

import numpy as np
import pytest
import torch

from attacks.base import BlackBox
from attacks.checks import toy_knowledge
from attacks.ridge import PENALTIES, Ridge, _NormalEquations, _to_images, _to_patches
from victims.tensors import to_float


@pytest.mark.parametrize("penalty", PENALTIES[2:])
def test_normal_equations_equal_an_augmented_least_squares(penalty: float) -> None:
    random = np.random.default_rng(0)
    inputs, outputs = random.normal(2, 1, (300, 12)), random.normal(size=(300, 5))
    sums = _NormalEquations()
    for rows in np.array_split(np.arange(300), 7):
        sums.add(torch.tensor(inputs[rows]).float(), torch.tensor(outputs[rows]).float())
    weights = sums.solve(penalty)
    # the oracle: penalty rows appended to centred data, solved by lstsq
    centred, target = inputs - inputs.mean(0), outputs - outputs.mean(0)
    scale = penalty * (centred**2).mean(0).mean()
    augmented = np.vstack([centred / np.sqrt(300), np.sqrt(scale) * np.eye(12)])
    oracle = np.linalg.lstsq(augmented, np.vstack([target / np.sqrt(300), np.zeros((12, 5))]), rcond=None)[0]
    assert weights is not None
    np.testing.assert_allclose(weights[:-1].numpy(), oracle, atol=1e-4)
    np.testing.assert_allclose(weights[-1].numpy(), outputs.mean(0) - inputs.mean(0) @ oracle, atol=1e-3)


@pytest.mark.parametrize(("grid", "size"), [((4, 4), 64), ((5, 5), 64), ((1, 1), 32)])
def test_patches_make_the_image_again(grid: tuple[int, int], size: int) -> None:
    smooth = torch.nn.functional.interpolate(torch.rand(3, 3, 4, 4), (size, size), mode="bilinear")
    again = _to_images(_to_patches(smooth, grid), grid, size, size)
    torch.testing.assert_close(again, smooth, atol=0.05 if size % grid[0] else 1e-6, rtol=0)


def test_an_invertible_linear_encoder_is_inverted() -> None:
    knows, _ = toy_knowledge(Ridge())
    assert isinstance(knows, BlackBox)
    identity = torch.nn.PixelUnshuffle(8)
    knows.send, knows.resend = identity, lambda part, rows: identity(to_float(knows.images[part][rows]))
    images = to_float(knows.images["validation"])
    rebuilt = Ridge().fit(knows)(identity(images))
    assert (rebuilt - images).square().mean() < 1e-5


def test_shuffled_releases_fall_to_the_floor() -> None:
    knows, encoder = toy_knowledge(Ridge())
    assert isinstance(knows, BlackBox)
    permutation = torch.randperm(len(knows.images["auxiliary"]))
    resend = knows.resend
    knows.resend = lambda part, rows: resend(part, permutation[rows] if part == "auxiliary" else rows)
    images = to_float(knows.images["validation"])
    with torch.no_grad():
        error = (Ridge().fit(knows)(encoder(images)) - images).square().mean()
    floor = (to_float(knows.images["auxiliary"]).mean(0) - images).square().mean()
    assert error > 0.95 * floor


def test_queries_are_counted_and_budgeted() -> None:
    knows, _ = toy_knowledge(Ridge())
    assert isinstance(knows, BlackBox)
    Ridge().fit(knows)
    assert knows.queries == sum(len(images) for images in knows.images.values())
    knows, _ = toy_knowledge(Ridge())
    knows.budget = 100  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="may have 100"):
        Ridge().fit(knows)  # type: ignore[arg-type]
