"""A decoder says what it aims at, and the second stage paints what squared error blurs."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from splitleak.attacks.acquainted import Acquainted
from splitleak.attacks.base import Staged
from splitleak.attacks.declared import as_declared
from splitleak.attacks.decoder import Decoder, Objective
from splitleak.attacks.knowledge import About, AttackerPart, BlackBox, Memo, forgetful
from splitleak.attacks.losses import squared_and_structural_error
from splitleak.attacks.networks.painter import Painter, PatchCritic
from splitleak.attacks.repaint import Repainting
from splitleak.attacks.toy import TOY_SCENE, toy_knowledge
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.moving import moved
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import to_bytes, to_float
from splitleak.victims.toy import toy_images

SHAPE = (8, 2, 2)


@pytest.mark.parametrize("size", [(32, 32), (37, 50), (16, 24)])
def test_a_painter_begins_with_the_answer_and_hears_the_release(size: tuple[int, int]) -> None:
    with seeded("painter"):
        painter, release, answer = Painter(SHAPE), torch.randn(2, *SHAPE), torch.rand(2, 3, *size)
        assert torch.equal(painter(release, answer), answer)
        torch.nn.init.normal_(painter.last.weight)
        painted = painter(release, answer)
        assert painted.shape == answer.shape
        assert not torch.allclose(painted, painter(release.flip(0), answer))


def test_a_critic_learns_to_tell_photos_and_passes_gradients_on() -> None:
    with seeded("critic"):
        critic, answer = PatchCritic(8, 1e-2), torch.rand(8, 3, 32, 32)
        sharp, blurred = torch.rand(8, 3, 32, 32), torch.full((8, 3, 32, 32), 0.5)
        for _ in range(30):
            critic.learn(sharp, blurred, answer)
        painted = blurred.clone().requires_grad_()
        scores = critic(painted, answer)
        assert critic(sharp, answer).mean() > scores.mean() + 1
        scores.mean().backward()
    assert painted.grad is not None
    assert painted.grad.abs().max() > 0
    assert all(not parameter.requires_grad for parameter in critic.layers.parameters())


def test_an_embedder_of_ones_own_photos_knows_a_photo_again() -> None:
    knows, _ = toy_knowledge(Decoder())
    knows.images = {"auxiliary": toy_images(64, seed=1), "validation": toy_images(8, seed=2)}
    embedder = Acquainted.of(as_declared(knows, Decoder()), people=False)
    unseen = to_float(toy_images(24, seed=3))
    with seeded("moved"):
        again = embedder(moved(unseen)) @ embedder(moved(unseen)).T
    assert (again.argmax(1) == torch.arange(24)).float().mean() > 0.5
    assert embedder.difference(unseen, unseen) == 0
    assert embedder.difference(unseen, unseen.roll(1, 0)) > 2 * embedder.difference(
        unseen, F.avg_pool2d(unseen, 3, 1, 1)
    )


def test_an_embedder_of_people_asks_who_they_are() -> None:
    knows, _ = toy_knowledge(Decoder())
    knows.images = {"auxiliary": toy_images(64, seed=1), "validation": toy_images(8, seed=2)}
    knows.identities = {"auxiliary": torch.arange(64) % 4, "validation": torch.arange(8) % 2}
    one, another = (Acquainted.of(knows, people) for people in (True, False))
    images = to_float(toy_images(4, seed=3))
    assert not torch.allclose(one(images), another(images))


def _grained(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Photos under a grain of 2 px that is drawn anew for each, and what a device tells of them: no grain."""
    smooth = 0.2 + 0.6 * to_float(toy_images(count, seed))
    grain = (torch.rand(count, 1, 16, 16) - 0.5).repeat_interleave(2, 2).repeat_interleave(2, 3)
    return to_bytes((smooth + 0.3 * grain).clamp(0, 1)), F.avg_pool2d(smooth, 8)


class Enlarged(Staged):
    """The best answer under squared error to a release that is the picture in small."""

    def __call__(self, release: Tensor) -> Tensor:
        return F.interpolate(release, (32, 32), mode="bilinear")

    def stages(self, release: Tensor) -> list[Tensor]:
        return [self(release)]


