"""Prune each image's own most revealing channels, as learned against a decoder."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Lt
from safetensors.torch import load, save
from torch import Tensor, nn

from splitleak.defenses.base import (
    Calibration,
    Channel,
    Defense,
    channel_axis,
    labels_of,
    needs_task,
)
from splitleak.defenses.surrogate import BATCH, AdversarialTerm, small_batches
from splitleak.victims.settings import doc
from splitleak.victims.splitting.twin import twin

WIDTH, BLOCKS, GROUPS = 64, 2, 8
"""Of the pruner."""
LEARNING_RATE = 1e-3
NEVER = -1e4
"""The score of a channel that was zero in every training photo: it hides best, and serves nobody."""


@dataclass(frozen=True)
class Disco(Defense):
    """A small residual network on the edge scores an image's channels; those with the lowest scores arrive as zero.

    It is trained before the tail is, with the encoder frozen, in turns: a decoder learns to rebuild the photo from
    what is left, a copy of the tail learns to decide from it, and the pruner lowers the copy's cross-entropy -
    ``weight`` times the decoder's error. The choice is hard; for the pruner its gradient is that of a sigmoid of
    temperature ``temperature``. Whoever searches through the device sees the gradient pass straight to all
    channels: one that the photo's own choice keeps must be able to grow.
    """

    paper: ClassVar[str] = (
        "A. Singh et al., DISCO: Dynamic and Invariant Sensitive Channel Obfuscation for Deep Neural Networks, "
        "CVPR 2021"
    )
    strength: ClassVar[str] = "rate"
    strengths: ClassVar[tuple[float, ...]] = (0.01, 0.3, 0.6, 0.9)

    rate: Annotated[float, Ge(0), Lt(1), doc("share of each image's channels that is pruned")] = 0.6
    weight: Annotated[float, Ge(0), doc("of the decoder's error, in units of the mean image's; published: 1")] = 1.0
    temperature: Annotated[float, Gt(0), doc("of the choice's gradient, as published")] = 1 / 30
    steps: Annotated[int, Gt(0), doc(f"of the pruner's training, each on {BATCH} photos")] = 300

    def inapplicable(self, shape: tuple[int, ...], task: str | None) -> str | None:
        """The pruner learns what the task can spare."""
        return needs_task(self.name, "learns which channels the task can spare", task)

    def channel(self, shape: tuple[int, ...]) -> Channel:
        """At least one channel is always sent."""
        return _PruningChannel(shape, self)


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.GroupNorm(GROUPS, WIDTH),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.GroupNorm(GROUPS, WIDTH),
        )

    def forward(self, maps: Tensor) -> Tensor:
        return F.relu(maps + self.layers(maps))


class _PruningChannel(Channel):
    mean: Tensor
    spread: Tensor
    dead: Tensor

    def __init__(self, shape: tuple[int, ...], settings: Disco) -> None:
        super().__init__()
        self.settings, self.axis, self.shape = settings, channel_axis(shape), shape
        channels = shape[self.axis]
        self.kept = max(1, round((1 - settings.rate) * channels))
        self.scores = nn.Sequential(
            nn.Conv2d(channels, WIDTH, 1),
            nn.GroupNorm(GROUPS, WIDTH),
            nn.ReLU(),
            *(_Block() for _ in range(BLOCKS)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(WIDTH, channels),
        )
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("spread", torch.ones(channels, 1, 1))
        self.register_buffer("dead", torch.zeros(channels, dtype=torch.bool))

    def calibrate(self, calibration: Calibration) -> None:
        """Learn the pruner."""
        total = square = torch.zeros((), dtype=torch.float64, device=calibration.device)
        count = 0
        for batch in calibration.batches():
            values = self._maps(batch.features).transpose(0, 1).flatten(1).double()
            total, square, count = total + values.sum(1), square + values.square().sum(1), count + values.shape[1]
        mean = total / count
        variance = (square / count - mean.square()).clamp_min(0)
        # a channel that hardly varies stays small
        spread = (variance + 1e-3 * variance.mean()).clamp_min(torch.finfo(torch.float32).tiny).sqrt()
        self.dead.copy_(square == 0)
        self.mean.copy_(mean.view_as(self.mean))
        self.spread.copy_(spread.view_as(self.spread))
        with torch.enable_grad():
            self._learn(calibration)

    def _learn(self, calibration: Calibration) -> None:
        tail = twin(calibration.tail).eval().requires_grad_(True)
        adversary = AdversarialTerm(calibration, self, self.settings.weight, head_start=0)
        learning = [*self.scores.parameters(), *tail.parameters()]
        optimizer = torch.optim.Adam(learning, LEARNING_RATE)
        for batch in small_batches(calibration, self.settings.steps):
            features = batch.features.detach()
            hard, soft = self._choice(features)
            release = features * self._everywhere(hard + soft - soft.detach())
            logits = tail(self.receive(release))
            task = calibration.loss(logits, labels_of(batch, self.settings.name))
            # the decoder moves first, the other two against it as it then is
            hidden = adversary(batch.images, features, release, logits, batch.labels)
            optimizer.zero_grad(set_to_none=True)
            (task + hidden).backward()
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def _choice(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Of each channel, (n, channels): 1 if it is kept and else 0, and the sigmoid that learns in its place."""
        # in half precision many scores would be equal
        with torch.autocast(features.device.type, enabled=False):
            scores: Tensor = self.scores((self._maps(features.float()) - self.mean) / self.spread)
        scores = scores.masked_fill(self.dead, NEVER)
        best = scores.topk(self.kept, dim=1)
        hard = torch.zeros_like(scores).scatter_(1, best.indices, 1.0)
        return hard, torch.sigmoid((scores - best.values[:, -1:].detach()) / self.settings.temperature)

    def send(self, features: Tensor) -> Tensor:
        with torch.no_grad():
            kept = self._everywhere(self._choice(features)[0]).to(features.dtype)
        # exactly zero where it is pruned
        release = features * kept
        return release if self.training else features + (release - features).detach()

    def arrived(self, release: Tensor) -> Tensor:
        """Channels with anything in them."""
        return self._everywhere((self._maps(release) != 0).flatten(2).any(2)).expand_as(release)

    def _maps(self, values: Tensor) -> Tensor:
        """(n, *shape) as (n, channels, rows, columns)."""
        ahead = values.movedim(self.axis + 1, 1)
        return ahead if ahead.ndim == 4 else ahead.reshape(len(values), self.shape[self.axis], -1, 1)

    def _everywhere(self, of_channels: Tensor) -> Tensor:
        """(n, channels) in a form that multiplies (n, *shape)."""
        sizes = [1] * len(self.shape)
        sizes[self.axis] = self.shape[self.axis]
        return of_channels.view(len(of_channels), *sizes)

    def pack(self, release: Tensor) -> bytes:
        """The kept channels and their numbers."""
        channels = release.movedim(self.axis, 0)
        kept = (self._maps(release[None])[0] != 0).flatten(1).any(1).nonzero().flatten()
        return save({"channels": kept.to(torch.int16), "values": channels[kept].contiguous()})

    def unpack(self, packed: bytes) -> Tensor:
        parts = load(packed)
        values = parts["values"]
        moved = [self.shape[self.axis], *(size for axis, size in enumerate(self.shape) if axis != self.axis)]
        channels = torch.zeros(moved, dtype=values.dtype)
        channels[parts["channels"].long()] = values
        return channels.movedim(0, self.axis)

    def coding(self) -> dict[str, Any]:
        return {"kind": "channels", "axis": self.axis}
