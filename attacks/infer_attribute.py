"""Reads a private attribute of the person from what is sent."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor, nn

from splitleak.attacks.base import Answer, AttributeInference
from splitleak.attacks.grid import as_grid, grid_shape
from splitleak.attacks.knowledge import AttackerPart, BlackBox
from splitleak.victims.embedding import PooledNetwork
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.settings import doc
from splitleak.victims.training import Batch, Shuffled, Training, adamw, train

BATCH = 64


@dataclass(frozen=True)
class InferAttribute(AttributeInference[BlackBox]):
    """Train a classifier of an attribute that is not the task, on releases.

    Classes weigh the same, however rare; fresh draws of the channel on each pass; the weights with the least
    validation loss are kept.
    """

    paper: ClassVar[str] = (
        "C. Song, V. Shmatikov, Overlearning Reveals Sensitive Attributes, ICLR 2020; the network is ours"
    )

    epochs: Annotated[int, Gt(0), doc("passes over the auxiliary photos")] = 10
    learning_rate: Annotated[float, Gt(0), doc("peak of the one-cycle schedule")] = 2e-3
    batch_size: Annotated[int, Gt(0), doc("photos per step")] = 32
    width: Annotated[int, Ge(8), doc("channels after the first convolution")] = 64

    @property
    def learns_from_copies(self) -> bool:
        """Always."""
        return True

    def fit(self, knows: BlackBox) -> Answer:
        """Train on the auxiliary photos whose attribute is known.

        Raises:
            InvalidInputError: these show fewer than two classes.
        """
        attribute = self.read(knows.task, knows.classes)
        assert attribute is not None  # it applies, and ``check`` found it
        labels = knows.labels["auxiliary"][attribute]
        counts = labels[labels >= 0].bincount(minlength=len(knows.classes[attribute]))
        if (counts > 0).sum() < 2:
            raise InvalidInputError(
                f"{self.name}: '{attribute}' is the same on all auxiliary photos; give more, or name another"
            )
        network = PooledNetwork(grid_shape(knows.release_shape), len(counts), self.width).to(knows.device)
        # nothing can be learned of a class that nobody shows
        weights = torch.where(counts > 0, counts.sum() / counts.clamp_min(1), 0.0).to(knows.device)
        self._train(network, knows, attribute, weights)
        network.requires_grad_(False)
        return lambda release: network(as_grid(release)).log_softmax(1)

    def _train(self, network: nn.Module, knows: BlackBox, attribute: str, weights: Tensor) -> None:
        def loss(model: nn.Module, batch: Batch) -> Tensor:
            release, labels = batch
            return F.cross_entropy(model(release), labels, weights)

        rows, labels = _known(knows, "validation", attribute, weights)

        def validation(model: nn.Module) -> float:
            scores = torch.cat([model(as_grid(knows.requery("validation", part))) for part in rows.split(BATCH)])
            return float(F.cross_entropy(scores, labels.to(scores.device), weights))

        examples = _Releases(knows, Shuffled(_known(knows, "auxiliary", attribute, weights), self.batch_size))
        recipe = adamw(self.learning_rate, self.epochs)
        training = Training(network, recipe.optimizer(network.parameters()), examples)
        train(training, recipe, loss, validation if len(rows) else None, knows.log)


def _known(knows: BlackBox, part: AttackerPart, attribute: str, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the part's photos whose class is known and can be learned, and their classes; int64 (k,) each."""
    labels = knows.labels[part][attribute]
    rows = ((labels >= 0) & (weights.cpu()[labels] > 0)).nonzero().flatten()
    return rows, labels[rows]


@dataclass(frozen=True)
class _Releases:
    """Re-iterable batches of (release grid, class), with fresh channel randomness on each pass."""

    knows: BlackBox
    rows_and_labels: Shuffled

    def __len__(self) -> int:
        return len(self.rows_and_labels)

    def __iter__(self) -> Iterator[Batch]:
        for rows, labels in self.rows_and_labels:
            yield as_grid(self.knows.examples(rows)[0]), labels
