"""Send few bits per feature."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from safetensors.torch import load, save
from torch import Tensor

from splitleak.defenses.base import Calibration, Channel, Defense, channel_axis
from splitleak.victims.settings import doc

VALUES = 8192
"""Of each channel, at most, on which its levels are chosen."""
TAILS = (0.0, 0.0003, 0.003, 0.01, 0.03, 0.1, 0.25)
"""Shares of a channel's values beyond either end of the ranges that the search for its levels starts from."""
ROUNDS = 12
"""Of rounding and fitting, from each range."""
MANY = 255
"""Levels, beyond which no range is searched for."""


@dataclass(frozen=True)
class Quantisation(Defense):
    """Round each feature to one of 2^bits evenly spaced levels.

    The levels of a channel are those of the least squared error over the train part, as far as a search from several
    ranges finds them; what lies beyond them is clipped. With few bits that is far from the range between the least
    and the largest value, of which a few photos would decide: features have long tails. The levels' numbers travel,
    ``bits`` each, packed. Gradients pass straight through the rounding, so that tails can be trained behind it and a
    white-box attacker can search through it.
    """

    paper: ClassVar[str] = (
        "Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, "
        "CVPR 2018; straight through: Bengio et al., 2013; levels: Lloyd, Least Squares Quantization in PCM, IEEE "
        "Transactions on Information Theory 1982, kept evenly spaced"
    )
    strength: ClassVar[str] = "bits"
    strengths: ClassVar[tuple[int, ...]] = (16, 8, 4, 2, 1)

    bits: Annotated[int, Ge(1), Le(16), doc("of each feature")] = 4

    def channel(self, shape: tuple[int, ...]) -> Channel:
        """Rounds on the edge, scales back in the cloud."""
        return _QuantisedChannel(shape, self.bits)


class _QuantisedChannel(Channel):
    low: Tensor
    step: Tensor

    def __init__(self, shape: tuple[int, ...], bits: int) -> None:
        super().__init__()
        self.shape, self.bits = shape, bits
        self.axis = channel_axis(shape)
        per_channel = [size if axis == self.axis else 1 for axis, size in enumerate(shape)]
        self.register_buffer("low", torch.zeros(per_channel))
        self.register_buffer("step", torch.ones(per_channel))

    @property
    def levels(self) -> int:
        return (1 << self.bits) - 1

    def calibrate(self, calibration: Calibration) -> None:
        values = _values(calibration, self.axis + 1)
        low, step = least_squares_levels(values, self.levels)
        self.low.copy_(low.view_as(self.low))
        self.step.copy_(step.view_as(self.step))

    def send(self, features: Tensor) -> Tensor:
        """Numbers of levels, as floats."""
        place = ((features - self.low) / self.step).clamp(0, self.levels)
        return place + (place.round() - place).detach()

    def receive(self, release: Tensor) -> Tensor:
        return self.low + self.step * release

    def carried(self, arrived: Tensor) -> Tensor:
        """A blank is sent as the level nearest to it."""
        return arrived

    def pack(self, release: Tensor) -> bytes:
        """``bits`` for each feature, after a header."""
        numbers = release.flatten().round().to(torch.int32).numpy().astype(">u2")
        bits = np.unpackbits(numbers.view(np.uint8)).reshape(-1, 16)[:, -self.bits :]
        return save({"levels": torch.from_numpy(np.packbits(bits))})

    def unpack(self, packed: bytes) -> Tensor:
        count = int(np.prod(self.shape))
        bits = np.unpackbits(load(packed)["levels"].numpy())[: count * self.bits].reshape(count, self.bits)
        numbers = bits @ (1 << np.arange(self.bits)[::-1])
        return torch.from_numpy(numbers).to(torch.float32).view(self.shape)

    def coding(self) -> dict[str, Any]:
        return {"kind": "levels", "bits": self.bits}


def _values(calibration: Calibration, axis: int) -> Tensor:
    """Of each channel over the train part, float64 (channels, at most ``VALUES`` each), evenly taken."""
    taken: list[Tensor] = []
    every = 1
    for batch in calibration.batches():
        taken.append(batch.features.movedim(axis, 0).flatten(1)[:, ::every].double())
        while sum(one.shape[1] for one in taken) > VALUES:
            taken, every = [one[:, ::2] for one in taken], 2 * every
            if max(one.shape[1] for one in taken) == 1:
                taken = taken[::2]
    return torch.cat(taken, 1)


def least_squares_levels(values: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """Evenly spaced levels of little squared error for each row of values.

    From each of several ranges: round, then fit the line from the levels' numbers to the values (neither can raise
    the error); the best end counts. Where levels are many, clipping costs more than a finer step saves, and they
    span the whole range.

    Args:
        values: (rows, n), float64.
        levels: the largest number of a level, from 0.

    Returns:
        The lowest level (rows,) and the step between two (rows,), above 0.
    """
    ordered = values.sort(1).values
    low, high = ordered[:, 0], ordered[:, -1]
    # a channel that never varies has one level, whatever the step
    step = torch.where(high > low, (high - low) / levels, 1.0)
    if levels > MANY:
        return low, step
    sums = F.pad(ordered.cumsum(1), (1, 0))
    best = torch.full_like(low, torch.inf)
    for tail in TAILS:
        cut = int(tail * (values.shape[1] - 1))
        start, width = ordered[:, cut], (ordered[:, -1 - cut] - ordered[:, cut]) / levels
        for _ in range(ROUNDS):
            start, width, error = _refitted(ordered, sums, start, width, levels)
            better = (error < best) & (width > 0)
            best, low, step = error.where(better, best), start.where(better, low), width.where(better, step)
    return low, step


def _refitted(
    ordered: Tensor, sums: Tensor, start: Tensor, width: Tensor, levels: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Offset and slope of the line from numbers of levels to values, and its squared error but for a constant.

    Rows are sorted, so that each level has a stretch of them, and a cumulative sum tells all that the fit needs.
    """
    number = torch.arange(levels + 1, dtype=ordered.dtype, device=ordered.device)
    between = start[:, None] + width[:, None] * (number[:-1] + 0.5)
    ends = F.pad(torch.searchsorted(ordered, between), (1, 0))
    ends = F.pad(ends, (0, 1), value=ordered.shape[1])
    count, total = ends.diff(dim=1) / ordered.shape[1], sums.gather(1, ends).diff(dim=1) / ordered.shape[1]
    mean, value_mean = (count * number).sum(1), total.sum(1)
    spread = (count * number.square()).sum(1) - mean.square()
    both = (total * number).sum(1) - mean * value_mean
    slope = both / spread.clamp_min(torch.finfo(ordered.dtype).tiny)
    return value_mean - slope * mean, slope, -both * slope
