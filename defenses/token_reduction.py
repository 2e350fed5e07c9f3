"""Send fewer tokens: those that are alike are merged on the device."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt, Le
from torch import Tensor

from splitleak.defenses.base import Channel
from splitleak.defenses.tokens import TokenDefense, aligned_mean, merge_alike
from splitleak.victims.settings import doc


@dataclass(frozen=True)
class TokenReduction(TokenDefense):
    """Tokens that are alike are merged into their mean until a share is left; a class token stays in front.

    With each token travels, as one feature more, how many it stands for, and the cloud repeats it so often: to a
    transformer's blocks that is what ToMe calls proportional attention, exactly. What is merged is the detail in
    places that look alike; what stands out is sent as it is. Tokens come in the order of the merging, not of the
    picture; where each belongs can be read from it as after a shuffle, unless ``positions = false``. Nothing is
    drawn, so several sends of a photo are one.
    """

    paper: ClassVar[str] = (
        "merging: Bolya et al., Token Merging: Your ViT But Faster, ICLR 2023; as a defence: SARA, arXiv 2609.01232, "
        "2026"
    )
    strength: ClassVar[str] = "keep"
    strengths: ClassVar[tuple[float, ...]] = (1.0, 0.75, 0.5, 0.25)
    uses_photos: ClassVar[bool] = False

    keep: Annotated[float, Gt(0), Le(1), doc("share of the tokens that is left to send")] = 0.5

    def channel(self, shape: tuple[int, ...]) -> Channel:
        """At least one token beside those in front is always sent."""
        front = self.in_front(shape)
        return _MergingChannel(shape[0], front, max(1, round(self.keep * (shape[0] - front))))


class _MergingChannel(Channel):
    """Release (n, front + count, d + 1), the last feature of each token how many it stands for."""

    def __init__(self, tokens: int, front: int, count: int) -> None:
        super().__init__()
        self.tokens, self.front, self.count = tokens, front, count

    def send(self, features: Tensor) -> Tensor:
        ones = features.new_ones(features.shape[:2])
        merged, sizes = merge_alike(features[:, self.front :], ones[:, self.front :], self.count)
        tokens = torch.cat([features[:, : self.front], merged], 1)
        return torch.cat([tokens, torch.cat([ones[:, : self.front], sizes], 1)[..., None]], 2)

    def receive(self, release: Tensor) -> Tensor:
        tokens, sizes = release[..., :-1], release[:, self.front :, -1]
        # the middles of the places to fill: noise on a size, from another defence behind this one, moves few
        middles = torch.arange(self.tokens - self.front, device=release.device).expand(len(release), -1) + 0.5
        ends = sizes.detach().float().clamp_min(0).cumsum(1)
        source = torch.searchsorted(ends, middles.contiguous()).clamp_max(self.count - 1)
        repeated = tokens[:, self.front :].gather(1, source[..., None].expand(-1, -1, tokens.shape[2]))
        return torch.cat([tokens[:, : self.front], repeated], 1)

    def merge(self, releases: Tensor) -> Tensor:
        """Behind a part that draws at random, sends may be merged in orders of their own."""
        return aligned_mean(releases, self.front)
