"""Decode the photos once and divide them into parts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from splitleak.experiments.judge.statistics.groups import groups_of
from splitleak.experiments.stages.arrays import ArrayFile, MirroredFile, load_array
from splitleak.experiments.store.key import Stage
from splitleak.experiments.store.store import Store
from splitleak.victims.data.base import Source
from splitleak.victims.data.loading import LoadedParts, load_parts
from splitleak.victims.data.parts import TEST, PartSizes, divide
from splitleak.victims.tensors import BATCH, to_float


@dataclass(frozen=True)
class Data:
    """The parts, memory-mapped. ``images``: uint8 (n, 3, h, w) by part.

    ``attributes``: by part and name, int64 (n,), -1 where unknown; ``names``: of each attribute's values.
    ``identities``: by part, int64 (n,), -1 where unknown; None where the data does not say who is on a photo.
    ``task``: the label that the victim predicts; ``classes``: its classes, empty without a task; ``targets``: its
    values by part in their ``Form``, where it is no attribute. ``manifest``: what is in which part (see
    Parts.manifest). ``groups``: of the parts on which something is measured, see ``groups_in``.
    """

    images: Mapping[str, Tensor]
    attributes: Mapping[str, Mapping[str, Tensor]]
    names: Mapping[str, tuple[str, ...]]
    identities: Mapping[str, Tensor] | None
    task: str | None
    manifest: Mapping[str, Any]
    groups: Mapping[str, tuple[int, ...]]
    classes: tuple[str, ...] = ()
    targets: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, merged or changed on the way from the files to the parts, as sentences of one line."""
        return tuple(self.manifest["notes"])

    @property
    def labels(self) -> Mapping[str, Tensor] | None:
        """The task's, by part; None without a task."""
        if self.task is None or self.targets:
            return self.targets or None
        return {part: of[self.task] for part, of in self.attributes.items()}

    @property
    def measured(self) -> str:
        """The part on which utility is measured: of photos that nobody attacks, where there are any."""
        return TEST if TEST in self.images else "target"


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
        """For each part its photos as one array of bytes and what is known of them; manifest.json, groups.json and
        classes.json."""

        def shelf(part: str) -> ArrayFile:
            kind = MirroredFile if self.mirror and part == "auxiliary" else ArrayFile
            return kind(folder / f"{part}.npy", (3, self.size, self.size), "uint8")

        parts = load_parts(self.source, self.sizes, self.size, self.task, self.seed, shelf)
        if self.mirror:
            parts = with_mirrored_labels(parts, "auxiliary")
        for part in parts.images:
            save_file(dict(parts.labels[part]), folder / f"{part}.labels.safetensors")
            if part in parts.targets:
                save_file({"target": parts.targets[part]}, folder / f"{part}.target.safetensors")
            if parts.identities is not None:
                save_file({"identity": parts.identities[part]}, folder / f"{part}.identity.safetensors")
        (folder / "manifest.json").write_text(json.dumps(parts.manifest))
        (folder / "groups.json").write_text(json.dumps(groups_in(parts)))
        (folder / "classes.json").write_text(json.dumps(parts.classes))

    @cached_property
    def class_count(self) -> int:
        """Of the task, as the catalogue has it; 0 without a task."""
        return len(self.source.catalog().task(self.task).classes) if self.task else 0

    def image_bytes(self, photos: int) -> int:
        """Of so many decoded photos."""
        return photos * 3 * self.size**2

    def expected_bytes(self) -> int:
        """The photos."""
        chosen = divide(self.source.catalog(), self.sizes, self.task, self.seed).indices
        return self.image_bytes(sum(map(len, chosen.values())) + self.mirror * self.sizes.auxiliary)

    def load(self, store: Store) -> Data:
        """The parts, their photos memory-mapped."""
        folder = store.folder(self)
        parts = [path.stem for path in folder.glob("*.npy")]
        people = [folder / f"{part}.identity.safetensors" for part in parts]
        names = {name: tuple(of) for name, of in json.loads((folder / "classes.json").read_text()).items()}
        attributes = {part: load_file(folder / f"{part}.labels.safetensors") for part in parts}
        return Data(
            images={part: load_array(folder / f"{part}.npy") for part in parts},
            attributes=attributes,
            names={name: classes for name, classes in names.items() if name in attributes["target"]},
            identities={part: load_file(path)["identity"] for part, path in zip(parts, people, strict=True)}
            if all(path.exists() for path in people)
            else None,
            task=self.task,
            manifest=json.loads((folder / "manifest.json").read_text()),
            groups={part: tuple(of) for part, of in json.loads((folder / "groups.json").read_text()).items()},
            classes=names[self.task] if self.task else (),
            targets={
                part: load_file(path)["target"]
                for part in parts
                if (path := folder / f"{part}.target.safetensors").exists()
            },
        )


