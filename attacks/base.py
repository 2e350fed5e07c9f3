"""The contract of an attack: what it must know, where it applies, and what it must produce."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, TypeVar, final, get_args, get_origin

from torch import Tensor

from splitleak.attacks.knowledge import BlackBox, QueryFree, Step, WhiteBox
from splitleak.attacks.needs import WORDS, Requirement
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.settings import Settings, doc

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


@dataclass(frozen=True)
class _StagedBehind(Staged):
    step: Step
    answer: Staged

    def __call__(self, release: Tensor) -> Tensor:
        return self.answer(self.step(release))

    def stages(self, release: Tensor) -> list[Tensor]:
        return self.answer.stages(self.step(release))


def behind(step: Step, answer: Answer) -> Answer:
    """What an attack says about releases after a step; it shows its stages if the attack does."""
    if isinstance(answer, Staged):
        return _StagedBehind(step, answer)
    return lambda release: answer(step(release))


@dataclass(frozen=True)
class Scene:
    """What is known of a plan before anything is computed: enough for an attack to say that it does not apply.

    ``release_shape``: of one image. ``image_shape``: (3, h, w). ``task``: what the tail predicts, None where it
    was trained on nothing. ``attributes``: the labels that photos carry, the task's included. ``identities``:
    whether photos carry a person's number. ``sends``: of each photo. ``tokens``: whether the release is tokens
    (n, channels) rather than maps. ``queries``: whether the device encodes photos of the adversary's choice,
    ``weights``: whether it gives its half of the network away, ``tail``: whether the cloud gives its own.
    ``classes``: whether what the tail tells, if it was trained, is one class of each photo.
    """

    release_shape: tuple[int, ...]
    image_shape: tuple[int, int, int]
    task: str | None = None
    attributes: tuple[str, ...] = ()
    identities: bool = False
    sends: int = 1
    tokens: bool = False
    queries: bool = True
    weights: bool = True
    tail: bool = True
    classes: bool = True

    def offers(self, requirement: Requirement) -> bool:
        """Whether this is there."""
        offered: dict[Requirement, bool] = {
            "queries": self.queries,
            "weights": self.weights,
            "tail": self.tail,
            "labels": bool(self.attributes),
            "identities": self.identities,
            "several sends": self.sends > 1,
            "tokens": self.tokens,
        }
        return offered[requirement]


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
    """True for an attack that knows the device by the distribution of its features, and by what the tail expects of
    them at most. It inverts devices that this gives away: it is checked on one, since the usual toy of the contract
    checks, whose pictures are alike in every colour, is none."""

    requires: ClassVar[frozenset[Requirement]] = frozenset()
    """What it must have beyond what its kind of knowledge implies and its parent classes require."""

    @classmethod
    def needs(cls) -> tuple[Requirement, ...]:
        """All that it requires, in a fixed order; a BlackBox implies queries, a WhiteBox queries and weights."""
        kind = knowledge_of(cls)
        needed: set[Requirement] = {"queries"} if issubclass(kind, BlackBox) else set()
        needed |= {"weights"} if issubclass(kind, WhiteBox) else set()
        for parent in cls.__mro__:
            needed |= vars(parent).get("requires", frozenset())
        return tuple(requirement for requirement in WORDS if requirement in needed)

    @property
    def asks(self) -> frozenset[Requirement]:
        """What its settings make it require beside that."""
        return frozenset()

    @final
    @property
    def needed(self) -> tuple[Requirement, ...]:
        """What its class ``needs`` and its settings ask for, in that order."""
        return tuple(requirement for requirement in WORDS if requirement in {*self.needs(), *self.asks})

    @final
    def inapplicable(self, scene: Scene) -> str | None:
        """One line why there is nothing for this attack to do there, None where it applies."""
        reasons = (f"{self.name} does not apply: it needs {need}, and {lack}" for need, lack in self.lacks(scene))
        return next(reasons, None)

    def lacks(self, scene: Scene) -> Iterator[tuple[str, str]]:
        """What it needs and does not find there: pairs of what is needed and of what is the case instead.

        An attack with needs of its own, on the release's shape for example, adds them to those that are declared.
        """
        for requirement in self.needed:
            if not scene.offers(requirement):
                yield WORDS[requirement]

    @property
    def learns_from_copies(self) -> bool:
        """Whether it trains on moved copies of its photos, see ``BlackBox.examples``, where it has any.

        A recipe that others published does not: it is kept as it was.
        """
        return False

    def files(self) -> tuple[Path, ...]:
        """What it reads beside what it is given: a result is found again only while their content stays.

        Raises:
            InvalidInputError: there is no such file.
        """
        return ()

    def check(self, scene: Scene) -> None:
        """Called before anything is computed, where the attack applies.

        Raises:
            InvalidInputError: its settings ask for what there is not.
        """

    @final
    def fitted(self, knows: K) -> Answer:
        """``fit``, behind what every adversary who may ask the device does first; answers to releases as they travel.

        A channel that adds one of a few patterns hides nothing from who knows them: the likeliest is subtracted.
        """
        if not isinstance(knows, BlackBox):
            return self.fit(knows)
        mixture = knows.mixture()
        if mixture is None:
            return self.fit(knows)
        return behind(mixture, self.fit(knows.behind(mixture, mixture.name)))

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

    requires: ClassVar[frozenset[Requirement]] = frozenset({"identities"})


@dataclass(frozen=True)
class AttributeInference(Attack[K]):
    """Reads a private attribute: release (n, ...) -> scores (n, classes), highest for the likeliest class."""

    requires: ClassVar[frozenset[Requirement]] = frozenset({"labels"})

    attribute: Annotated[str | None, doc("the label to read; none: the first that is not the task")] = None

    def read(self, task: str | None, attributes: Collection[str]) -> str | None:
        """The attribute that is read where photos carry these; None where they carry no such label."""
        private = [name for name in attributes if name != task]
        wanted = self.attribute or next(iter(private), None)
        return wanted if wanted in attributes else None

    def lacks(self, scene: Scene) -> Iterator[tuple[str, str]]:
        """Where no label is named, photos must carry one that is not the task; a name is what ``check`` looks up."""
        if self.attribute is None and self.read(scene.task, scene.attributes) is None:
            yield "labels beside the task", "the photos carry none"
        for need in super().lacks(scene):
            if need != WORDS["labels"]:
                yield need

    def check(self, scene: Scene) -> None:
        """Photos must carry the attribute."""
        if self.read(scene.task, scene.attributes) is None:
            raise InvalidInputError(
                f"{self.name}.attribute = {self.attribute!r}: the photos carry "
                f"{', '.join(scene.attributes) or 'no labels'}; name one that is not the task"
            )


def knowledge_of(attack: type[Attack[Any]]) -> type[QueryFree]:
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
