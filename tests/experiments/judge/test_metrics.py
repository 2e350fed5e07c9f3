"""Image metrics against independent implementations, and the mistakes that they refuse."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import metrics as oracle
from torch import Tensor
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

from splitleak.experiments.judge.metrics import pictures as metrics
from splitleak.experiments.judge.metrics.pictures import SCALE_WEIGHTS, metrics_for, ms_ssim_scales, score
from splitleak.victims.models import IMAGENET_MEAN, IMAGENET_STD
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import to_bytes, to_float

Array = npt.NDArray[np.float64]


def smooth_pair(size: int, count: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Pictures with structure, and reconstructions of them that get worse along the batch."""
    with seeded("pair", size, seed):
        knots = torch.rand(count, 3, 6, 6)
        images = torch.nn.functional.interpolate(knots, (size, size), mode="bicubic").clamp(0, 1)
        strength = torch.linspace(0.02, 0.3, count)[:, None, None, None]
        return images, (images + strength * torch.randn_like(images)).clamp(0, 1)


def last_axis(image: Tensor) -> Array:
    return image.permute(1, 2, 0).double().numpy()


@pytest.mark.parametrize("size", [16, 33, 64])
def test_mse_psnr_and_ssim_equal_scikit_image(size: int) -> None:
    images, rebuilt = smooth_pair(size)
    got = score(metrics_for(size), images, rebuilt)
    for row, (image, other) in enumerate(zip(images, rebuilt, strict=True)):
        a, b = last_axis(image), last_axis(other)
        assert got["mse"][row] == pytest.approx(oracle.mean_squared_error(a, b), rel=1e-4)
        assert got["psnr"][row] == pytest.approx(oracle.peak_signal_noise_ratio(a, b, data_range=1), abs=1e-3)
        # scikit-image averages over the places where the whole window lies inside the image, torchmetrics over
        # all of them, mirroring the image at its borders: the same thing for an image that is mirrored before
        assert got["ssim"][row] == pytest.approx(ssim_oracle(mirrored(a), mirrored(b)), abs=2e-4)
        if size == 64:  # where borders weigh little
            assert got["ssim"][row] == pytest.approx(ssim_oracle(a, b), abs=0.03)
    assert got["ssim"] == sorted(got["ssim"], reverse=True)


def ssim_oracle(first: Array, second: Array) -> float:
    return oracle.structural_similarity(
        first, second, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, channel_axis=2
    )


def mirrored(image: Array) -> Array:
    """Longer by half a window on each side."""
    return np.pad(image, ((5, 5), (5, 5), *[(0, 0)] * (image.ndim - 2)), mode="reflect")


def windows(image: Array) -> Array:
    """Gaussian means of every full 11 x 11 window of a plane."""
    taps = np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2)
    kernel = np.outer(taps, taps) / taps.sum() ** 2
    return np.einsum("ijkl,kl->ij", np.lib.stride_tricks.sliding_window_view(image, (11, 11)), kernel)


def halve(image: Array) -> Array:
    rows, columns = (side - side % 2 for side in image.shape)
    cut = image[:rows, :columns]
    return (cut[::2, ::2] + cut[1::2, ::2] + cut[::2, 1::2] + cut[1::2, 1::2]) / 4


def ms_ssim_oracle(first: Array, second: Array, weights: Array) -> float:
    """Wang, Simoncelli, Bovik 2003, eq. 7, from planes (3, h, w): contrast and structure at every scale,
    luminance at the coarsest, each averaged over places and channels and cut off at zero.

    The coarsest scale is averaged over all places, mirroring the borders; the others over full windows. That
    is torchmetrics' choice.
    """
    c1, c2 = 0.01**2, 0.03**2
    planes, product = list(zip(first, second, strict=True)), 1.0
    for scale, weight in enumerate(weights):
        values = []
        last = scale == len(weights) - 1
        for x, y in [(mirrored(x), mirrored(y)) for x, y in planes] if last else planes:
            mx, my = windows(x), windows(y)
            vx, vy, cov = windows(x * x) - mx**2, windows(y * y) - my**2, windows(x * y) - mx * my
            value = (2 * cov + c2) / (vx + vy + c2)
            if last:
                value = value * (2 * mx * my + c1) / (mx**2 + my**2 + c1)
            values.append(value.mean())
        product *= max(float(np.mean(values)), 0.0) ** weight
        planes = [(halve(x), halve(y)) for x, y in planes]
    return product


