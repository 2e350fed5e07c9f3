"""MyAttack: rebuilds photos from the features of split inference."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch.nn.functional as F
from annotated_types import Gt
from torch import Tensor, nn

from splitleak.attacks.base import Reconstruction, Reconstructor
from splitleak.attacks.knowledge import BlackBox
from splitleak.attacks.learning import learned
from splitleak.attacks.needs import Requirement
from splitleak.victims.settings import doc
from splitleak.victims.training import Batch, adamw


# A frozen dataclass: its fields are the settings, which may not change once it is made. The base says what the attack
# answers with (Reconstruction: images, Linkage: embeddings, AttributeInference: scores), its parameter what the
# adversary must know: QueryFree (nothing of the device), BlackBox (may have it encode photos), WhiteBox (has its
# weights). ``fit`` gets an object of that kind and nothing else; attacks/knowledge.py lists what is in it.
@dataclass(frozen=True)
class MyAttack(Reconstruction[BlackBox]):
    """Train two dense layers to map releases back to the adversary's own photos."""

    # Facts of the class. paper: where the idea is from. An attack that searches for each photo anew also says
    # per_image = True, and a plan may give it fewer of them.
    paper: ClassVar[str] = "ours"
    # What it must have beyond its photos, the releases and what its kind of knowledge implies: "tail", "labels",
    # "identities", "several sends" or "tokens". Where one of them is not there, the attack does not apply; what it
    # uses without declaring it, ``splitleak check`` finds. ``lacks(scene)`` may add needs of another kind.
    requires: ClassVar[frozenset[Requirement]] = frozenset()

    # A setting: its type, its range (annotated_types: Ge, Gt, Le, Lt), what it means, its default. A plan that
    # gives another type or a value out of range is refused before anything runs.
    hidden: Annotated[int, Gt(0), doc("width of the hidden layer")] = 256
    epochs: Annotated[int, Gt(0), doc("passes over the auxiliary photos")] = 20
    learning_rate: Annotated[float, Gt(0), doc("peak of the one-cycle schedule")] = 1e-3

    # The only method that there must be. Random state is seeded by the caller, and whatever the adversary holds must
    # be left as it was found. ``check(scene)`` may refuse settings that ask for what there is not.
    def fit(self, knows: BlackBox) -> Reconstructor:
        """Train on pairs of release and photo; the answer maps releases (n, ...) to images (n, 3, h, w) in [0, 1]."""
        network = nn.Sequential(
            nn.Flatten(),
            nn.Linear(math.prod(knows.release_shape), self.hidden),
            nn.GELU(),
            nn.Linear(self.hidden, math.prod(knows.image_shape)),
            nn.Sigmoid(),
            nn.Unflatten(1, knows.image_shape),
        ).to(knows.device)

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            release, images = batch
            return F.mse_loss(model(release), images)

        # Each pass asks the device anew, so that random defences cannot be learned by heart. The weights with the
        # least loss on the validation photos are kept: no target photo is in reach.
        examples, held_out = knows.pairs("auxiliary"), knows.pairs("validation", shuffle=False)
        learned(network, adamw(self.learning_rate, self.epochs), examples, held_out, loss, knows)
        return network.requires_grad_(False)


# `splitleak check FILE` says whether the file keeps its contract. A card beside it, NAME.toml by the attack's name in
# `splitleak show`, may tell what its source claims, what you measured, and what effort = "quick" or "published" means
# in a plan; that of a built-in attack is one to start from.
# In a plan, where a path begins at the plan's folder or where the command runs:
#
#   [[attacks]]
#   name = "FILE:MyAttack"
#   hidden = [128, 512]  # a list sweeps
