"""The linear attack against an independent least-squares solution."""

import numpy as np
import pytest
import torch

from splitleak.attacks.knowledge import BlackBox
from splitleak.attacks.linear import PENALTIES, _KeptRows, _least_squares, _NormalEquations
from splitleak.attacks.ridge import Ridge, _to_images, _to_patches
from splitleak.attacks.toy import toy_knowledge
from splitleak.victims.tensors import to_float


@pytest.mark.parametrize(("form", "count", "features"), [(_NormalEquations, 300, 12), (_KeptRows, 40, 90)])
@pytest.mark.parametrize("penalty", PENALTIES[2:])
def test_both_forms_equal_an_augmented_least_squares(
    penalty: float, form: type[_NormalEquations | _KeptRows], count: int, features: int
) -> None:
    random = np.random.default_rng(0)
    inputs, outputs = random.normal(2, 1, (count, features)), random.normal(size=(count, 5))
    sums = form()
    for rows in np.array_split(np.arange(count), 7):
        sums.add(torch.tensor(inputs[rows]).float(), torch.tensor(outputs[rows]).float())
    linear = sums.solve(penalty)
    # the oracle: penalty rows appended to centred data, solved by lstsq
    centred, target = inputs - inputs.mean(0), outputs - outputs.mean(0)
    scale = penalty * (centred**2).mean(0).mean()
    augmented = np.vstack([centred / np.sqrt(count), np.sqrt(scale) * np.eye(features)])
    zeros = np.zeros((features, 5))
    oracle = np.linalg.lstsq(augmented, np.vstack([target / np.sqrt(count), zeros]), rcond=None)[0]
    assert linear is not None
    fresh = random.normal(2, 1, (20, features))
    expected = (fresh - inputs.mean(0)) @ oracle + outputs.mean(0)
    np.testing.assert_allclose(linear(torch.tensor(fresh).float()).numpy(), expected, atol=1e-3)
    np.testing.assert_allclose(sums.mean()(torch.zeros(2, features))[1].numpy(), outputs.mean(0), atol=1e-5)


def test_kept_rows_stop_at_their_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitleak.attacks.linear.KEPT_BYTES", 100 * 4 * 8)  # a hundred rows of six floats and two
    sums = _KeptRows()
    assert not sums.full
    sums.add(torch.rand(99, 6), torch.rand(99, 2))
    assert not sums.full
    sums.add(torch.rand(1, 6), torch.rand(1, 2))
    assert sums.full


@pytest.mark.slow
@pytest.mark.parametrize(
    ("photos", "features", "form"),
    [(3, 10, _NormalEquations), (3, 30, _NormalEquations), (2, 30, _KeptRows), (3, 41, _KeptRows)],
)
def test_rows_are_summed_rather_than_left_out(
    photos: int, features: int, form: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("SUMMED", 10), ("SUMMED_AT_MOST", 40), ("KEPT_ROWS", 100)):
        monkeypatch.setattr(f"splitleak.attacks.linear.{name}", value)
    assert type(_least_squares(features, 50 * photos)) is form


@pytest.mark.parametrize("summed", [0, 4096])
def test_the_whole_release_undoes_a_mixing_that_a_window_cannot(summed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitleak.attacks.linear.SUMMED", summed)
    knows, _ = toy_knowledge(Ridge())
    assert isinstance(knows, BlackBox)
    shape = (3, *knows.image_shape[1:])
    permutation = torch.randperm(3 * shape[1] * shape[2], generator=torch.Generator().manual_seed(0))
    small = torch.nn.AvgPool2d(4)

    def mixed(images: torch.Tensor) -> torch.Tensor:
        pooled = small(images)
        order = permutation[permutation < pooled[0].numel()]
        return pooled.flatten(1)[:, order].view_as(pooled)

    knows.send, knows.resend = mixed, lambda part, rows: mixed(to_float(knows.images[part][rows]))
    images = to_float(knows.images["validation"])

    def error(attack: Ridge) -> float:
        return float((attack.fit(knows)(mixed(images)) - images).square().mean())

    assert error(Ridge(window="whole")) < 0.8 * error(Ridge(window=1))


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
