"""Which token shows which patch of a photo, for an adversary who has the photo and tokens in an unknown order."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from splitleak.attacks.knowledge import AttackerPart, BlackBox
from splitleak.attacks.linear import Map, linear_map

SHADES = 2
"""A patch is known by the mean colours of so many squares along each side."""
ROUNDS = 3
"""In which tokens are matched with patches, and the map from one to the other is fitted to the matches."""


def assigned(scores: Tensor) -> Tensor:
    """The columns (n, rows) that rows get, each a column of its own, with the greatest total; (n, rows, columns).

    Kuhn, The Hungarian Method for the Assignment Problem, Naval Research Logistics 1955.
    """
    found = [linear_sum_assignment(one, maximize=True) for one in scores.detach().float().cpu().numpy()]
    return torch.stack([torch.from_numpy(columns) for _, columns in found]).to(scores.device)


def shades(images: Tensor, side: int) -> Tensor:
    """Mean colours of the patches of photos (n, 3, h, w): (n, side^2, 3 * SHADES^2)."""
    return F.unfold(F.adaptive_avg_pool2d(images, side * SHADES), SHADES, stride=SHADES).transpose(1, 2)


@dataclass(frozen=True)
class Matcher:
    """(tokens (n, t, d), their photos) -> how well each token's patch fits each place, (n, t, side^2), 0 at best.

    ``shade``: a linear map from a token to the colours of its patch.
    """

    shade: Map
    side: int

    def __call__(self, tokens: Tensor, images: Tensor) -> Tensor:
        """Minus the squared distance between the colours that a token tells and those of each patch."""
        told = self.shade(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
        return -torch.cdist(told, shades(images, self.side)).square()

    @classmethod
    def learned(cls, knows: BlackBox, side: int) -> "Matcher":
        """From photos whose tokens come in an unknown order.

        The mean of a photo's tokens does not depend on their order: a linear map takes it to the mean patch, and
        each token to its own. So begun, tokens and patches are matched, and the map is fitted to the matches.
        """

        def means(part: AttackerPart) -> Iterator[tuple[Tensor, Tensor]]:
            for tokens, images in knows.pairs(part, shuffle=False):
                yield tokens.mean(1), shades(images, side).mean(1)

        count = len(knows.images["auxiliary"])
        matcher = cls(_mapped(means, count, knows), side)
        for _ in range(ROUNDS):
            matcher = cls(_mapped(matcher._matches(knows), count * knows.release_shape[0], knows), side)
        return matcher

    def _matches(self, knows: BlackBox) -> Callable[[AttackerPart], Iterator[tuple[Tensor, Tensor]]]:
        """Tokens and the colours of the patches that they are matched with."""

        def matches(part: AttackerPart) -> Iterator[tuple[Tensor, Tensor]]:
            for tokens, images in knows.pairs(part, shuffle=False):
                places = places_of(self(tokens, images))
                of_patch = places < self.side**2
                told = shades(images, self.side).gather(
                    1, places.clamp_max(self.side**2 - 1)[..., None].expand(-1, -1, 3 * SHADES**2)
                )
                yield tokens[of_patch], told[of_patch]

        return matches


def places_of(scores: Tensor) -> Tensor:
    """The place (n, t) of each token by scores (n, t, places): a place for one token only, and ``places`` for tokens
    that are more than there are places, as a class token: those that fit worst."""
    tokens, places = scores.shape[1:]
    if tokens <= places:
        return assigned(scores)
    nowhere = (scores.min() - 1).expand(len(scores), tokens, tokens - places)
    return assigned(torch.cat([scores, nowhere], 2)).clamp_max(places)


def _mapped(batches: Callable[[AttackerPart], Iterator[tuple[Tensor, Tensor]]], rows: int, knows: BlackBox) -> Map:
    """The linear map with the least error on the validation part."""
    held_out = list(batches("validation"))

    def error(linear: Map) -> float:
        errors = [float((linear(inputs) - outputs).square().sum()) for inputs, outputs in held_out]
        return sum(errors) / sum(outputs.numel() for _, outputs in held_out)

    return linear_map(batches("auxiliary"), rows, error, knows.log)