@pytest.mark.parametrize(
    ("size", "name", "scales"),
    [(32, "ms_ssim_2", 2), (64, "ms_ssim_3", 3), (160, "ms_ssim_4", 4), (176, "ms_ssim", 5)],
)
def test_ms_ssim_equals_an_independent_implementation(size: int, name: str, scales: int) -> None:
    images, rebuilt = smooth_pair(size, count=2)
    got = score(metrics_for(size), images, rebuilt)[name]
    published = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])[:scales]
    for row, (image, other) in enumerate(zip(images, rebuilt, strict=True)):
        expected = ms_ssim_oracle(image.double().numpy(), other.double().numpy(), published / published.sum())
        assert got[row] == pytest.approx(expected, abs=2e-4)
        assert got[row] < 0.999


@pytest.mark.parametrize(
    ("size", "name"),
    [
        (11, "ms_ssim_1"), (22, "ms_ssim_2"), (64, "ms_ssim_3"), (96, "ms_ssim_3"), (128, "ms_ssim_4"),
        (160, "ms_ssim_4"), (175, "ms_ssim_4"), (176, "ms_ssim"), (224, "ms_ssim"),
    ],
)  # fmt: skip
def test_the_number_of_scales_is_in_the_name(size: int, name: str) -> None:
    assert [metric for metric in metrics_for(size) if metric.startswith("ms_ssim")] == [name]


@settings(max_examples=25, deadline=None)
@given(size=st.integers(4, 190))
def test_every_size_can_be_scored(size: int) -> None:
    images, rebuilt = smooth_pair(size, count=1)
    scores = score(metrics_for(size, seed_convention=True), images, rebuilt)
    assert all(math.isfinite(value) for values in scores.values() for value in values)
    same = score(metrics_for(size), images, images)
    assert all(values == pytest.approx([1.0], abs=1e-5) for name, values in same.items() if "ssim" in name)


def test_images_smaller_than_the_window_have_no_ssim() -> None:
    assert set(metrics_for(10)) == {"mse", "psnr"}
    assert set(metrics_for(11)) == {"mse", "psnr", "ssim", "ms_ssim_1"}


def test_psnr_is_taken_per_image_and_not_of_the_mean_error() -> None:
    images = torch.full((2, 3, 16, 16), 0.5)
    rebuilt = images + torch.tensor([0.1, 0.01])[:, None, None, None]
    values = score(metrics_for(16), images, rebuilt)["psnr"]
    assert values == pytest.approx([20, 40], abs=1e-3)
    of_the_mean = 10 * math.log10(1 / float((images - rebuilt).square().mean()))
    assert sum(values) / 2 == pytest.approx(30, abs=1e-3)
    assert abs(of_the_mean - 30) > 5


def test_batches_do_not_matter() -> None:
    images, rebuilt = smooth_pair(16, count=70)
    whole = score(metrics_for(16, True), images, rebuilt)
    for row in (0, 63, 64, 69):
        single = score(metrics_for(16, True), images[row : row + 1], rebuilt[row : row + 1])
        for name, values in whole.items():
            assert len(values) == 70
            assert values[row] == pytest.approx(single[name][0], abs=1e-4)


