"""The cell of the suite: the best reconstruction of all attacks, chosen as an adversary would."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splitleak.experiments.cells.attack import AttackCell
from splitleak.experiments.cells.cell import Cell, summaries
from splitleak.experiments.judge.metrics.pictures import metrics_for, score
from splitleak.experiments.judge.scores import Scores, Truth, score_chosen
from splitleak.experiments.planning.names import STRONGEST
from splitleak.experiments.stages.arrays import streamed
from splitleak.experiments.stages.strongest import StrongestStage, picked
from splitleak.experiments.store.store import Store


@dataclass(frozen=True)
class StrongestCell(Cell):
    """The suite's choice among all attacks, beside what an oracle would have chosen for each photo."""

    entries: tuple[AttackCell, ...]

    @property
    def attack(self) -> dict[str, Any]:
        """A name that no plugin may have."""
        return {"name": STRONGEST, "label": STRONGEST, "settings": {}, "knowledge": "", "floor": False}

    @property
    def inapplicable(self) -> str | None:
        """Nothing stands in its way: it has members only that apply."""
        return None

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
        return self.scored(chosen[0]["psnr"], scores, run) | {
            "oracle": summaries(oracle),
            "chosen": counts.pop("psnr"),
            "chosen_for": counts,
            "draws": len(draws),
            "random": any(cell.stage.log(store)["random"] for cell in self.entries),
        }

    def _counts(self, choice: Sequence[int]) -> dict[str, int]:
        """How many photos went to each attack."""
        return dict(Counter(self.entries[k].attack["label"] for k in choice).most_common())

    def _oracle(self, store: Store, truth: Truth, draw: int) -> dict[str, Tensor]:
        """By metric for each photo that was tried the reconstruction most like the truth, uint8 (n, 3, h, w)."""
        metrics = metrics_for(truth.images.shape[-1])
        wanted = {name: metrics[name] for name in self.stage.choice(store)}
        made = [cell.stage.load(store, draw) for cell in self.entries]
        reached = [score(wanted, truth.images[: len(rebuilt)], rebuilt) for rebuilt in made]
        best = {}
        for name in wanted:
            table = np.full((len(made), max(map(len, made))), -np.inf)
            for row, found in zip(table, reached, strict=True):
                row[: len(found[name])] = found[name]
            best[name] = streamed(picked(made, torch.from_numpy(table.argmax(0))), store.root)
        return best
