"""Each mitigation of the shelf is the one that its paper describes, checked against formulas and slow oracles."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from tiny import HEAD, RIDGE, run_plan
from torch import Tensor, nn

from splitleak.defenses.adversarial_perturbation import AdversarialPerturbation
from splitleak.defenses.base import Calibration, CalibrationBatch, Defense
from splitleak.defenses.bottleneck import Bottleneck
from splitleak.defenses.chain import Chain
from splitleak.defenses.channel_subset import ChannelSubset
from splitleak.defenses.checks import toy_calibration, toy_channel
from splitleak.defenses.clipped_noise import ClippedNoise, Mechanism, analytic_gaussian_sigma
from splitleak.defenses.cloak import Cloak
from splitleak.defenses.disco import Disco
from splitleak.defenses.dp_sgd import DPSGD
from splitleak.defenses.dropout import Dropout
from splitleak.defenses.fitting import Budget, Examples, SplitModel, fit
from splitleak.defenses.gaussian_noise import GaussianNoise
from splitleak.defenses.information_bottleneck import InformationBottleneck
from splitleak.defenses.keyed_mixing import KeyedMixing, secret_matrix
from splitleak.defenses.laplace_noise import LaplaceNoise
from splitleak.defenses.nopeek import NoPeek, distance_correlation
from splitleak.defenses.quantisation import Quantisation
from splitleak.defenses.shredder import Shredder
from splitleak.defenses.siamese import Siamese
from splitleak.defenses.top_k import TopK
from splitleak.experiments.planning.plan import read_plan
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.seeding import seeded
from splitleak.victims.toy import toy_images

HEADER = 120
"""Bytes that a packed release may have beyond its payload."""
Array = npt.NDArray[np.float64]


def test_laplace_noise_has_the_distribution_that_it_states() -> None:
    calibration = toy_calibration()
    channel, features = toy_channel(LaplaceNoise(0.5), calibration)
    with seeded("noise"):
        noise = (channel.send(features) - features).flatten().double().numpy()
    b = 0.5 * calibration.root_mean_square()
    assert stats.kstest(noise, "laplace", (0, b)).pvalue > 1e-3
    assert channel.guarantee() is None, "no sensitivity is enforced, so there is no epsilon"


# ---- clipped noise


def privacy_curve(epsilon: float, sigma: float, sensitivity: float) -> float:
    """The delta of the Gaussian mechanism, by integrating where one density exceeds e^epsilon times the other."""

    def excess(x: float) -> float:
        log_ratio = (2 * x * sensitivity - sensitivity**2) / (2 * sigma**2)
        density = stats.norm.pdf(x, sensitivity, sigma)
        return float(density * max(0.0, 1 - math.exp(min(0.0, epsilon - log_ratio)))) if log_ratio > epsilon else 0.0

    start = sensitivity / 2 + epsilon * sigma**2 / sensitivity
    value, _ = integrate.quad(excess, start, start + 40 * sigma, epsabs=1e-14, limit=400)
    return float(value)


@pytest.mark.parametrize(("epsilon", "delta"), [(0.1, 1e-5), (1.0, 1e-5), (1.0, 1e-2), (8.0, 1e-5), (100.0, 1e-6)])
def test_sigma_is_the_least_that_the_privacy_curve_allows(epsilon: float, delta: float) -> None:
    sigma = analytic_gaussian_sigma(epsilon, delta, sensitivity=3.0)
    assert privacy_curve(epsilon, sigma, 3.0) == pytest.approx(delta, rel=1e-3)
    assert privacy_curve(epsilon, 0.99 * sigma, 3.0) > delta
    if epsilon <= 1:  # where the classical formula holds it asks for more noise
        assert sigma < 3.0 * math.sqrt(2 * math.log(1.25 / delta)) / epsilon


@settings(deadline=None, max_examples=50)
@given(epsilon=st.floats(1e-3, 1e6), delta=st.floats(1e-12, 0.5), sensitivity=st.floats(1e-3, 1e3))
def test_sigma_is_found_for_any_budget(epsilon: float, delta: float, sensitivity: float) -> None:
    sigma = analytic_gaussian_sigma(epsilon, delta, sensitivity)
    assert 0 < sigma < math.inf
    assert sigma == pytest.approx(sensitivity * analytic_gaussian_sigma(epsilon, delta, 1.0), rel=1e-6)


@pytest.mark.parametrize(("mechanism", "order"), [("gaussian", 2), ("laplace", 1)])
def test_no_two_images_are_farther_apart_than_the_sensitivity(mechanism: Mechanism, order: int) -> None:
    channel, features = toy_channel(ClippedNoise(math.inf, mechanism=mechanism, clip=0.5), toy_calibration())
    sent = channel.send(100 * features)
    bound = float(channel.get_buffer("bound"))
    assert float(sent.flatten(1).norm(order, dim=1).max()) <= bound * (1 + 1e-5)
    assert float((sent[0] + sent[0]).norm(order)) == pytest.approx(2 * bound, rel=1e-4)  # x against -x: reached
    small = features * 1e-3
    torch.testing.assert_close(channel.send(small), small)


@pytest.mark.parametrize(("mechanism", "distribution"), [("gaussian", "norm"), ("laplace", "laplace")])
def test_clipped_noise_is_as_large_as_its_guarantee_needs(mechanism: Mechanism, distribution: str) -> None:
    defense = ClippedNoise(4.0, 1e-5, mechanism, clip=1.0)
    channel, features = toy_channel(defense, toy_calibration())
    small = 0.01 * features
    with seeded("noise"):
        noise = (channel.send(small) - small).flatten().double().numpy()
    sensitivity = 2 * float(channel.get_buffer("bound"))
    scale = analytic_gaussian_sigma(4.0, 1e-5, sensitivity) if mechanism == "gaussian" else sensitivity / 4.0
    assert stats.kstest(noise, distribution, (0, scale)).pvalue > 1e-3
    guarantee = channel.guarantee()
    assert guarantee is not None
    assert (guarantee.protects, guarantee.epsilon) == ("query", 4.0)
    assert guarantee.delta == (1e-5 if mechanism == "gaussian" else 0.0)


# ---- bits and places


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 7, 8, 12, 16])
def test_quantised_bytes_are_bits_and_decode_to_the_same_tensor(bits: int) -> None:
    channel, features = toy_channel(Quantisation(bits), toy_calibration())
    release = channel.send(features)
    assert set(release.unique().tolist()) <= set(range(2**bits))
    packed = channel.pack(release[0])
    assert len(packed) <= math.ceil(bits * features[0].numel() / 8) + HEADER
    assert torch.equal(channel.unpack(packed), release[0])
    low, step = channel.get_buffer("low"), channel.get_buffer("step")
    inside = (features >= low - step / 2) & (features <= low + (2**bits - 0.5) * step)
    assert bool(inside.float().mean() > 0.8)
    assert bool(((channel.receive(release) - features).abs() <= 0.5001 * step + 1e-6)[inside].all())


def test_quantisation_passes_gradients_straight_through_within_its_range() -> None:
    channel, features = toy_channel(Quantisation(2), toy_calibration())
    spread = 10 * features.clone().requires_grad_()
    spread.retain_grad()
    channel(spread).sum().backward()
    assert spread.grad is not None
    inside = (spread >= channel.get_buffer("low")) & (
        spread <= channel.get_buffer("low") + 3 * channel.get_buffer("step")
    )
    torch.testing.assert_close(spread.grad, inside.float())


@pytest.mark.parametrize("keep", [1.0, 0.5, 0.1, 0.003])
def test_top_k_sends_each_images_largest_and_their_places(keep: float) -> None:
    channel, features = toy_channel(TopK(keep), toy_calibration())
    release = channel.send(features)
    count = max(1, round(keep * features[0].numel()))
    for sent, whole in zip(release, features, strict=True):
        magnitudes = whole.abs().flatten().sort(descending=True).values
        assert int((sent != 0).sum()) == count
        assert float(sent[sent != 0].abs().min()) == float(magnitudes[count - 1])
        assert torch.equal(sent[sent != 0], whole[sent != 0])
        packed = channel.pack(sent)
        places = min(2 * count, math.ceil(features[0].numel() / 8))
        assert 4 * count + places <= len(packed) <= 4 * count + places + 2 * HEADER
        assert torch.equal(channel.unpack(packed), sent)
    assert torch.equal(channel.arrived(release), release != 0)


def test_a_bottleneck_keeps_the_principal_components() -> None:
    calibration = toy_calibration()
    everything = torch.cat([batch.features for batch in calibration.batches()])
    channel, _ = toy_channel(Bottleneck(0.1), calibration)
    assert channel.send(everything).shape[1] == 10
    cells = everything.movedim(1, -1).flatten(0, -2).double()
    centred = cells - cells.mean(0)
    least = torch.linalg.svdvals(centred)[10:].square().sum()
    lost = (channel(everything) - everything).double().square().sum().detach()
    assert float(lost) == pytest.approx(float(least), rel=1e-3)
    assert {name for name, _ in channel.named_parameters()} == {"down", "up"}  # they train with the tail


@pytest.mark.parametrize("form", ["rotation", "permutation"])
def test_keyed_mixing_loses_nothing_and_differs_with_the_key(form: str) -> None:
    matrix, other = (secret_matrix(form, 40, key) for key in (1, 2))
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(40), atol=1e-5, rtol=0)
    assert not torch.equal(matrix, other)
    channel, features = toy_channel(KeyedMixing.from_mapping({"form": form}), toy_calibration())
    torch.testing.assert_close(channel(features), features, atol=1e-4, rtol=1e-4)
    assert float((channel.send(features) - features).norm()) > 0.5 * float(features.norm())


def test_keyed_mixing_is_worthless_against_who_knows_of_it(tmp_path: Path) -> None:
    head = HEAD.replace("auxiliary = 64", "auxiliary = 64\nadaptive = [true, false]")
    defenses = '[[defenses]]\nname = "none"\n[[defenses]]\nname = "keyed_mixing"\n'
    results, _, _ = run_plan(head + defenses + RIDGE, tmp_path, shared=True)
    psnr = {(r["defence"]["name"], r["adaptive"]): r["metrics"]["psnr"]["mean"] for r in results}
    assert psnr["keyed_mixing", True] == pytest.approx(psnr["none", True], abs=0.2)


# ---- learned noise


def test_shredder_draws_new_values_in_a_learned_order() -> None:
    channel, features = toy_channel(Shredder(2.0, tensors=1, steps=5), toy_calibration())
    with seeded("one"):
        first = (channel.send(features) - features).double()
    order = channel.get_buffer("ranks")[0].flatten().argsort()
    for noise in first:
        assert bool((noise.flatten()[order].diff() > -1e-5).all())  # sorted, but for rounding
    values = ((first - channel.get_buffer("center")) / channel.get_buffer("b")).flatten().numpy()
    assert stats.kstest(values, "laplace").pvalue > 1e-3
    assert not torch.equal(first[0], first[1])


def test_shredders_noise_costs_the_task_less_than_blind_noise_of_its_size() -> None:
    calibration = toy_calibration()
    batch = next(calibration.batches())
    channel, _ = toy_channel(Shredder(4.0, tensors=4, steps=100), calibration)
    assert batch.labels is not None
    learned, blind = [], []
    with seeded("shredder"), torch.no_grad():
        for _ in range(20):
            noise = channel.send(batch.features) - batch.features
            shuffled = noise.flatten()[torch.randperm(noise.numel())].view_as(noise)
            for losses, one in ((learned, noise), (blind, shuffled)):
                losses.append(
                    float(nn.functional.cross_entropy(calibration.tail(batch.features + one), batch.labels))
                )
    assert np.mean(learned) < 0.6 * np.mean(blind)


def test_cloak_is_large_where_the_network_does_not_look() -> None:
    calibration = toy_calibration()
    encoder = calibration.encoder

    class Left(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen: Tensor = encoder(images * (torch.arange(images.shape[3]) < images.shape[3] // 2))
            return seen

    blind = replace(calibration, encoder=Left())
    perturb = Cloak(0.01, steps=200).perturb((3, 32, 32))
    with seeded("cloak"):
        perturb.calibrate(blind)
    scale = perturb.scale  # type: ignore[union-attr, operator]
    assert float(scale[..., 16:].mean()) > 3 * float(scale[..., :16].mean())  # type: ignore[index]


def test_cloak_replaces_what_it_suppresses_by_constants() -> None:
    calibration = toy_calibration()
    perturb = Cloak(1.0, suppress=0.5, steps=30).perturb((3, 32, 32))
    with seeded("suppress"):
        perturb.calibrate(calibration)
        images = next(calibration.batches()).images
        shown = perturb(images)
    constant = (shown == shown[:1]).all(0)
    assert float(constant.float().mean()) == pytest.approx(0.5, abs=0.01)


def test_the_perturbation_has_its_norm_and_moves_a_decoder_more_than_chance() -> None:
    calibration = toy_calibration()
    channel, features = toy_channel(AdversarialPerturbation(0.5, training_steps=40), calibration)
    with seeded("perturb"):
        shift = channel.send(features) - features
        chance = torch.randn_like(shift)
    norms = shift.flatten(1).norm(dim=1)
    expected = 0.5 * calibration.root_mean_square() * features[0].numel() ** 0.5
    torch.testing.assert_close(norms, torch.full_like(norms, expected), rtol=1e-3, atol=0)
    chance = chance * (norms / chance.flatten(1).norm(dim=1)).view(-1, 1, 1, 1)
    decoder = channel.get_submodule("decoder")
    with torch.no_grad():
        moved, by_chance = (
            float((decoder(features + by) - decoder(features)).square().mean()) for by in (shift, chance)
        )
    assert moved > 2 * by_chance


# ---- objectives


def slow_distance_correlation(first: Array, second: Array) -> float:
    """Pair by pair."""

    def centred(points: Array) -> Array:
        distances = np.array([[np.sqrt(((a - b) ** 2).sum()) for b in points] for a in points])
        rows = distances.mean(1)
        return np.array(
            [
                [distances[i, j] - rows[i] - rows[j] + distances.mean() for j in range(len(points))]
                for i in range(len(points))
            ]
        )

    a, b = centred(first), centred(second)
    return float(np.sqrt((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())))


@settings(deadline=None, max_examples=30)
@given(count=st.integers(3, 12), sizes=st.tuples(st.integers(1, 6), st.integers(1, 6)), seed=st.integers(0, 1000))
def test_distance_correlation_is_the_slow_one(count: int, sizes: tuple[int, int], seed: int) -> None:
    with seeded("dcor", seed):
        first, second = (torch.randn(count, size) for size in sizes)
    slow = slow_distance_correlation(first.double().numpy(), second.double().numpy())
    assert float(distance_correlation(first, second)) == pytest.approx(slow, abs=1e-4)


def test_distance_correlation_sees_what_correlation_does_not() -> None:
    with seeded("square"):
        x = torch.randn(2000, 1)
        other = torch.randn(2000, 1)
    assert float(distance_correlation(x, x**2)) == pytest.approx(0.54, abs=0.02)
    assert float(distance_correlation(x, 3 * x - 7)) == pytest.approx(1.0, abs=1e-4)
    assert float(distance_correlation(x, other)) < 0.1
    assert float(distance_correlation(x, torch.ones(2000, 1))) == 0


def _term(make: Callable[[], nn.Module | None], features: Tensor, labels: Tensor) -> float:
    objective = make()
    assert objective is not None
    return float(objective(features, features, features, torch.zeros(()), labels))


def test_nopeek_adds_alpha_times_the_distance_correlation() -> None:
    calibration = toy_calibration()
    channel, features = toy_channel(NoPeek(2.5), calibration)
    images = next(calibration.batches()).images
    objective = NoPeek(2.5).objective(calibration, channel)
    value = objective(images, features, features, torch.zeros(()), None)
    assert float(value) == pytest.approx(2.5 * float(distance_correlation(images, features)))


def test_the_siamese_term_of_three_photos() -> None:
    calibration = toy_calibration()
    channel, _ = toy_channel(Siamese(), calibration)
    objective = Siamese(2.0, margin=3.0).objective(calibration, channel)
    unit = objective.unit
    assert isinstance(unit, float)
    features = unit * torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    # one pair of one class at distance 1; two pairs of two classes at distances 2 and sqrt(5), margin 3
    expected = 2.0 * (1 + (3 - 2) ** 2 + (3 - 5**0.5) ** 2) / 3
    assert _term(lambda: objective, features, torch.tensor([0, 0, 1])) == pytest.approx(expected, rel=1e-5)


# ---- chain


def test_a_chain_applies_its_parts_in_order_and_costs_what_the_last_one_sends() -> None:
    calibration = toy_calibration()
    parts = (ChannelSubset(0.5), GaussianNoise(0.1), Quantisation(4))
    channel, features = toy_channel(Chain(parts), calibration)
    release = channel.send(features)
    assert release.shape[1] == 48
    assert len(channel.pack(release[0])) <= math.ceil(4 * release[0].numel() / 8) + HEADER
    assert channel.receive(release).shape == features.shape
    # the noise is scaled to what it is added to: the subset's features
    subset, _ = toy_channel(ChannelSubset(0.5), calibration)
    sent = torch.cat([subset.send(batch.features) for batch in calibration.batches()])
    assert float(channel.state_dict()["channels.1.std"]) == pytest.approx(0.1 * float(sent.square().mean().sqrt()))


def test_a_chain_guarantees_what_its_best_part_does() -> None:
    calibration = toy_calibration()
    parts = (ChannelSubset(0.5), ClippedNoise(8.0), ClippedNoise(3.0, mechanism="laplace"), Quantisation(8))
    channel, _ = toy_channel(Chain(parts), calibration)
    guarantee = channel.guarantee()
    assert guarantee is not None
    assert (guarantee.epsilon, guarantee.delta) == (3.0, 0.0)
    assert toy_channel(Chain((ChannelSubset(0.5), Dropout(0.5))), calibration)[0].guarantee() is None


def test_objectives_of_a_chain_add_up() -> None:
    calibration = toy_calibration()
    chain = Chain((NoPeek(2.0), Siamese(3.0)))
    channel, features = toy_channel(chain, calibration)
    batch = next(calibration.batches())
    arguments = (batch.images, features, features, torch.zeros(()), batch.labels)
    both = chain.objective(calibration, channel)
    assert both is not None
    alone = [part.objective(calibration, channel) for part in (NoPeek(2.0), Siamese(3.0))]
    assert float(both(*arguments)) == pytest.approx(sum(float(term(*arguments)) for term in alone), rel=1e-5)
    assert chain.retrains == "network"


@pytest.mark.parametrize("part", [NoPeek(), ChannelSubset(0.5), Siamese()], ids=lambda part: part.name)
def test_a_chain_refuses_what_voids_a_guarantee(part: NoPeek) -> None:
    with pytest.raises(InvalidInputError, match=f"dp_sgd accounts for every use .* {part.name} uses"):
        Chain((part, DPSGD()))
    assert Chain((Dropout(0.5), DPSGD())).retrains == "anew"


def test_a_plan_sweeps_within_a_chain_and_runs_it(tmp_path: Path) -> None:
    chain = """[[defenses]]
