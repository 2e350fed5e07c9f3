"""Links releases of the same person without rebuilding a photo."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt
from torch import Tensor

from splitleak.attacks.base import Answer, Linkage
from splitleak.attacks.grid import as_grid, grid_shape
from splitleak.attacks.knowledge import AttackerPart, BlackBox
from splitleak.victims.embedding import Embedder, Portraits, augmented, train_embedder
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.settings import doc
from splitleak.victims.tensors import to_float
from splitleak.victims.training import adamw


@dataclass(frozen=True)
class Reidentify(Linkage[BlackBox]):
    """Train a network whose embeddings of two releases are near where they show the same person.

    It learns from auxiliary people with at least two photos, on fresh draws of the channel; the weights are kept
    that do best on the people of the validation part, whom it has not seen.
    """

    learns_from_copies: ClassVar[bool] = True
    paper: ClassVar[str] = (
        "ours: embeddings of what is sent; loss: P. Khosla et al., Supervised Contrastive Learning, NeurIPS 2020; "
        "batches: A. Hermans, L. Beyer, B. Leibe, In Defense of the Triplet Loss, 2017"
    )

    epochs: Annotated[int, Gt(0), doc("passes over the auxiliary photos")] = 15
    learning_rate: Annotated[float, Gt(0), doc("peak of the one-cycle schedule")] = 2e-3
    width: Annotated[int, Ge(8), doc("channels after the first convolution")] = 64
    augment: Annotated[
        bool, doc("have photos encoded anew, mirrored and moved, on each pass: stronger from 30 epochs on, slower")
    ] = False

    def fit(self, knows: BlackBox) -> Answer:
        """Train on the auxiliary part.

        Raises:
            InvalidInputError: fewer than two people are on two auxiliary photos.
        """
        network = Embedder(grid_shape(knows.release_shape), self.width).to(knows.device)
        examples, held_out = (self._portraits(knows, part) for part in ("auxiliary", "validation"))
        if len(examples.people) < 2:
            raise InvalidInputError(
                f"{self.name}: fewer than two people are on two auxiliary photos; use more photos"
            )
        train_embedder(network, examples, held_out, adamw(self.learning_rate, self.epochs), knows.log)
        network.requires_grad_(False)
        return lambda release: network(as_grid(release))

    def _portraits(self, knows: BlackBox, part: AttackerPart) -> Portraits:
        assert knows.identities is not None  # it requires them

        def releases(rows: Tensor) -> Tensor:
            if self.augment and part == "auxiliary":
                photos = to_float(knows.images[part][rows].to(knows.device))
                return as_grid(knows.query(augmented(photos)))
            return as_grid(knows.examples(rows)[0] if part == "auxiliary" else knows.requery(part, rows))

        return Portraits(knows.identities[part], releases)
