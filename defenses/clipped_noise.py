"""Noise calibrated to an enforced sensitivity: differential privacy of each image that is sent."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Gt, Le, Lt
from scipy.optimize import brentq
from scipy.special import log_ndtr
from torch import Tensor

from splitleak.defenses.base import Calibration, Channel, Defense, Guarantee
from splitleak.defenses.laplace_noise import laplace_like
from splitleak.victims.settings import doc

Mechanism = Literal["gaussian", "laplace"]


@dataclass(frozen=True)
class ClippedNoise(Defense):
    """Scale each image's features down to a norm bound C, then add noise: (epsilon, delta) per send.

    Any two images, however different, then have features at most 2 C apart. ``gaussian`` bounds the L2 norm and
    takes the least sigma that gives (epsilon, delta) exactly; ``laplace`` bounds the L1 norm and proves delta = 0.
    C is a quantile of the norms over the train part. Sends of one image compose: K of them cost at most K epsilon.
    The guarantee is local and has no public neighbour to hide among, so an epsilon that is small enough to mean
    something leaves little to the task.
    """

    paper: ClassVar[str] = (
        "Balle, Wang, Improving the Gaussian Mechanism for Differential Privacy: Analytical Calibration and Optimal "
        "Denoising, ICML 2018; laplace: Dwork et al., Calibrating Noise to Sensitivity, TCC 2006"
    )
    strength: ClassVar[str] = "epsilon"
    strengths: ClassVar[tuple[float, ...]] = (math.inf, 1e4, 100.0, 8.0, 1.0)

    epsilon: Annotated[float, Gt(0), doc("per send; inf clips but adds no noise")] = 8.0
    delta: Annotated[float, Gt(0), Lt(1), doc("per send, of the gaussian mechanism")] = 1e-5
    mechanism: Annotated[Mechanism, doc("the noise, and with it the norm that is bounded")] = "gaussian"
    clip: Annotated[float, Gt(0), Le(1), doc("quantile of the norms over the train part that is the bound")] = 0.9

    def channel(self, shape: tuple[int, ...]) -> Channel:
        """Clips, then adds noise."""
        return _ClippedChannel(self)


class _ClippedChannel(Channel):
    bound: Tensor
    scale: Tensor

    def __init__(self, settings: ClippedNoise) -> None:
        super().__init__()
        self.settings = settings
        self.order = 2 if settings.mechanism == "gaussian" else 1
        self.register_buffer("bound", torch.ones(()))
        self.register_buffer("scale", torch.zeros((), dtype=torch.float64))

    def calibrate(self, calibration: Calibration) -> None:
        norms = torch.cat([self._norms(batch.features) for batch in calibration.batches()])
        self.bound.copy_(norms.quantile(self.settings.clip))
        self.scale.fill_(self._scale(2 * float(self.bound)))

    def _norms(self, features: Tensor) -> Tensor:
        norms: Tensor = features.flatten(1).float().norm(self.order, dim=1)
        return norms

    def _scale(self, sensitivity: float) -> float:
        """Sigma of the Gaussian, b of the Laplace distribution."""
        settings = self.settings
        if settings.mechanism == "laplace":
            return sensitivity / settings.epsilon
        return analytic_gaussian_sigma(settings.epsilon, settings.delta, sensitivity)

    def send(self, features: Tensor) -> Tensor:
        norms = self._norms(features).clamp_min(torch.finfo(torch.float32).tiny)
        shrunk = (self.bound / norms).clamp_max(1)
        clipped = features * shrunk.view(-1, *[1] * (features.ndim - 1))
        noise = torch.randn_like(features) if self.settings.mechanism == "gaussian" else laplace_like(features)
        return clipped + self.scale * noise

    def guarantee(self) -> Guarantee:
        gaussian = self.settings.mechanism == "gaussian"
        finite = math.isfinite(self.settings.epsilon)
        return Guarantee(
            "query",
            self.settings.epsilon,
            self.settings.delta if gaussian and finite else 0.0,
            noise_std=float(self.scale) if gaussian else None,
        )


def analytic_gaussian_sigma(epsilon: float, delta: float, sensitivity: float) -> float:
    """The least sigma for which adding N(0, sigma^2) is (epsilon, delta)-differentially private; 0 for infinity.

    Solves Phi(a - b) - e^epsilon Phi(-a - b) = delta with a = sensitivity / (2 sigma), b = epsilon / (2 a), which
    falls as sigma grows (Balle & Wang, ICML 2018, theorem 8).

    Args:
        epsilon: above 0.
        delta: in (0, 1).
        sensitivity: L2, above 0.
    """
    if math.isinf(epsilon):
        return 0.0

    def excess(log_sigma: float) -> float:
        a = 1 / (2 * math.exp(log_sigma))
        b = epsilon / (2 * a)
        # e^epsilon alone overflows where the product is small
        return float(math.exp(log_ndtr(a - b)) - math.exp(min(0.0, epsilon + log_ndtr(-a - b))) - delta)

    # in units of the sensitivity: for any epsilon > 0 the privacy curve crosses delta within these
    return float(sensitivity * math.exp(brentq(excess, math.log(1e-9), math.log(1e9), xtol=1e-12)))