name = "chain"
parts = [{ name = "channel_subset", keep = [1.0, 0.25] }, { name = "quantisation", bits = 8 }]
"""
    results, _, _ = run_plan(HEAD + chain + RIDGE, tmp_path, shared=True)
    assert [result["traceback"] for result in results] == [None] * 2
    assert [result["defence"]["label"] for result in results] == [
        "chain channel_subset keep=1.0 + quantisation bits=8",
        "chain channel_subset keep=0.25 + quantisation bits=8",
    ]
    assert results[1]["bytes"] < 0.4 * results[0]["bytes"]


def test_a_plan_names_an_unknown_part(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(HEAD + '[[defenses]]\nname = "chain"\nparts = [{ name = "quantization" }]\n' + RIDGE)
    with pytest.raises(InvalidInputError, match="quantisation"):
        read_plan(plan)


# ---- features of any shape, frozen encoders, victims without a task


def _features_of(shape: tuple[int, ...]) -> Calibration:
    """Random features with the toy's pictures."""
    with seeded("features", shape):
        images, features = torch.rand(32, 3, 32, 32), torch.randn(32, *shape)
        labels, tail = torch.randint(3, (32,)), nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
        tail(features)
    batch = CalibrationBatch(images, features, labels)
    return Calibration(lambda: iter([batch]), nn.Identity(), tail, torch.device("cpu"))


