"""Send only an image's largest features."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Gt, Le
from safetensors.torch import load, save
from torch import Tensor

from splitleak.defenses.base import Channel, Defense
from splitleak.victims.settings import doc


@dataclass(frozen=True)
class TopK(Defense):
    """Keep the share of an image's features that is largest in magnitude; the others arrive as zero.

    Which features those are differs from image to image, is sent along, and tells something by itself.
    """

    paper: ClassVar[str] = (
        "Zheng et al., Reducing Communication for Split Learning by Randomized Top-k Sparsification, IJCAI 2023 "
        "(its deterministic baseline)"
    )
    strength: ClassVar[str] = "keep"
    strengths: ClassVar[tuple[float, ...]] = (1.0, 0.5, 0.25, 0.1, 0.02)
    uses_photos: ClassVar[bool] = False

    keep: Annotated[float, Gt(0), Le(1), doc("share of each image's features that is sent")] = 0.25

    def channel(self, shape: tuple[int, ...]) -> Channel:
        """At least one feature is always sent."""
        return _LargestChannel(shape, max(1, round(self.keep * math.prod(shape))))


class _LargestChannel(Channel):
    def __init__(self, shape: tuple[int, ...], count: int) -> None:
        super().__init__()
        self.shape, self.count = shape, count

    def send(self, features: Tensor) -> Tensor:
        flat = features.flatten(1)
        largest = flat.abs().topk(self.count, dim=1).indices
        return (flat * torch.zeros_like(flat).scatter_(1, largest, 1.0)).view_as(features)

    def send_like(self, features: Tensor, release: Tensor) -> Tensor:
        """The features at the places that arrived."""
        return features * self.arrived(release)

    def arrived(self, release: Tensor) -> Tensor:
        """What is not zero."""
        return release != 0

    def carried(self, arrived: Tensor) -> Tensor:
        """A blank stays one."""
        return arrived

    def pack(self, release: Tensor) -> bytes:
        """Values, and their places as numbers or as one bit for each feature, whichever is shorter."""
        flat = release.flatten()
        places = flat.nonzero().flatten()
        numbers = places.to(torch.int16 if flat.numel() <= 2**15 else torch.int32)
        padding = -len(flat) % 8
        weights = 2 ** torch.arange(8)
        bitmap = (torch.cat([flat != 0, flat.new_zeros(padding, dtype=torch.bool)]).view(-1, 8) * weights).sum(1)
        shorter = bitmap.to(torch.uint8) if len(bitmap) < numbers.nbytes else numbers
        return save({"values": flat[places].contiguous(), "places": shorter})

    def unpack(self, packed: bytes) -> Tensor:
        parts = load(packed)
        values, places = parts["values"], parts["places"]
        if places.dtype == torch.uint8:
            bits = (places[:, None].to(torch.int64) >> torch.arange(8)) & 1
            places = bits.flatten()[: math.prod(self.shape)].nonzero().flatten()
        flat = torch.zeros(math.prod(self.shape), dtype=values.dtype)
        flat[places.to(torch.int64)] = values
        return flat.view(self.shape)

    def coding(self) -> dict[str, Any]:
        """Values that are not zero, and their places."""
        return {"kind": "sparse"}
