"""The cells of a plan: victim x defence setting x threat x attack setting x seed, each one JSON file."""

import io
import json
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache, cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from splitleak.attacks.base import Attack, QueryFree, knowledge_of
from splitleak.defenses.base import Defense
from splitleak.defenses.fitting import Budget, predict
from splitleak.experiments.judge.doubts import converged, cut_off
from splitleak.experiments.judge.metrics.perceptual import lpips
from splitleak.experiments.judge.metrics.pictures import metrics_for, score
from splitleak.experiments.judge.scores import (
    Recogniser,
    Scores,
    Task,
    Truth,
    score_answers,
    score_chosen,
    score_control,
)
from splitleak.experiments.judge.statistics.interval import interval
from splitleak.experiments.planning.plan import Entry, Plan
from splitleak.experiments.results.results import STRONGEST
from splitleak.experiments.run.interrupt import stop_if_interrupted
from splitleak.experiments.stages.attack import BATCH, AttackStage, Threat
from splitleak.experiments.stages.bounds import BoundsStage
from splitleak.experiments.stages.data import Data, DataStage
from splitleak.experiments.stages.embedder import EmbedderStage, embedder_stage
from splitleak.experiments.stages.inside import mosaic
from splitleak.experiments.stages.probe import ProbeStage
from splitleak.experiments.stages.protect import ProtectStage
from splitleak.experiments.stages.strongest import StrongestStage
from splitleak.experiments.stages.victim import CLASSES_WITHOUT_TASK, VictimStage
from splitleak.experiments.store.integrity import DiskFullError, file_digest, replace_if_other, write_atomically
from splitleak.experiments.store.store import Stage, Store, digest, source_digest
from splitleak.victims.cuts import content_digest
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.files import WEIGHTS_VARIABLE, content_of, find_file
from splitleak.victims.models import in_file, make_network
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import to_float

TUNING_RATE = 1e-3
"""Of what stands behind a defence, where a plan does not say."""
EXAMPLES = 8
"""How many targets are kept as pictures."""
PICTURES = (".png", ".maps.png", ".stages.png")
"""Beside a cell's file: the first reconstructions; of the first the maps that were sent, and the decoder's stages."""
LIBRARIES = ("splitleak", "torch", "torchvision", "torchmetrics", "opacus")


