"""What defences of a transformer's tokens share: which tokens stay in front, position embeddings, several sends."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from splitleak.defenses.base import Channel, Defense, needs_task
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.settings import doc
from splitleak.victims.splitting.twin import twin

POSITIONS = ("pos_embedding", "pos_embed")
"""What a network calls the embedding that it adds to its tokens: torchvision, timm."""


@dataclass(frozen=True, kw_only=True)
class TokenDefense(Defense, ABC):
    """Of tokens (n, t, d). A class token stays in front, where the tail reads the answer.

    ``positions = false`` takes the position embedding out of the encoder, and the whole network is trained on
    without: its blocks treat all places alike, so that a token tells where it stood only by what it shows.
    """

    positions: Annotated[bool, doc("false: no position embedding; the network is trained without it")] = True
    front: Annotated[
        int | None, Ge(0), doc("tokens in front that stay as they are; default: those beyond a square number")
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "retrains", "tail" if self.positions else "network")

    @abstractmethod
    def channel(self, shape: tuple[int, ...]) -> Channel:
        """For tokens (t, d)."""

    def inapplicable(self, shape: tuple[int, ...], task: str | None) -> str | None:
        """Where no tokens are sent, or too few; without a task, where it trains the network."""
        if len(shape) != 2:
            return f"{self.name} does not apply: it acts on tokens, and the victim sends none"
        if shape[0] - self.in_front(shape) < 2:
            return f"{self.name} does not apply: of {shape[0]} tokens {self.in_front(shape)} stay in front"
        return None if self.positions else needs_task(self.name, "changes training", task)

    def check(self, network: nn.Module, inputs: Tensor) -> None:
        """Without positions the network must have some to lose."""
        if not self.positions and not any(_places(network)):
            raise InvalidInputError(
                f"{self.name}.positions = False: what trains here has no parameter called "
                f"{' or '.join(POSITIONS)}; leave it at true, or let the encoder train"
            )

    def adapt(self, half: nn.Module) -> nn.Module:
        """Zeros that do not train in the place of its position embedding, where that is to go."""
        if self.positions:
            return half
        half = twin(half)
        for owner, name in _places(half):
            zeros = torch.zeros_like(getattr(owner, name), requires_grad=False)
            delattr(owner, name)
            owner.register_buffer(name, zeros)
        return half

    def in_front(self, shape: tuple[int, ...]) -> int:
        """How many tokens stay."""
        return shape[0] - math.isqrt(shape[0]) ** 2 if self.front is None else min(self.front, shape[0])


def _places(network: nn.Module) -> list[tuple[nn.Module, str]]:
    """The modules that hold a position embedding, and its name there."""
    return [
        (owner, name)
        for owner in network.modules()
        for name, _ in owner.named_parameters(recurse=False)
        if name.rpartition(".")[2] in POSITIONS
    ]


def aligned_mean(releases: Tensor, front: int) -> Tensor:
    """Several sends of one image in orders of their own, (n, sends, t, d): their mean in the order of the first.

    Each token of a later send is put beside the one of the first that it is nearest to, each to one of its own.
    Without noise all sends hold the same tokens, and this is the first send: the others tell nothing more.
    """
    first = releases[:, 0]
    total = first.clone()
    for later in releases.unbind(1)[1:]:
        distances = torch.cdist(first[:, front:].float(), later[:, front:].float()).cpu().numpy()
        order = torch.stack([torch.from_numpy(linear_sum_assignment(one)[1]) for one in distances]).to(first.device)
        moved = later[:, front:].gather(1, order[..., None].expand(-1, -1, later.shape[2]))
        total = total + torch.cat([later[:, :front], moved], 1)
    return total / releases.shape[1]


def merge_alike(tokens: Tensor, sizes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Merge those that are most alike until ``count`` are left, as ToMe does (Bolya et al., ICLR 2023).

    In each round every second token is a candidate, at most all of these go, those first whose nearest in direction
    among the others is nearest, and each goes into that one. A merged token is the mean of all that are in it.

    Args:
        tokens: (n, t, d).
        sizes: how many tokens each stands for, (n, t).

    Returns:
        Tokens (n, count, d) and their sizes (n, count).
    """
    while (size := tokens.shape[1]) > count:
        directions = F.normalize(tokens, dim=2)
        nearness, nearest = (directions[:, ::2] @ directions[:, 1::2].transpose(1, 2)).max(2)
        go = min(size - count, nearness.shape[1])
        order = nearness.argsort(1, descending=True)
        going, staying, target = order[:, :go], order[:, go:], nearest.gather(1, order[:, :go])
        sums = tokens * sizes[..., None]
        inside = sums[:, 1::2].scatter_add(1, _wide(target, tokens), _at(sums[:, ::2], going))
        grown = sizes[:, 1::2].scatter_add(1, target, sizes[:, ::2].gather(1, going))
        tokens = torch.cat([_at(tokens[:, ::2], staying), inside / grown[..., None]], 1)
        sizes = torch.cat([sizes[:, ::2].gather(1, staying), grown], 1)
    return tokens, sizes


def _wide(rows: Tensor, like: Tensor) -> Tensor:
    return rows[..., None].expand(-1, -1, like.shape[2])


def _at(tokens: Tensor, rows: Tensor) -> Tensor:
    return tokens.gather(1, _wide(rows, tokens))
