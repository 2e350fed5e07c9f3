"""The cell of one attack setting."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from splitleak.attacks.base import Attack, Reconstruction, knowledge_of
from splitleak.attacks.knowledge import QueryFree
from splitleak.experiments.cells.cell import Cell, save_strip, summaries
from splitleak.experiments.cells.fingerprints import weights_fingerprint
from splitleak.experiments.judge.doubts import converged, cut_off, overfitted
from splitleak.experiments.judge.scores import Scores, Truth, score_answers, score_control, score_identity
from splitleak.experiments.planning.plan import Entry
from splitleak.experiments.stages.attack import AttackStage
from splitleak.experiments.stages.inside import mosaic
from splitleak.experiments.stages.moved import MovedStage
from splitleak.experiments.stages.seen import SeenStage
from splitleak.experiments.store.key import Stage
from splitleak.experiments.store.store import Store
from splitleak.victims.files import content_of


@dataclass(frozen=True)
class AttackCell(Cell):
    """One attack setting. ``inapplicable``: why there is nothing to measure, as one line; None where there is."""

    entry: Entry[Attack[QueryFree]]
    inapplicable: str | None = None

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
            "needs": plugin.needed,
            "effort": self.entry.effort,
        }

    @cached_property
    def stage(self) -> AttackStage:
        """Fits it and lets it answer."""
        plugin, attacker = self.entry.plugin, self.plan.attacker
        targets = attacker.slow_targets if plugin.per_image else None
        learns = plugin.learns_from_copies and attacker.copies
        data, part = self.protect.victim.data, "train" if self.threat.photos == "train" else "auxiliary"
        moved = MovedStage(data, attacker.copies, part) if learns else None
        acquired = MovedStage(data, 0, part) if part == "train" else None
        files = tuple(content_of(file) for file in plugin.files())
        return AttackStage(self.protect, plugin, self.threat, targets, moved, files, acquired)

    @cached_property
    def seen(self) -> SeenStage | None:
        """Looks at its pictures; None where it makes none."""
        if not isinstance(self.entry.plugin, Reconstruction):
            return None
        table = self.plan.judge
        fingerprint = weights_fingerprint(table.lpips) if table.lpips else None
        return SeenStage(self.stage, self.reader, table.seed_convention, table.lpips, fingerprint)

    @property
    def stages(self) -> list[Stage]:
        """With what is seen on its pictures."""
        return [*super().stages, *([self.seen] if self.seen else [])]

    def judge(self, run: Path, store: Store) -> dict[str, Any]:
        """Score the answers."""
        truth, log, plugin, groups = self.truth(store), self.stage.log(store), self.entry.plugin, self.groups(store)
        scores = Scores.over_draws([self._scores(store, truth, draw) for draw in range(log["draws"])])
        self._save_inside(run, store)
        shuffled = score_control(plugin, self.stage.load_shuffled(store), truth)
        return self.scored(scores, run, groups) | {
            "n": len(self.stage.load(store)),
            **log,
            "controls": {"shuffled": summaries(shuffled, groups)},
            "converged": converged(log["history"]),
            "overfitted": overfitted(log["history"]),
            "cut_off": None if scores.pictures is None else cut_off(truth.images, scores.pictures),
        }

    def _scores(self, store: Store, truth: Truth, draw: int) -> Scores:
        """Of one interception."""
        seen = self.seen.load(store, draw) if self.seen else None
        return score_answers(self.entry.plugin, self.stage.load(store, draw), truth, seen)

    def identified(self, store: Store, truth: Truth, photos: int) -> Scores:
        """Who its answers show, of so many of the first target photos."""
        draws = [self.stage.load(store, draw) for draw in range(self.stage.log(store)["draws"])]
        return Scores.over_draws([score_identity(self.entry.plugin, answers, truth, photos) for answers in draws])

    def _save_inside(self, run: Path, store: Store) -> None:
        inside = self.stage.load_inside(store)
        if inside:
            save_strip(self.picture(run, ".maps.png"), mosaic(inside["maps"])[None])
            save_strip(self.picture(run, ".stages.png"), inside["stages"])
