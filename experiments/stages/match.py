"""Find the strength at which a defence loses so much accuracy."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch

from splitleak.defenses.base import Defense
from splitleak.defenses.fitting import Budget
from splitleak.experiments.planning.found import Found, Tried, tolerance_on
from splitleak.experiments.stages.bisection import Search, points, range_of, search
from splitleak.experiments.stages.protect import ProtectStage, decisions
from splitleak.experiments.store.integrity import intact
from splitleak.experiments.store.key import Stage
from splitleak.experiments.store.store import Store
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import BATCH, to_float

FILE = "found.json"


@dataclass(frozen=True)
class MatchStage(Stage):
    """A search over the strengths of a defence, by trainings that are stages of their own.

    ``undefended``: what accuracy is lost from. ``defense``: at the weakest of its strengths. ``budget``: of each
    training. ``asked``: the share of accuracy that is to be lost, on the validation part. ``most``: trainings.
    """

    label: ClassVar[str] = "match"

    undefended: ProtectStage
    defense: Defense
    budget: Budget
    asked: float
    most: int

    def at(self, strength: float) -> ProtectStage:
        """The training of one strength."""
        assert self.defense.strength is not None
        defense = replace(self.defense, **{self.defense.strength: strength})
        return ProtectStage(self.undefended.victim, defense, self.budget)

    def expected_bytes(self) -> int:
        """The weights of all trainings."""
        return self.most * self.undefended.victim.weight_bytes()

    def compute(self, folder: Path, store: Store) -> None:
        """found.json."""
        name = self.defense.strength
        assert name is not None
        labels = self.undefended.victim.data.load(store).labels
        assert labels is not None
        photos, chance = len(labels["validation"]), self.undefended.victim.task.chance(labels["validation"])
        undefended, tolerance = accuracy(self.undefended, store), tolerance_on(photos)
        tried: dict[float, float] = {}

        def loss(strength: float) -> float:
            store.progress(f"training {len(tried) + 1} of {self.most} at most: {name} = {strength:g}")
            tried[strength] = accuracy(self.at(strength), store)
            lost = undefended - tried[strength]
            store.progress(f"{name} = {strength:g} loses {points(lost)} on validation")
            return lost

        if undefended - self.asked > chance:
            seen = search(loss, range_of(self.defense), self.asked, tolerance, self.most, name)
        else:
            told = f"undefended {undefended:.1%}, and {chance:.1%} by an answer that is the same for all photos"
            seen = Search(reason=f"there is not so much to lose: {told}")
        found = Found(
            asked=self.asked,
            strength=name,
            value=seen.value,
            reason=seen.reason,
            undefended=undefended,
            tried=tuple(Tried(strength=strength, accuracy=of) for strength, of in tried.items()),
            photos=photos,
            tolerance=tolerance,
            seed=self.undefended.seed,
        )
        (folder / FILE).write_text(found.model_dump_json())

    def known(self, root: Path) -> Found | None:
        """What a store under this folder holds, None where it does not hold it whole; nothing is computed."""
        place = root / self.label / self.key
        if not place.is_dir() or not intact(place):
            return None
        return Found.model_validate_json((place / FILE).read_text())


def accuracy(stage: ProtectStage, store: Store) -> float:
    """The utility on the validation part, over some sends where these differ."""
    data, model, task = stage.victim.data.load(store), stage.load(store), stage.victim.task
    assert data.labels is not None
    images, labels, right = data.images["validation"], data.labels["validation"], 0.0
    # what a search trains is looked at once: features of an encoder of its own would only be kept for nobody
    stored = None if stage.own_encoder else stage.stored_features("validation", store)
    with seeded("match", stage.seed):
        for rows in torch.arange(len(labels)).split(BATCH):
            features = None if stored is None else stored[rows].to(store.device, torch.float32)
            decided = decisions(model, to_float(images[rows].to(store.device)), task, features)
            right += float(torch.stack([task.utility(one, labels[rows]) for one in decided]).mean(0).sum())
    return right / len(labels)
