"""For each target photo the best reconstruction of a suite of attacks, chosen as an adversary would."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from splitleak.experiments.judge.metrics.perceptual import LPIPS, lpips
from splitleak.experiments.judge.metrics.pictures import Metric, metrics_for, mse, score, ssim
from splitleak.experiments.judge.rules import CHOSEN
from splitleak.experiments.stages.arrays import streamed
from splitleak.experiments.stages.attack import AttackStage, EdgeDevice
from splitleak.experiments.store.key import ELSEWHERE, Stage
from splitleak.experiments.store.store import Store
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import BATCH, to_float

LEAST = 1e-8
"""Errors below it are taken for it, where their logarithm is."""
DRAWS = 4
"""Sends of a reconstruction, where they differ, that are averaged and compared with what was intercepted."""

Numbers = npt.NDArray[np.float64]


ERRORS: Mapping[str, Metric] = {"psnr": mse, "ssim": lambda images, rebuilt: 1 - ssim(images, rebuilt)}
"""By the metric that a choice is for: the error that it lowers, (images, reconstructions) -> (n,), 0 at best."""


@dataclass(frozen=True)
class StrongestStage(Stage):
    """The suite's choices. ``attacks``: reconstruction attacks under one threat on one protected victim.

    The adversary never sees the true photo, but it can send a reconstruction through the device and compare the
    release with the one that it intercepted, and it knows the truth of its own validation photos. So for each
    attack the error is regressed on that feature loss (both as logarithms) over validation photos. Each target
    photo goes to the attack that was best there, unless another one's predicted error is lower by more than such
    predictions were wrong. Feature loss alone would not do: an attack that minimises it outright has the least of
    all and may have the worst picture. An adversary who is after structure chooses otherwise than one who is after
    pixels, so there is one choice for each of ``errors``.

    A suite is stated on the photos that all its members tried. A search that tries few of them is a member where it
    is worth that, see ``members``. ``lpips``: the file of its backbone, where the plan gives one.
    """

    label: ClassVar[str] = "strongest"

    attacks: tuple[AttackStage, ...]
    lpips: str | None = field(default=None, metadata=ELSEWHERE)
    lpips_fingerprint: str | None = None

    @property
    def errors(self) -> Mapping[str, Metric]:
        """By the metric that a choice is for: the error that it lowers; of small images without SSIM."""
        known = metrics_for(self.attacks[0].protect.victim.data.size)
        errors = {metric: error for metric, error in ERRORS.items() if metric in known}
        return errors | ({LPIPS: lpips(self.lpips)} if self.lpips else {})

    def compute(self, folder: Path, store: Store) -> None:
        """choice.json: by metric for each draw the position of each photo's attack."""
        chosen: dict[str, list[list[int]]] = {metric: [] for metric in self.errors}
        suite: tuple[int, ...] = ()
        known = self._known(store)
        for draw in range(self.draws(store)):
            check = _FeatureCheck.of(self.attacks[0], "target", store, draw)
            losses = [check.loss(attack.load(store, draw)) for attack in self.attacks]
            counts = [len(loss) for loss in losses]
            predicted = {
                metric: [Prediction.of(loss, *of) for loss, of in zip(losses, known[metric], strict=True)]
                for metric in chosen
            }
            suite = suite or members([choose(of) for of in predicted.values()], counts)
            for metric, of in predicted.items():
                choice = np.array(suite)[choose([of[k] for k in suite])][: min(counts[k] for k in suite)]
                chosen[metric].append(choice.tolist())
        (folder / "choice.json").write_text(json.dumps(chosen))

    def _known(self, store: Store) -> dict[str, list[tuple[Numbers, Numbers]]]:
        """By metric of each attack: feature losses of its validation photos, and logarithms of their errors."""
        check = _FeatureCheck.of(self.attacks[0], "validation", store)
        rebuilt = [attack.load_validation(store) for attack in self.attacks]
        losses = [check.loss(own) for own in rebuilt]
        truth = self.attacks[0].protect.images("validation", store)
        errors = [score(self.errors, truth[: len(own)], own) for own in rebuilt]
        return {
            metric: [(loss, np.log(np.maximum(of[metric], LEAST))) for loss, of in zip(losses, errors, strict=True)]
            for metric in self.errors
        }

    def draws(self, store: Store) -> int:
        """Interceptions that all attacks answered."""
        return min(int(attack.log(store)["draws"]) for attack in self.attacks)

    def choice(self, store: Store) -> dict[str, Tensor]:
        """By the metric that the choice is for, int64 (draws, n): the positions of the attacks chosen for the first n
        photos, which all members tried."""
        choice = json.loads((store.folder(self) / "choice.json").read_text())
        return {metric: torch.tensor(of) for metric, of in choice.items()}

    def rebuilt(self, store: Store, draw: int, choice: Tensor) -> Tensor:
        """What the attacks at these positions (n,) made of the first n photos, uint8 (n, 3, h, w), mapped."""
        made = [attack.load(store, draw) for attack in self.attacks]
        some = (
            torch.stack([made[choice[row]][row] for row in rows]) for rows in torch.arange(len(choice)).split(BATCH)
        )
        return streamed(some, store.root)


