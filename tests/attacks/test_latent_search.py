"""A search through a generator: what it learns from photos, where it starts, what it keeps."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import HEAD, NONE, run_plan
from torch import Tensor, nn

from splitleak.attacks.edge import PlainEdge
from splitleak.attacks.knowledge import About, AttackerPart, Memo, WhiteBox, forgetful
from splitleak.attacks.latent_search import LatentSearch, _Search, into_ball
from splitleak.attacks.networks.variational import Autoencoder, Generator, LatentEncoder
from splitleak.attacks.optimise import Matcher
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import to_float
from splitleak.victims.toy import toy_images

LIGHT = LatentSearch(epochs=2, width=16, latent=8, steps=40, activation_steps=0, weight=1e-4, restarts=3)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (64, 64), (48, 100), (160, 160)])
def test_a_generator_paints_images_of_any_size(height: int, width: int) -> None:
    with seeded("generator"), torch.no_grad():
        images = Generator(8, height, width, 16).eval()(torch.randn(2, 8))
    assert images.shape == (2, 3, height, width)
    assert 0 <= float(images.min()) < float(images.max()) <= 1


@pytest.mark.parametrize("shape", [(3, 64, 64), (672, 4, 4), (10, 192), (7,), (5, 9, 33)])
def test_a_latent_encoder_takes_releases_of_any_shape(shape: tuple[int, ...]) -> None:
    assert LatentEncoder(shape, 11).eval()(torch.zeros(2, *shape)).shape == (2, 11)


def test_the_bound_is_the_calibrated_one() -> None:
    with seeded("bound"):
        autoencoder = Autoencoder(4, 16, 16, 16).eval()
        images = torch.rand(5, 3, 16, 16)
        mean, logarithm = autoencoder.encoder(images).chunk(2, 1)
        posterior = torch.distributions.Normal(mean, (logarithm / 2).exp())
        divergence = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(1).mean()
        noise = torch.randn_like(mean)
        bound = autoencoder(images, noise)
        rebuilt = autoencoder.generator(mean + posterior.stddev * noise)
    error = (rebuilt - images).square().mean()
    # of a Gaussian with the best variance for all pixels, per pixel and up to a constant
    likelihood = -torch.distributions.Normal(rebuilt, error.sqrt()).log_prob(images).mean()
    constant = 0.5 * torch.tensor(2 * torch.pi * torch.e).log()
    torch.testing.assert_close(bound, likelihood - constant + divergence / images[0].numel())


def _device(truth: Tensor, edge: nn.Module | None = None) -> WhiteBox:
    """A device that sends small pictures as they are, or through ``edge``."""
    edge = edge or nn.AvgPool2d(2)
    images: dict[AttackerPart, Tensor] = {"auxiliary": toy_images(96, seed=1), "validation": toy_images(32, seed=2)}
    return WhiteBox(
        images,
        edge(truth).detach(),
        nn.Flatten(),
        nn.Identity,
        torch.device("cpu"),
        send=edge,
        resend=lambda part, rows: edge(to_float(images[part][rows])),
        edge=PlainEdge(edge),
    )


def _searches(settings: LatentSearch, latent: Tensor) -> tuple[_Search, Tensor, Tensor]:
    """A search through a random generator for pictures that it can paint: the truth, what is sent of it."""
    generator = Generator(8, 32, 32, 16).eval().requires_grad_(False)
    with torch.no_grad():
        generator.rest.picture.normal_()
        truth = generator(latent)
    knows = _device(truth)
    offsets = torch.randn(settings.restarts, 8)
    return _Search(settings, knows, Matcher.measure(knows), generator, None, offsets), truth, knows.intercepted


def test_finds_what_the_generator_can_paint() -> None:
    with seeded("paint"):
        latent = torch.randn(4, 8)
        search, truth, release = _searches(replace(LIGHT, steps=150, learning_rate=0.1), latent)
        started = search.generator(search.offsets[:1].expand(4, 8))
        error = (search(0.0, release) - truth).square().mean()
    assert float(error) < 0.05 * float((started - truth).square().mean())


def test_the_start_with_the_least_feature_loss_is_kept() -> None:
    with seeded("restarts"):
        latent = torch.randn(2, 8)
        search, truth, release = _searches(replace(LIGHT, steps=1, learning_rate=1e-6), latent)
        offsets = torch.stack([latent[1] + 3, latent[0], latent[1]])  # the second is right for the first picture
        found = replace(search, offsets=offsets)(0.0, release)
    torch.testing.assert_close(found, truth, atol=1e-3, rtol=0)


def test_the_activations_paint_what_the_latent_cannot() -> None:
    with seeded("activations"):
        search, _, _ = _searches(LIGHT, torch.randn(3, 8))
        activations = search.generator.activations(torch.randn(3, 8))
        with torch.no_grad():
            truth = search.generator.paint(activations + 2 * torch.randn_like(activations))
        release = search.knows.edge(truth)
        settings = replace(LIGHT, steps=80, activation_steps=0, learning_rate=0.1)
        errors = [
            float((replace(search, settings=chosen)(0.0, release) - truth).square().mean())
            for chosen in (settings, replace(settings, activation_steps=80))
        ]
    assert errors[1] < 0.5 * errors[0]


def test_an_encoder_gives_a_better_start_than_chance() -> None:
    truth = to_float(toy_images(24, seed=3))

    def error(start: str) -> float:
        settings = LatentSearch.from_mapping(LIGHT.to_mapping() | {"start": start, "epochs": 24, "steps": 1})
        with seeded("start"):
            knows = _device(truth)
            rebuilt = settings.fit(knows)(knows.intercepted)
        return float((rebuilt - truth).square().mean())

    floor = float((truth - truth.mean(0)).square().mean())
    # eight numbers cannot tell much of these pictures
    assert error("encoder") < 0.95 * floor < floor < error("random")


def test_the_inner_layers_make_what_the_generator_makes() -> None:
    with seeded("layers"), torch.no_grad():
        generator = Generator(8, 48, 100, 16).eval()
        maps = generator.activations(torch.randn(2, 8))
        painted = generator.paint(maps)
        for layer in range(generator.depth - 1):
            maps = generator.deeper(maps, layer)
            torch.testing.assert_close(generator.paint(maps, layer + 1), painted)
    assert generator.depth > 2
    assert maps.shape[2:] > generator.grid[1:]


def test_a_deeper_layer_paints_what_the_first_cannot() -> None:
    with seeded("deeper"):
        search, _, _ = _searches(LIGHT, torch.randn(3, 8))
        maps = search.generator.deeper(search.generator.activations(torch.randn(3, 8)), 0)
        with torch.no_grad():
            truth = search.generator.paint(maps + 2 * maps.std() * torch.randn_like(maps), 1)
        release = search.knows.edge(truth)
        settings = replace(LIGHT, steps=20, activation_steps=60, learning_rate=0.1)
        errors = [
            float((replace(search, settings=replace(settings, layers=layers))(0.0, release) - truth).square().mean())
            for layers in (1, 2, 99)
        ]
    assert errors[1] < 0.8 * errors[0]
    assert errors[2] < 1.1 * errors[1]  # there are no 99: those that are there are searched


def test_a_shift_stays_in_its_ball() -> None:
    shift = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    into_ball(shift, None)
    assert shift[0].tolist() == [3, 4]
    into_ball(shift, 1.0)
    torch.testing.assert_close(shift, torch.tensor([[0.6, 0.8], [0.3, 0.4]]) * torch.tensor([[2**0.5], [1.0]]))


def test_another_generator_gets_another_encoder() -> None:
    kept: dict[str, Memo] = {}

    def memory(what: str, module: str, about: About, build: Callable[[], Memo]) -> Memo:
        if what not in kept:
            kept[what] = forgetful(what, module, about, build)
        return kept[what]

    settings = replace(LIGHT, epochs=1, steps=1, restarts=1)
    for evicted in (False, False, True):
        knows = _device(to_float(toy_images(4, seed=3)))
        knows.memory = memory
        if evicted:
            (name,) = (what for what in kept if what.startswith("autoencoder"))
            kept[name] = replace(kept[name], tensors={part: 1.01 * x for part, x in kept[name].tensors.items()})
        settings.fit(knows)
        assert len(kept) == (3 if evicted else 2)


@pytest.mark.slow
def test_the_generator_is_trained_once_for_all_defences(tmp_path: Path) -> None:
    noise = '[[defenses]]\nname = "gaussian_noise"\nsigma = 1.0\n'
    settings = "epochs = 1\nwidth = 16\nlatent = 8\nsteps = 2\nactivation_steps = 2\nweight = 0.1\n"
    attack = f'[[attacks]]\nname = "latent_search"\n{settings}'
    results, _, store = run_plan(HEAD + NONE + noise + attack, tmp_path)
    assert [result["traceback"] for result in results] == [None] * len(results)
    assert store.computed.count("memory") == 5  # one generator; for each defence an encoder and the look for patterns
