"""Decode the photos once and divide them into parts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from experiments.store import Stage, Store
from victims.data.base import Source
from victims.data.parts import PartSizes, load_parts


@dataclass(frozen=True)
class Data:
    """The parts in memory or memory-mapped. ``images``: uint8 (n, 3, h, w) by part; ``labels``: int64 (n,)."""

    images: Mapping[str, Tensor]
    labels: Mapping[str, Tensor] | None
    classes: tuple[str, ...]
    manifest: Mapping[str, Any]


@dataclass(frozen=True)
class DataStage(Stage):
    """Photos at one size, divided into parts, with the manifest of what is where."""

    label: ClassVar[str] = "data"

    source: Source
    sizes: PartSizes
    size: int
    task: str | None
    seed: int

    def compute(self, folder: Path, store: Store) -> None:
        """One array of bytes per part, its labels, and manifest.json."""
        parts = load_parts(self.source, self.sizes, self.size, self.task, self.seed)
        for part, images in parts.images.items():
            save_array(folder / f"{part}.npy", images)
            if parts.labels is not None:
                save_array(folder / f"{part}.labels.npy", parts.labels[part])
        (folder / "manifest.json").write_text(json.dumps(parts.manifest))
        (folder / "classes.json").write_text(json.dumps(parts.classes))

    def load(self, store: Store) -> Data:
        """The parts, memory-mapped."""
        folder = store.folder(self)
        names = [path.stem for path in folder.glob("*.npy") if ".labels" not in path.name]
        return Data(
            images={name: load_array(folder / f"{name}.npy") for name in names},
            labels={name: load_array(folder / f"{name}.labels.npy") for name in names} if self.task else None,
            classes=tuple(json.loads((folder / "classes.json").read_text())),
            manifest=json.loads((folder / "manifest.json").read_text()),
        )


def save_array(path: Path, tensor: Tensor) -> None:
    """Write a tensor as an .npy file."""
    np.save(path, tensor.cpu().numpy(), allow_pickle=False)


def load_array(path: Path) -> Tensor:
    """Memory-map an .npy file; writes go to a private copy and never reach the disk."""
    array = np.load(path, mmap_mode="c", allow_pickle=False)
    return torch.from_numpy(array)
