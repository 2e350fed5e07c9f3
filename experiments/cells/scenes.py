"""What is known of each place of a plan's matrix before anything is computed: does an attack, a defence apply?"""

from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import torch

from splitleak.attacks.base import Attack, Scene
from splitleak.attacks.knowledge import QueryFree
from splitleak.defenses.base import Defense
from splitleak.experiments.cells.fingerprints import model_fingerprint
from splitleak.experiments.planning.plan import Plan
from splitleak.experiments.planning.threat import Threat
from splitleak.victims.cuts import split
from splitleak.victims.data.base import Catalog
from splitleak.victims.models import CLASSES_WITHOUT_TASK, make_network


@dataclass(frozen=True)
class Scenes:
    """Those of one plan."""

    plan: Plan
    releases: dict[Defense, tuple[int, ...]] = field(default_factory=dict, compare=False)

    def inapplicable(self, defense: Defense, threat: Threat, attack: Attack[QueryFree]) -> str | None:
        """Why there is nothing to measure, as one line; None where there is."""
        return self.unused(defense) or attack.inapplicable(self.of(defense, threat))

    def unused(self, defense: Defense) -> str | None:
        """Why a defence has nothing to act on, as one line; None where it applies."""
        task = self.plan.task
        if defense.of_classes and task and task.form != "class":
            return f"{defense.name} does not apply: it needs one class for each photo, and {task.name} has none"
        return defense.inapplicable(self.shape, self.plan.label)

    def of(self, defense: Defense, threat: Threat) -> Scene:
        """What an attack meets there."""
        if defense not in self.releases:
            channel = defense.channel(self.shape)
            with torch.no_grad():
                self.releases[defense] = tuple(channel.send(torch.zeros(1, *self.shape)).shape[1:])
        release = self.releases[defense] if threat.adaptive else self.shape
        return Scene(
            release_shape=release,
            image_shape=(3, self.plan.victim.size, self.plan.victim.size),
            task=self.plan.label,
            classes=self.plan.task is None or self.plan.task.form == "class",
            attributes=tuple(self._catalog.labels),
            identities=self._catalog.identity is not None,
            sends=threat.sends,
            tokens=len(release) == 2,
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one photo's undefended features."""
        victim = self.plan.victim
        return _cut_shape(
            self.plan.model, model_fingerprint(self.plan.model, victim.size), victim.model, victim.cut, victim.size
        )

    @cached_property
    def _catalog(self) -> Catalog:
        return self.plan.source.catalog()


@lru_cache(maxsize=16)
def _cut_shape(model: str, fingerprint: str, called: str, cut: str, size: int) -> tuple[int, ...]:
    """Tracing takes a second; ``fingerprint`` keeps two states of a network's file apart."""
    return split(make_network(model, CLASSES_WITHOUT_TASK, size), called, cut, size).cut.shape
