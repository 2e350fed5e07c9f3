"""What conditional entropy maximisation lowers is the authors' term, computed here cluster by cluster."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from splitleak.defenses.base import Calibration, CalibrationBatch
from splitleak.defenses.conditional_entropy import ConditionalEntropy
from splitleak.victims.seeding import seeded

SIGMA = 0.5
NOTHING = torch.zeros(())


def _calibration(features: Tensor, labels: Tensor) -> Calibration:
    batch = CalibrationBatch(torch.rand(len(labels), 3, 8, 8), features, labels)
    return Calibration(lambda: iter([batch]), nn.Identity(), nn.Identity(), torch.device("cpu"))


def _term(defense: ConditionalEntropy, features: Tensor, labels: Tensor) -> nn.Module:
    with seeded("clusters"):
        return defense.objective(_calibration(features, labels), nn.Identity())  # type: ignore[arg-type]


def _value(term: nn.Module, features: Tensor, labels: Tensor) -> Tensor:
    value: Tensor = term(NOTHING, features, features, NOTHING, labels)
    return value


def _two_classes() -> tuple[Tensor, Tensor]:
    """30 photos of class 0 in two clusters of 20 and 10, 6 of class 1 in one."""
    with seeded("classes"):
        spreads = torch.tensor([0.02, 0.3, 1.0, 3.0])
        points = torch.randn(36, 4) * spreads
    points[:20] += 50
    points[20:30] -= 50
    return points, torch.tensor([0] * 30 + [1] * 6)


@pytest.mark.parametrize("threshold", [0.0, 0.125, 2.0])
def test_the_term_is_the_authors(threshold: float) -> None:
    features, labels = _two_classes()
    term = _term(ConditionalEntropy(8.0, SIGMA, clusters=2, threshold=threshold), features, labels).eval()
    noise = SIGMA * float(features.square().mean().sqrt())

    def excess(rows: slice) -> float:
        variance = features[rows].double().numpy().var(0)
        least = np.log(noise**2 + threshold * noise**2)
        return float(np.maximum(0, np.log(variance + noise**2) - least).mean())

    of_first = 20 / 30 * excess(slice(0, 20)) + 10 / 30 * excess(slice(20, 30))
    # class 1 may be cut in two: recount it from the centres that were found
    of_second = _slowly(term, features[30:].double(), noise, threshold)
    # no half, and six photos weigh as much as thirty
    assert float(_value(term, features, labels)) == pytest.approx(8 * (of_first + of_second) / 2, rel=1e-3)


def _slowly(term: nn.Module, members: Tensor, noise: float, threshold: float) -> float:
    centres = term.get_extra_state()[1].double().numpy()
    points = members.numpy()
    nearest = np.array([np.argmin([((point - centre) ** 2).sum() for centre in centres]) for point in points])
    total = 0.0
    for number in set(nearest.tolist()):
        some = points[nearest == number]
        ratio = (1 + ((some - centres[number]) ** 2).mean(0) / noise**2) / (1 + threshold)
        total += len(some) / len(points) * float(np.maximum(0, np.log(ratio)).mean())
    return total


def test_below_the_threshold_nothing_pulls() -> None:
    features, labels = _two_classes()
    calm = 1e-3 * features
    calm[0] += 100  # gives the noise its size: all others are far below it
    term = _term(ConditionalEntropy(8.0, SIGMA, clusters=3), calm, labels).eval()
    rows = torch.arange(1, 36)
    pulled = calm[rows].clone().requires_grad_()
    value = _value(term, pulled, labels[rows])
    value.backward()
    assert float(value.detach()) == 0
    assert pulled.grad is not None
    assert float(pulled.grad.abs().max()) == 0
    loose = _term(ConditionalEntropy(8.0, SIGMA, clusters=3, threshold=0.0), calm, labels).eval()
    assert float(_value(loose, calm[rows], labels[rows])) > 0


def test_centres_follow_in_training_and_stay_in_eval_mode() -> None:
    features, labels = _two_classes()
    term = _term(ConditionalEntropy(8.0, SIGMA, clusters=1), features, labels)
    before = term.get_extra_state()[1].clone()
    _value(term.eval(), features + 1, labels)
    assert torch.equal(term.get_extra_state()[1], before)
    _value(term.train(), features + 1, labels)
    expected = 0.9 * before + 0.1 * (features[30:] + 1).mean(0)
    torch.testing.assert_close(term.get_extra_state()[1], expected)


def test_a_class_that_was_never_seen_is_left_alone() -> None:
    features, labels = _two_classes()
    term = _term(ConditionalEntropy(), features, labels)
    assert float(_value(term, features[:4].requires_grad_(), torch.full((4,), 7)).detach()) == 0
