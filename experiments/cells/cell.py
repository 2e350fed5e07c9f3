"""A cell: a place in a plan's matrix, what is computed there, and the record of it."""

import io
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from splitleak.defenses.base import Defense
from splitleak.experiments.judge.rules import PERSONAL
from splitleak.experiments.judge.scores import Recogniser, Scores, Truth
from splitleak.experiments.judge.statistics.groups import person_means
from splitleak.experiments.judge.statistics.interval import interval
from splitleak.experiments.planning.plan import Entry, Plan
from splitleak.experiments.planning.threat import Threat
from splitleak.experiments.results.load import read_record, record_file
from splitleak.experiments.results.record import Record, State
from splitleak.experiments.stages.bounds import BoundsStage
from splitleak.experiments.stages.data import Data
from splitleak.experiments.stages.embedder import EmbedderStage
from splitleak.experiments.stages.floor import FloorStage
from splitleak.experiments.stages.probe import ProbeStage
from splitleak.experiments.stages.protect import ProtectStage
from splitleak.experiments.stages.reader import ReaderStage, reader_stage
from splitleak.experiments.stages.seen import reader_of, task_of
from splitleak.experiments.store.integrity import digest, replace_if_other
from splitleak.experiments.store.key import Stage, source_digest
from splitleak.experiments.store.store import Store
from splitleak.victims.data.parts import TEST
from splitleak.victims.errors import InvalidInputError

EXAMPLES = 8
"""How many targets are kept as pictures."""
JUDGE = "judge"
"""How provenance calls what a cell computes itself."""


