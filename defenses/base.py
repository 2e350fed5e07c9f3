"""The contract of a defence: what it may change, and what it may use to build itself."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import Tensor, nn

from splitleak.victims.errors import InvalidInputError
from splitleak.victims.settings import Settings
from splitleak.victims.tasks.base import Loss
from splitleak.victims.training import Training

Retrains = Literal["tail", "network", "anew"]
Scope = Literal["head", "tail", "network"]


@dataclass(frozen=True)
class Anew:
    """What of a network a defence trains that trains anew. The rest stays as the victim found it.

    ``scope``: its last linear layer, all behind the cut, or all that the victim trains. ``copies``: of each photo,
    moved a little, that the last layer sees beside it.
    """

    scope: Scope = "network"
    copies: int = 0


@dataclass(frozen=True)
class CalibrationBatch:
    """Photos of the train part. ``labels``: (n, ...) as the task has them, int64 (n,) of classes; or None."""

    images: Tensor
    features: Tensor
    labels: Tensor | None


@dataclass(frozen=True)
class Calibration:
    """What a defender may use to fit its defence: the train part with its features, and both halves of the network.

    ``batches()`` starts a fresh pass in a fixed order. Nothing of the other parts is in reach. ``loss``: of the task,
    (what the tail gives, labels) -> scalar.
    """

    batches: Callable[[], Iterator[CalibrationBatch]]
    encoder: nn.Module
    tail: nn.Module
    device: torch.device
    loss: Loss = F.cross_entropy

    def cycle(self, steps: int) -> Iterator[CalibrationBatch]:
        """As many batches, pass after pass: for a defence that trains something of its own."""
        return itertools.islice(itertools.chain.from_iterable(self.batches() for _ in itertools.count()), steps)

    def root_mean_square(self) -> float:
        """Of the features over the train part: the unit in which noise compares across cuts and networks."""
        energy, count = 0.0, 0
        for batch in self.batches():
            energy += float(batch.features.double().square().sum())
            count += batch.features.numel()
        return math.sqrt(energy / count)


@dataclass(frozen=True)
class Guarantee:
    """What a mechanism proves.

    ``epsilon`` and ``delta``: of differential privacy, infinity where no sensitivity is enforced. ``protects``:
    the query (one release) or the training photos. ``noise_std``: of additive Gaussian noise on the release,
    where there is any (the root mean square over its values, where these differ): what reconstruction bounds start
    from, see ``Channel.whitened``. ``information``: nats that one release tells about its photo at most, on average
    over photos that are distributed like those of the train part. Sends with fresh noise add up, in nats as in
    epsilon.
    """

    protects: Literal["query", "training"]
    epsilon: float = math.inf
    delta: float = 0.0
    noise_std: float | None = None
    information: float | None = None


class Channel(nn.Module):
    """Between encoder and tail. This one does nothing; a defence overrides what it needs.

    The constructor takes settings and shapes only. Values that come from data are buffers or parameters,
    filled by ``calibrate``: a channel is restored from its settings and its ``state_dict``. Randomness comes
    from torch's global generator and is drawn afresh on each ``send``.
    """

    def calibrate(self, calibration: Calibration) -> None:
        """Fill buffers from the train part. Not called again when a channel is restored."""

    def send(self, features: Tensor) -> Tensor:
        """On the edge: features (n, *shape) -> release (n, ...), the only thing that travels."""
        return features

    def send_like(self, features: Tensor, release: Tensor) -> Tensor:
        """As ``send``, for who searches for features with this release: a choice that shows in it is not made anew.

        Where ``send`` chooses by the features what it sends, a candidate whose choice is another has no gradient at
        most of the places that arrived. A channel of this kind sends of the candidate what was sent in ``release``.
        """
        return self.send(features)

    def receive(self, release: Tensor) -> Tensor:
        """In the cloud: release -> what the tail takes, (n, *shape)."""
        return release

    def forward(self, features: Tensor) -> Tensor:
        """``receive(send(features))``."""
        return self.receive(self.send(features))

    def intercepted(self, release: Tensor) -> Tensor:
        """What an adversary holds of a release, in its shape: all of it, unless the defence declares otherwise.

        What it does not hold is a constant, and did not arrive. Utility and bytes are of the whole release.
        """
        return release

    def arrived(self, release: Tensor) -> Tensor:
        """Bool, of the release's shape: false where ``send`` left a feature out and put a blank in its place, and
        where it went past the adversary.

        An adversary who knows the defence does not take blanks for features.
        """
        return torch.ones_like(release, dtype=torch.bool)

    def carried(self, arrived: Tensor) -> Tensor | None:
        """Where blanks among features (n, *shape) end up in a release: for a chain in which others stand before this.

        Args:
            arrived: bool, of the features' shape, false where a part before this one left a blank.

        Returns:
            Bool, of the release's shape, false where nothing but blanks went in; None where a release does not tell,
            as behind noise. That is the default of a channel that sends anything else than the features.
        """
        return arrived if type(self).send is Channel.send else None

    def merge(self, releases: Tensor) -> Tensor:
        """What several sends of one image tell together: (n, sends, ...) -> release (n, ...).

        The mean over the sends in which a feature arrived; over all, where it arrived in none.
        """
        arrived = self.arrived(releases.flatten(0, 1)).view_as(releases)
        weights = (arrived | ~arrived.any(1, keepdim=True)).to(releases.dtype)
        return (releases * weights).sum(1) / weights.sum(1)

    def pack(self, release: Tensor) -> bytes:
        """What travels for one image (a release without the batch axis); ``len()`` is its cost."""
        return save({"release": release.contiguous()})

    def unpack(self, packed: bytes) -> Tensor:
        """Restore exactly what ``pack`` was given."""
        return load(packed)["release"]

    def coding(self) -> dict[str, Any] | None:
        """How ``pack`` writes, for programs that have none of this code: its ``kind`` and what belongs to that.

        None where ``pack`` is a defence's own and no kind says what it does.
        """
        return {"kind": "dense"} if type(self).pack is Channel.pack else None

    def guarantee(self) -> Guarantee | None:
        """What is proved about one send, None where nothing is."""
        return None

    def whitened(self, difference: Tensor) -> Tensor | None:
        """The difference of two releases (n, ...) in units of the noise: times the inverse root of its covariance.

        None where the release carries no Gaussian noise. Noise of different sizes overrides this.
        """
        guarantee = self.guarantee()
        return difference / guarantee.noise_std if guarantee and guarantee.noise_std else None


class Perturbation(nn.Module):
    """On the edge, before the encoder: images -> images. This one does nothing; a defence overrides ``forward``.

    Restored like a channel: from settings, shapes and ``state_dict``.
    """

    def calibrate(self, calibration: Calibration) -> None:
        """Fill buffers from the train part. Not called again when a perturbation is restored."""

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, 3, h, w) in [0, 1] -> what the encoder sees, of the same shape."""
        return images