@dataclass(frozen=True)
class Cell(ABC):
    """A place in a plan's matrix: one victim, defence setting, threat and seed, and what is tried on it.

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
    def stages(self) -> list[Stage]:
        """All that the result is made of; what stands upstream of them is not listed."""
        return [self.stage, self.probe, self.bounds, *([self.embedder] if self.embedder else [])]

    @property
    def probe(self) -> ProbeStage:
        """Looks whether the defence is at work."""
        return ProbeStage(self.protect)

    @property
    def bounds(self) -> BoundsStage:
        """What no attacker can do better than."""
        return BoundsStage(self.protect)

    @abstractmethod
    def judge(self, run: Path, store: Store) -> dict[str, Any]:
        """Compute what is missing and score it."""

    @property
    def seed(self) -> int:
        """Of the victim and of all that follows."""
        return self.protect.seed

    @property
    def title(self) -> str:
        """As the progress display and the dry run name it."""
        threat = f" ({self.threat.label})" if self.threat.label else ""
        return f"{self.defense.label} x {self.attack['label']}{threat}, seed {self.seed}"

    @cached_property
    def id(self) -> str:
        """Name of its files: readable, and unique within the plan."""
        facts = [self.defense.label, self.attack["label"], asdict(self.threat), self.seed]
        return f"{self.defense.plugin.name}-{self.attack['name']}-{self.seed}-{digest(facts)[:10]}"

    @cached_property
    def key(self) -> str:
        """Changes with everything that the result depends on, the judge included."""
        stages = [stage.key for stage in self.stages]
        judge = [
            source_digest(f"splitleak.experiments.judge.{module}") for module in ("scores", "doubts", "perceptual")
        ]
        backbone = weights_fingerprint(self.plan.judge.lpips) if self.plan.judge.lpips else None
        return digest([stages, self.plan.judge.to_mapping(), backbone, judge])

    def result(self, run: Path) -> dict[str, Any] | None:
        """The stored result, if there is one for exactly this cell and it is as it was stored."""
        try:
            stored: dict[str, Any] = json.loads(self._path(run).read_text())
            seal = stored.pop("seal")
        except (OSError, ValueError, KeyError, AttributeError):
            return None
        whole = seal == digest([stored, self._pictures(run)])
        return stored if whole and stored["key"] == self.key else None

    def run(self, run: Path, store: Store) -> dict[str, Any]:
        """Judge and store the result; an error becomes a stored result too.

        Raises:
            DiskFullError: which is no fault of the cell's.
        """
        try:
            outcome = {"status": "ok", "traceback": None, **self.judge(run, store), **self._protected(store)}
        except DiskFullError:
            raise
        except Exception:
            stop_if_interrupted()
            return self.fail(run, traceback.format_exc())
        return self._store(run, outcome)

    def fail(self, run: Path, reason: str) -> dict[str, Any]:
        """Store that there is no result, and why."""
        return self._store(run, {"status": "failed", "traceback": reason})

    def _store(self, run: Path, outcome: dict[str, Any]) -> dict[str, Any]:
        fresh = {"id": self.id, "key": self.key, **self._identity(), **outcome}
        result: dict[str, Any] = json.loads(json.dumps(fresh))  # as it is read again
        seal = digest([result, self._pictures(run)])
        write_atomically(self._path(run), json.dumps({**result, "seal": seal}, indent=1))
        return result

    def _path(self, run: Path) -> Path:
        return run / "cells" / f"{self.id}.json"

    def _pictures(self, run: Path) -> list[str]:
        """Digests of those that there are."""
        files = [run / "cells" / f"{self.id}{kind}" for kind in PICTURES]
        return [file_digest(file) for file in files if file.is_file()]

    def _identity(self) -> dict[str, Any]:
        victim, defense = self.plan.victim, self.defense
        strength = defense.plugin.strength
        return {
            "plan": self.plan.name,
            "seed": self.seed,
            "adaptive": self.threat.adaptive,
            "sends": self.threat.sends,
            "victim": {
                "model": victim.model,
                "cut": victim.cut,
                "data": self.plan.source.name,
                "size": victim.size,
                "task": victim.task,
            },
            "defence": {
                "name": defense.plugin.name,
                "label": defense.label,
                "settings": defense.plugin.to_mapping(),
                "strength": strength,
                "strength_value": getattr(defense.plugin, strength) if strength else None,
            },
            "attack": self.attack,
            "budget": {
                "queries": self.threat.budget,
                "photos": self.plan.attacker.auxiliary,
                "epochs": self.protect.budget.epochs,
            },
        }

    def _protected(self, store: Store) -> dict[str, Any]:
        """What does not depend on the attack."""
        facts = self.protect.facts(store)
        for guarantee in facts["guarantees"]:
            guarantee["epsilon"] = None if np.isinf(guarantee["epsilon"]) else guarantee["epsilon"]
        return {
            "utility": facts["utility"] and {**facts["utility"], **_with_interval(facts["utility"]["values"])},
            "targets": target_digest(self.protect.victim.data.load(store)),
            "bytes": facts["bytes"],
            "edge": facts["edge"],
            "guarantees": facts["guarantees"],
            "probe": asdict(self.probe.load(store)),
            "bounds": (found := self.bounds.load(store)) and asdict(found),
            "training": {"victim": self.protect.victim.history(store), "defence": facts["history"]},
            "overlap": overlap(self.protect.victim.data.load(store).manifest),
            "versions": {library: version(library) for library in LIBRARIES},
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def truth(self, store: Store) -> Truth:
        """What answers are scored against."""
        data, embedder = self.protect.victim.data.load(store), self.embedder
        attributes = data.attributes["target"]
        recogniser = Recogniser(embedder.targets(store), partial(embedder.embed, store=store)) if embedder else None
        return Truth(
            images=data.images["target"],
            attributes={name: attributes[name] for name in data.names},  # in the order that attacks see
            task=data.task,
            identities=data.identities["target"] if data.identities else None,
            recogniser=recogniser,
            victim=self._task(store),
            perceptual=lpips(self.plan.judge.lpips) if self.plan.judge.lpips else None,
            seed_convention=self.plan.judge.seed_convention,
        )

    def _task(self, store: Store) -> Task | None:
        """The undefended victim as a reader of pictures; None where it has no task."""
        victim = self.protect.victim
        labels, model = victim.data.load(store).labels, victim.load(store)
        if labels is None:
            return None
        features = victim.stored_features("target", store)  # what it reads from the photos needs its tail alone
        with torch.no_grad():
            read = torch.cat(
                [model.tail(chunk.to(store.device, torch.float32)).argmax(1).cpu() for chunk in features.split(BATCH)]
            )
        return Task(labels["target"], read == labels["target"], partial(predict, model, device=store.device))

    def _scored(self, answers: Tensor, scores: Scores, run: Path) -> dict[str, Any]:
        """What is stored of scores; the first pictures are kept beside."""
        if scores.pictures is not None:
            save_strip(run / "cells" / f"{self.id}.png", scores.pictures[:EXAMPLES])
        return {"n": len(answers), "metrics": _summaries(scores), "references": scores.references}


@dataclass(frozen=True)
class AttackCell(Cell):
    """One attack setting."""

    entry: Entry[Attack[QueryFree]]

    @property
    def attack(self) -> dict[str, Any]:
        """Of the plugin."""
        plugin = self.entry.plugin
        return {
            "name": plugin.name,
            "label": self.entry.label,
            "settings": plugin.to_mapping(),
            "knowledge": knowledge_of(type(plugin)).__name__,
            "floor": plugin.floor,
        }

    @cached_property
    def stage(self) -> AttackStage:
        """Fits it and lets it answer."""
        targets = self.plan.attacker.slow_targets if self.entry.plugin.per_image else None
        return AttackStage(self.protect, self.entry.plugin, self.threat, targets)

    def judge(self, run: Path, store: Store) -> dict[str, Any]:
        """Score the answers."""
        truth, log, plugin = self.truth(store), self.stage.log(store), self.entry.plugin
        draws = [self.stage.load(store, draw) for draw in range(log["draws"])]
        scores = Scores.over_draws([score_answers(plugin, answers, truth) for answers in draws])
        self._save_inside(run, store)
        shuffled = score_control(plugin, self.stage.load_shuffled(store), truth)
        return self._scored(draws[0], scores, run) | {
            **log,
            "controls": {"shuffled": _summaries(shuffled)},
            "converged": converged(log["history"]),
            "cut_off": None if scores.pictures is None else cut_off(truth.images, scores.pictures),
        }

    def _save_inside(self, run: Path, store: Store) -> None:
        inside = self.stage.load_inside(store)
        if inside:
            save_strip(run / "cells" / f"{self.id}.maps.png", mosaic(inside["maps"])[None])
            save_strip(run / "cells" / f"{self.id}.stages.png", inside["stages"])


@dataclass(frozen=True)
class StrongestCell(Cell):
    """The suite's choice among all attacks, beside what an oracle would have chosen for each photo."""

    entries: tuple[AttackCell, ...]

    @property
    def attack(self) -> dict[str, Any]:
        """A name that no plugin may have."""
        return {"name": STRONGEST, "label": STRONGEST, "settings": {}, "knowledge": "", "floor": False}

    @cached_property
    def stage(self) -> StrongestStage:
        """Chooses without the truth."""
        return StrongestStage(tuple(cell.stage for cell in self.entries))

    def judge(self, run: Path, store: Store) -> dict[str, Any]:
        """Score the choices; the oracle takes each photo's reconstruction that has most of the metric in question."""
        truth, draws = self.truth(store), range(self.stage.draws(store))
        chosen = [self.stage.load(store, draw) for draw in draws]
        scores = Scores.over_draws([score_chosen(answers, truth) for answers in chosen])
        oracle = Scores.over_draws([score_chosen(self._oracle(store, truth, draw), truth) for draw in draws])
        counts = {metric: self._counts(choice) for metric, choice in self.stage.choice(store).items()}
        return self._scored(chosen[0]["psnr"], scores, run) | {
            "oracle": _summaries(oracle),
            "chosen": counts.pop("psnr"),
            "chosen_for": counts,
            "draws": len(draws),
            "random": any(cell.stage.log(store)["random"] for cell in self.entries),
        }

    def _counts(self, choice: Sequence[int]) -> dict[str, int]:
        """How many photos went to each attack."""
        return dict(Counter(self.entries[k].attack["label"] for k in choice).most_common())

    def _oracle(self, store: Store, truth: Truth, draw: int) -> dict[str, Tensor]:
        """By metric for each photo the reconstruction most like the truth, uint8 (n, 3, h, w)."""
        metrics = metrics_for(truth.images.shape[-1])
        images = to_float(truth.images)
        best = {name: torch.zeros_like(truth.images) for name in self.stage.choice(store)}
        highest = {name: torch.full((len(images),), -torch.inf) for name in best}
        for cell in self.entries:
            rebuilt = cell.stage.load(store, draw)
            reached = score({name: metrics[name] for name in best}, images[: len(rebuilt)], to_float(rebuilt))
            for name, values in reached.items():
                found = torch.tensor(values)
                better = (found > highest[name][: len(rebuilt)]).nonzero().flatten()
                best[name][better], highest[name][better] = rebuilt[better], found[better]
        return best


