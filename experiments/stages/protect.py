"""Put a defence into a victim, train what it trains, and measure what it costs."""

import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from splitleak.defenses.base import Anew, Calibration, CalibrationBatch, Defense, Guarantee, Perturbation
from splitleak.defenses.fitting import Budget, Examples, SplitModel, fit, fit_head
from splitleak.experiments.stages.data import Data
from splitleak.experiments.stages.moved import Part
from splitleak.experiments.stages.victim import FeaturesStage, NetworkStage, VictimStage, load_modules, save_modules
from splitleak.experiments.store.store import Store
from splitleak.victims.cuts import Halves
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.models import CLASSES_WITHOUT_TASK
from splitleak.victims.seeding import seeded
from splitleak.victims.tasks.base import Task
from splitleak.victims.tasks.classification import CLASSIFICATION
from splitleak.victims.tensors import BATCH, to_float
from splitleak.victims.training import History

DRAWS = 3
"""Sends of a photo that are scored, for utility as for leakage, where the device draws at random: the luck of a
single one would read as an effect."""
TIMED_REPEATS, WARM_UPS = 30, 5
PACKED_SENDS = 16


@dataclass(frozen=True)
class ProtectStage(NetworkStage):
    """A protected victim: trained weights, utility, bytes per image, edge time."""

    label: ClassVar[str] = "protect"

    victim: VictimStage
    defense: Defense
    budget: Budget

    @property
    def seed(self) -> int:
        """The victim's."""
        return self.victim.seed

    @property
    def own_encoder(self) -> bool:
        """Whether the encoder is another one than the victim's, and so are its features."""
        anew = self.defense.retrains == "anew"
        return self.defense.retrains == "network" or (anew and not self.victim.freeze_encoder)

    def compute(self, folder: Path, store: Store) -> None:
        """weights.safetensors (perturb.*, encoder.*, channel.*, tail.*) and facts.json."""
        data = self.victim.data.load(store)
        with seeded("protect", self.seed, self.defense.name):
            model = self._assemble(store, data)
            calibration = self._calibration(model, data, store)
            model.perturb.calibrate(calibration)
            model.channel.calibrate(calibration)
            history, guarantees = self._train(model, calibration, data, store)
        if guarantee := model.channel.guarantee():
            guarantees.append(guarantee)
        model.eval().requires_grad_(False)
        facts = {
            "history": asdict(history),
            "guarantees": [asdict(guarantee) for guarantee in guarantees],
            "utility": self._utility(model, data, store),
            **self._cost(model, data.images[data.measured], store),
        }
        save_modules(folder / "weights.safetensors", model=model)
        (folder / "facts.json").write_text(json.dumps(facts))

    def expected_bytes(self) -> int:
        """The weights, and the features where they are not the victim's."""
        return self.victim.weight_bytes() + (self.victim.feature_bytes() if self.own_encoder else 0)

    def load(self, store: Store) -> SplitModel:
        """The protected network in eval mode on the store's device, its parameters frozen."""
        model = self._assemble(store, self.victim.data.load(store))
        load_modules(store.folder(self) / "weights.safetensors", model=model)
        return model.to(store.device).eval().requires_grad_(False)

    def facts(self, store: Store) -> dict[str, Any]:
        """History, guarantees, utility, bytes and edge time."""
        facts: dict[str, Any] = json.loads((store.folder(self) / "facts.json").read_text())
        return facts

    def new_encoder(self, store: Store) -> nn.Module:
        """An encoder of this architecture with weights of its own, untrained; drawn from torch's global state."""
        encoder = self.victim.new_encoder(store)
        return self.defense.adapt(encoder) if self.own_encoder else encoder

    def images(self, part: Part, store: Store) -> Tensor:
        """Of the victim's data."""
        return self.victim.images(part, store)

    def stored_features(self, part: Part, store: Store) -> Tensor | None:
        """What the channel sends; None where noise on the images makes it vary."""
        if self._perturbation(store) is not None:
            return None
        return FeaturesStage(self if self.own_encoder else self.victim, part).load(store)

    def _perturbation(self, store: Store) -> Perturbation | None:
        return self.defense.perturb(tuple(self.images("target", store).shape[1:]))

    def _assemble(self, store: Store, data: Data) -> SplitModel:
        """The network with the defence's modules in it, before calibration and training."""
        start: Halves | SplitModel
        if self.defense.retrains == "anew":
            start = self.victim.initial(len(data.classes) or CLASSES_WITHOUT_TASK)
        else:
            start = self.victim.load(store)
        shape = self.victim.stored_features("target", store).shape[1:]
        channel = self.defense.channel(tuple(shape))
        model = SplitModel(
            self.defense.adapt(start.encoder) if self.own_encoder else start.encoder,
            self.defense.cloud(self.defense.adapt(start.tail), channel),
            channel,
            self._perturbation(store),
        )
        return model.to(store.device).eval()

    def _frozen_features(self, part: Part, store: Store) -> Tensor | None:
        """Like ``stored_features``, before the protected network exists."""
        return None if self.own_encoder else self.stored_features(part, store)

    def _calibration(self, model: SplitModel, data: Data, store: Store) -> Calibration:
        images, labels = data.images["train"], data.labels["train"] if data.labels else None
        # not every network's code can do with no photos at all
        batches_of = torch.arange(len(images)).split(128) if len(images) else ()

        def batches() -> Iterator[CalibrationBatch]:
            # here and no earlier: a shallow cut's take gigabytes, and not every defence looks at them
            stored = self._frozen_features("train", store) if len(images) else None
            for rows in batches_of:
                batch = to_float(images[rows].to(store.device))
                with torch.no_grad():
                    features = (
                        model.features(batch) if stored is None else stored[rows].to(store.device, torch.float32)
                    )
                yield CalibrationBatch(batch, features, labels[rows].to(store.device) if labels is not None else None)

        return Calibration(batches, model.encoder, model.tail, store.device, self.victim.task.loss)

    def _train(
        self, model: SplitModel, calibration: Calibration, data: Data, store: Store
    ) -> tuple[History, list[Guarantee]]:
        objective = self.defense.objective(calibration, model.channel)
        if data.labels is None or not self.budget.epochs:
            if self.defense.retrains != "tail" or objective is not None:
                lacks = "the victim needs a task" if data.labels is None else "defender.epochs cannot be 0"
                raise InvalidInputError(f"{self.defense.name} changes training, so {lacks}")
            return History(), []
        model.requires_grad_(True)
        anew = self.defense.anew() if self.defense.retrains == "anew" else Anew()
        model.encoder.requires_grad_(self.own_encoder and anew.scope == "network")
        parts = {
            f"{part}_part": Examples(data.images[part], data.labels[part], self._frozen_features(part, store))
            for part in ("train", "validation")
        }
        log = store.curve(f"training behind {self.defense.name}", self.budget.epochs)
        if anew.scope == "head":
            outcome = fit_head(
                model, **parts, budget=self.budget, prepare=self.defense.prepare, copies=anew.copies, log=log
            )
        else:
            outcome = fit(
                model,
                **parts,
                budget=self.budget,
                objective=objective,
                prepare=self.defense.prepare,
                log=log,
                task_loss=self.victim.task.loss,
            )
        guarantees = [Guarantee("training", *outcome.spent)] if outcome.spent else []
        return outcome.history, guarantees

    def _utility(self, model: SplitModel, data: Data, store: Store) -> dict[str, Any] | None:
        if data.labels is None:
            return None
        task, labels, values, first = self.victim.task, data.labels[data.measured], [], []
        with seeded("utility", self.seed):
            for images, right in zip(data.images[data.measured].split(BATCH), labels.split(BATCH), strict=True):
                draws = decisions(model, to_float(images.to(store.device)), task)
                values += torch.stack([task.utility(said, right) for said in draws]).mean(0).tolist()
                first.append(draws[0])
        return utility_facts(task, values, torch.cat(first), labels, data.measured)

    def _cost(self, model: SplitModel, images: Tensor, store: Store) -> dict[str, Any]:
        """Bytes of a packed release (mean over some) and the edge's time for one image, beside no defence's."""
        with torch.no_grad(), seeded("cost", self.seed):
            releases = model.edge(to_float(images[:PACKED_SENDS].to(store.device)))
            sizes = [len(model.channel.pack(release.cpu())) for release in releases]
            image = to_float(images[:1].to(store.device))
            defended, plain = _interleaved(lambda: model.edge(image), lambda: model.encoder(image))
        return {
            "bytes": statistics.mean(sizes),
            "edge": {"milliseconds": 1000 * statistics.median(defended), "ratio": _ratio(defended, plain)},
        }


