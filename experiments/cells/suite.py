"""The cell of the suite: the best reconstruction of all attacks, chosen as an adversary would."""

from collections import Counter
from collections.abc import Mapping, Sequence
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
from splitleak.experiments.judge.metrics.perceptual import LPIPS
from splitleak.experiments.judge.rules import RANK_1
from splitleak.experiments.judge.scores import Recogniser, Scores, Seen, Truth, identity_merit, score_images
from splitleak.experiments.planning.names import STRONGEST
from splitleak.experiments.stages.strongest import StrongestStage
from splitleak.experiments.store.key import Stage
from splitleak.experiments.store.store import Store

BETTER = {"psnr": 1, "ssim": 1, LPIPS: -1}
"""By the metrics that a choice may be for: whether more of it is more like the photo, or less."""


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
        """With those of the attacks that tell people apart, and what is seen on all pictures."""
        seen = [cell.seen for cell in self.entries if cell.seen]
        return [*super().stages, *seen, *(cell.stage for cell in self.linkers)]

    def judge(self, run: Path, store: Store) -> dict[str, Any]:
        """Score the choices; the oracle takes for each photo the reconstruction that is most like it.

        The photos are those that all members tried: on others the suite is weaker than it claims to be. Who is on
        them is told by the attack that told it best of other people.
        """
        truth, draws, groups = self.truth(store), range(self.stage.draws(store)), self.groups(store)
        choice, identity = self.stage.choice(store), self._for_identity(store)
        tried = choice["psnr"].shape[1]
        chosen = [{metric: of[draw] for metric, of in choice.items()} for draw in draws]
        scores = Scores.over_draws([self._scores(store, truth, draw, of) for draw, of in enumerate(chosen)])
        best = [self._oracle(store, draw, tried) for draw in draws]
        oracle = Scores.over_draws([self._scores(store, truth, draw, of) for draw, of in enumerate(best)])
        counts = {metric: self._counts(of[0]) for metric, of in choice.items()}
        if identity:
            scores |= identity.identified(store, truth, tried)
            counts[RANK_1] = {identity.attack["label"]: tried}
        return self.scored(scores, run, groups) | {
            "n": tried,
            "oracle": summaries(oracle, groups),
            "chosen": counts.pop("psnr"),
            "chosen_for": counts,
            "draws": len(draws),
            "random": any(cell.stage.log(store)["random"] for cell in self.entries),
        }

    def _scores(self, store: Store, truth: Truth, draw: int, chosen: Mapping[str, Tensor]) -> Scores:
        """Of the members chosen for each metric, by position (n,)."""
        rebuilt = self.stage.rebuilt(store, draw, chosen["psnr"])
        return score_images(rebuilt, truth, chosen_of(self._seen(store, draw), chosen))

    def _seen(self, store: Store, draw: int) -> list[Seen]:
        """On all that the members rebuilt."""
        return [cell.seen.load(store, draw) for cell in self.entries if cell.seen]

    def _oracle(self, store: Store, draw: int, tried: int) -> dict[str, Tensor]:
        """By metric for each of the photos that were tried the member that came nearest to the truth."""
        reached = [seen.likeness for seen in self._seen(store, draw)]
        able = torch.tensor([k for k, of in enumerate(reached) if len(of["psnr"]) >= tried])
        return {
            metric: able[(sign * torch.stack([reached[k][metric][:tried] for k in able.tolist()])).argmax(0)]
            for metric, sign in BETTER.items()
            if metric in reached[0]
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

    def _counts(self, choice: Tensor) -> dict[str, int]:
        """How many photos went to each attack."""
        return dict(Counter(self.entries[k].attack["label"] for k in choice.tolist()).most_common())


def chosen_of(members: Sequence[Seen], chosen: Mapping[str, Tensor]) -> Seen:
    """Each metric of those chosen for it; the others, and what is read, of those chosen for PSNR.

    MS-SSIM is of the rest: a grey blur may have more SSIM, and less MS-SSIM, than what shows a face in noise.

    Args:
        members: what is seen on the pictures of each.
        chosen: by metric, "psnr" among them, for each photo a member's position.
    """

    def gathered(of_members: Sequence[Tensor], of: Tensor) -> Tensor:
        return torch.stack([of_members[member][photo] for photo, member in enumerate(of.tolist())])

    first, best = members[0], chosen["psnr"]
    return Seen(
        {
            metric: gathered([seen.likeness[metric] for seen in members], chosen.get(metric, best))
            for metric in first.likeness
        },
        None if first.task is None else gathered([seen.task for seen in members if seen.task is not None], best),
        {name: gathered([seen.labels[name] for seen in members], best) for name in first.labels},
    )
