"""Send few bits per feature."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Ge, Le
from safetensors.torch import load, save
from torch import Tensor

from splitleak.defenses.base import Calibration, Channel, Defense, channel_axis
from splitleak.victims.settings import doc


@dataclass(frozen=True)
class Quantisation(Defense):
    """Round each feature to one of 2^bits evenly spaced levels between its channel's least and largest value.

    The range is that of the train part; what lies beyond is clipped. The levels' numbers travel, ``bits`` each,
    packed. Gradients pass straight through the rounding, so that tails can be trained behind it and a white-box
    attacker can search through it.
    """

    paper: ClassVar[str] = (
        "Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, "
        "CVPR 2018; straight through: Bengio et al., 2013"
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
        least, most = [], []
        for batch in calibration.batches():
            values = batch.features.movedim(self.axis + 1, 0).flatten(1)
            least.append(values.amin(1))
            most.append(values.amax(1))
        low, high = torch.stack(least).amin(0), torch.stack(most).amax(0)
        # a channel that never varies has one level, whatever the step
        step = torch.where(high > low, (high - low) / self.levels, 1.0)
        self.low.copy_(low.view_as(self.low))
        self.step.copy_(step.view_as(self.step))

    def send(self, features: Tensor) -> Tensor:
        """Numbers of levels, as floats."""
        place = ((features - self.low) / self.step).clamp(0, self.levels)
        return place + (place.round() - place).detach()

    def receive(self, release: Tensor) -> Tensor:
        return self.low + self.step * release

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