CHANNELS = (
    AdversarialPerturbation(training_steps=2),
    Bottleneck(0.5),
    *(ChannelSubset(0.5, selection=selection) for selection in ("saliency", "leakage")),
    ClippedNoise(8.0),
    Disco(0.5, steps=2),
    InformationBottleneck(),
    KeyedMixing(),
    Quantisation(4),
    Shredder(steps=2, tensors=2),
    TopK(0.5),
)


@pytest.mark.parametrize("shape", [(5, 8), (12,)], ids=["tokens", "vector"])
@pytest.mark.parametrize("defense", CHANNELS, ids=lambda defense: defense.name)
def test_features_that_are_no_maps_are_defended_too(defense: Defense, shape: tuple[int, ...]) -> None:
    calibration = _features_of(shape)
    channel, features = toy_channel(defense, calibration)
    release = channel.send(features).detach()
    assert channel.receive(release).shape == features.shape
    assert channel.arrived(release).shape == release.shape
    assert torch.equal(channel.unpack(channel.pack(release[0])), release[0])


def test_a_frozen_encoder_keeps_its_batch_statistics_behind_noise_on_the_images() -> None:
    calibration = toy_calibration()
    encoder = nn.Sequential(calibration.encoder, nn.BatchNorm2d(96)).eval().requires_grad_(False)
    model = SplitModel(encoder, calibration.tail, perturb=Cloak().perturb((3, 32, 32)))
    part = Examples(toy_images(32), torch.arange(32) % 3)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    tail = calibration.tail.state_dict()["1.weight"].clone()
    fit(model, part, part, Budget(epochs=1, batch_size=8, learning_rate=1e-2))
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert not torch.equal(tail, calibration.tail.state_dict()["1.weight"])


