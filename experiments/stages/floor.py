"""What everybody knows of the target photos without a release: how far each is from the mean of known ones."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from splitleak.experiments.judge.metrics.information import mean_image_errors
from splitleak.experiments.stages.arrays import load_array, save_array
from splitleak.experiments.stages.data import DataStage
from splitleak.experiments.store.key import Stage
from splitleak.experiments.store.store import Store


@dataclass(frozen=True)
class FloorStage(Stage):
    """The errors that usable bits are counted from, once for all cells of a plan."""

    label: ClassVar[str] = "floor"

    data: DataStage

    def compute(self, folder: Path, store: Store) -> None:
        """errors.npy, float64 (n,)."""
        images = self.data.load(store).images
        save_array(folder / "errors.npy", mean_image_errors(images["auxiliary"], images["target"]))

    def load(self, store: Store) -> Tensor:
        """Mean squared error of the auxiliary part's mean image on each target photo, float64 (n,)."""
        return load_array(store.folder(self) / "errors.npy")
