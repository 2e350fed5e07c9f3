"""Decode the photos once and divide them into parts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from safetensors.torch import load_file, save_file
from torch import Tensor

from splitleak.experiments.judge.statistics.groups import groups_of
from splitleak.experiments.stages.arrays import ArrayFile, MirroredFile, load_array
from splitleak.experiments.store.key import Stage
from splitleak.experiments.store.store import Store
from splitleak.victims.data.base import Source
from splitleak.victims.data.loading import LoadedParts, load_parts
from splitleak.victims.data.parts import TEST, PartSizes, divide


@dataclass(frozen=True)
class Data:
    """The parts, memory-mapped. ``images``: uint8 (n, 3, h, w) by part.

    ``attributes``: by part and name, int64 (n,), -1 where unknown; ``names``: of each attribute's values.
    ``identities``: by part, int64 (n,), -1 where unknown; None where the data does not say who is on a photo.
    ``task``: the attribute that the victim predicts. ``manifest``: what is in which part (see Parts.manifest).
    """

    images: Mapping[str, Tensor]
    attributes: Mapping[str, Mapping[str, Tensor]]
    names: Mapping[str, tuple[str, ...]]
    identities: Mapping[str, Tensor] | None
    task: str | None
    manifest: Mapping[str, Any]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, merged or changed on the way from the files to the parts, as sentences of one line."""
        return tuple(self.manifest["notes"])

    @property
    def labels(self) -> Mapping[str, Tensor] | None:
        """The task's, by part; None without a task."""
        return None if self.task is None else {part: of[self.task] for part, of in self.attributes.items()}

    @cached_property
    def groups(self) -> Mapping[str, tuple[int, ...]]:
        """Of each photo on which something is measured, by part, an anonymous number: the same where the same person
        is known to be on it, or where its content is the same; one of whom nobody knows is of somebody else."""
        parts = [part for part in ("target", TEST) if part in self.images]
        hashes = [code for part in parts for code in self.manifest["parts"][part]["hashes"]]
        people = [person for part in parts for person in (self.identities[part].tolist() if self.identities else ())]
        known = [None if person < 0 else person for person in people]
        numbers = iter(groups_of(hashes, known) if known else groups_of(hashes))
        return {part: tuple(islice(numbers, len(self.images[part]))) for part in parts}

    @property
    def measured(self) -> str:
        """The part on which utility is measured: of photos that nobody attacks, where there are any."""
        return TEST if TEST in self.images else "target"

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
            return kind(folder / f"{part}.npy", (3, self.size, self.size), "uint8")

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


def with_mirrored_labels(parts: LoadedParts, part: str) -> LoadedParts:
    """The same with what is known of one part's photos a second time; the manifest names each photo once."""
    labels, identities = parts.labels[part], parts.identities
    return replace(
        parts,
        labels={**parts.labels, part: {name: values.repeat(2) for name, values in labels.items()}},
        identities=identities and {**identities, part: identities[part].repeat(2)},
    )
