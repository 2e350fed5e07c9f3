"""Metric learning: networks that put photos, or what was sent of them, near one another where people are the same."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitleak.victims.training import Batch, History, Log, Recipe, Training, train

DIMENSIONS = 128
TEMPERATURE = 0.1
"""Of the supervised contrastive loss (Khosla et al., NeurIPS 2020, section 4)."""
PEOPLE, PHOTOS = 16, 4
"""Different people in a batch, and how many photos of each at most."""
LARGE_SIDE, LEAST_SIDE = 16, 4
"""A network halves a grid wider than the first number at once, and goes on until it has the second."""
MOST_DOUBLINGS = 2
LARGEST_SHIFT = 1 / 16
"""Of a photo's side: how far ``augmented`` moves it."""


class PooledNetwork(nn.Module):
    """A grid (n, channels, rows, columns) -> (n, outputs): convolutions, the mean over places, a linear layer.

    Args:
        shape: (channels, rows, columns) of one input.
        outputs: length of one output.
        width: channels after the first convolution; each halving doubles them, twice at most.
    """

    def __init__(self, shape: tuple[int, int, int], outputs: int, width: int) -> None:
        super().__init__()
        channels, side = shape[0], max(shape[1:])
        layers: list[nn.Module] = [nn.BatchNorm2d(channels)]  # releases come at any scale
        strides = [2 if side > LARGE_SIDE else 1]
        while (remaining := math.ceil(side / math.prod(strides))) > LEAST_SIDE:
            strides.append(2)
        kernel = 3 if remaining > 1 else 1
        for step, stride in enumerate([*strides, 1]):
            into = width * 2 ** min(step, MOST_DOUBLINGS)
            convolution = nn.Conv2d(channels, into, kernel, stride, padding=kernel // 2, bias=False)
            layers += [convolution, nn.BatchNorm2d(into), nn.ReLU(inplace=True)]
            channels = into
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(channels, outputs)

    def forward(self, grid: Tensor) -> Tensor:
        """(n, outputs)."""
        outputs: Tensor = self.head(self.layers(grid).mean((2, 3)))
        return outputs.float()


class Embedder(PooledNetwork):
    """A grid (n, channels, rows, columns) -> embeddings (n, 128) of length one."""

    def __init__(self, shape: tuple[int, int, int], width: int) -> None:
        super().__init__(shape, DIMENSIONS, width)

    def forward(self, grid: Tensor) -> Tensor:
        """(n, 128)."""
        return F.normalize(super().forward(grid), dim=1)


def supervised_contrastive(embeddings: Tensor, identities: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, eq. 2 (the sum outside the logarithm).

    For each photo with another one of the same person in the batch: the mean over those of
    -log softmax(similarity / temperature), where the softmax is over all other photos; then the mean over photos.

    Args:
        embeddings: (n, d) of length one.
        identities: int64 (n,); somebody must be there twice.
    """
    oneself = torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    with torch.autocast(embeddings.device.type, enabled=False):  # a small temperature magnifies rounding
        similarity = (embeddings @ embeddings.T / temperature).masked_fill(oneself, -math.inf)
    log_share = similarity.log_softmax(1).masked_fill(oneself, 0)
    same = (identities[:, None] == identities) & ~oneself
    counts = same.sum(1)
    loss: Tensor = -((log_share * same).sum(1)[counts > 0] / counts[counts > 0]).mean()
    return loss


def photographed_twice(identities: Tensor) -> Tensor:
    """Whether another photo shows the same known person: int64 (n,), -1 where unknown -> bool (n,)."""
    _, person, counts = identities.unique(return_inverse=True, return_counts=True)
    twice: Tensor = (counts[person] > 1) & (identities >= 0)
    return twice


@dataclass(frozen=True)
class Portraits:
    """Photos and who is on them.

    ``identities``: int64 (n,), -1 where unknown. ``inputs``: rows (k,) -> what a network takes for these photos,
    (k, channels, rows, columns).
    """

    identities: Tensor
    inputs: Callable[[Tensor], Tensor]

    @property
    def usable(self) -> Tensor:
        """Rows of the photos whose person is on another one too."""
        return photographed_twice(self.identities).nonzero().flatten()

    @property
    def people(self) -> Tensor:
        """Who is on the usable photos, each once."""
        people: Tensor = self.identities[self.usable].unique()
        return people

    def batch(self, rows: Tensor) -> Batch:
        """(inputs, identities)."""
        return self.inputs(rows), self.identities[rows]


@dataclass(frozen=True)
class PeopleBatches:
    """Batches of 16 random people with up to 4 random photos each (Hermans, Beyer, Leibe, 2017, section 2).

    Every person is as likely as any other, however many photos there are. One pass has about as many photos as
    the part has usable ones; randomness comes from torch's global state.
    """

    portraits: Portraits

    def __len__(self) -> int:
        return math.ceil(len(self.portraits.usable) / (PEOPLE * PHOTOS))

    def __iter__(self) -> Iterator[Batch]:
        usable = self.portraits.usable
        _, counts = self.portraits.identities[usable].sort().values.unique_consecutive(return_counts=True)
        people = usable[self.portraits.identities[usable].argsort(stable=True)].split(counts.tolist())
        for _ in range(len(self)):
            drawn = [people[person] for person in torch.randperm(len(people))[:PEOPLE]]
            yield self.portraits.batch(torch.cat([rows[torch.randperm(len(rows))[:PHOTOS]] for rows in drawn]))


def train_embedder(
    network: Embedder, examples: Portraits, held_out: Portraits, recipe: Recipe, log: Log | None = None
) -> History:
    """Train on the supervised contrastive loss; the weights with the least of it on held-out people are kept.

    Where nobody is on two held-out photos, the last weights stay.

    Raises:
        ValueError: the examples do not show two people twice.
    """
    if len(examples.people) < 2:
        raise ValueError("an embedder learns from people with at least two photos each, and needs two such people")
    device = next(network.parameters()).device

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        inputs, identities = batch
        return supervised_contrastive(model(inputs), identities)

    def validation(model: nn.Module) -> float:
        chunks = held_out.usable.split(PEOPLE * PHOTOS)
        embeddings = torch.cat([model(held_out.inputs(rows).to(device)) for rows in chunks])
        return float(supervised_contrastive(embeddings, held_out.identities[held_out.usable].to(device)))

    training = Training(network, recipe.optimizer(network.parameters()), PeopleBatches(examples))
    return train(training, recipe, loss, validation if len(held_out.usable) else None, log)


def augmented(images: Tensor) -> Tensor:
    """Images (n, 3, h, w) in [0, 1], half of them mirrored, all moved by up to a sixteenth of their sides."""
    height, width = images.shape[2:]
    mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    margins = (round(height * LARGEST_SHIFT), round(width * LARGEST_SHIFT))
    padded = F.pad(
        torch.where(mirrored, images.flip(3), images), (margins[1],) * 2 + (margins[0],) * 2, mode="replicate"
    )
    top, left = (int(torch.randint(2 * margin + 1, ())) for margin in margins)
    return padded[:, :, top : top + height, left : left + width]