ALIKE, PLACES = 3, (8, 9)
"""Bits of a difference hash in which photos that look the same differ at most, and the places that it compares."""


def groups_in(parts: LoadedParts) -> dict[str, tuple[int, ...]]:
    """Of each photo on which something is measured, by part, an anonymous number: photos of one person share it.

    Where nobody knows who is on a photo, those that look the same share it, and the others are of other people.
    """
    measured = [part for part in ("target", TEST) if part in parts.images]
    hashes = [code for part in measured for code in parts.manifest["parts"][part]["hashes"]]
    who = [parts.identities[part].numpy() for part in measured] if parts.identities else [np.full(len(hashes), -1)]
    people: list[int | None] = [None if person < 0 else int(person) for person in np.concatenate(who)]
    codes = np.concatenate([differences(parts.images[part]) for part in measured])
    looks = look_alike(codes, np.array([person is None for person in people]))
    numbers = iter(groups_of(hashes, people, looks))
    return {part: tuple(islice(numbers, len(parts.images[part]))) for part in measured}


def differences(images: Tensor) -> npt.NDArray[np.bool_]:
    """Which of two neighbouring places of each photo, uint8 (n, 3, h, w), is brighter: its difference hash, (n, 64).

    Copies of another size, brightness or compression have nearly the same.
    """
    codes = []
    for some in images.split(BATCH):
        places = F.interpolate(to_float(some).mean(1, keepdim=True), PLACES, mode="area")[:, 0]
        codes.append((places.diff(dim=2) > 0).flatten(1).numpy())
    return np.concatenate(codes)


def look_alike(codes: npt.NDArray[np.bool_], asked: npt.NDArray[np.bool_]) -> list[int | None]:
    """Numbers of those photos with codes (n, 64) that are ``asked`` for, (n,): who look the same share one.

    A photo that is even looks like no other. None of those that are not asked for.
    """
    rows = np.flatnonzero(asked & codes.any(1))
    signs = np.where(codes[rows], 1, -1).astype(np.float32)
    pairs = [
        (first + start, second)
        for start in range(0, len(rows), BATCH)
        for first, second in [np.nonzero(signs[start : start + BATCH] @ signs.T >= codes.shape[1] - 2 * ALIKE)]
    ]
    first, second = np.concatenate(pairs, axis=1) if pairs else (np.empty(0, int), np.empty(0, int))
    _, labels = connected_components(coo_array((np.ones(len(first)), (first, second)), (len(rows), len(rows))))
    found: list[int | None] = [None] * len(codes)
    for row, label in zip(rows.tolist(), labels.tolist(), strict=True):
        found[row] = label
    return found


def with_mirrored_labels(parts: LoadedParts, part: str) -> LoadedParts:
    """The same with what is known of one part's photos a second time; the manifest names each photo once."""
    labels, identities = parts.labels[part], parts.identities
    return replace(
        parts,
        labels={**parts.labels, part: {name: values.repeat(2) for name, values in labels.items()}},
        identities=identities and {**identities, part: identities[part].repeat(2)},
    )
