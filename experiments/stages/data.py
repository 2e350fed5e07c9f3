"""Decode the photos once and divide them into parts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from experiments.store import Stage, Store
from victims.data.base import Source
from victims.data.parts import LoadedParts, PartSizes, load_parts


@dataclass(frozen=True)
class Data:
    """The parts, memory-mapped. ``images``: uint8 (n, 3, h, w) by part.

    ``attributes``: by part and name, int64 (n,), -1 where unknown; ``names``: of each attribute's values.
    ``identities``: by part, int64 (n,), -1 where unknown; None where the data does not say who is on a photo.
    ``task``: the attribute that the victim predicts.
    """

    images: Mapping[str, Tensor]
    attributes: Mapping[str, Mapping[str, Tensor]]
    names: Mapping[str, tuple[str, ...]]
    identities: Mapping[str, Tensor] | None
    task: str | None
    manifest: Mapping[str, Any]

    @property
    def labels(self) -> Mapping[str, Tensor] | None:
        """The task's, by part; None without a task."""
        return None if self.task is None else {part: of[self.task] for part, of in self.attributes.items()}

    @property
    def classes(self) -> tuple[str, ...]:
        """The task's; empty without a task."""
        return () if self.task is None else self.names[self.task]


@dataclass(frozen=True)
class DataStage(Stage):
    """Photos at one size, divided into parts, with the manifest of what is where.

    ``mirror``: the auxiliary part holds each of its photos a second time, mirrored, with the same labels.
    """

    label: ClassVar[str] = "data"

    source: Source
    sizes: PartSizes
    size: int
    task: str | None
    seed: int
    mirror: bool = False

    def compute(self, folder: Path, store: Store) -> None:
        """For each part its photos as one array of bytes and what is known of them; manifest.json, classes.json."""
        parts = load_parts(self.source, self.sizes, self.size, self.task, self.seed)
        if self.mirror:
            parts = mirrored(parts, "auxiliary")
        for part, images in parts.images.items():
            save_array(folder / f"{part}.npy", images)
            save_file(dict(parts.labels[part]), folder / f"{part}.labels.safetensors")
            if parts.identities is not None:
                save_file({"identity": parts.identities[part]}, folder / f"{part}.identity.safetensors")
        (folder / "manifest.json").write_text(json.dumps(parts.manifest))
        (folder / "classes.json").write_text(json.dumps(parts.classes))

    def load(self, store: Store) -> Data:
        """The parts, their photos memory-mapped."""
        folder = store.folder(self)
        parts = [path.stem for path in folder.glob("*.npy")]
        people = [folder / f"{part}.identity.safetensors" for part in parts]
        names = json.loads((folder / "classes.json").read_text())
        return Data(
            images={part: load_array(folder / f"{part}.npy") for part in parts},
            attributes={part: load_file(folder / f"{part}.labels.safetensors") for part in parts},
            names={name: tuple(classes) for name, classes in names.items()},
            identities={part: load_file(path)["identity"] for part, path in zip(parts, people, strict=True)}
            if all(path.exists() for path in people)
            else None,
            task=self.task,
            manifest=json.loads((folder / "manifest.json").read_text()),
        )


def mirrored(parts: LoadedParts, part: str) -> LoadedParts:
    """The same with each photo of one part twice, as it is and left to right; the manifest names it once."""
    images, labels, identities = parts.images[part], parts.labels[part], parts.identities
    return replace(
        parts,
        images={**parts.images, part: torch.cat([images, images.flip(3)])},
        labels={**parts.labels, part: {name: values.repeat(2) for name, values in labels.items()}},
        identities=identities and {**identities, part: identities[part].repeat(2)},
    )


def save_array(path: Path, tensor: Tensor) -> None:
    """Write a tensor as an .npy file."""
    np.save(path, tensor.cpu().numpy(), allow_pickle=False)


def load_array(path: Path) -> Tensor:
    """Memory-map an .npy file; writes go to a private copy and never reach the disk."""
    array = np.load(path, mmap_mode="c", allow_pickle=False)
    return torch.from_numpy(array)
