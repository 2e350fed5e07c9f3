"""An attack of a run, fitted once more, that rebuilds what it is handed of the wire."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from splitleak.attacks.base import Reconstruction
from splitleak.defenses.base import Channel
from splitleak.experiments.cells.attack import AttackCell
from splitleak.experiments.planning.names import FLOOR
from splitleak.experiments.results.results import Results
from splitleak.experiments.stages.inside import active_maps, mosaic
from splitleak.experiments.store.store import Store
from splitleak.experiments.tools.deploy.runtime import Wire
from splitleak.experiments.tools.finished import Setting
from splitleak.victims.errors import InvalidInputError, unknown
from splitleak.victims.tensors import check_images, to_bytes, to_float


@dataclass(frozen=True)
class Adversary:
    """``rebuilder``: what is intercepted, with a batch -> images; ``adaptive``: of the release itself, or of what
    the cloud makes of it. ``wire``: reads what passes."""

    cell: AttackCell
    channel: Channel
    wire: Wire
    rebuilder: Callable[[Tensor], Tensor]
    device: torch.device

    @classmethod
    def of(cls, setting: Setting, attack: str | None, store: Store) -> "Adversary":
        """The attack of that label or name; by default the one that rebuilt most in the run.

        Raises:
            InvalidInputError: no such attack, none that rebuilds photos from single releases, or its defence packs
                in a way of its own.
        """
        cell = chosen(setting, attack)
        model, data = setting.protect.load(store), setting.protect.victim.data.load(store)
        channel, coding = model.channel, model.channel.coding()
        if coding is None:
            raise InvalidInputError(f"{setting.label} packs in a way of its own, which cannot be read on the wire")
        with torch.no_grad():
            release = model.edge(to_float(data.images["target"][:1].to(store.device)))
        wire = Wire({"shape": list(release.shape[1:]), "coding": coding})
        return cls(cell, channel, wire, cell.stage.refitted(store), store.device)

    @property
    def name(self) -> str:
        """The attack as its reader calls it."""
        return self.cell.threat.column(self.cell.entry.label)

    def read(self, packed: bytes) -> Tensor:
        """A release, (1, ...).

        Raises:
            WireError: it is none.
        """
        return torch.from_numpy(self.wire.unpack(packed).copy())[None]

    def maps(self, release: Tensor) -> Tensor:
        """A picture of what the wire carried, uint8 (3, h, w)."""
        return mosaic(active_maps(release))

    @torch.no_grad()
    def rebuilt(self, release: Tensor) -> Tensor:
        """Uint8 (3, h, w)."""
        seen = self.channel.intercepted(release.to(self.device))
        said = self.rebuilder(seen if self.cell.threat.adaptive else self.channel.receive(seen))
        return to_bytes(check_images(said, self.name))[0].cpu()


def chosen(setting: Setting, attack: str | None) -> AttackCell:
    """The cell of an attack by label, column or name; by default of the highest PSNR that was measured."""
    able = [
        cell
        for cell in setting.cells
        if isinstance(cell.entry.plugin, Reconstruction) and cell.threat.sends == 1 and not cell.inapplicable
    ]
    able = [cell for cell in able if cell.entry.plugin.name != FLOOR] or able
    if not able:
        raise InvalidInputError(f"{setting.folder} has no attack that rebuilds photos from single releases")
    if attack is not None:
        named = [
            cell
            for cell in able
            if attack in (cell.entry.label, cell.threat.column(cell.entry.label), cell.entry.plugin.name)
        ]
        if not named:
            raise unknown("attack of this run:", attack, {cell.entry.label for cell in able})
        able = named
    reached = measured(setting.results(), setting.label)
    return max(able, key=lambda cell: reached.get(cell.threat.column(cell.entry.label), -math.inf))


def measured(results: Results, label: str) -> dict[str, float]:
    """The mean PSNR of each attack on a defence setting, by column."""
    rows = [row for row in results.rows if row.defence.label == label]
    return {
        column: group.scores["psnr"].mean
        for row in rows
        for column, group in row.groups.items()
        if "psnr" in group.scores
    }
