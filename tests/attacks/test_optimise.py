"""What white-box attacks share: the search, its loss, the choice of settings."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from splitleak.attacks import knowledge
from splitleak.attacks.edge import PlainEdge
from splitleak.attacks.knowledge import WhiteBox
from splitleak.attacks.optimise import (
    FeatureLoss,
    Matcher,
    Point,
    Schedule,
    Space,
    best_on_validation,
    search,
    total_variation,
)
from splitleak.attacks.refine import WEIGHTS, Refine
from splitleak.attacks.rmle import Rmle, principal_axes
from splitleak.attacks.toy import toy_knowledge
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import to_float
from splitleak.victims.toy import toy_images


def _knows() -> WhiteBox:
    knows, _ = toy_knowledge(Rmle())
    assert isinstance(knows, WhiteBox)
    return knows


def _pixels(start: float = 0.5) -> Space:
    def clamp(point: Point) -> None:
        point[0].clamp_(0, 1)

    return Space(
        start=lambda release: [torch.full((len(release), 3, 32, 32), start)],
        images=lambda point: point[0],
        penalty=lambda point, images: total_variation(images),
        project=clamp,
    )


def test_images_share_nothing_but_the_steps() -> None:
    knows = _knows()
    matcher, schedule = Matcher.measure(knows), Schedule(120, 0.03, patience=10, tolerance=0.2)
    releases = knows.intercepted[:5]
    left: list[float] = []
    together = search(_pixels(), matcher(releases), 0.1, schedule, lambda row: left.append(row["images_left"]))
    alone = torch.cat([search(_pixels(), matcher(one[None]), 0.1, schedule) for one in releases])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)
    assert left[-1] < left[0], "no image left the batch: the test shows nothing"


def test_the_loss_falls_and_the_best_is_kept() -> None:
    knows = _knows()
    loss = Matcher.measure(knows)(knows.intercepted[:4])
    found = search(_pixels(), loss, 0.0, Schedule(150, 0.02))
    start = torch.full((4, 3, 32, 32), 0.5)
    with torch.no_grad():
        assert (loss(found) < 0.2 * loss(start)).all()


def test_blanks_do_not_count() -> None:
    identity = PlainEdge(nn.Identity())
    images, release = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    mask = torch.rand(2, 3, 4, 4) > 0.5
    for distance in ("mse", "cosine"):
        one = FeatureLoss(identity, release, mask, torch.ones(3, 4, 4), distance)(images)
        other = FeatureLoss(identity, release.masked_fill(~mask, 99.0), mask, torch.ones(3, 4, 4), distance)(images)
        torch.testing.assert_close(one, other)
        assert (one > 0).all()


def test_a_feature_counts_in_units_of_its_own_variance() -> None:
    images, release = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    mask, scale = torch.ones(2, 3, 4, 4, dtype=torch.bool), torch.rand(3, 4, 4) + 0.5

    class Scaled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * scale

    plain = FeatureLoss(PlainEdge(nn.Identity()), release, mask, torch.ones(3, 4, 4))(images)
    scaled = FeatureLoss(PlainEdge(Scaled()), release * scale, mask, scale.square())(images)
    torch.testing.assert_close(plain, scaled)


class _Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


def test_draws_average_the_channels_randomness() -> None:
    release = torch.zeros(1, 3, 8, 8)
    mask = torch.ones_like(release, dtype=torch.bool)
    spread = []
    for draws in (1, 16):
        loss = FeatureLoss(PlainEdge(nn.Identity(), _Noisy()), release, mask, torch.ones(3, 8, 8), draws=draws)
        with seeded("draws"):
            values = torch.stack([loss(release) for _ in range(200)])
        assert abs(float(values.mean()) - 1) < 0.05  # the noise's variance
        spread.append(float(values.var()))
    assert spread[1] < spread[0] / 8


def test_noise_is_measured_in_units_of_the_features_variance() -> None:
    knows = _knows()
    assert Matcher.measure(knows).noise == 0
    assert Matcher.measure(knows, draws=8).draws == 1  # nothing to average
    send = knows.send
    knows.send = lambda images: send(images) + 0.5 * torch.randn(len(images), 96, 2, 2)
    with seeded("noise"):
        measured = Matcher.measure(knows, draws=8)
    assert measured.draws == 8
    with torch.no_grad():
        variance = (send(to_float(knows.images["auxiliary"])).var(0) + 0.25).numpy()
    expected = float((0.25 / (variance + 0.01 * variance.mean())).mean())
    assert measured.noise == pytest.approx(expected, rel=0.1)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 6), st.integers(2, 6), st.sampled_from([0.5, 1.0, 2.0]))
def test_total_variation(height: int, width: int, beta: float) -> None:
    images = torch.rand(2, 3, height, width)
    x = images.double().numpy()
    down, right = x[:, :, 1:, :-1] - x[:, :, :-1, :-1], x[:, :, :-1, 1:] - x[:, :, :-1, :-1]
    oracle = ((down**2 + right**2 + 1e-8) ** (beta / 2)).reshape(2, -1).mean(1)
    np.testing.assert_allclose(total_variation(images, beta).numpy(), oracle, rtol=1e-4)


def test_the_best_setting_is_chosen_by_the_adversarys_own_photos() -> None:
    knows = _knows()
    truth = to_float(knows.images["validation"][:16])
    offsets = {"bad": 0.3, "good": 0.01, "worse": 0.5}
    asked = knows.queries

    def attempt(name: str, release: Tensor) -> Tensor:
        return truth + offsets[name]

    assert best_on_validation(knows, offsets, attempt) == "good"
    assert knows.queries == asked + 16


def test_rmle_recovers_more_of_a_wide_release_than_of_a_narrow_one() -> None:
    truth = to_float(toy_images(48, seed=3))[:8]
    errors: dict[str, float] = {}
    for name, channels in (("wide", 96), ("narrow", 4)):
        knows = _knows()
        edge = knows.edge

        class First(nn.Module):
            def forward(self, x: Tensor, edge: Any = edge, channels: int = channels) -> Tensor:
                return edge(x)[:, :channels]

        knows.edge = PlainEdge(First())
        knows.send, knows.intercepted = knows.edge, knows.intercepted[:8, :channels]
        rebuilt = Rmle(prior="gaussian", weight=0.01, learning_rate=0.05, steps=200).fit(knows)(knows.intercepted)
        errors[name] = float((rebuilt - truth).square().mean())
    assert errors["wide"] < 0.8 * errors["narrow"]


def test_refine_is_never_worse_than_its_start_on_the_photos_that_choose() -> None:
    knows = _knows()
    rows: list[dict[str, float]] = []
    knows.log = rows.append
    Refine(width=16, epochs=2, steps=40).fit(knows)
    tried = {row["candidate"]: row["validation_loss"] for row in rows if "candidate" in row}
    assert len(tried) == 1 + len(WEIGHTS)
    moved = any("weight" in row for row in rows)
    assert moved == (min(tried, key=tried.__getitem__) != 0.0)


def test_principal_axes_are_those_of_the_covariance_from_few_photos_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    knows = _knows()
    photos = to_float(knows.images["auxiliary"]).flatten(1)
    at_once: list[int] = []

    def noted(images: Tensor) -> Tensor:
        at_once.append(len(images))
        return to_float(images)

    monkeypatch.setattr(knowledge, "to_float", noted)
    with seeded("axes"):
        mean, axes = principal_axes(knows, 60)
    assert max(at_once) <= 128 < len(photos)
    torch.testing.assert_close(mean, photos.mean(0))
    torch.testing.assert_close(axes.T @ axes, torch.cov(photos.T), atol=2e-4, rtol=0)
    kept = axes @ axes.T
    torch.testing.assert_close(kept, kept.diagonal().diag(), atol=1e-3, rtol=0)
