"""Bounds equal their closed forms, and are met where the best attack is known."""

import json
import math
from pathlib import Path

import pytest
import torch
from tiny import HEAD, MEAN, NONE, RIDGE, run_plan
from torch import Tensor, nn

from splitleak.experiments.judge.metrics.bounds import bounds, exact_bayes_error, principal
from splitleak.victims.gaussian import GRID, GaussianVictim
from splitleak.victims.seeding import seeded

SIGMA = 0.5
SIDE = 4
PIXELS = 3 * SIDE * SIDE


class _Linear(nn.Module):
    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = matrix

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.matrix.T


def _pictures(count: int, seed: int = 0) -> Tensor:
    with seeded("bound pictures", seed):
        return torch.rand(count, 3, SIDE, SIDE)


def _matrix(rows: int = 20) -> Tensor:
    with seeded("matrix"):
        return torch.randn(rows, PIXELS)


def test_dfil_is_the_closed_form_of_a_linear_map() -> None:
    matrix = _matrix()
    found = bounds(_Linear(matrix), _pictures(64), SIGMA, _pictures(200, 1), probes=64)
    assert found is not None
    exact = float(matrix.square().sum()) / (PIXELS * SIGMA**2)
    assert found.dfil == pytest.approx(exact, rel=0.03)
    assert found.unbiased_error == pytest.approx(1 / found.dfil)


def test_its_standard_error_is_the_spread_over_repeats() -> None:
    matrix, estimates, stated = _matrix(), [], []
    for repeat in range(60):
        with seeded("repeat", repeat):
            found = bounds(_Linear(matrix), _pictures(16), SIGMA, _pictures(100, 1), probes=1)
        assert found is not None
        estimates.append(found.dfil)
        stated.append(found.dfil_std_error)
    assert sum(stated) / 60 == pytest.approx(float(torch.tensor(estimates).std()), rel=0.35)


def test_what_is_clipped_tells_less() -> None:
    matrix, images = _matrix(), _pictures(32)
    linear = _Linear(matrix)
    whole = bounds(linear, images, SIGMA, images)
    rectified = bounds(nn.Sequential(linear, nn.ReLU()), images, SIGMA, images)
    assert whole is not None
    assert rectified is not None
    share = float((linear(images) > 0).float().mean())
    assert rectified.dfil == pytest.approx(share * whole.dfil, rel=0.15)
    assert rectified.bayes_error > whole.bayes_error


def test_without_noise_nothing_is_bounded() -> None:
    assert bounds(_Linear(_matrix()), _pictures(4), 0.0, _pictures(8)) is None


@pytest.mark.parametrize("count", [300, 20], ids=["more photos than values", "fewer"])
def test_principal_directions_are_those_of_the_covariance(count: int) -> None:
    photos = _pictures(count)
    directions, variances = principal(photos)
    assert len(variances) == min(count - 1, PIXELS)
    torch.testing.assert_close(directions.T @ directions, torch.eye(len(variances), dtype=torch.float64))
    covariance = torch.cov(photos.double().flatten(1).T)
    torch.testing.assert_close(directions.T @ covariance @ directions, variances.diag(), atol=1e-8, rtol=1e-6)
    assert principal(photos, 5)[0].shape == (PIXELS, 5)


def test_along_principal_directions_the_bound_is_that_of_the_whole_matrix_or_less() -> None:
    matrix, photos = _matrix(), _pictures(3000)
    found = bounds(_Linear(matrix), photos[:64], SIGMA, photos, probes=64)
    assert found is not None
    exact = exact_bayes_error(matrix.double(), SIGMA, torch.cov(photos.double().flatten(1).T))
    assert 0.1 * exact < found.bayes_error <= exact * 1.02
    # where the device mixes no directions, nothing is lost
    directions, variances = principal(photos)
    aligned = bounds(_Linear((3 * directions.T).float()), photos[:64], SIGMA, photos, probes=64)
    assert aligned is not None
    closed = float((1 / (9 / SIGMA**2 + 1 / variances)).sum()) / PIXELS
    assert aligned.bayes_error == pytest.approx(closed, rel=0.02)
    assert aligned.bayes_std_error < 0.05 * closed


def test_the_best_attack_meets_the_bound_on_the_gaussian_victim() -> None:
    victim = GaussianVictim()
    jacobian = victim.encoder.weight.flatten(1).double()  # type: ignore[operator]
    least = exact_bayes_error(jacobian, victim.sigma, victim.covariance)
    assert least == pytest.approx(victim.least_error, rel=1e-3)
    images = victim.images(2000, seed=1)
    with torch.no_grad(), seeded("send"):
        rebuilt = victim.posterior_mean(victim.edge(images))
    error = float((rebuilt - images).square().mean())
    assert error == pytest.approx(least, rel=0.03)
    # its prior makes it biased, so that it is far below what unbiased attackers can reach
    found = bounds(victim.encoder, images[:64], victim.sigma, images)
    assert found is not None
    assert error < 0.5 * found.unbiased_error
    assert found.bayes_error < error
    assert jacobian.shape[1] * GRID**2 == images[0].numel()


@pytest.mark.slow
def test_bounds_stand_beside_what_was_measured(tmp_path: Path) -> None:
    defences = (
        '[[defenses]]\nname = "gaussian_noise"\nsigma = [0.1, 2.0]\n[[defenses]]\nname = "laplace_noise"\n'
        '[[defenses]]\nname = "clipped_noise"\nepsilon = 1000.0\n'
    )
    results, _, _ = run_plan(HEAD + NONE + defences + MEAN + RIDGE, tmp_path, report=True, shared=True)
    found = {result["defence"]["label"]: result["bounds"] for result in results}
    assert found["none"] is None
    assert found["laplace_noise"] is None  # another noise has another information
    weak, strong = (found[f"gaussian_noise sigma={sigma}"] for sigma in (0.1, 2.0))
    assert weak["dfil"] == pytest.approx(400 * strong["dfil"], rel=1e-3)  # 20 times the noise
    assert strong["bayes_error"] > weak["bayes_error"] > 0
    assert found["clipped_noise epsilon=1000.0"]["dfil"] > 0
    # linear, and fitted to photos of the same kind: the bound is for it too
    errors = {r["defence"]["label"]: r["metrics"]["mse"]["mean"] for r in results if r["attack"]["name"] == "ridge"}
    for label in ("gaussian_noise sigma=0.1", "gaussian_noise sigma=2.0"):
        assert errors[label] > 0.9 * found[label]["bayes_error"]
    run = tmp_path / "runs" / "tiny"
    ceiling = f"{-10 * math.log10(strong['unbiased_error']):.1f} ±"
    assert ceiling in (run / "matrix.md").read_text()
    assert ceiling in (run / "index.html").read_text()
    assert "unbiased_error" in (run / "results.csv").read_text().splitlines()[0]
    assert json.loads((run / "cells.json").read_text())
