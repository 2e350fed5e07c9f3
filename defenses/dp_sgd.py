"""Differentially private training: protects the training photos, not the photo that is sent."""

import math
import re
import warnings
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Gt, Lt
from opacus import PrivacyEngine
from opacus.validators import ModuleValidator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from splitleak.defenses.base import Calibration, Defense, Retrains
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.settings import doc
from splitleak.victims.splitting.twin import twin
from splitleak.victims.training import Shuffled, Training, adamw
from splitleak.victims.weights import some


@dataclass(frozen=True)
class DPSGD(Defense):
    """Train with per-photo gradient clipping and noise (Opacus), batches drawn by Poisson sampling.

    It bounds what the WEIGHTS reveal about the training photos. The features of a new photo stay a
    deterministic function of it: epsilon per query is infinite. The network starts anew from the weights that
    the victim started from, because weights that have already seen the train part would void the bound; batch
    normalisation, which mixes photos, becomes group normalisation. With a frozen encoder only the tail trains.
    """

    name: ClassVar[str] = "dp_sgd"
    paper: ClassVar[str] = "Abadi et al., Deep Learning with Differential Privacy, CCS 2016 (Opacus)"
    strength: ClassVar[str] = "epsilon"
    strengths: ClassVar[tuple[float, ...]] = (math.inf, 8.0, 3.0, 1.0)
    retrains: ClassVar[Retrains] = "anew"
    uses_photos: ClassVar[bool] = False

    epsilon: Annotated[float, Gt(0), doc("privacy budget of the whole training; inf clips but adds no noise")] = 8.0
    delta: Annotated[float, Gt(0), Lt(1), doc("chance of exceeding it; below one over the number of photos")] = 1e-5
    clip: Annotated[float, Gt(0), doc("largest L2 norm of one photo's gradient")] = 1.0

    def check(self, network: nn.Module, inputs: Tensor) -> None:
        """Take the gradients of single photos once: Opacus knows no layer with buffers but batch normalisation, and
        no weights that are used twice.
        """
        model = self.adapt(twin(network)).train().requires_grad_(True)
        steps = Training(model, adamw(1.0, 1).optimizer(model.parameters()), Shuffled((inputs,), len(inputs)))
        try:
            private = replace(self, epsilon=math.inf).prepare(steps, epochs=1)
            private.model(inputs).square().sum().backward()
            private.optimizer.step()
        except Exception as error:  # Opacus raises many kinds, even plain ones
            raise InvalidInputError(f"{self.name} cannot train this network: {_reason(error, model)}") from None

    def adapt(self, half: nn.Module) -> nn.Module:
        """Batch normalisation becomes group normalisation."""
        fixed: nn.Module = ModuleValidator.fix(half)
        return fixed

    def prepare(self, training: Training, epochs: int) -> Training:
        """Let Opacus wrap the three; ``spent`` then tells epsilon and delta."""
        if not isinstance(training.batches, Shuffled):
            raise TypeError("DP-SGD samples its own batches: training.batches must be Shuffled tensors")
        loader = DataLoader(TensorDataset(*training.batches.tensors), batch_size=training.batches.batch_size)
        # A per-layer functorch rule is several times faster on a CPU than Opacus' own for depth-wise convolutions.
        options: dict[str, Any] = {
            "module": training.model,
            "optimizer": training.optimizer,
            "data_loader": loader,
            "max_grad_norm": self.clip,
            "grad_sample_mode": "functorch",
        }
        # Expected here: images need no gradient, and experiments need no cryptographic random numbers.
        warnings.filterwarnings("ignore", "Full backward hook is firing")
        warnings.filterwarnings("ignore", "Secure RNG turned off")
        warnings.filterwarnings("ignore", "Optimal order is the largest alpha")  # the bound is valid, a little loose
        engine = PrivacyEngine(accountant="rdp")  # close to the tighter PRV accountant, and quick at any epsilon
        if math.isinf(self.epsilon):
            wrapped = engine.make_private(noise_multiplier=0.0, **options)
        else:
            budget = {"target_epsilon": self.epsilon, "target_delta": self.delta, "epochs": epochs}
            wrapped = engine.make_private_with_epsilon(**budget, **options)
        model, optimizer, batches = wrapped

        def spent() -> tuple[float, float]:
            return (math.inf if math.isinf(self.epsilon) else engine.get_epsilon(self.delta)), self.delta

        return Training(model, optimizer, batches, spent=spent)

    def statistic(self, calibration: Calibration) -> float:
        """The noise multiplier of a training over the calibration photos."""
        batch = next(calibration.batches())
        model = nn.Linear(2, 2).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        photos = Shuffled((torch.zeros(len(batch.images), 2),), batch_size=8)
        prepared = self.prepare(Training(model, optimizer, photos), epochs=1)
        return float(getattr(prepared.optimizer, "noise_multiplier"))  # noqa: B009 - Opacus' optimizer, not torch's


def _reason(error: Exception, model: nn.Module) -> str:
    """In one line why Opacus gave up; its own names every layer with all that is in it."""
    buffered = re.findall(r"with buffers.*?\((\w[\w.]*):", str(error))
    if buffered:
        return f"Opacus knows no gradients of single photos for {len(buffered)} layers with buffers: {some(buffered)}"
    silent = [name for name, value in model.named_parameters() if getattr(value, "grad_sample", None) is None]
    if silent and "Per sample gradient" in str(error):
        return f"Opacus gets no gradients of single photos for {len(silent)} of its weights: {some(silent)}"
    return str(error).partition("\n")[0] or type(error).__name__
