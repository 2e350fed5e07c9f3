"""A secret rotation or order of the channels: obfuscation, which an attacker who may query undoes by learning."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from splitleak.defenses.base import Channel, Defense, channel_axis, mix_channels
from splitleak.victims.seeding import seeded
from splitleak.victims.settings import doc


@dataclass(frozen=True)
class KeyedMixing(Defense):
    """Multiply the channels with a secret orthogonal matrix on the edge, with its transpose in the cloud.

    Lossless, so the task loses nothing, and a fixed linear map, so neither does an attacker who learns from the
    device's own answers. It could stop only who intercepts releases and has never seen one of a known photo. That
    is not the ``unaware`` threat, which is given what the cloud makes of a release, and there the key is undone.
    """

    paper: ClassVar[str] = (
        "permutation: Xu et al., Permutation Equivariance of Transformers and Its Applications, CVPR 2024; rotation: "
        "folklore, here as a control"
    )
    uses_photos: ClassVar[bool] = False

    form: Annotated[Literal["rotation", "permutation"], doc("of the secret matrix")] = "rotation"
    key: Annotated[int, Ge(0), doc("seed that the matrix is drawn from")] = 0

    def channel(self, shape: tuple[int, ...]) -> Channel:
        """Mixes on the edge and back in the cloud."""
        axis = channel_axis(shape)
        return _MixingChannel(axis + 1, secret_matrix(self.form, shape[axis], self.key))


class _MixingChannel(Channel):
    matrix: Tensor

    def __init__(self, axis: int, matrix: Tensor) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("matrix", matrix)

    def send(self, features: Tensor) -> Tensor:
        return mix_channels(features, self.matrix, self.axis)

    def receive(self, release: Tensor) -> Tensor:
        return mix_channels(release, self.matrix.T, self.axis)

    def carried(self, arrived: Tensor) -> Tensor:
        """A mixture of channels is blank where all of them are."""
        there: Tensor = mix_channels(arrived.float(), self.matrix.abs(), self.axis) > 0
        return there


def secret_matrix(form: str, channels: int, key: int) -> Tensor:
    """An orthogonal matrix (channels, channels), uniform among rotations and reflections, or a permutation."""
    with seeded("keyed mixing", form, key):
        if form == "permutation":
            return torch.eye(channels)[torch.randperm(channels)]
        orthogonal, triangle = torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64))
        # the signs make the distribution uniform (Mezzadri, Notices of the AMS 2007)
        uniform: Tensor = (orthogonal * triangle.diagonal().sign()).float()
        return uniform
