"""What an adversary holds: one class for each kind."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, Self

import torch
from torch import Tensor, nn

from splitleak.attacks.edge import Edge
from splitleak.attacks.mixture import RELEASES_LOOKED_AT, Mixture, look_for_mixture
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import BATCH, check_images, to_float
from splitleak.victims.training import Log

AttackerPart = Literal["auxiliary", "validation", "moved"]
"""The attacker fits on the auxiliary part and selects models on the validation part. Moved: the auxiliary photos, and
behind them copies of all of them, once or several times; only of who may have them encoded."""


@dataclass(frozen=True)
class Memo:
    """Something that took long to make: tensors, and what making it cost."""

    tensors: Mapping[str, Tensor]
    queries: int
    seconds: float
    rows: tuple[dict[str, float], ...]


About = Literal["images", "edge"]
"""What a memo depends on: the adversary's photos alone, or also the edge device as it is defended."""


class Memory(Protocol):
    """Keeps memos between attacks; the key is ``what``, the code that makes it, and all that it is about."""

    def __call__(self, what: str, module: str, about: About, build: Callable[[], Memo]) -> Memo:
        """The memo, built under its own seed if there is none; ``module`` holds the code."""


def forgetful(what: str, module: str, about: About, build: Callable[[], Memo]) -> Memo:
    """A memory that keeps nothing."""
    with seeded("memory", what):
        return build()


Step = Callable[[Tensor], Tensor]
"""What an adversary does to a release before anything else is done with it: (n, ...) -> (n, ...)."""

LOOKED = 0.1
"""Of a budget of releases: the share that may be spent on a look at what the channel does."""


@dataclass
class Tally:
    """What was counted so far, in one place for all who hold parts of the same knowledge."""

    queries: int = 0
    seconds_recalled: float = 0.0


class QueryBudgetError(RuntimeError):
    """An attack asked for more releases than the plan's ``queries`` allows."""


