"""The attacker's photos and moved copies of them: made once, for all attacks that learn from queries."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from splitleak.experiments.stages.arrays import load_array, write_array
from splitleak.experiments.stages.data import DataStage
from splitleak.experiments.store.key import Stage
from splitleak.experiments.store.store import Store
from splitleak.victims.moving import moved
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import BATCH, to_bytes, to_float


@dataclass(frozen=True)
class MovedStage(Stage):
    """The attacker's photos, and behind them ``copies`` times all of them moved, see ``moved``.

    ``part``: whose they are, the attacker's own or the first of the victim's train part, as many.
    """

    label: ClassVar[str] = "moved"

    data: DataStage
    copies: int
    part: str = "auxiliary"

    @property
    def count(self) -> int | None:
        """How many photos of the part, the first ones; None for all."""
        return self.data.sizes.auxiliary if self.part == "train" else None

    def compute(self, folder: Path, store: Store) -> None:
        """images.npy, uint8 ((1 + copies) n, 3, h, w)."""
        images = self.data.load(store).images[self.part][: self.count]

        def chunks() -> Iterator[Tensor]:
            yield from images.split(BATCH)
            for _ in range(self.copies):
                for some in images.split(BATCH):
                    yield to_bytes(moved(to_float(some)))

        with seeded("moved", self.data.seed):
            write_array(folder / "images.npy", chunks())

    def expected_bytes(self) -> int:
        """The photos and their copies; what an encoder makes of them is not counted."""
        return self.data.image_bytes((1 + self.copies) * self.data.sizes.auxiliary)

    def load(self, store: Store) -> Tensor:
        """Memory-mapped: copy k of photo i is row k n + i, and copy 0 is the photo itself."""
        return load_array(store.folder(self) / "images.npy")


Part = str | MovedStage
"""What a network's features are of: a part of the data, or what was made of one."""