class Prediction(NamedTuple):
    """Of one attack, logarithms of errors.

    ``expected``: on the t target photos that it tried. ``made``: on the first validation photos. ``missed``: what it
    made there less what was expected.
    """

    expected: Numbers
    made: Numbers
    missed: Numbers

    @classmethod
    def of(cls, losses: Numbers, known_losses: Numbers, made: Numbers) -> "Prediction":
        """From feature losses, (t,), by what those of the validation photos said of their errors, (v,) both."""
        slope, offset = _line(known_losses, made)
        return cls(offset + slope * losses, made, made - offset - slope * known_losses)


def choose(predictions: Sequence[Prediction]) -> npt.NDArray[np.int64]:
    """For each photo the position of its attack, see ``StrongestStage``; attacks tried the first photos or all."""
    tried = max(len(prediction.expected) for prediction in predictions)
    expected = np.stack(
        [np.pad(one.expected, (0, tried - len(one.expected)), constant_values=np.inf) for one in predictions]
    )
    ranking = _ranking([prediction.made for prediction in predictions])
    usual = np.where(np.isfinite(expected), ranking[:, None], np.inf).argmin(0)
    promising, photos = expected.argmin(0), np.arange(tried)
    doubt = np.array([[_doubt(one, other) for other in predictions] for one in predictions])
    gain = expected[usual, photos] - expected[promising, photos]
    choice: npt.NDArray[np.int64] = np.where(gain > doubt[promising, usual], promising, usual)
    return choice


def members(choices: Sequence[npt.NDArray[np.int64]], tried: Sequence[int]) -> tuple[int, ...]:
    """Positions of the attacks of which a suite is made.

    One that tried some of the photos only holds the suite to these. It is worth that where a choice leaves it a tenth
    of them; an adversary who sees, without any truth, that it hardly ever helps leaves it out.

    Args:
        choices: by metric, for each photo the position of its attack.
        tried: of each attack how many photos.
    """
    most = max(tried)
    return tuple(
        k
        for k, count in enumerate(tried)
        if count == most or any((choice[:count] == k).mean() >= CHOSEN for choice in choices)
    )


def _ranking(made: Sequence[Numbers]) -> Numbers:
    """Each attack's mean error less that of one which rebuilt most photos, over the photos that both rebuilt."""
    widest = max(made, key=len)
    return np.array([(one - widest[: len(one)]).mean() for one in made])


def _doubt(one: Prediction, other: Prediction) -> float:
    """Spread of what they miss apart: a photo that is hard for both does not make the choice doubtful."""
    shared = min(len(one.missed), len(other.missed))
    return float((one.missed[:shared] - other.missed[:shared]).std())


@dataclass(frozen=True)
class _FeatureCheck:
    """What the adversary holds to try a reconstruction: the device and the releases of a part that it intercepted."""

    edge: EdgeDevice
    part: str
    releases: Tensor
    sends: int

    @classmethod
    def of(cls, attack: AttackStage, part: str, store: Store, draw: int = 0) -> "_FeatureCheck":
        sends = DRAWS if attack.log(store)["random"] else 1
        return cls(attack.edge(store), part, attack.intercepted(part, store, draw), sends)

    @torch.no_grad()
    def loss(self, rebuilt: Tensor) -> Numbers:
        """Log of the mean squared difference between intercepted releases and those of reconstructions, (n,)."""
        losses = []
        with seeded("feature loss", self.part):
            for images, release in zip(rebuilt.split(BATCH), self.releases[: len(rebuilt)].split(BATCH), strict=True):
                sent = self.edge.several(to_float(images.to(release.device)), self.sends)
                error = (torch.stack(sent).mean(0) - release) * self.edge.model.channel.arrived(release)
                losses.append(error.square().flatten(1).mean(1).cpu())
        return torch.cat(losses).clamp_min(1e-12).log().double().numpy()


def _line(x: Numbers, y: Numbers) -> tuple[float, float]:
    """Slope, never negative, and offset of the least-squares line."""
    spread = float(x.var())
    slope = max(0.0, float(((x - x.mean()) * (y - y.mean())).mean()) / spread) if spread > 1e-12 else 0.0
    return slope, float(y.mean() - slope * x.mean())
