"""Differentially private training: protects the training photos, not the photo that is sent."""

import math
import re
import warnings
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt, Le, Lt
from opacus import PrivacyEngine
from opacus.utils.batch_memory_manager import wrap_data_loader
from opacus.validators import ModuleValidator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from splitleak.defenses.base import Anew, Calibration, Defense, Retrains, Scope
from splitleak.defenses.head import last_linear
from splitleak.victims.averages import Average
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.settings import doc
from splitleak.victims.splitting.twin import twin
from splitleak.victims.training import Shuffled, Training, adamw
from splitleak.victims.weights import some

GRADIENTS_AT_ONCE = 2**26
"""Numbers in the gradients of single photos that are held at a time: 256 MB. A step may gather more photos."""


@dataclass(frozen=True)
class DPSGD(Defense):
    """Train with per-photo gradient clipping and noise (Opacus), batches drawn by Poisson sampling.

    It bounds what the WEIGHTS reveal about the training photos. The features of a new photo stay a
    deterministic function of it: epsilon per query is infinite. The network starts anew from the weights that
    the victim started from, because weights that have already seen the train part would void the bound.

    Noise is added to every weight that trains. By default only the last linear layer does, on what reaches it, which
    is computed once: many epochs are cheap, and all photos make one step (``share`` = 1), as Tramer & Boneh
    (Differentially Private Learning Needs Better Features, ICLR 2021) and De et al. (Unlocking High-Accuracy
    Differentially Private Image Classification through Scale, 2022) advise; so are plain momentum at a high rate,
    the average of the weights over the steps, and moved copies of a photo whose mean gradient is clipped. They do
    not change by how much one photo can move a step. The number of epochs is fixed beforehand, and validation chooses
    nothing.

    Batch normalisation mixes photos. With the statistics of weights that somebody else trained it becomes a fixed
    scale and shift, which are as public as these weights; an untrained one becomes group normalisation.
    """

    name: ClassVar[str] = "dp_sgd"
    paper: ClassVar[str] = "Abadi et al., Deep Learning with Differential Privacy, CCS 2016 (Opacus)"
    strength: ClassVar[str] = "epsilon"
    strengths: ClassVar[tuple[float, ...]] = (math.inf, 8.0, 3.0, 1.0)
    of_classes: ClassVar[bool] = True
    retrains: ClassVar[Retrains] = "anew"
    uses_photos: ClassVar[bool] = False

    epsilon: Annotated[float, Gt(0), doc("privacy budget of the whole training; inf clips but adds no noise")] = 8.0
    delta: Annotated[float, Gt(0), Lt(1), doc("chance of exceeding it; below one over the number of photos")] = 1e-5
    clip: Annotated[float, Gt(0), doc("largest L2 norm of one photo's gradient")] = 1.0
    trains: Annotated[
        Scope, doc("the last linear layer (head), all behind the cut (tail), or all that the victim trains (network)")
    ] = "head"
    learning_rate: Annotated[float, Gt(0), doc("of plain gradient steps with momentum")] = 1.0
    momentum: Annotated[float, Ge(0), Lt(1), doc("share of the last step that is taken again")] = 0.9
    share: Annotated[float, Gt(0), Le(1), doc("of the train part in one step, on average")] = 1.0
    averaging: Annotated[float, Ge(0), Lt(1), doc("decay of the average over the steps' weights; 0: the last")] = 0.9
    copies: Annotated[int, Ge(0), doc("moved copies of a photo that count with it; of trains = head only")] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.copies and self.trains != "head":
            raise InvalidInputError(f"dp_sgd.copies = {self.copies}: moved copies need trains = 'head'")

    def anew(self) -> Anew:
        """As its settings say."""
        return Anew(self.trains, self.copies)

    def check(self, network: nn.Module, inputs: Tensor) -> None:
        """Take the gradients of single photos once: Opacus knows no layer with buffers but batch normalisation, and
        no weights that are used twice.
        """
        if self.trains == "head":
            try:
                last_linear(self.adapt(twin(network)).eval(), inputs)
            except InvalidInputError as error:
                raise InvalidInputError(f"{self.name}: {error}") from None
            return
        model = self.adapt(twin(network)).train().requires_grad_(True)
        steps = Training(model, adamw(1.0, 1).optimizer(model.parameters()), Shuffled((inputs,), len(inputs)))
        try:
            private = replace(self, epsilon=math.inf).prepare(steps, epochs=1)
            private.model(inputs).square().sum().backward()
            private.optimizer.step()
        except Exception as error:  # Opacus raises many kinds, even plain ones
            raise InvalidInputError(f"{self.name} cannot train this network: {_reason(error, model)}") from None

    def adapt(self, half: nn.Module) -> nn.Module:
        """Batch normalisation becomes a fixed scale and shift, or group normalisation where it was never trained."""
        fixed: nn.Module = ModuleValidator.fix(_with_fixed_statistics(twin(half)))
        return fixed

    def prepare(self, training: Training, epochs: int) -> Training:
        """Let Opacus wrap the three; ``spent`` then tells epsilon and delta."""
        if not isinstance(training.batches, Shuffled):
            raise TypeError("DP-SGD samples its own batches: training.batches must be Shuffled tensors")
        tensors, count = training.batches.tensors, training.batches.count
        loader = DataLoader(TensorDataset(*tensors), batch_size=max(1, round(self.share * count)))
        parameters = [value for group in training.optimizer.param_groups for value in group["params"]]
        optimizer = torch.optim.SGD(parameters, self.learning_rate, self.momentum)
        # A per-layer functorch rule is several times faster on a CPU than Opacus' own for depth-wise convolutions.
        options: dict[str, Any] = {
            "module": training.model,
            "optimizer": optimizer,
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
        model, private, batches = wrapped
        at_once = max(1, GRADIENTS_AT_ONCE // sum(value.numel() for value in parameters))
        batches = wrap_data_loader(data_loader=batches, max_batch_size=at_once, optimizer=private)

        def spent() -> tuple[float, float]:
            return (math.inf if math.isinf(self.epsilon) else engine.get_epsilon(self.delta)), self.delta

        average = Average(parameters, self.averaging, lambda: not private._is_last_step_skipped)
        return Training(model, private, batches, spent=spent, average=average if self.averaging else None)

    def statistic(self, calibration: Calibration) -> float:
        """The noise multiplier of a training over the calibration photos."""
        batch = next(calibration.batches())
        model = nn.Linear(2, 2).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        photos = Shuffled((torch.zeros(len(batch.images), 2),), batch_size=8)
        prepared = self.prepare(Training(model, optimizer, photos), epochs=1)
        return float(getattr(prepared.optimizer, "noise_multiplier"))  # noqa: B009 - Opacus' optimizer, not torch's


class _Standardised(nn.Module):
    """What batch normalisation does in eval mode before its weights: nothing here trains."""

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm) -> None:
        super().__init__()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        self.register_buffer("mean", norm.running_mean.clone())
        self.register_buffer("deviation", (norm.running_var + norm.eps).sqrt())

    def forward(self, features: Tensor) -> Tensor:
        mean, deviation = (_along_channels(self.get_buffer(name), features) for name in ("mean", "deviation"))
        return (features - mean) / deviation


class _Scaled(nn.Module):
    """The weights of a batch normalisation."""

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(norm.weight.detach()), nn.Parameter(norm.bias.detach())

    def forward(self, features: Tensor) -> Tensor:
        return features * _along_channels(self.weight, features) + _along_channels(self.bias, features)


def _along_channels(values: Tensor, features: Tensor) -> Tensor:
    return values.view(1, -1, *(1,) * (features.ndim - 2))


def _with_fixed_statistics(module: nn.Module) -> nn.Module:
    """The module; batch normalisations whose statistics were trained are no longer any."""
    for name, part in module.named_children():
        setattr(module, name, _with_fixed_statistics(part))
    if not isinstance(module, nn.modules.batchnorm._BatchNorm):
        return module
    mean, variance = module.running_mean, module.running_var
    if mean is None or variance is None or (not mean.any() and bool(variance.eq(1).all())):
        return module
    return nn.Sequential(_Standardised(module), *([_Scaled(module)] if module.affine else []))


def _reason(error: Exception, model: nn.Module) -> str:
    """In one line why Opacus gave up; its own names every layer with all that is in it."""
    buffered = re.findall(r"with buffers.*?\((\w[\w.]*):", str(error))
    if buffered:
        return f"Opacus knows no gradients of single photos for {len(buffered)} layers with buffers: {some(buffered)}"
    silent = [name for name, value in model.named_parameters() if getattr(value, "grad_sample", None) is None]
    if silent and "Per sample gradient" in str(error):
        return f"Opacus gets no gradients of single photos for {len(silent)} of its weights: {some(silent)}"
    return str(error).partition("\n")[0] or type(error).__name__