def overlap(manifest: Mapping[str, Any]) -> int:
    """Photos of the target part that are, by their content, also among those that an attacker or the victim learns
    from."""
    hashes = {part: set(facts["hashes"]) for part, facts in manifest["parts"].items()}
    return len(hashes.pop("target") & set().union(*hashes.values()))


def _summaries(scores: Scores) -> dict[str, Any]:
    return {name: _with_interval(_counted(values)) for name, values in scores.values.items()}


def target_digest(data: Data) -> str:
    """Of the target photos' contents in their order: cells that share it were scored on the same photos."""
    return digest(data.manifest["parts"]["target"]["hashes"])


def _counted(values: Tensor) -> list[float]:
    """Without the photos that do not count."""
    counted: list[float] = values[~values.isnan()].tolist()
    return counted


def _with_interval(values: list[float]) -> dict[str, Any]:
    return {**interval(values)._asdict(), "values": [round(value, 6) for value in values]}


def save_strip(path: Path, images: Tensor) -> None:
    """Write photos (n, 3, h, w) uint8 side by side."""
    strip = np.concatenate(list(images.permute(0, 2, 3, 1).numpy()), axis=1)
    picture = io.BytesIO()
    Image.fromarray(strip).save(picture, "PNG")
    replace_if_other(path, picture.getvalue())


