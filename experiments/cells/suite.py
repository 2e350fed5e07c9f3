"""The cell of the suite: the best reconstruction of all attacks, chosen as an adversary would."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

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
        """Score the choices; the oracle takes each photo's reconstruction that has most of the metric in question.

        Only photos that all attacks tried count: on the others the suite is weaker than it claims to be.
        """
        truth, draws, groups = self.truth(store), range(self.stage.draws(store)), self.groups(store)
        tried = min(len(cell.stage.load(store)) for cell in self.entries)
        chosen = [{metric: of[:tried] for metric, of in self.stage.load(store, draw).items()} for draw in draws]
        scores = Scores.over_draws([score_chosen(answers, truth) for answers in chosen])
        oracle = Scores.over_draws([score_chosen(self._oracle(store, truth, draw, tried), truth) for draw in draws])
        counts = {metric: self._counts(choice[:tried]) for metric, choice in self.stage.choice(store).items()}
        return self.scored(chosen[0]["psnr"], scores, run, groups) | {
            "oracle": summaries(oracle, groups),
            "chosen": counts.pop("psnr"),
            "chosen_for": counts,
            "draws": len(draws),
            "random": any(cell.stage.log(store)["random"] for cell in self.entries),
        }

    def _counts(self, choice: Sequence[int]) -> dict[str, int]:
        """How many photos went to each attack."""
        return dict(Counter(self.entries[k].attack["label"] for k in choice).most_common())

    def _oracle(self, store: Store, truth: Truth, draw: int, tried: int) -> dict[str, Tensor]:
        """By metric for each of the photos that were tried the reconstruction most like the truth, uint8."""
        metrics = metrics_for(truth.images.shape[-1])
        wanted = {name: metrics[name] for name in self.stage.choice(store)}
        made = [cell.stage.load(store, draw)[:tried] for cell in self.entries]
        reached = [score(wanted, truth.images[:tried], rebuilt) for rebuilt in made]
        best = {name: torch.tensor([found[name] for found in reached]).argmax(0) for name in wanted}
        return {name: streamed(picked(made, choice), store.root) for name, choice in best.items()}