def test_what_squared_error_blurs_is_painted_and_what_travelled_stays() -> None:
    parts: tuple[AttackerPart, ...] = ("auxiliary", "validation")
    with seeded("grain"):
        drawn = {part: _grained(count, seed) for part, count, seed in zip(parts, (64, 16), (1, 2), strict=True)}
        nothing, photos, releases = torch.nn.Identity(), *drawn["validation"]
        knows = BlackBox(
            images={part: of[0] for part, of in drawn.items()},
            intercepted=releases,
            tail=nothing,
            new_encoder=torch.nn.Identity,
            device=torch.device("cpu"),
            send=nothing,
            resend=lambda part, rows: drawn[part][1][rows],
        )

        regression = Enlarged()
        paint = Repainting(knows, regression, "a smooth picture", "perceptual", epochs=12).fit()
        with torch.no_grad():
            painted = paint(releases)
    blurred, made, true = (_contrast(images) for images in (regression(releases), painted, to_float(photos)))
    assert blurred < true / 5
    assert 1.5 * blurred < made < 1.5 * true
    torch.testing.assert_close(F.avg_pool2d(painted, 8), releases, atol=0.15, rtol=0)
    with torch.no_grad():
        assert all(map(torch.equal, paint.stages(releases), (regression(releases), painted)))


def _contrast(images: Tensor) -> float:
    return float((images[..., 1:] - images[..., :-1]).abs().mean())


class Counting:
    """A memory that keeps everything, and counts what was made."""

    def __init__(self) -> None:
        self.kept: dict[str, Memo] = {}
        self.made: list[str] = []

    def __call__(self, what: str, module: str, about: About, build: Any) -> Memo:
        if what not in self.kept:
            self.made.append(what.split()[0])
            self.kept[what] = forgetful(what, module, about, build)
        return self.kept[what]


def test_all_aims_share_the_regression_and_people_are_looked_at_for_identity_alone() -> None:
    memory, answers = Counting(), {}
    aims: tuple[Objective, ...] = ("pixels", "perceptual", "identity", "perceptual")
    for aim in aims:
        attack = Decoder(width=16, epochs=1, repaint_epochs=1, objective=aim)
        knows, _ = toy_knowledge(attack)
        knows.memory = memory
        answers[aim] = attack.fit(as_declared(knows, attack))(knows.intercepted)
    assert memory.made == ["decoder", "embedder", "perceptual", "embedder", "identity"]
    assert not torch.equal(answers["pixels"], answers["perceptual"])
    assert not torch.equal(answers["identity"], answers["perceptual"])


def test_identity_needs_data_that_tell_who_is_on_a_photo() -> None:
    unnamed = replace(TOY_SCENE, identities=False)
    assert Decoder(objective="perceptual").inapplicable(unnamed) is None
    assert Decoder(objective="identity").inapplicable(TOY_SCENE) is None
    assert Decoder(objective="identity").inapplicable(unnamed) == (
        "decoder does not apply: it needs the identities of the people on its photos, and the data does not tell them"
    )


def test_who_is_after_structure_weighs_it_more() -> None:
    knows, _ = toy_knowledge(Decoder())
    images, blurred = (to_float(toy_images(4, seed=seed)) for seed in (1, 2))
    losses = {}
    aims: tuple[Objective, ...] = ("pixels", "structure")
    for aim in aims:
        losses[aim] = Decoder(objective=aim).form(knows).loss(blurred, images)
        usual = Decoder(objective=aim, structure=0.5).form(knows).loss(blurred, images)
        assert usual == squared_and_structural_error(blurred, images, 0.5)
    assert losses["pixels"] == squared_and_structural_error(blurred, images, 0.02)
    assert losses["structure"] == squared_and_structural_error(blurred, images, 0.1)


def test_a_decoder_of_the_seed_study_aims_at_pixels_alone() -> None:
    with pytest.raises(InvalidInputError, match="only architecture = 'residual' aims"):
        Decoder(architecture="upsample", objective="structure")