def cells_of(plan: Plan) -> Iterator[Cell]:
    """All cells of a plan, those of one protected victim together."""
    victim = plan.victim
    data = DataStage(plan.source, plan.part_sizes, victim.size, victim.task, plan.parts.seed, plan.attacker.mirror)
    embedder = embedder_stage(plan.judge.identity, plan.judge.identity_crop, data)
    for seed in plan.seeds:
        network = VictimStage(
            data=data,
            model=plan.model,
            model_fingerprint=model_fingerprint(plan.model, victim.size),
            cut=victim.cut,
            weights=victim.weights,
            weights_fingerprint=weights_fingerprint(victim.weights),
            freeze_encoder=victim.freeze_encoder,
            budget=Budget(victim.epochs, victim.batch_size, victim.learning_rate),
            seed=seed,
        )
        for defense in plan.defenses:
            protect = ProtectStage(network, defense.plugin, _budget(plan, defense.plugin))
            for threat in plan.threats:
                cells = [AttackCell(plan, defense, threat, protect, embedder, attack) for attack in plan.attacks]
                yield from cells
                competing = tuple(cell for cell in cells if cell.stage.ranks)
                if len(competing) > 1:
                    yield StrongestCell(plan, defense, threat, protect, embedder, competing)


def _budget(plan: Plan, defense: Defense) -> Budget:
    if defense.retrains == "anew":
        epochs = plan.defender.anew_epochs or plan.victim.epochs
        return Budget(epochs, plan.victim.batch_size, plan.victim.learning_rate)
    # a network that learns little at a high rate forgets at one, too
    learning_rate = plan.defender.learning_rate or min(TUNING_RATE, plan.victim.learning_rate)
    return Budget(plan.defender.epochs, plan.defender.batch_size, learning_rate)


@cache
def model_fingerprint(model: str, size: int) -> str:
    """Of a network in a file: the file's content, and what its function returns; empty for any other.

    Raises:
        InvalidInputError: the function returns another network each time, so no result could be found again.
    """
    if not in_file(model):
        return ""
    digests = []
    for _ in range(2):
        with seeded("fingerprint"):
            digests.append(content_digest(make_network(model, CLASSES_WITHOUT_TASK, size), size))
    if digests[0] != digests[1]:
        raise InvalidInputError(
            f"{model} returns other weights each time: draw them from torch's generator, or load them from a file"
        )
    return digest([file_digest(Path(model.partition(":")[0])), digests[0]])


def weights_fingerprint(weights: str) -> str:
    """A digest of a weights file; the name itself for weights that torchvision numbers.

    Raises:
        InvalidInputError: there is no such file.
    """
    if not Path(weights).suffix:
        return weights
    return content_of(find_file(weights, "weights file", WEIGHTS_VARIABLE))