@pytest.mark.parametrize("name", ["disco", "information_bottleneck", "nopeek"])
def test_what_must_be_trained_does_not_apply_without_a_task(name: str, tmp_path: Path) -> None:
    head = "\n".join(line for line in HEAD.splitlines() if not line.startswith("task"))
    results, _, _ = run_plan(head + f'\n[[defenses]]\nname = "{name}"\n' + RIDGE, tmp_path, shared=True)
    assert (results[0]["status"], results[0]["metrics"]) == ("does not apply", {})
    assert "the victim has no task" in results[0]["reason"]


# ---- training with an objective


class Quiet(nn.Module):
    """Wants all logits to be zero, at the task's cost."""

    def forward(self, images: Tensor, features: Tensor, release: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        return 100 * logits.square().mean()


def test_an_objective_is_trained_to_the_end_whatever_the_task_would_choose() -> None:
    labels = torch.arange(64) % 2
    features = 8 * F.one_hot(labels, 2).float()
    part = Examples(torch.zeros(64, 3, 2, 2, dtype=torch.uint8), labels, features)
    model = SplitModel(nn.Identity(), nn.Linear(2, 2, bias=False))
    nn.init.eye_(model.tail.weight)
    with seeded("objective"):
        outcome = fit(model, part, part, Budget(epochs=12, batch_size=16, learning_rate=0.1), Quiet())
    logits = model.tail(features).detach()
    whole = float(F.cross_entropy(logits, labels) + 100 * logits.square().mean())
    assert outcome.history.rows[-1]["validation_loss"] == pytest.approx(whole, rel=1e-4)
    assert float(F.cross_entropy(logits, labels)) > 0.1, "the task alone would have kept the first weights"