def test_an_exact_reconstruction_scores_a_hundred_decibels() -> None:
    images, _ = smooth_pair(16)
    assert score(metrics_for(16), images, images)["psnr"] == [100.0] * 3
    close = (images + 2e-6).clamp(0, 1)
    assert max(score(metrics_for(16), images, close)["psnr"]) <= 100
    seed = score(metrics_for(16, True), images, images)["psnr_seed_convention"]
    assert all(math.isfinite(value) for value in seed)


def test_anything_outside_the_range_is_refused() -> None:
    images, rebuilt = smooth_pair(16)
    for wrong in (rebuilt + 0.5, rebuilt - 0.5, rebuilt * 255, torch.full_like(rebuilt, math.nan)):
        with pytest.raises(ValueError, match=r"reconstructions: images must lie in \[0, 1\]"):
            score(metrics_for(16), images, wrong)
        with pytest.raises(ValueError, match="true images"):
            score(metrics_for(16), wrong, rebuilt)


def test_normalised_pixels_are_refused_and_bytes_are_images() -> None:
    images, rebuilt = smooth_pair(16)
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    with pytest.raises(ValueError, match="must lie in"):
        score(metrics_for(16), (images - mean) / std, (rebuilt - mean) / std)
    with pytest.raises(ValueError, match="must be floats"):
        score(metrics_for(16), images.mul(255).int(), rebuilt.mul(255).int())
    stored = [to_bytes(one) for one in (images, rebuilt)]
    assert score(metrics_for(16), *stored) == score(metrics_for(16), *map(to_float, stored))


def test_images_of_another_number_or_size_are_refused() -> None:
    images, rebuilt = smooth_pair(16)
    with pytest.raises(ValueError, match="reconstructions of"):
        score(metrics_for(16), images, rebuilt[:2])
    with pytest.raises(ValueError, match="reconstructions of"):
        score(metrics_for(16), images, rebuilt[..., :8])


def test_the_seeds_convention_is_its_formula_on_normalised_floats() -> None:
    images, rebuilt = smooth_pair(16)
    assert "psnr_seed_convention" not in metrics_for(16)
    got = score(metrics_for(16, seed_convention=True), images, rebuilt)["psnr_seed_convention"]
    mean, std = (np.array(values) for values in (IMAGENET_MEAN, IMAGENET_STD))
    for row, (image, other) in enumerate(zip(images, rebuilt, strict=True)):
        a, b = ((last_axis(x) - mean) / std for x in (image, other))
        error = oracle.mean_squared_error(a, b)
        assert got[row] == pytest.approx(20 * math.log10(255 / math.sqrt(error)), abs=1e-3)
        # the same floats with the peak that belongs to them
        assert got[row] - oracle.peak_signal_noise_ratio(a, b, data_range=1) == pytest.approx(48.13, abs=5e-3)


def test_metrics_do_not_touch_their_input() -> None:
    images, rebuilt = smooth_pair(32)
    before = images.clone(), rebuilt.clone()
    score(metrics_for(32, seed_convention=True), images, rebuilt)
    assert torch.equal(images, before[0])
    assert torch.equal(rebuilt, before[1])
    assert metrics.SEED_PEAK == 255


@pytest.mark.parametrize("size", [11, 33, 64, 160, 176])
def test_ssim_and_ms_ssim_equal_torchmetrics(size: int) -> None:
    images, rebuilt = smooth_pair(size, count=6)
    scales = ms_ssim_scales(size)
    weights = SCALE_WEIGHTS[:scales]
    expected = {
        "ssim": structural_similarity_index_measure(rebuilt, images, data_range=1.0, reduction="none"),
        f"ms_ssim_{scales}" if scales < 5 else "ms_ssim": multiscale_structural_similarity_index_measure(
            rebuilt,
            images,
            data_range=1.0,
            betas=tuple(weight / sum(weights) for weight in weights),
            normalize="relu",
            reduction="none",
        ),
    }
    got = score(metrics_for(size), images, rebuilt)
    for name, values in expected.items():
        assert isinstance(values, Tensor)
        assert got[name] == pytest.approx(values.reshape(-1).tolist(), abs=2e-5)
