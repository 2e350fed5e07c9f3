"""An embedder that the attacker trains on its own photos: a loss that looks at what is on a picture."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitleak.attacks.knowledge import QueryFree
from splitleak.victims.embedding import Embedder, Portraits, train_embedder
from splitleak.victims.moving import moved
from splitleak.victims.tensors import to_float
from splitleak.victims.training import adamw

WIDTH, EPOCHS, LEARNING_RATE = 16, 15, 2e-3
SHOWN = 2
"""Copies of each photo in a pass: who is on a single photo has a second one so."""


class Acquainted(nn.Module):
    """Images (n, 3, h, w) in [0, 1] -> embeddings (n, 128) of length one, near where the same is shown.

    Trained with the supervised contrastive loss on moved copies of the auxiliary photos. The same is shown where
    it is the same photo, and with ``people`` where it is the same person, as far as that is known. It learns from
    the attacker's photos alone, so that all defences share it, and is not the judge's.
    """

    def __init__(self, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.network = Embedder(image_shape, WIDTH)

    @classmethod
    def of(cls, knows: QueryFree, people: bool) -> "Acquainted":
        """Trained or recalled, in eval mode and frozen."""

        def build() -> dict[str, Tensor]:
            made = cls(knows.image_shape).to(knows.device)
            examples = _portraits(knows, people)
            held_out = _people(knows, "validation") if people else Portraits(torch.empty(0), lambda rows: rows)
            train_embedder(made.network, examples, held_out, adamw(LEARNING_RATE, EPOCHS), knows.log)
            return made.state_dict()

        state = knows.remember(f"embedder of {'people' if people else 'photos'}", build, about="images")
        embedder = cls(knows.image_shape).to(knows.device)
        embedder.load_state_dict(state)
        return embedder.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Embed."""
        embeddings: Tensor = self.network(images)
        return embeddings

    def features(self, images: Tensor) -> Iterator[Tensor]:
        """The maps after each activation, of length one at each place."""
        maps = images
        for layer in self.network.layers:
            maps = layer(maps)
            if isinstance(layer, nn.ReLU):
                yield F.normalize(maps, dim=1)

    def difference(self, images: Tensor, others: Tensor) -> Tensor:
        """How different images look to it: the mean over its layers of the mean squared distance at a place.

        As LPIPS (Zhang et al., CVPR 2018), with a network that saw the attacker's photos only, and no weights
        fitted to people's judgements. A scalar in [0, 4].
        """
        pairs = zip(self.features(images), self.features(others), strict=True)
        return torch.stack([(one - other).square().sum(1).mean() for one, other in pairs]).mean()


def _portraits(knows: QueryFree, people: bool) -> Portraits:
    """Each auxiliary photo ``SHOWN`` times, each time moved anew."""
    photos = knows.images["auxiliary"]
    shown = torch.arange(len(photos))
    if people:
        assert knows.identities is not None  # whoever asks for people declares that
        who = knows.identities["auxiliary"]
        shown = torch.where(who >= 0, who, int(who.max()) + 1 + shown)  # an unknown face is a person of its own

    def inputs(rows: Tensor) -> Tensor:
        return moved(to_float(photos[rows % len(photos)].to(knows.device)))

    return Portraits(shown.repeat(SHOWN), inputs)


def _people(knows: QueryFree, part: str) -> Portraits:
    assert knows.identities is not None
    photos = knows.images["validation"]
    return Portraits(knows.identities["validation"], lambda rows: to_float(photos[rows].to(knows.device)))
