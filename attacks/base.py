"""The contract of an attack: what each kind of adversary holds, and what it must produce from it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Generic, Literal, TypeVar, get_args, get_origin

import torch
from torch import Tensor, nn

from victims.settings import Settings
from victims.tensors import check_images, to_float
from victims.training import Log

Reconstructor = Callable[[Tensor], Tensor]
"""Release (n, ...) -> images (n, 3, h, w) in [0, 1]."""

AttackerPart = Literal["auxiliary", "validation"]
"""The attacker fits on the auxiliary part and selects models on the validation part."""


class QueryBudgetError(RuntimeError):
    """An attack asked for more releases than the plan's ``queries`` allows."""


@dataclass
class QueryFree:
    """An adversary who never touches the edge device.

    ``images``: the adversary's own photos by part, bytes (uint8) of shape (n, 3, h, w); ``image_batches``
    gives them as floats. ``intercepted``: the releases that travelled, (m, ...). ``tail``: the cloud's
    half (server side). ``architecture``: the victim's network and cut, by name. ``log``: takes one row of
    numbers per step of fitting, for the run's training curves.
    """

    images: Mapping[AttackerPart, Tensor]
    intercepted: Tensor
    tail: nn.Module
    architecture: str
    device: torch.device
    log: Log = field(default=lambda row: None)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(3, h, w)."""
        channels, height, width = self.images["auxiliary"].shape[1:]
        return channels, height, width

    @property
    def release_shape(self) -> tuple[int, ...]:
        """Shape of one image's release."""
        return tuple(self.intercepted.shape[1:])

    def image_batches(self, part: AttackerPart = "auxiliary", batch_size: int = 128) -> Iterator[Tensor]:
        """The photos of a part in order, as floats (b, 3, h, w) in [0, 1]."""
        for chunk in self.images[part].split(batch_size):
            yield to_float(chunk.to(self.device))


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
    queries: int = 0

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
            self.knows._count(len(rows))
            with torch.no_grad():
                release = self.knows.resend(self.part, rows).detach()
            yield release, to_float(images[rows].to(self.knows.device))


K = TypeVar("K", bound=QueryFree)


@dataclass(frozen=True)
class Attack(Settings, ABC, Generic[K]):
    """One way to rebuild images. ``class Ridge(Attack[BlackBox])`` declares what it must know."""

    paper: ClassVar[str]
    """Authors, title, venue, year; "ours" with the idea's origin where there is none."""
    floor: ClassVar[bool] = False
    """True for an attack that ignores the release: what it scores is the floor of all others."""

    def check(self, release_shape: tuple[int, ...], image_shape: tuple[int, int, int]) -> None:
        """Called before anything is computed.

        Raises:
            InvalidInputError: this attack cannot rebuild such images from such releases.
        """

    @abstractmethod
    def fit(self, knows: K) -> Reconstructor:
        """Prepare from what the adversary knows; the result is called without gradients, in batches.

        Global random state is seeded by the caller. The adversary's models and tensors must be left as they
        were found.
        """


def knowledge_of(attack: type[Attack[QueryFree]]) -> type[QueryFree]:
    """The kind of knowledge that an attack declares: QueryFree, BlackBox or WhiteBox."""
    for parent in attack.__mro__:
        for base in getattr(parent, "__orig_bases__", ()):
            origin = get_origin(base)
            if isinstance(origin, type) and issubclass(origin, Attack):
                declared = get_args(base)[0]
                if isinstance(declared, type):
                    return declared
    raise TypeError(f"{attack.__name__} must declare its knowledge: class {attack.__name__}(Attack[BlackBox])")