@dataclass(frozen=True)
class Defense(Settings):
    """A mitigation. Every hook is optional; overriding none is no defence.

    ``strength`` names the field that a tradeoff curve sweeps, ``strengths`` lists values of it from the weakest
    (close to no defence) to the strongest. ``retrains``: what is trained with the defence in place: the cloud's
    ``tail`` behind a frozen encoder, the whole ``network`` from the victim's weights, or the network ``anew``
    from the weights that the victim itself started from (it must not have seen the train part before); settings may
    decide it, an instance then says so in its own ``retrains``.
    ``uses_photos``: whether any of its hooks looks at the train part, outside what ``prepare`` accounts for.
    ``of_classes``: whether it asks of the task that a photo has one class, and the tail a logit for each. None of the
    others needs to know what the task is.
    """

    paper: ClassVar[str]
    strength: ClassVar[str | None] = None
    strengths: ClassVar[tuple[Any, ...]] = ()
    retrains: ClassVar[Retrains] = "tail"
    uses_photos: ClassVar[bool] = True
    of_classes: ClassVar[bool] = False

    def inapplicable(self, shape: tuple[int, ...], task: str | None) -> str | None:
        """One line why this defence has nothing to act on, None where it applies.

        Args:
            shape: of one photo's features.
            task: what the victim predicts, None where it was trained on nothing: who changes training needs one.
        """
        trains = self.retrains != "tail" or type(self).objective is not Defense.objective
        return needs_task(self.name, "changes training", task) if trains else None

    def check(self, network: nn.Module, inputs: Tensor) -> None:
        """Find out, before anything is computed, what would fail later.

        Args:
            network: what would train, before ``adapt``: both halves, or the tail alone; not to be changed.
            inputs: two of what it takes, (2, ...).

        Raises:
            InvalidInputError: the defence cannot train such a network.
        """

    def anew(self) -> Anew:
        """What trains, where ``retrains`` is anew."""
        return Anew()

    def adapt(self, half: nn.Module) -> nn.Module:
        """Change the layers of the encoder or of the tail before training; depends on settings and ``half`` only."""
        return half

    def perturb(self, image_shape: tuple[int, ...]) -> Perturbation | None:
        """Input noise on images of this shape (without the batch), None for none."""
        return None

    def channel(self, shape: tuple[int, ...]) -> Channel:
        """The channel for features of this shape (without the batch)."""
        return Channel()

    def cloud(self, tail: nn.Module, channel: Channel) -> nn.Module:
        """What takes what ``channel`` receives and answers: the tail (adapted), or several in its place.

        Depends on both and on settings only: a protected victim is restored from its state.
        """
        return tail

    def objective(self, calibration: Calibration, channel: Channel) -> nn.Module | None:
        """A term added to the training loss: a module (images, features, release, logits, labels) -> scalar."""
        return None

    def prepare(self, training: Training, epochs: int) -> Training:
        """Wrap model, optimizer and batches before training, as DP-SGD does."""
        return training

    def statistic(self, calibration: Calibration) -> float:
        """What the strength moves, larger when stronger; by default the relative distortion of the features."""
        batch = next(calibration.batches())
        channel = self.channel(tuple(batch.features.shape[1:])).to(calibration.device)
        channel.calibrate(calibration)
        with torch.no_grad():
            distortion = channel(batch.features) - batch.features
        return float(distortion.norm() / batch.features.norm())


def channel_axis(shape: tuple[int, ...]) -> int:
    """The axis of channels in features of this shape (without the batch): first of maps, last of tokens."""
    return 0 if len(shape) == 3 else len(shape) - 1


def needs_task(name: str, what: str, task: str | None) -> str | None:
    """One line why a defence of this name, which does ``what``, does not apply without a task; None with one."""
    return None if task else f"{name} does not apply: it {what}, and the victim has no task"


def labels_of(batch: CalibrationBatch, who: str) -> Tensor:
    """The labels of a batch.

    Raises:
        InvalidInputError: it has none; ``who`` needs them.
    """
    if batch.labels is None:
        raise InvalidInputError(f"{who} needs a victim with a task")
    return batch.labels


def mix_channels(values: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Multiply the channels, axis ``axis`` of values with a batch, with a matrix (outputs, channels)."""
    return (values.movedim(axis, -1) @ matrix.T.to(values.dtype)).movedim(-1, axis)


__all__ = [
    "Anew",
    "Calibration",
    "CalibrationBatch",
    "Channel",
    "Defense",
    "Guarantee",
    "Perturbation",
    "Scope",
    "Training",
    "channel_axis",
    "labels_of",
    "mix_channels",
    "needs_task",
]