@dataclass
class QueryFree:
    """An adversary who never touches the edge device.

    ``images``: the adversary's own photos by part, bytes (uint8) of shape (n, 3, h, w); ``image_batches``
    gives them as floats. ``labels``: of these photos, by part and attribute, int64 (n,), -1 where unknown;
    ``classes``: the names of each attribute's values; ``identities``: who is on them, int64 (n,), -1 where
    unknown, None where the data does not say. ``task``: the attribute that the tail predicts.

    ``intercepted``: the releases that travelled, (m, ...). ``arrived``: release -> bool tensor of its shape,
    false where the defence left the place of a feature empty. ``tail``: the cloud's half, and ``receive``: what
    the cloud does to a release before the tail takes it. ``new_encoder``: makes an untrained network of the
    victim's architecture up to the cut. ``as_received``: (encoder, images (n, 3, h, w) in [0, 1]) -> what the tail
    would be given of them, (n, *shape), if the device had this encoder: through the defence as far as the adversary
    knows it, drawn afresh on each call, differentiable. ``log``: takes one row of numbers per step of fitting, for
    the run's training curves. ``memory``: see ``remember``. ``tally``: what was counted.
    """

    images: Mapping[AttackerPart, Tensor]
    intercepted: Tensor
    tail: nn.Module
    new_encoder: Callable[[], nn.Module]
    device: torch.device
    labels: Mapping[AttackerPart, Mapping[str, Tensor]] = field(default_factory=dict)
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    identities: Mapping[AttackerPart, Tensor] | None = None
    task: str | None = None
    receive: Callable[[Tensor], Tensor] = lambda release: release
    as_received: Callable[[nn.Module, Tensor], Tensor] = lambda encoder, images: encoder(images)
    arrived: Callable[[Tensor], Tensor] = lambda release: torch.ones_like(release, dtype=torch.bool)
    log: Log = field(default=lambda row: None)
    memory: Memory = forgetful
    tally: Tally = field(default_factory=Tally)

    @property
    def queries(self) -> int:
        """Releases asked for so far."""
        return self.tally.queries

    @property
    def seconds_recalled(self) -> float:
        """What it took to make all that was recalled instead of made."""
        return self.tally.seconds_recalled

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(3, h, w)."""
        channels, height, width = self.images["auxiliary"].shape[1:]
        return channels, height, width

    @property
    def release_shape(self) -> tuple[int, ...]:
        """Shape of one image's release."""
        return tuple(self.intercepted.shape[1:])

    def state_dict(self) -> dict[str, int]:
        """What was counted so far, for checkpoints."""
        return {"queries": self.tally.queries}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Count on from there."""
        self.tally.queries = state["queries"]

    def image_batches(self, part: AttackerPart = "auxiliary", batch_size: int = 128) -> Iterator[Tensor]:
        """The photos of a part in order, as floats (b, 3, h, w) in [0, 1]."""
        for chunk in self.images[part].split(batch_size):
            yield to_float(chunk.to(self.device))

    def remember(
        self, what: str, build: Callable[[], Mapping[str, Tensor]], about: About = "edge"
    ) -> Mapping[str, Tensor]:
        """The tensors that ``build`` makes, from an earlier attack if one has made them.

        What it cost is counted each time: queries, seconds and rows of the log are those of the first time.

        Args:
            what: the name of the thing with all settings that shape it.
            build: makes it; called under a seed of its own.
            about: "images" where nothing but the adversary's photos goes into it, which all defences then share.
        """
        log, asked = self.log, self.queries

        def counted() -> Memo:
            rows: list[dict[str, float]] = []

            def log_and_keep(row: dict[str, float]) -> None:
                rows.append(row)
                log(row)

            start = time.perf_counter()
            self.log = log_and_keep
            try:
                tensors = build()
            finally:
                self.log = log
            built.append(True)
            return Memo(tensors, self.queries - asked, time.perf_counter() - start, tuple(rows))

        built: list[bool] = []
        memo = self.memory(what, build.__module__, about, counted)
        if not built:
            self.tally.queries = asked + memo.queries
            self.tally.seconds_recalled += memo.seconds
            for row in memo.rows:
                log(row)
        return memo.tensors


@dataclass
class BlackBox(QueryFree):
    """An adversary who can also have the edge device encode images of its choice.

    ``send``: images -> release; ``resend``: (part, rows of ``images[part]``) -> their release, the same
    thing from stored encoder features. Both draw the channel's randomness afresh on each call.
    ``budget``: how many releases may be asked for, None for no limit; ``queries`` counts them.
    """

    send: Callable[[Tensor], Tensor] = field(kw_only=True)
    resend: Callable[[AttackerPart, Tensor], Tensor] = field(kw_only=True)
    budget: int | None = None

    def query(self, images: Tensor) -> Tensor:
        """Release of ``images`` (n, 3, h, w) in [0, 1], detached.

        Raises:
            ValueError: these are no images in [0, 1].
            QueryBudgetError: the budget is spent.
        """
        check_images(images, "query")
        self._count(len(images))
        with torch.no_grad():
            return self.send(images.to(self.device)).detach()

    def requery(self, part: AttackerPart, rows: Tensor) -> Tensor:
        """Release of the adversary's own photos ``images[part][rows]``, detached; counts like ``query``.

        Raises:
            QueryBudgetError: the budget is spent.
        """
        self._count(len(rows))
        with torch.no_grad():
            return self.resend(part, rows).detach()

    def examples(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Release and image, uint8, of one copy of each of these auxiliary photos, drawn at random; counts queries.

        Whoever learns from a photo in one place and one light only learns it by heart.
        """
        photos, copies = self.images["auxiliary"], self.images.get("moved")
        if copies is None:
            return self.requery("auxiliary", rows), photos[rows]
        drawn = rows + len(photos) * torch.randint(len(copies) // len(photos), rows.shape)
        return self.requery("moved", drawn), copies[drawn]

    def pairs(self, part: AttackerPart = "auxiliary", batch_size: int = 64, shuffle: bool = True) -> "Pairs":
        """Batches of (release, images), with fresh channel randomness, and copies if shuffled, on each pass."""
        return Pairs(self, part, batch_size, shuffle)

    def mixture(self) -> Mixture | None:
        """Of the patterns that the channel adds, if that is what it does, see ``look_for_mixture``; None if not.

        The look is counted. Who may ask for so little that it would take more than a tenth of it does not look.
        """
        if self.budget is not None and self.budget * LOOKED < RELEASES_LOOKED_AT:
            return None

        def send(rows: Tensor) -> Tensor:
            return torch.cat([self.requery("auxiliary", some) for some in rows.split(BATCH)])

        def build() -> dict[str, Tensor]:
            found = look_for_mixture(send, len(self.images["auxiliary"]))
            return found.tensors() if found else {}

        return Mixture.of(self.remember("mixture", build), self.device)

    def behind(self, step: Step, called: str, code: str | None = None) -> Self:
        """The same adversary, who puts each release through ``step`` before anything else is done with it.

        What is asked for and recalled counts for both. Nothing is blank behind the step.

        Args:
            step: its randomness, if any, is drawn afresh on each call.
            called: names the step by all that shapes it: what is learned behind it is remembered as such.
            code: the module that learns behind it, where what is learned does not import the step.
        """

        def memory(what: str, module: str, about: About, build: Callable[[], Memo]) -> Memo:
            if about == "images":
                return self.memory(what, module, about, build)
            return self.memory(f"{what} behind {called}", code or module, about, build)

        return replace(
            self,
            intercepted=torch.cat([step(some) for some in self.intercepted.split(BATCH)]),
            send=lambda images: step(self.send(images)),
            resend=lambda part, rows: step(self.resend(part, rows)),
            arrived=lambda release: torch.ones_like(release, dtype=torch.bool),
            memory=memory,
        )

    def _count(self, images: int) -> None:
        self.tally.queries += images
        if self.budget is not None and self.queries > self.budget:
            raise QueryBudgetError(f"{self.queries} releases asked for, the attacker may have {self.budget}")


@dataclass
class WhiteBox(BlackBox):
    """An adversary who also holds the protected edge part: images -> release, differentiable."""

    edge: Edge = field(kw_only=True)

    def behind(self, step: Step, called: str, code: str | None = None) -> Self:
        """As of a black box; the edge part ends in the step too."""
        return replace(super().behind(step, called, code), edge=_Stepped(self.edge, step))


class _Stepped(Edge):
    """A device whose releases go through a step."""

    def __init__(self, edge: Edge, step: Step) -> None:
        super().__init__()
        self.edge, self.step = edge, step

    def features(self, images: Tensor) -> Tensor:
        return self.edge.features(images)

    def send(self, features: Tensor) -> Tensor:
        return self.step(self.edge.send(features))

    def send_like(self, features: Tensor, release: Tensor) -> Tensor:
        return self.step(self.edge.send_like(features, release))


@dataclass
class Pairs:
    """Re-iterable batches of (release, images); each pass asks the edge device anew."""

    knows: BlackBox
    part: AttackerPart
    batch_size: int
    shuffle: bool

    @property
    def count(self) -> int:
        """Number of pairs in one pass."""
        total = len(self.knows.images[self.part])
        # A last batch of a few images would upset batch statistics, so a shuffled pass drops it.
        return total - total % self.batch_size if self.shuffle and total >= self.batch_size else total

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        images = self.knows.images[self.part]
        order = torch.randperm(len(images)) if self.shuffle else torch.arange(len(images))
        for rows in order[: self.count].split(self.batch_size):
            if self.shuffle and self.part == "auxiliary":
                release, seen = self.knows.examples(rows)
            else:
                release, seen = self.knows.requery(self.part, rows), images[rows]
            yield release, to_float(seen.to(self.knows.device))
