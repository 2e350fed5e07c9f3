"""A flow as prior: what it learns, what a walk does with it, and that it brings a weak start nearer to the photo."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from splitleak.attacks.decoder import Decoder
from splitleak.attacks.edge import PlainEdge
from splitleak.attacks.flow_prior import FlowPrior, _slope, _Walk
from splitleak.attacks.knowledge import About, Memo, WhiteBox, forgetful
from splitleak.attacks.networks.flow import Velocity, to_signed
from splitleak.attacks.optimise import FeatureLoss, Matcher
from splitleak.attacks.toy import toy_knowledge
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import to_float
from splitleak.victims.toy import toy_images

LIGHT = FlowPrior(width=16, epochs=2, flow_width=16, flow_epochs=1, steps=5, begin=0.5, stride=0.3)


def _knows() -> WhiteBox:
    knows, _ = toy_knowledge(LIGHT)
    assert isinstance(knows, WhiteBox)
    return knows


def _walk(knows: WhiteBox, start: float = 0.5, **settings: Any) -> _Walk:
    """With an untrained flow, which takes pixels for Gaussians that have nothing to do with each other."""
    flow = Velocity(32, 32, 16).eval()
    flow.begin_from(knows.image_batches())
    return _Walk(
        replace(LIGHT, **settings),
        knows,
        lambda release: torch.full((len(release), 3, 32, 32), start),
        Matcher.measure(knows),
        flow,
    )


@pytest.mark.parametrize(("height", "width"), [(16, 16), (64, 64), (33, 47), (48, 100)])
def test_a_flow_takes_pictures_of_any_size(height: int, width: int) -> None:
    points, times = torch.randn(2, 3, height, width), torch.tensor([0.0, 1.0])
    velocity = Velocity(height, width, 16)(points, times)
    assert velocity.shape == points.shape
    assert velocity.isfinite().all()


@pytest.mark.parametrize("time", [0.0, 0.3, 0.8, 1.0])
def test_an_untrained_flow_is_right_where_pixels_are_gaussian(time: float) -> None:
    with seeded("gaussian"):
        images = (0.6 + 0.1 * torch.randn(20_000, 3, 8, 8)).clamp(0, 1)
        noise = torch.randn_like(images)
    flow = Velocity(8, 8, 16)
    flow.begin_from(images.split(5000))
    pictures = to_signed(images)
    points = time * pictures + (1 - time) * noise
    with torch.no_grad():
        velocity = torch.cat([flow(some, torch.full((len(some),), time)) for some in points.split(5000)])
    # of all functions the conditional mean has the least error: its error is unrelated to the point
    error = pictures - noise - velocity
    assert float(error.mean().abs()) < 0.005
    assert float((error * (points - points.mean(0))).mean().abs()) < 0.005


def test_a_flow_learns_how_pixels_hang_together() -> None:
    knows = _knows()
    with seeded("flow"):
        trained = replace(LIGHT, flow_epochs=6)._flow(knows)
        pictures = to_signed(to_float(toy_images(64, seed=9)))
        times = torch.full((64,), 0.5)
        points = (pictures + torch.randn_like(pictures)) / 2
    alone = _walk(knows).flow
    with torch.no_grad():
        errors = [float((flow.picture(points, times) - pictures).square().mean()) for flow in (trained, alone)]
    assert errors[0] < 0.5 * errors[1]


def test_who_begins_at_zero_forgets_the_start() -> None:
    knows = _knows()
    answers: dict[float, list[Tensor]] = {}
    for begin in (0.0, 0.9):
        for start in (0.2, 0.8):
            with seeded("walk"):
                answer = _walk(knows, start)(begin, 0.0, knows.intercepted[:4])
            answers.setdefault(begin, []).append(answer)
    torch.testing.assert_close(*answers[0.0])
    assert float((answers[0.9][0] - answers[0.9][1]).abs().mean()) > 0.1


def test_what_noise_explains_moves_nothing() -> None:
    knows = _knows()
    answers = []
    for noise, stride in ((1e6, 4.0), (0.0, 4.0), (0.0, 0.0)):
        walk = _walk(knows)
        walk = replace(walk, matcher=replace(walk.matcher, noise=noise))
        with seeded("walk"):
            answers.append(walk(0.5, stride, knows.intercepted[:4]))
    torch.testing.assert_close(answers[0], answers[2])
    assert float((answers[1] - answers[2]).abs().mean()) > 0.001


def test_a_photo_sent_through_noise_is_explained() -> None:
    class Noise(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return features + torch.randn_like(features)

    knows = _knows()
    knows.edge = PlainEdge(knows.edge, Noise())
    knows.send = knows.edge
    photos = to_float(toy_images(64, seed=5))
    with seeded("noise"):
        walk = _walk(knows)
        left = walk.matcher(knows.query(photos))(photos).mean().detach()
    assert float(left) == pytest.approx(2 * walk.matcher.noise, rel=0.1)


def test_a_device_that_passes_no_gradient_leaves_the_prior() -> None:
    class Blocked(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.detach()

    images = torch.rand(2, 3, 8, 8)
    mask = torch.ones_like(images, dtype=torch.bool)
    losses, gradient = _slope(FeatureLoss(PlainEdge(Blocked()), images + 1, mask, torch.ones(3, 8, 8)), images)
    torch.testing.assert_close(losses, torch.ones(2))
    assert not gradient.any()


def test_a_weak_decoders_answer_comes_nearer_to_the_photo() -> None:
    truth = to_float(toy_images(48, seed=3))[:16]
    knows = _knows()
    weak = Decoder(width=16, epochs=2)
    with seeded("start"):
        start = weak.fit(knows)(knows.intercepted[:16])
    rows: list[dict[str, float]] = []
    knows.log = rows.append
    settings = replace(LIGHT, flow_epochs=6, steps=20, begin=None, stride=None)
    with seeded("start"):
        rebuilt = settings.fit(knows)(knows.intercepted[:16])
    error, before = (float((images - truth).square().mean()) for images in (rebuilt, start))
    assert error < 0.7 * before
    # where the walk begins and how far it goes was chosen by the adversary's own photos
    assert len({row["candidate"] for row in rows if "candidate" in row}) == 9
    assert any({"begin", "stride", "noise"} == row.keys() for row in rows)


def test_the_flow_is_shared_by_all_defences() -> None:
    abouts: dict[str, About] = {}

    def memory(what: str, module: str, about: About, build: Any) -> Memo:
        abouts[what] = about
        return forgetful(what, module, about, build)

    knows = _knows()
    knows.memory = memory
    LIGHT.fit(knows)
    kinds: Mapping[str, About] = {what.split()[0]: about for what, about in abouts.items()}
    assert kinds == {"decoder": "edge", "flow": "images"}
