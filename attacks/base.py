"""The contract of an attack: what each kind of adversary holds, and what it must produce from it."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Generic, Literal, Protocol, TypeVar, get_args, get_origin

import torch
from torch import Tensor, nn

from splitleak.victims.errors import InvalidInputError
from splitleak.victims.seeding import seeded
from splitleak.victims.settings import Settings, doc
from splitleak.victims.tensors import check_images, to_float
from splitleak.victims.training import Log

Answer = Callable[[Tensor], Tensor]
"""Release (n, ...) -> what the attack says about each image: pictures, embeddings or scores."""

Reconstructor = Answer
"""Release (n, ...) -> images (n, 3, h, w) in [0, 1]."""


class Staged(ABC):
    """A reconstructor that can show what it makes on the way from release to images."""

    @abstractmethod
    def __call__(self, release: Tensor) -> Tensor:
        """Release (n, ...) -> images (n, 3, h, w) in [0, 1]."""

    @abstractmethod
    def stages(self, release: Tensor) -> list[Tensor]:
        """What stands after each stage, (n, channels, rows, columns); the last are its answer."""


AttackerPart = Literal["auxiliary", "validation"]
"""The attacker fits on the auxiliary part and selects models on the validation part."""


@dataclass(frozen=True)
class Scene:
    """What is known of a plan before anything is computed: enough for an attack to say that it cannot be run.

    ``release_shape``: of one image. ``image_shape``: (3, h, w). ``task``: what the tail predicts, None where it
    was trained on nothing. ``attributes``: the labels that photos carry, the task's included. ``identities``:
    whether photos carry a person's number.
    """

    release_shape: tuple[int, ...]
    image_shape: tuple[int, int, int]
    task: str | None = None
    attributes: tuple[str, ...] = ()
    identities: bool = False


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
    victim's architecture up to the cut. ``log``: takes one row of numbers per step of fitting, for the run's
    training curves. ``memory``: see ``remember``.
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
    arrived: Callable[[Tensor], Tensor] = lambda release: torch.ones_like(release, dtype=torch.bool)
    log: Log = field(default=lambda row: None)
    memory: Memory = forgetful
    queries: int = 0
    seconds_recalled: float = 0.0

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
        return {"queries": self.queries}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Count on from there."""
        self.queries = state["queries"]

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
            self.queries = asked + memo.queries
            self.seconds_recalled += memo.seconds
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

    def pairs(self, part: AttackerPart = "auxiliary", batch_size: int = 64, shuffle: bool = True) -> "Pairs":
        """Batches of (release, images), with fresh channel randomness on each pass."""
        return Pairs(self, part, batch_size, shuffle)

    def _count(self, images: int) -> None:
        self.queries += images
        if self.budget is not None and self.queries > self.budget:
            raise QueryBudgetError(f"{self.queries} releases asked for, the attacker may have {self.budget}")


@dataclass
class WhiteBox(BlackBox):
    """An adversary who also holds the protected edge part: images -> release, differentiable."""

    edge: nn.Module = field(kw_only=True)


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
            release = self.knows.requery(self.part, rows)
            yield release, to_float(images[rows].to(self.knows.device))


HELD: Mapping[type[QueryFree], str] = {
    QueryFree: "its own photos with what is known of them, the releases that it intercepted, the cloud's half of the "
    "network, and the architecture of the device's half",
    BlackBox: "the device, to encode photos of its choice: pairs of release and photo, each with a fresh draw of the "
    "defence's randomness",
    WhiteBox: "the device's half with its weights and the defence in it, so that it may differentiate through both",
}
"""What each kind of adversary holds beside what the kinds above it hold."""

K = TypeVar("K", bound=QueryFree)


@dataclass(frozen=True)
class Attack(Settings, ABC, Generic[K]):
    """What all attacks have in common; a plugin is one of the three kinds below.

    ``class Ridge(Reconstruction[BlackBox])`` declares what it answers with and what it must know.
    """

    paper: ClassVar[str]
    """Authors, title, venue, year; "ours" with the idea's origin where there is none."""
    floor: ClassVar[bool] = False
    """True for an attack that ignores the release: what it scores is the floor of all others."""
    per_image: ClassVar[bool] = False
    """True for an attack that works on each target anew: a plan may give it fewer of them."""

    by_distribution: ClassVar[bool] = False
    """True for an attack that knows the device by the distribution of its features only. It inverts devices that this
    gives away; the toy of the contract checks, whose pictures are alike in every colour, is none."""

    def check(self, scene: Scene) -> None:
        """Called before anything is computed.

        Raises:
            InvalidInputError: this attack cannot be run there.
        """

    @abstractmethod
    def fit(self, knows: K) -> Answer:
        """Prepare from what the adversary knows; the result is called without gradients, in batches.

        Global random state is seeded by the caller. The adversary's models and tensors must be left as they
        were found.
        """


class Reconstruction(Attack[K]):
    """Rebuilds the photo: release (n, ...) -> images (n, 3, h, w) in [0, 1]."""

    @property
    def darkest(self) -> tuple[float, float, float]:
        """The least red, green and blue in its answers, in [0, 1]; above 0 it cannot rebuild every photo."""
        return 0.0, 0.0, 0.0


class Linkage(Attack[K]):
    """Tells whether two releases show the same person: release (n, ...) -> embeddings (n, d), near where alike."""


@dataclass(frozen=True)
class AttributeInference(Attack[K]):
    """Reads a private attribute: release (n, ...) -> scores (n, classes), highest for the likeliest class."""

    attribute: Annotated[str | None, doc("the label to read; none: the first that is not the task")] = None

    def read(self, task: str | None, attributes: Collection[str]) -> str | None:
        """The attribute that is read where photos carry these; None where they carry no such label."""
        private = [name for name in attributes if name != task]
        wanted = self.attribute or next(iter(private), None)
        return wanted if wanted in attributes else None

    def check(self, scene: Scene) -> None:
        """Photos must carry the attribute."""
        if self.read(scene.task, scene.attributes) is None:
            raise InvalidInputError(
                f"{self.name}.attribute = {self.attribute!r}: the photos carry "
                f"{', '.join(scene.attributes) or 'no labels'}; name one that is not the task"
            )


def knowledge_of(attack: type[Attack[QueryFree]]) -> type[QueryFree]:
    """The kind of knowledge that an attack declares: QueryFree, BlackBox or WhiteBox."""
    for parent in attack.__mro__:
        for base in getattr(parent, "__orig_bases__", ()):
            origin = get_origin(base)
            if isinstance(origin, type) and issubclass(origin, Attack):
                declared = get_args(base)[0]
                if isinstance(declared, type):
                    return declared
    raise TypeError(
        f"{attack.__name__} must declare its knowledge: class {attack.__name__}(Reconstruction[BlackBox])"
    )
