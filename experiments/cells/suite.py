"""The cell of the suite: the best reconstruction of all attacks, chosen as an adversary would."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splitleak.experiments.cells.attack import AttackCell
from splitleak.experiments.cells.cell import Cell, summaries
from splitleak.experiments.cells.fingerprints import weights_fingerprint
from splitleak.experiments.judge.metrics.identity import RANK_1
from splitleak.experiments.judge.metrics.pictures import score
from splitleak.experiments.judge.scores import Recogniser, Scores, Truth, identity_merit, score_chosen
from splitleak.experiments.planning.names import STRONGEST
from splitleak.experiments.stages.arrays import streamed
from splitleak.experiments.stages.strongest import StrongestStage, picked
from splitleak.experiments.store.key import Stage
from splitleak.experiments.store.store import Store


@dataclass(frozen=True)
class StrongestCell(Cell):
    """The suite's choice among all attacks, beside what an oracle would have chosen for each photo.

    ``entries``: the attacks that rebuild photos; ``linkers``: those that tell which photos show the same person.
    """

    entries: tuple[AttackCell, ...]
    linkers: tuple[AttackCell, ...] = ()

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
        weights = self.plan.judge.lpips
        fingerprint = weights_fingerprint(weights) if weights else None
        return StrongestStage(tuple(cell.stage for cell in self.entries), weights, fingerprint)

    @property
    def stages(self) -> list[Stage]:
        """With those of the attacks that tell people apart."""
        return [*super().stages, *(cell.stage for cell in self.linkers)]

    def judge(self, run: Path, store: Store) -> dict[str, Any]:
        """Score the choices; the oracle takes for each photo the reconstruction with the least error in question.

        The photos are those that all members tried: on others the suite is weaker than it claims to be. Who is on
        them is told by the attack that told it best of other people.
        """
        truth, draws, groups = self.truth(store), range(self.stage.draws(store)), self.groups(store)
        choice, identity = self.stage.choice(store), self._for_identity(store)
        tried = len(choice["psnr"])
        chosen = [self.stage.load(store, draw) for draw in draws]
        scores = Scores.over_draws([score_chosen(answers, truth) for answers in chosen])
        oracle = Scores.over_draws([score_chosen(self._oracle(store, truth, draw, tried), truth) for draw in draws])
        counts = {metric: self._counts(of) for metric, of in choice.items()}
        if identity:
            scores |= identity.identified(store, truth, tried)
            counts[RANK_1] = {identity.attack["label"]: tried}
        return self.scored(chosen[0]["psnr"], scores, run, groups) | {
            "oracle": summaries(oracle, groups),
            "chosen": counts.pop("psnr"),
            "chosen_for": counts,
            "draws": len(draws),
            "random": any(cell.stage.log(store)["random"] for cell in self.entries),
        }

    def _for_identity(self, store: Store) -> AttackCell | None:
        """The attack that recognises most of the validation part's people, of equals the first; None where none
        recognises anybody, or nobody is known."""
        data, embedder = self.protect.victim.data.load(store), self.embedder
        if data.identities is None:
            return None
        recogniser = (
            Recogniser(embedder.validation(store), partial(embedder.embed, store=store)) if embedder else None
        )
        others = Truth(data.images["validation"], identities=data.identities["validation"], recogniser=recogniser)
        cells = (*self.entries, *self.linkers)
        merits = [identity_merit(cell.entry.plugin, cell.stage.load_validation(store), others) for cell in cells]
        known = [(merit, cell) for merit, cell in zip(merits, cells, strict=True) if merit is not None]
        return max(known, key=itemgetter(0))[1] if known else None

    def _counts(self, choice: Sequence[int]) -> dict[str, int]:
        """How many photos went to each attack."""
        return dict(Counter(self.entries[k].attack["label"] for k in choice).most_common())

    def _oracle(self, store: Store, truth: Truth, draw: int, tried: int) -> dict[str, Tensor]:
        """By metric for each of the photos that were tried the reconstruction most like the truth, uint8."""
        every = [cell.stage.load(store, draw) for cell in self.entries]
        made = [rebuilt[:tried] for rebuilt in every if len(rebuilt) >= tried]
        errors = dict(self.stage.errors)
        reached = [score(errors, truth.images[:tried], rebuilt) for rebuilt in made]
        best = {name: torch.tensor([found[name] for found in reached]).argmin(0) for name in errors}
        return {name: streamed(picked(made, choice), store.root) for name, choice in best.items()}
