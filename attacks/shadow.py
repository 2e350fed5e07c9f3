"""A shadow of the edge device: what attacks share that train an encoder of their own and invert that instead."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from splitleak.attacks.base import Reconstruction, Reconstructor, Scene
from splitleak.attacks.decoder import Decoder
from splitleak.attacks.edge import PlainEdge
from splitleak.attacks.knowledge import About, AttackerPart, Memo, QueryFree, WhiteBox
from splitleak.attacks.needs import Requirement
from splitleak.attacks.rmle import Rmle
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.settings import doc
from splitleak.victims.tensors import to_float

SEARCH_RATE, SQUARED = 0.1, 2.0
"""Of a search: Adam's rate, and the exponent of total variation, as in the code of He, Zhang and Lee (ACSAC 2019)."""
ROUND = 50
"""Steps between two rows of the log, and between two looks at the validation photos."""


@dataclass(frozen=True)
class Received:
    """What the tail was given for the intercepted releases.

    ``features``: float32 (m, *shape), in the space that the tail takes. ``varies``: bool (*shape), false where all
    m are equal, as where a defence keeps a channel back and the cloud fills the gap with a constant.
    """

    features: Tensor
    varies: Tensor

    @classmethod
    def by(cls, knows: QueryFree) -> "Received":
        """What this adversary intercepted."""
        with torch.no_grad():
            features = knows.receive(knows.intercepted).float()
        return cls(features, (features != features[:1]).any(0))

    def like(self, features: Tensor) -> Tensor:
        """Features (n, *shape) of an encoder, without those that no release tells."""
        return torch.where(self.varies, features.float(), self.features[0])


class Shadow(nn.Module):
    """An encoder in the edge device's place: images (n, 3, h, w) in [0, 1] -> features (n, *shape).

    Untrained at first; differentiable. The defence stands around it as around the device's own, as far as it is
    known: where that draws, each call draws anew.
    """

    def __init__(self, knows: QueryFree) -> None:
        super().__init__()
        self.encoder = knows.new_encoder().to(knows.device)
        self.received = Received.by(knows)
        self.as_received = knows.as_received

    def forward(self, images: Tensor) -> Tensor:
        """What the tail would be given for these images."""
        return self.received.like(self.as_received(self.encoder, images))

    def undrawn(self, images: Tensor) -> Tensor:
        """The same without the defence."""
        return self.received.like(self.encoder(images))

    @classmethod
    def recalled(cls, knows: QueryFree, what: str, trained: Callable[["Shadow"], Mapping[str, Tensor]]) -> Self:
        """A shadow in the state that ``trained`` makes of an untrained one, or an earlier attack made; frozen."""
        state = knows.remember(what, lambda: trained(cls(knows)))
        shadow = cls(knows)
        shadow.load_state_dict(state)
        return shadow.eval().requires_grad_(False)


class LabelDriven(Reconstruction[QueryFree]):
    """Learns from labelled photos what a trained tail expects of an encoder."""

    requires: ClassVar[frozenset[Requirement]] = frozenset({"tail", "labels"})

    def lacks(self, scene: Scene) -> Iterator[tuple[str, str]]:
        """The tail must have learned something, and what the labels of photos tell."""
        if scene.task is None:
            yield "a tail that was trained on labels", "the victim has no task"
        elif not scene.classes:
            yield "a tail that tells one class of each photo", "this one tells something else"
        yield from super().lacks(scene)

    def _labelled(self, knows: QueryFree, part: AttackerPart) -> tuple[Tensor, Tensor]:
        """The photos of a part whose label of the task is known, as bytes, and these labels.

        Raises:
            InvalidInputError: there are none.
        """
        labels = knows.labels[part][knows.task] if knows.task else torch.empty(0)
        known = (labels >= 0).nonzero().flatten()
        if not len(known):
            raise InvalidInputError(f"{self.name}: no photo of the {part} part carries a label of the task")
        return knows.images[part][known], labels[known]


@dataclass(frozen=True)
class Draws:
    """A round of random batches, equally many of the adversary's own and of what was received.

    ``own``, ``theirs``: aligned tensors each; a batch is (own rows..., rows of theirs...).
    """

    own: tuple[Tensor, ...]
    theirs: tuple[Tensor, ...]
    batch_size: int

    def __len__(self) -> int:
        return ROUND

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        count = min(self.batch_size, len(self.own[0]), len(self.theirs[0]))
        for _ in range(ROUND):
            yield tuple(part[rows] for side in (self.own, self.theirs) for rows, part in _aligned(side, count))


def _aligned(side: tuple[Tensor, ...], count: int) -> Iterator[tuple[Tensor, Tensor]]:
    rows = torch.randperm(len(side[0]))[:count]
    return ((rows.to(part.device), part) for part in side)


@dataclass(frozen=True)
class ShadowAttack(Reconstruction[QueryFree]):
    """Trains a shadow without asking the device anything, then inverts it as if it were the device."""

    requires: ClassVar[frozenset[Requirement]] = frozenset({"tail"})

    width: Annotated[int, Ge(16), doc("of the residual decoder that inverts the shadow")] = 128
    decoder_epochs: Annotated[int | None, Gt(0), doc("of that decoder; default as there")] = None
    inversion: Annotated[
        Literal["decoder", "search"],
        doc("by that decoder, or by a search for each photo as rmle makes, as published"),
    ] = "decoder"
    search_steps: Annotated[int, Gt(0), doc("of that search; published: 500")] = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "per_image", self.inversion == "search")

    @abstractmethod
    def shadow(self, knows: QueryFree) -> Shadow:
        """The trained shadow, in eval mode and frozen; gradients reach its input."""

    def fit(self, knows: QueryFree) -> Reconstructor:
        """Train or recall the shadow and what inverts it."""
        device = self._device(self.shadow(knows), knows)
        answer = self._inverting.fit(device)
        knows.tally.seconds_recalled += device.seconds_recalled

        def reconstruct(release: Tensor) -> Tensor:
            return answer(knows.receive(release).float())

        return reconstruct

    @property
    def _inverting(self) -> Decoder | Rmle:
        if self.inversion == "search":
            return Rmle(steps=self.search_steps, learning_rate=SEARCH_RATE, beta=SQUARED)
        return Decoder(width=self.width, epochs=self.decoder_epochs)

    def what(self, knows: QueryFree) -> str:
        """Names the shadow by all that shapes it, for ``knows.remember``."""
        inverting = ("width", "decoder_epochs", "inversion", "search_steps")
        settings = {key: value for key, value in self.to_mapping().items() if key not in inverting}
        return f"{self.name} {settings} from {len(knows.intercepted)} releases"

    def _device(self, shadow: Shadow, knows: QueryFree) -> WhiteBox:
        """The same adversary with the shadow in the edge device's place, where nothing is out of reach."""

        def resend(part: AttackerPart, rows: Tensor) -> Tensor:
            features: Tensor = shadow(to_float(knows.images[part][rows].to(knows.device)))
            return features

        def memory(what: str, module: str, about: About, build: Callable[[], Memo]) -> Memo:
            # what is learned of the shadow depends on the code of this attack, whoever learns it
            return knows.memory(f"{what} of {self.what(knows)}", type(self).__module__, about, build)

        return WhiteBox(
            images=knows.images,
            intercepted=shadow.received.features,
            tail=knows.tail,
            new_encoder=knows.new_encoder,
            device=knows.device,
            arrived=lambda features: shadow.received.varies.expand_as(features),
            log=knows.log,
            memory=memory,
            send=shadow,
            resend=resend,
            edge=PlainEdge(shadow),
        )
