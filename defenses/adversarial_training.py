"""Train the network against a decoder that tries to rebuild its photos."""

from dataclasses import dataclass
from statistics import mean
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Le
from torch import nn

from splitleak.defenses.base import Calibration, Channel, Defense, Retrains
from splitleak.defenses.fitting import SplitModel, trained_effect
from splitleak.defenses.surrogate import AdversarialTerm, Surrogate, SurrogateDecoder
from splitleak.victims.settings import doc

FRESH_DECODERS, ATTACK_STEPS = 3, 100
"""How many measure what training hid, and how long each learns: where a single one ends is largely luck."""


@dataclass(frozen=True)
class AdversarialTraining(Defense):
    """Train on cross-entropy - ``gamma`` times the error of a decoder that learns beside the network.

    The decoder that the network met in training is one of many; another one, trained after the fact on the finished
    network, is what an attacker has.
    """

    paper: ClassVar[str] = (
        "A. Li et al., DeepObfuscator: Obfuscating Intermediate Representations with Privacy-Preserving Adversarial "
        "Learning, IoTDI 2021; J. Li et al., ResSFL: A Resistance Transfer Framework for Defending Model Inversion "
        "Attack in Split Federated Learning, CVPR 2022"
    )
    strength: ClassVar[str] = "gamma"
    strengths: ClassVar[tuple[float, ...]] = (1e-5, 0.1, 3.0)
    retrains: ClassVar[Retrains] = "network"

    gamma: Annotated[float, Ge(0), doc("of the decoder's error, in units of the mean image's")] = 1.0
    structure: Annotated[
        float, Ge(0), Le(1), doc("share of 1 - SSIM in that error, beside the squared one; ResSFL's code: 1")
    ] = 0.5
    decoder_steps: Annotated[int, Gt(0), doc("of the decoder for each of the network; ResSFL's code: 3")] = 3

    def objective(self, calibration: Calibration, channel: Channel) -> nn.Module:
        """The decoder's error."""
        return AdversarialTerm(calibration, channel, self.gamma, self.structure, self.decoder_steps)

    def statistic(self, calibration: Calibration) -> float:
        """How much farther from the photos a fresh decoder ends after a short training."""
        return trained_effect(self, calibration, lambda model: -_rebuilt_error(model, calibration))


def _rebuilt_error(model: SplitModel, calibration: Calibration) -> float:
    batch = next(calibration.batches())
    errors = []
    for _ in range(FRESH_DECODERS):
        decoder = SurrogateDecoder(tuple(batch.features.shape[1:]), *batch.images.shape[2:])
        surrogate = Surrogate(decoder.to(calibration.device))
        for some in calibration.cycle(ATTACK_STEPS):
            surrogate.learn(model.features(some.images), some.images)
        errors.append(float(surrogate.error(model.features(batch.images), batch.images).mean()))
    return mean(errors)