def utility_facts(task: Task, values: list[float], said: Tensor, labels: Tensor, part: str) -> dict[str, Any]:
    """What is stored of a network's utility: of each photo of the part, that of guessing, and of all together.

    ``said``: predictions for the photos with these labels.
    """
    return {
        "metric": task.metric,
        "values": [round(value, 6) for value in values],
        "chance": task.chance(labels),
        "part": part,
        "also": task.summary(said, labels),
    }


@torch.no_grad()
def decisions(model: SplitModel, images: Tensor, task: Task = CLASSIFICATION, stored: Tensor | None = None) -> Tensor:
    """What is predicted of each image (n, 3, h, w), (draws, n, ...) on the CPU: one draw where the device draws none.

    ``stored``: the images' features, where these are known and do not vary.
    """

    def features() -> Tensor:
        return model.features(images) if stored is None else stored

    def decided(release: Tensor) -> Tensor:
        return task.predict(model.tail(model.channel.receive(release))).cpu()

    encoded = features()
    first, again = model.channel.send(encoded), model.channel.send(features() if model.perturbs else encoded)
    if torch.equal(first, again):
        return decided(first)[None]
    further = (model.channel.send(features() if model.perturbs else encoded) for _ in range(DRAWS - 2))
    return torch.stack([decided(release) for release in (first, again, *further)])


def _interleaved(*actions: Callable[[], object]) -> list[list[float]]:
    """Seconds of each action, taken in turn so that a drifting machine speed hits all alike."""
    seconds: list[list[float]] = [[] for _ in actions]
    for repeat in range(WARM_UPS + TIMED_REPEATS):
        for taken, action in zip(seconds, actions, strict=True):
            start = time.perf_counter()
            action()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if repeat >= WARM_UPS:
                taken.append(time.perf_counter() - start)
    return seconds


def _ratio(defended: list[float], plain: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(defended, plain, strict=True))
