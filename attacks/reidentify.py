"""Links releases of the same person without rebuilding a photo."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le
from torch import Tensor

from splitleak.attacks.base import Answer, Linkage, Scene
from splitleak.attacks.grid import as_grid, grid_shape
from splitleak.attacks.knowledge import AttackerPart, BlackBox
from splitleak.attacks.linear import Map, linear_map
from splitleak.victims.embedding import Embedder, Portraits, augmented, train_embedder
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.files import WEIGHTS_VARIABLE, find_file
from splitleak.victims.onnx_embedder import ONNX_FILE, OnnxEmbedder, central, check_onnx
from splitleak.victims.settings import doc
from splitleak.victims.tensors import BATCH, to_float
from splitleak.victims.training import adamw

ASKED = "reidentify.teacher"
PARTS: tuple[AttackerPart, ...] = ("auxiliary", "validation")


@dataclass(frozen=True)
class Reidentify(Linkage[BlackBox]):
    """Train a network whose embeddings of two releases are near where they show the same person.

    It learns from auxiliary people with at least two photos, on fresh draws of the channel; the weights are kept
    that do best on the people of the validation part, whom it has not seen.

    With a ``teacher``, a public embedder of faces, it also learns a linear map: from the release to what the
    teacher says of the photo, in closed form, of any auxiliary photo, whoever is on it. The teacher has seen more
    people than the attacker has photos of.
    """

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

    teacher: Annotated[
        str | None,
        doc("ONNX file of a public face embedder, whose embeddings a linear map then predicts"),
    ] = None
    teacher_alone: Annotated[bool, doc("otherwise distances are summed with those of the trained network")] = False
    teacher_crop: Annotated[
        float, Gt(0), Le(1), doc("side of the central square that the teacher is shown, as a share of the photo's")
    ] = 1.0

    @property
    def learns_from_copies(self) -> bool:
        """Always."""
        return True

    def files(self) -> tuple[Path, ...]:
        """The teacher."""
        return (find_file(self.teacher, ONNX_FILE, WEIGHTS_VARIABLE),) if self.teacher else ()

    def check(self, scene: Scene) -> None:
        """The teacher must be a model of images."""
        if self.teacher:
            check_onnx(self.teacher, ASKED)

    def fit(self, knows: BlackBox) -> Answer:
        """Train on the auxiliary part, and predict the teacher's embeddings.

        Raises:
            InvalidInputError: unless the teacher is alone, fewer than two people are on two auxiliary photos.
        """
        if not self.teacher:
            return self._trained(knows)
        taught = self._taught(self.teacher, knows)
        if self.teacher_alone:
            return taught
        trained = self._trained(knows)
        return lambda release: torch.cat([taught(release), trained(release)], 1) / math.sqrt(2)

    def _taught(self, teacher: str, knows: BlackBox) -> Answer:
        embed = OnnxEmbedder(teacher, ASKED)
        known = {part: self._embedded(embed, knows, part) for part in PARTS}
        usual = known["auxiliary"].mean(0)  # what faces have in common would drown what sets them apart

        def batches(part: AttackerPart) -> Iterator[tuple[Tensor, Tensor]]:
            said = (known[part] - usual).split(BATCH)
            for (release, _), some in zip(knows.pairs(part, BATCH, shuffle=False), said, strict=True):
                yield release.flatten(1), some

        held_out = list(batches("validation"))

        def error(linear: Map) -> float:
            angles = [F.cosine_similarity(linear(release), said) for release, said in held_out]
            return float(1 - torch.cat(angles).mean())

        linear = linear_map(batches("auxiliary"), len(knows.images["auxiliary"]), error, knows.log)
        return lambda release: F.normalize(linear(release.flatten(1)), dim=1)

    def _embedded(self, embed: OnnxEmbedder, knows: BlackBox, part: AttackerPart) -> Tensor:
        """What the teacher says of a part's photos, (n, d) of length one."""
        said = [embed(central(images, self.teacher_crop)) for images in knows.image_batches(part)]
        return F.normalize(torch.cat(said), dim=1).to(knows.device)

    def _trained(self, knows: BlackBox) -> Answer:
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
