"""The contract of a data set: a catalogue without pixels, and pixels for chosen photos at one size."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from splitleak.victims.errors import InvalidInputError, unknown
from splitleak.victims.settings import Settings

Form = Literal["class", "mask", "boxes", "values"]
"""What a label says of a photo of ``size`` pixels, as a row of a tensor:

- class: int64 (), an index into its classes.
- mask: uint8 (size, size), such an index for each pixel, ``IGNORED`` where none counts.
- boxes: float32 (most, 5), for each thing the left, top, right and bottom edges as shares of the photo's side, and
  such an index; -1 in rows that are left over.
- values: float32 (len(classes),), a number for each name.
"""

IGNORED = 255
"""In a mask: a pixel that nobody is right or wrong about."""


@dataclass(frozen=True)
class Labels:
    """One label per photo. ``values``: int64 (n,), index into ``classes``, -1 where unknown."""

    values: Tensor
    classes: tuple[str, ...]
    form: ClassVar[Form] = "class"


@dataclass(frozen=True)
class Annotation:
    """A label that is no single class: it is known of every photo, and read with it (``Source.annotate``).

    ``classes``: of things or places, or the names of values.
    """

    form: Form
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Catalog:
    """What is known about a data set's n photos before any is decoded.

    ``names``: unique per photo. ``labels``: task name -> Labels. ``annotations``: the same of labels that are no
    single class. ``identity``: int64 (n,), the same number
    for the same person, -1 where unknown; None where the data has no identities. ``split``: per photo
    "train", "validation", "target" or "" (free), as fixed by the data's authors; None where they fixed none.
    ``unusable``: what is known of the photos but is no label, by name -> why, as the end of a sentence on it.
    ``notes``: what was left out, merged or put in another order, as sentences of one line.
    """

    names: tuple[str, ...]
    labels: Mapping[str, Labels] = field(default_factory=dict)
    identity: Tensor | None = None
    split: tuple[str, ...] | None = None
    unusable: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    annotations: Mapping[str, Annotation] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def task(self, name: str, *others: str) -> Labels | Annotation:
        """The labels of one task; ``others``: what else could have been named.

        Raises:
            InvalidInputError: there is no such task, or what has this name is no label.
        """
        if name in self.unusable:
            raise InvalidInputError(f"'{name}' cannot be a task: it {self.unusable[name]}")
        known: dict[str, Labels | Annotation] = {**self.labels, **self.annotations}
        if name not in known:
            raise unknown("task", name, [*known, *others])
        return known[name]

    def strata(self, name: str | None) -> Tensor:
        """By what parts are to be alike: a task's classes, int64 (n,), -1 where unknown; 0 where there are none.

        Raises:
            InvalidInputError: there is no such task.
        """
        labels = None if name is None else self.task(name)
        return labels.values if isinstance(labels, Labels) else torch.zeros(len(self), dtype=torch.int64)


@dataclass(frozen=True)
class Pixels:
    """Decoded photos. ``images``: uint8 (m, 3, size, size). ``corrupt``: positions (in the request) left out.

    ``remarks``: what a viewer would not expect of a decoded photo -> how many photos it is true of.
    """

    images: Tensor
    corrupt: tuple[int, ...] = ()
    remarks: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Source(Settings, ABC):
    """A data set. Its fields say where it is and how it is read; nothing is read before a method is called.

    Every method raises InvalidInputError, naming what was looked for and how to get it, where the data is
    missing or unreadable.
    """

    summary: ClassVar[str]
    """One line for ``splitleak list data``."""

    places: ClassVar[frozenset[str]] = frozenset()
    """The fields that say only where the data lies: sources that differ in nothing else may hold the same data."""

    def choices(self) -> dict[str, Any]:
        """The settings other than ``places``, as plain values."""
        return {name: value for name, value in self.to_mapping().items() if name not in self.places}

    @abstractmethod
    def fingerprint(self) -> str:
        """A digest of all that the photos and their labels depend on, by content; decodes nothing.

        It covers the names relative to the place, the bytes of the files (photos, annotations) and the settings
        other than ``places``. It never covers times or absolute paths: data that was touched, copied or moved is the
        same data. The source's code is counted elsewhere.
        """

    @abstractmethod
    def catalog(self) -> Catalog:
        """Names, labels, identities and split of all photos, in an order that never varies."""

    @abstractmethod
    def read(self, chosen: Sequence[int], size: int) -> Pixels:
        """Decode the chosen photos (indices into the catalogue) as RGB squares of ``size`` pixels."""

    def annotate(self, name: str, chosen: Sequence[int], size: int) -> Tensor:
        """A label of the chosen photos that is no single class, in its ``Form``, where ``read`` at ``size`` shows it.

        Raises:
            InvalidInputError: the photos carry no such label, or one that is wrong.
        """
        raise unknown(f"annotation of {self.name}:", name, self.catalog().annotations)
