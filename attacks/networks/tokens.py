"""Transformers over tokens: where each one belongs, and what stood where none arrived."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

HEADS, LAYERS, WIDER = 4, 2, 2
"""Of a transformer; by what factor its hidden layers are wider than a token."""
DEVIATION = 0.02
"""Of position embeddings and of the token for what is missing, at the start."""


class Standard(nn.Module):
    """Tokens (n, t, d) less their mean, in units of each feature's deviation; see ``measure``."""

    centre: Tensor
    spread: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))

    @torch.no_grad()
    def measure(self, batches: Iterable[Tensor]) -> None:
        """Take mean and deviation over these tokens, batches of (n, t, d)."""
        total, squares = (torch.zeros_like(self.centre, dtype=torch.float64) for _ in range(2))
        count = 0
        for tokens in batches:
            rows = tokens.flatten(0, 1).double()
            total, squares, count = total + rows.sum(0), squares + rows.square().sum(0), count + len(rows)
        self.centre.copy_(total / count)
        deviation = (squares / count - (total / count).square()).clamp_min(0).sqrt()
        self.spread.copy_(deviation.clamp_min(1e-3 * float(deviation.mean()) or 1.0))

    def forward(self, tokens: Tensor) -> Tensor:
        """To standard units."""
        return (tokens - self.centre) / self.spread

    def back(self, standard: Tensor) -> Tensor:
        """What ``forward`` was given."""
        return standard * self.spread + self.centre


class Positions(nn.Module):
    """Tokens (n, t, d) in any order -> scores (n, t, places): a linear layer, two of a transformer, a linear layer.

    Nothing tells it in what order they came: whatever it knows of a place it reads from the tokens.
    """

    def __init__(self, features: int, places: int, width: int) -> None:
        super().__init__()
        self.standard = Standard(features)
        self.layers = nn.Sequential(nn.Linear(features, width), _transformer(width), nn.Linear(width, places))

    def forward(self, tokens: Tensor) -> Tensor:
        """Score."""
        scores: Tensor = self.layers(self.standard(tokens))
        return scores


class Filler(nn.Module):
    """A masked autoencoder: tokens at their places (n, places, d) with ``there`` (n, places) -> all tokens.

    Tokens are taken and given in standard units; those that are there are given as they are.
    """

    def __init__(self, features: int, places: int, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(features, width), nn.Linear(width, features)
        self.missing = nn.Parameter(DEVIATION * torch.randn(width))
        self.places = nn.Parameter(DEVIATION * torch.randn(places, width))
        self.layers = _transformer(width)

    def forward(self, tokens: Tensor, there: Tensor) -> Tensor:
        """Fill in."""
        seen = torch.where(there[..., None], self.first(tokens), self.missing) + self.places
        return torch.where(there[..., None], tokens, self.last(self.layers(seen)))


def _transformer(width: int) -> nn.Module:
    layer = nn.TransformerEncoderLayer(width, HEADS, WIDER * width, dropout=0.0, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
