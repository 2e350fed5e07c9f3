"""Share the feature maps among servers, so that none of them holds enough to rebuild a photo."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from safetensors.torch import load, save
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from splitleak.defenses.base import Calibration, Channel, Defense, channel_axis
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.settings import doc
from splitleak.victims.splitting.twin import twin


@dataclass(frozen=True)
class MultiServer(Defense):
    """Each of ``servers`` servers is sent channels of its own and runs a tail on them; the device fuses the answers.

    Binary masks, one for each server, divide the channels into equal shares that do not overlap. They are learned
    with the tails, on the task, by straight-through gradients. A server has a copy of the tail, which gets each
    channel that went elsewhere as its mean over the train part, and is trained on. Fusion is one linear layer over
    all logits, at first their mean.

    ``colluding`` is a declared threat and no property of the defence: the adversary holds what the first so many
    servers are sent. That the others tell it nothing is believed, not enforced. Whoever listens on the device's own
    link sees what goes to all of them: measure that with ``colluding`` equal to ``servers``. Bytes are those to all
    servers. An adversary that is handed the tail gets that of all servers. Of the edge's time the fusion, a few
    hundred multiplications, is left out.
    """

    paper: ClassVar[str] = (
        "PrivDFS: Private Inference via Distributed Feature Sharing against Data Reconstruction Attacks, arXiv "
        "2508.04346, 2025; several servers, one secret to the device: Ensembler, arXiv 2401.10859, 2024"
    )
    strength: ClassVar[str] = "servers"
    strengths: ClassVar[tuple[int, ...]] = (1, 2, 4, 8)
    of_classes: ClassVar[bool] = True

    servers: Annotated[int, Ge(1), doc("among which the channels are shared")] = 4
    colluding: Annotated[
        int, Ge(1), doc("of them, whose shares the adversary holds; all: it listens at the device")
    ] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.colluding > self.servers:
            raise InvalidInputError(
                f"multi_server.colluding = {self.colluding}: there are {self.servers} servers; at most these collude"
            )

    def inapplicable(self, shape: tuple[int, ...], task: str | None) -> str | None:
        """Where there are fewer channels than servers."""
        channels = shape[channel_axis(shape)]
        if channels >= self.servers:
            return None
        return f"{self.name} does not apply: {channels} channels are too few for {self.servers} servers"

    def channel(self, shape: tuple[int, ...]) -> Channel:
        """All channels travel, each to its server."""
        return _SharingChannel(shape, self.servers, self.colluding)

    def cloud(self, tail: nn.Module, channel: Channel) -> nn.Module:
        """A tail for each server, and the fusion."""
        assert isinstance(channel, _SharingChannel)
        return _Servers(tail, channel)

    def statistic(self, calibration: Calibration) -> float:
        """Relative distance of what the adversary holds from the features."""
        features = next(calibration.batches()).features
        channel = self.channel(tuple(features.shape[1:])).to(calibration.device)
        channel.calibrate(calibration)
        with torch.no_grad():
            return float((channel.intercepted(features) - features).norm() / features.norm())


class _SharingChannel(Channel):
    """``scores``: of each channel for each server, (servers, channels); ``owner``: who gets it, (channels,)."""

    owner: Tensor
    mean: Tensor

    def __init__(self, shape: tuple[int, ...], servers: int, colluding: int) -> None:
        super().__init__()
        self.shape, self.servers, self.colluding = shape, servers, colluding
        self.axis = channel_axis(shape)
        channels = shape[self.axis]
        self.scores = nn.Parameter(torch.zeros(servers, channels))
        self.register_buffer("owner", torch.arange(channels) % servers)
        self.register_buffer("mean", torch.zeros(channels))

    @torch.no_grad()
    def calibrate(self, calibration: Calibration) -> None:
        """The means, and random shares to start from."""
        total, count = torch.zeros_like(self.mean, dtype=torch.float64, device="cpu"), 0
        for batch in calibration.batches():
            values = batch.features.movedim(self.axis + 1, -1).flatten(0, -2).double().cpu()
            total, count = total + values.sum(0), count + len(values)
        self.mean.copy_(total / count)
        self.scores.copy_(torch.rand_like(self.scores))
        self.owner.copy_(equal_shares(self.scores))

    def masks(self) -> Tensor:
        """Of each server, 0 or 1, (servers, channels); while it trains, divided anew by what was learned."""
        chosen = self.scores.softmax(0)
        if self.training:
            self.owner.copy_(equal_shares(self.scores))
        hard = (self.owner == torch.arange(self.servers, device=self.owner.device)[:, None]).to(chosen)
        # forward the choice, backward the gradient of how likely it was
        return (hard - chosen).detach() + chosen

    def share(self, features: Tensor, mask: Tensor) -> Tensor:
        """What the mask lets through, and the means elsewhere."""
        mask, mean = (self._wide(of).to(features.dtype) for of in (mask, self.mean))
        return features * mask + mean * (1 - mask)

    def intercepted(self, release: Tensor) -> Tensor:
        """The colluding servers' channels, and the means in the others' places."""
        return self.share(release, (self.owner < self.colluding).float())

    def arrived(self, release: Tensor) -> Tensor:
        """The colluding servers' channels."""
        return self._wide(self.owner < self.colluding).expand_as(release)

    def _wide(self, of_channels: Tensor) -> Tensor:
        """(channels,) in a form that multiplies (n, *shape)."""
        return of_channels.view([1, *(size if axis == self.axis else 1 for axis, size in enumerate(self.shape))])

    def pack(self, release: Tensor) -> bytes:
        """A message to each server, in one file: all of them are counted."""
        channels = release.movedim(self.axis, 0).cpu()
        return save({str(server): channels[rows].contiguous() for server, rows in enumerate(self._rows())})

    def unpack(self, packed: bytes) -> Tensor:
        messages = load(packed)
        channels = torch.cat([messages[str(server)] for server in range(self.servers)])
        return channels[torch.cat(self._rows()).argsort()].movedim(0, self.axis)

    def _rows(self) -> list[Tensor]:
        """The channels of each server."""
        return [(self.owner == server).nonzero().flatten().cpu() for server in range(self.servers)]


