"""Decode the photos once and divide them into parts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from splitleak.experiments.store.key import Stage
from splitleak.experiments.store.store import Store
from splitleak.victims.data.base import Source
from splitleak.victims.data.parts import LoadedParts, PartSizes, load_parts

MIRRORED_AT_A_TIME = 1000


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

        def shelf(part: str) -> ArrayFile:
            kind = MirroredFile if self.mirror and part == "auxiliary" else ArrayFile
            return kind(folder / f"{part}.npy", (3, self.size, self.size), np.uint8)

        parts = load_parts(self.source, self.sizes, self.size, self.task, self.seed, shelf)
        if self.mirror:
            parts = with_mirrored_labels(parts, "auxiliary")
        for part in parts.images:
            save_file(dict(parts.labels[part]), folder / f"{part}.labels.safetensors")
            if parts.identities is not None:
                save_file({"identity": parts.identities[part]}, folder / f"{part}.identity.safetensors")
        (folder / "manifest.json").write_text(json.dumps(parts.manifest))
        (folder / "classes.json").write_text(json.dumps(parts.classes))

    @cached_property
    def class_count(self) -> int:
        """Of the task, as the catalogue has it; 0 without a task."""
        return len(self.source.catalog().labels[self.task].classes) if self.task else 0

    def image_bytes(self, photos: int) -> int:
        """Of so many decoded photos."""
        return photos * 3 * self.size**2

    def expected_bytes(self) -> int:
        """The photos."""
        sizes = self.sizes
        auxiliary = sizes.auxiliary * (1 + self.mirror)
        return self.image_bytes(sizes.train + auxiliary + sizes.validation + sizes.target)

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


class ArrayFile:
    """An .npy file that grows, so that what it holds need not fit the memory."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self.path, self.shape, self.dtype = path, shape, np.dtype(dtype)
        self.count = 0
        self.file = path.open("w+b")
        self._write_header()

    def _write_header(self) -> None:
        """numpy leaves room in it for a larger count."""
        facts = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False}
        self.file.seek(0)
        np.lib.format.write_array_header_1_0(self.file, {**facts, "shape": (self.count, *self.shape)})

    def add(self, rows: Tensor) -> None:
        """Append rows (n, *shape)."""
        assert tuple(rows.shape[1:]) == self.shape, f"{tuple(rows.shape[1:])} in a file of {self.shape}"
        self.file.write(np.ascontiguousarray(rows.cpu().numpy(), self.dtype).data)
        self.count += len(rows)

    def tensor(self) -> Tensor:
        """Finish the file and map it."""
        self._write_header()
        self.file.close()
        return load_array(self.path)


class MirroredFile(ArrayFile):
    """One that holds each photo a second time, left to right, behind all of them."""

    def tensor(self) -> Tensor:
        """Append the mirrored ones, finish the file and map it."""
        self.file.flush()
        pixels = np.memmap(self.path, self.dtype, "r", self.file.tell() - self._bytes(self.count))
        for rows in np.array_split(pixels.reshape(self.count, *self.shape), -(-self.count // MIRRORED_AT_A_TIME)):
            self.add(torch.from_numpy(rows[..., ::-1].copy()))
        return super().tensor()

    def _bytes(self, count: int) -> int:
        return int(count * np.prod(self.shape) * self.dtype.itemsize)


def with_mirrored_labels(parts: LoadedParts, part: str) -> LoadedParts:
    """The same with what is known of one part's photos a second time; the manifest names each photo once."""
    labels, identities = parts.labels[part], parts.identities
    return replace(
        parts,
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
