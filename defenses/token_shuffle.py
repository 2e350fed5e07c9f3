"""Send a transformer's tokens in an order drawn afresh for each photo."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from torch import Tensor

from splitleak.defenses.base import Channel
from splitleak.defenses.tokens import TokenDefense, aligned_mean
from splitleak.victims.settings import doc


@dataclass(frozen=True)
class TokenShuffle(TokenDefense):
    """A share of the tokens, drawn for each send, change places among themselves; a class token stays in front.

    Nobody is told the order, and the cloud does not put it back: behind the position embedding a transformer's
    blocks treat all places alike, so that the task hardly loses. For the same reason each token still carries where
    it stood, and who may query the device learns to read that: see the attack ``token_order``. With
    ``positions = false`` only what a patch shows is left to tell, which on pictures that are all laid out alike, as
    faces are, is much. Where a tail tells places apart (positions added again in each block, windows) the task pays.
    """

    paper: ClassVar[str] = (
        "Yao et al., Privacy-Preserving Split Learning via Patch Shuffling over Transformers, ICDM 2022; as a "
        "defence that is undone: SARA, arXiv 2609.01232, 2026"
    )
    strength: ClassVar[str] = "share"
    strengths: ClassVar[tuple[float, ...]] = (0.0, 0.5, 1.0)
    uses_photos: ClassVar[bool] = False

    share: Annotated[float, Ge(0), Le(1), doc("of the tokens that change places")] = 1.0

    def channel(self, shape: tuple[int, ...]) -> Channel:
        """Tokens (t, d) as they are, in another order."""
        front = self.in_front(shape)
        return _ShufflingChannel(front, round(self.share * (shape[0] - front)))


class _ShufflingChannel(Channel):
    def __init__(self, front: int, moved: int) -> None:
        super().__init__()
        self.front, self.moved = front, moved

    def send(self, features: Tensor) -> Tensor:
        images, tokens = features.shape[:2]
        drawn = torch.rand(images, tokens - self.front, device=features.device).argsort(1)[:, : self.moved]
        chosen = self.front + drawn
        order = torch.arange(tokens, device=features.device).repeat(images, 1)
        order = order.scatter(1, chosen.sort(1).values, chosen)
        return features.gather(1, order[..., None].expand_as(features))

    def merge(self, releases: Tensor) -> Tensor:
        """Sends of one image are told apart by their order only, and that is undone before the mean is taken."""
        return aligned_mean(releases, self.front)