class _Servers(nn.Module):
    """Features (n, *shape) -> logits (n, classes), by a copy of the tail for each share."""

    def __init__(self, tail: nn.Module, channel: _SharingChannel) -> None:
        super().__init__()
        with torch.no_grad():
            classes = tail(torch.zeros(1, *channel.shape, device=channel.mean.device)).shape[1]
        # the same module as on the device: its masks learn what the tails make of their shares
        self.channel = channel
        self.tails = nn.ModuleList(twin(tail) for _ in range(channel.servers))
        self.fusion = nn.Linear(channel.servers * classes, classes, device=channel.mean.device)
        with torch.no_grad():
            self.fusion.weight.copy_(torch.eye(classes).repeat(1, channel.servers) / channel.servers)
            self.fusion.bias.zero_()

    def forward(self, features: Tensor) -> Tensor:
        masks = self.channel.masks()
        logits = [tail(self.channel.share(features, mask)) for tail, mask in zip(self.tails, masks, strict=True)]
        fused: Tensor = self.fusion(torch.cat(logits, 1))
        return fused


def equal_shares(scores: Tensor) -> Tensor:
    """The server of each channel, (channels,), with the greatest total of scores (servers, channels) where each
    server gets as many channels as another, or one less where they do not divide."""
    servers, channels = scores.shape
    seats = torch.arange(channels) % servers
    gains = scores.detach().float().cpu().T[:, seats].numpy()
    return seats[torch.from_numpy(linear_sum_assignment(gains, maximize=True)[1])].to(scores.device)