@dataclass(frozen=True)
class Cell(ABC):
    """One victim, defence setting, threat and seed, and what is tried on it.

    ``embedder``: recognises people on images, where the plan asks for that.
    """

    plan: Plan
    defense: Entry[Defense]
    threat: Threat
    protect: ProtectStage
    embedder: EmbedderStage | None

    @property
    @abstractmethod
    def attack(self) -> dict[str, Any]:
        """Name, label, settings, knowledge, and whether it is a floor."""

    @property
    @abstractmethod
    def stage(self) -> Stage:
        """The last one."""

    @property
    @abstractmethod
    def inapplicable(self) -> str | None:
        """Why there is nothing to measure here, as one line; None where there is."""

    @abstractmethod
    def judge(self, run: Path, store: Store) -> dict[str, Any]:
        """Compute what is missing and score it."""

    @property
    def stages(self) -> list[Stage]:
        """All that the result is made of; what stands upstream of them is not listed."""
        judges = [stage for stage in (self.embedder, self.reader) if stage]
        return [self.stage, self.probe, self.bounds, self.floor, *judges]

    @property
    def probe(self) -> ProbeStage:
        """Looks whether the defence is at work."""
        return ProbeStage(self.protect)

    @property
    def bounds(self) -> BoundsStage:
        """What no attacker can do better than."""
        return BoundsStage(self.protect, self.threat.sends)

    @property
    def floor(self) -> FloorStage:
        """What is known of the photos without any release."""
        return FloorStage(self.protect.victim.data)

    @property
    def reader(self) -> ReaderStage | None:
        """Tells the labels of reconstructions; None where the photos carry none."""
        return reader_stage(self.protect.victim.data, self.protect.victim.device)

    @property
    def seed(self) -> int:
        """Of the victim and of all that follows."""
        return self.protect.seed

    @property
    def title(self) -> str:
        """As the progress display and the dry run name it."""
        return f"{self.defense.label} x {self.threat.column(self.attack['label'])}, seed {self.seed}"

    @cached_property
    def id(self) -> str:
        """Name of its files: readable, and unique within the plan."""
        facts = [self.defense.label, self.attack["label"], asdict(self.threat), self.seed]
        return f"{self.defense.plugin.name}-{self.attack['name']}-{self.seed}-{digest(facts)[:10]}"

    @cached_property
    def key(self) -> str:
        """Changes with everything that the result depends on, the judge included."""
        found = self.defense.found
        searched = [] if found is None else [found.model_dump()]
        stages = [stage.key for stage in self.stages]
        return digest([stages, source_digest(type(self).__module__), *searched])

    def result(self, run: Path) -> Record | None:
        """The stored result, if there is one for exactly this cell and it is as it was stored."""
        try:
            stored = read_record(run, self.id)
        except InvalidInputError:  # cut off, or no record at all: a run makes it again
            return None
        if stored is None or not stored.whole or stored.record.archived or stored.record.key != self.key:
            return None
        return stored.record

    def compute(self, run: Path, store: Store) -> Record:
        """Judge it; what it is made of is computed where it is missing."""
        with store.using() as made:
            outcome = {**self.judge(run, store), **self._protected(store)}
            return self.record("ok", **outcome, made=made(JUDGE))

    def record(self, status: State, **outcome: Any) -> Record:
        """A record of this cell, finished now."""
        victim, plugin, found = self.plan.victim, self.defense.plugin, self.defense.found
        strength = None if self.defense.match and not (found and found.value is not None) else plugin.strength
        identity = {
            "plan": self.plan.name,
            "seed": self.seed,
            "adaptive": self.threat.adaptive,
            "sends": self.threat.sends,
            "photos": self.threat.photos,
            "victim": {
                "model": victim.model,
                "cut": victim.cut,
                "data": self.plan.source.name,
                "size": victim.size,
                "task": self.plan.label,
            },
            "defence": {
                "name": plugin.name,
                "label": self.defense.label,
                "settings": plugin.to_mapping(),
                "strength": plugin.strength,
                "strength_value": getattr(plugin, strength) if strength else None,
                "match": found,
            },
            "attack": self.attack,
            "budget": {
                "queries": self.threat.budget,
                "photos": self.plan.attacker.auxiliary,
                "epochs": self.protect.budget.epochs,
                "patience": self.protect.budget.patience,
            },
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        return Record.model_validate({"id": self.id, "key": self.key, "status": status, **identity, **outcome})

    def _protected(self, store: Store) -> dict[str, Any]:
        """What does not depend on the attack."""
        facts, data = self.protect.facts(store), self.protect.victim.data.load(store)
        victim = self.protect.victim.history(store)
        guarantees = [
            {**guarantee, "epsilon": None if np.isinf(guarantee["epsilon"]) else guarantee["epsilon"]}
            for guarantee in facts["guarantees"]
        ]
        return {
            "utility": facts["utility"] and utility_of(facts["utility"], data),
            "targets": photos_digest(data, "target"),
            "groups": data.groups["target"],
            "bytes": facts["bytes"],
            "edge": facts["edge"],
            "guarantees": guarantees,
            "probe": self.probe.load(store),
            "bounds": self.bounds.load(store),
            "training": {"victim": victim.rows, "defence": facts["history"]["rows"]},
            "cut_short": victim.cut_short or facts["history"]["cut_short"],
            "overlap": overlap(data.manifest),
        }

    def truth(self, store: Store) -> Truth:
        """What answers are scored against."""
        data, embedder, reader = self.protect.victim.data.load(store), self.embedder, self.reader
        store.folder(self.protect.victim)  # used by this cell, also where an earlier one has read it
        attributes = data.attributes["target"]
        recogniser = Recogniser(embedder.targets(store), partial(embedder.embed, store=store)) if embedder else None
        return Truth(
            images=data.images["target"],
            attributes={name: attributes[name] for name in data.names},  # in the order that attacks see
            task=data.task,
            identities=data.identities["target"] if data.identities else None,
            recogniser=recogniser,
            victim=task_of(self.protect.victim, store),
            reader=reader_of(reader, store) if reader else None,
            floor=self.floor.load(store),
        )

    def groups(self, store: Store) -> tuple[int, ...]:
        """Of the target photos."""
        return self.protect.victim.data.load(store).groups["target"]

    def scored(self, scores: Scores, run: Path, groups: tuple[int, ...]) -> dict[str, Any]:
        """What is stored of scores of photos of these groups; the first pictures are kept beside."""
        if scores.pictures is not None:
            save_strip(self.picture(run, ".png"), scores.pictures[:EXAMPLES])
        return {"metrics": summaries(scores, groups), "references": scores.references}

    def picture(self, run: Path, kind: str) -> Path:
        """Where one of its pictures lies."""
        return record_file(run, self.id).with_name(f"{self.id}{kind}")


def overlap(manifest: Mapping[str, Any]) -> int:
    """Photos of the target part that are, by their content, also among those that an attacker or the victim learns
    from."""
    hashes = {part: set(facts["hashes"]) for part, facts in manifest["parts"].items() if part != TEST}
    return len(hashes.pop("target") & set().union(*hashes.values()))


def photos_digest(data: Data, part: str) -> str:
    """Of the contents of a part's photos in their order: cells that share it were scored on the same photos."""
    return digest(data.manifest["parts"][part]["hashes"])


def utility_of(facts: Mapping[str, Any], data: Data) -> dict[str, Any]:
    """What is stored of the utility: its values with the interval, and on which photos it was measured."""
    groups = data.groups[facts["part"]]
    photos = {"groups": groups, "photos": photos_digest(data, facts["part"])}
    return {**facts, **with_interval(facts["values"], groups), **photos}


def summaries(scores: Scores, groups: tuple[int, ...]) -> dict[str, Any]:
    """Each metric of the photos that count, with its interval; ``groups``: of all photos."""
    return {name: _summary(values, groups, name in PERSONAL) for name, values in scores.values.items()}


def _summary(values: Tensor, groups: tuple[int, ...], personal: bool) -> dict[str, Any]:
    known = ~values.isnan()
    counted = known.nonzero().flatten().tolist()
    people = tuple(groups[photo] for photo in counted)
    of_known = values[known]
    found = with_interval(of_known.tolist(), people)
    if personal:
        found |= interval(person_means(of_known, people))._asdict()
    return found | ({} if known.all() else {"counted": counted})


def with_interval(values: list[float], groups: tuple[int, ...]) -> dict[str, Any]:
    """Values of photos as a record holds them; ``groups``: of these photos or more."""
    return {**interval(values, groups)._asdict(), "values": [round(value, 6) for value in values]}


def save_strip(path: Path, images: Tensor) -> None:
    """Write photos (n, 3, h, w) uint8 side by side."""
    strip = np.concatenate(list(images.permute(0, 2, 3, 1).numpy()), axis=1)
    picture = io.BytesIO()
    Image.fromarray(strip).save(picture, "PNG")
    replace_if_other(path, picture.getvalue())
