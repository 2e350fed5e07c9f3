"""Use from Python, without a plan file: protect a victim, attack it, judge what came back.

>>> from splitleak.attacks.ridge import Ridge
>>> from splitleak.defenses.gaussian_noise import GaussianNoise
>>> from splitleak.defenses.none import NoDefense
>>> from splitleak.experiments.library import Experiment
>>> experiment = Experiment(
...     victim={"model": "mobilenet_v3_small", "cut": "features.2.block.1", "size": 32, "task": "mask", "epochs": 1},
...     parts={"train": 96, "validation": 32, "target": 24},
...     attacker={"auxiliary": 200},
... )
>>> protected = experiment.protect(GaussianNoise(sigma=20.0))
>>> attacked = protected.attack(Ridge())
>>> attacked.answers.shape  # of the photos that nobody trained on, rebuilt
torch.Size([24, 3, 32, 32])
>>> undefended = experiment.protect(NoDefense()).attack(Ridge())
>>> undefended.judge().metrics["psnr"].mean > attacked.judge().metrics["psnr"].mean + 1
True

Behind it are the stages of ``splitleak run``: parts are disjoint, an attack receives what it declares to know and
nothing else, and the photos that are scored stay with the judge.
"""

import shutil
import sys
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splitleak.attacks.base import Attack
from splitleak.attacks.knowledge import QueryFree
from splitleak.attacks.mean_image import MeanImage
from splitleak.defenses.base import Defense
from splitleak.defenses.fitting import SplitModel
from splitleak.experiments.cells.attack import AttackCell
from splitleak.experiments.cells.build import cells_of
from splitleak.experiments.planning.names import CACHE, FLOOR, UNDEFENDED
from splitleak.experiments.planning.plan import TABLES, Entry, parse_plan
from splitleak.experiments.results.record import Record
from splitleak.experiments.run.check import check_plan
from splitleak.experiments.run.execute import judged
from splitleak.experiments.store.store import Store
from splitleak.victims.errors import InvalidInputError, unknown
from splitleak.victims.settings import Settings


class Experiment:
    """A victim with its photos, on which defences and attacks are tried.

    Args:
        folder: keeps what was computed, and gives it back to another experiment there; by default a temporary one
            that goes with this object.
        device: where networks run.
        seed: of all randomness.
        tables: the plan's: ``victim``, ``parts``, ``defender``, ``attacker``, ``judge``.

    Raises:
        InvalidInputError: unknown table or key, a bad value, or more than one threat.
    """

    def __init__(
        self, folder: Path | None = None, device: str = "cpu", seed: int = 0, **tables: Mapping[str, Any]
    ) -> None:
        for name in tables:
            if name not in TABLES:
                raise unknown("table", name, TABLES)
        controls = {"defenses": [{"name": UNDEFENDED}], "attacks": [{"name": FLOOR}]}
        self.plan = parse_plan({**tables, "seeds": [seed], **controls}, "", Path.cwd(), "experiment")
        if len(self.plan.threats) > 1:
            raise InvalidInputError(
                "attacker: an experiment has one threat; list one value in 'adaptive' and 'sends'"
            )
        out = folder or Path(tempfile.mkdtemp(prefix="splitleak"))
        if folder is None:
            weakref.finalize(self, shutil.rmtree, out, ignore_errors=True)
        self.run = out / self.plan.name
        self.store = Store(out / CACHE, torch.device(device))

    def protect(self, defense: Defense) -> "Protected":
        """The victim with a defence, trained when it is first needed; as in a plan, by ``defender``'s budget.

        Raises:
            InvalidInputError: the defence cannot be had here, or its class is in no file.
        """
        return Protected(self, defense, self.cell(defense, MeanImage()))

    def cell(self, defense: Defense, attack: Attack[QueryFree]) -> AttackCell:
        """The place of both in a matrix; nothing is computed."""
        for plugin in (defense, attack):
            _refuse_without_file(plugin)
        plan = replace(self.plan, defenses=(_entry(defense),), attacks=(_entry(attack),))
        check_plan(plan)
        (cell,) = cells_of(plan, self.store.device.type)
        assert isinstance(cell, AttackCell)
        return cell


@dataclass(frozen=True)
class Protected:
    """A victim with a defence."""

    experiment: Experiment
    defense: Defense
    cell: AttackCell

    @cached_property
    def network(self) -> SplitModel:
        """Encoder, channel and tail, in eval mode: images (n, 3, h, w) in [0, 1] -> logits; ``edge`` -> release."""
        return self.cell.protect.load(self.experiment.store)

    def attack(self, attack: Attack[QueryFree]) -> "Attacked":
        """Fit the attack with what it declares to know, and let it answer for the target photos.

        Raises:
            InvalidInputError: the attack cannot be run here, or its class is in no file.
        """
        attacked = Attacked(self.experiment, self.experiment.cell(self.defense, attack))
        _ = attacked.answers
        return attacked


@dataclass(frozen=True)
class Attacked:
    """What an attack said of the target photos."""

    experiment: Experiment
    cell: AttackCell

    @cached_property
    def answers(self) -> Tensor:
        """Rebuilt photos, uint8 (n, 3, h, w); embeddings or scores, float32 (n, d), of attacks that answer so."""
        return self.cell.stage.load(self.experiment.store)

    @property
    def photos(self) -> Tensor:
        """The true ones, uint8 (n, 3, h, w)."""
        return self.cell.protect.images("target", self.experiment.store)[: len(self.answers)]

    def judge(self) -> Record:
        """Scores with their 95 % intervals, utility, bytes and guarantees.

        Raises:
            RuntimeError: they cannot be scored.
        """
        run = self.experiment.run
        stored = self.cell.result(run)
        if stored is None or stored.failed:
            stored = judged(self.cell, run, self.experiment.store)
        if not stored.ok:
            raise RuntimeError(stored.traceback)
        return stored


def _entry(plugin: Any) -> Entry[Any]:
    """Labelled with the settings that are not the defaults."""
    given = [f"{field.name}={getattr(plugin, field.name)}" for field in fields(plugin) if _changed(plugin, field)]
    return Entry(plugin, " ".join([plugin.name, *given]))


def _changed(plugin: Settings, field: Any) -> bool:
    return bool(getattr(plugin, field.name) != field.default)


def _refuse_without_file(plugin: Settings) -> None:
    """Results are found again by the source that made them."""
    if getattr(sys.modules[type(plugin).__module__], "__file__", None) is None:
        raise InvalidInputError(
            f"{type(plugin).__name__} is defined in no file, by which its results could be found again; "
            "put it into a module and import it"
        )
