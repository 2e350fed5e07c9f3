"""One's own photos through every defence setting and attack of a run."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from splitleak.attacks.base import Reconstruction
from splitleak.experiments.cells.attack import AttackCell
from splitleak.experiments.judge.metrics.pictures import psnr, score
from splitleak.experiments.report.reconstructed import Rebuilt
from splitleak.experiments.report.tables.matrix import number
from splitleak.experiments.stages.arrays import load_array, save_array
from splitleak.experiments.stages.attack import AttackStage
from splitleak.experiments.stages.inside import Opened
from splitleak.experiments.store.integrity import digest
from splitleak.experiments.store.key import source_digest
from splitleak.experiments.store.store import Store
from splitleak.experiments.tools.finished import run_at
from splitleak.victims.data.decode import read_photo
from splitleak.victims.data.parts import content_hashes
from splitleak.victims.errors import InvalidInputError, unknown
from splitleak.victims.tensors import to_float

LABEL = "reconstruct"
"""The folder of its results in the store."""


@dataclass(frozen=True)
class Question:
    """Photos, uint8 (n, 3, h, w), and the cells of a run's first seed that are to answer for them."""

    cells: tuple[AttackCell, ...]
    photos: Tensor
    names: tuple[str, ...]

    @classmethod
    def of(
        cls, run: Path, paths: Sequence[Path], defenses: Sequence[str], attacks: Sequence[str], device: str = "cpu"
    ) -> "Question":
        """Choose a run's cells by the names or labels of their defences and attacks, all where none is named.

        ``device``: the type of what networks run on.

        Raises:
            InvalidInputError: no run there, no such defence or attack in it, none that rebuilds photos, no photo, an
                unreadable one.
        """
        found = run_at(run, device)
        plan = found.plan
        cells = [cell for cell in found.cells if isinstance(cell, AttackCell)]
        cells = [
            cell for cell in cells if cell.seed == plan.seeds[0] and isinstance(cell.entry.plugin, Reconstruction)
        ]
        if not cells:
            raise InvalidInputError(f"{run} has no attack that rebuilds photos")
        by_defense = [(cell, (cell.defense.plugin.name, cell.defense.label)) for cell in cells]
        wanted = _named("defence", by_defense, defenses)
        by_attack = [(cell, (cell.entry.plugin.name, cell.entry.label)) for cell in wanted]
        photos = torch.stack([torch.from_numpy(read_photo(path, plan.victim.size).copy()) for path in paths])
        return cls(
            tuple(_named("attack", by_attack, attacks)),
            photos.permute(0, 3, 1, 2).contiguous(),
            tuple(path.name for path in paths),
        )

    @cached_property
    def defenses(self) -> tuple[str, ...]:
        """Labels, in the plan's order."""
        return tuple(dict.fromkeys(cell.defense.label for cell in self.cells))

    @cached_property
    def attacks(self) -> tuple[str, ...]:
        """Labels, with the threat where it is not the usual one."""
        return tuple(dict.fromkeys(column(cell) for cell in self.cells))

    def answers(self, store: Store, told: Callable[[str], None]) -> dict[tuple[str, str], Rebuilt]:
        """By defence and attack; ``told`` is called with a line on each."""
        found = {}
        for cell in self.cells:
            store.progress(f"{LABEL} for {cell.title}")
            with store.task():
                images = reconstructed(cell.stage, self.photos, store)
            values = score({"psnr": psnr}, to_float(self.photos), to_float(images))["psnr"]
            found[cell.defense.label, column(cell)] = Rebuilt(images, tuple(values))
            told(f"{cell.title}: {', '.join(number('psnr', value) for value in values)}")
        return found

    def opened(self, store: Store, told: Callable[[str], None]) -> dict[str, Opened]:
        """The inside of each decoder while it answers for the only photo, by attack.

        Raises:
            InvalidInputError: there are several photos or defences, or none of the attacks has stages.
        """
        if len(self.photos) > 1 or len(self.defenses) > 1:
            raise InvalidInputError(
                f"--inside shows one photo behind one defence, not {len(self.photos)} behind {len(self.defenses)}; "
                "give one photo and name a defence, such as --defenses none"
            )
        found = {}
        for cell in self.cells:
            store.progress(f"{LABEL} for {cell.title}")
            with store.task():
                opened = cell.stage.opened(self.photos, store)
            told(f"{cell.title}: {f'{len(opened.shapes)} stages' if opened else 'has no stages'}")
            if opened:
                found[column(cell)] = opened
        if not found:
            raise InvalidInputError(f"no stages in {', '.join(self.attacks)}; --inside shows decoders")
        return found


def _named(kind: str, cells: Iterable[tuple[AttackCell, tuple[str, str]]], wanted: Sequence[str]) -> list[AttackCell]:
    """The cells with one of the wanted names; all where nothing is wanted."""
    listed = list(cells)
    known = {name for _, names in listed for name in names}
    for name in wanted:
        if name not in known:
            raise unknown(f"{kind} of this run:", name, known)
    return [cell for cell, names in listed if not wanted or set(names) & set(wanted)]


def column(cell: AttackCell) -> str:
    """The attack as a picture names it."""
    return cell.threat.column(cell.entry.label)


def reconstructed(attack: AttackStage, photos: Tensor, store: Store) -> Tensor:
    """What an attack makes of photos, uint8 (n, 3, h, w) both.

    What it made of a photo is kept; it is fitted again, once for all that are new.
    """
    keys = [digest([attack.key, code, source_digest(__name__)]) for code in content_hashes(photos)]
    new = [row for row, key in enumerate(keys) if not (store.root / LABEL / key).is_dir()]
    made = dict(zip(new, attack.again(photos[new], store), strict=True)) if new else {}

    def write(row: int, folder: Path) -> None:
        # one that is there but damaged is not among the new ones
        image = made[row] if row in made else attack.again(photos[row : row + 1], store)[0]
        save_array(folder / "image.npy", image)

    folders = [store.made(LABEL, key, partial(write, row)) for row, key in enumerate(keys)]
    return torch.stack([load_array(folder / "image.npy") for folder in folders])


def file_name(names: Sequence[str], kind: str = "reconstructed") -> str:
    """Of the picture of photos of these names."""
    first = re.sub(r"\W+", "_", Path(names[0]).stem)
    more = f"_and_{len(names) - 1}_more" if len(names) > 1 else ""
    return f"{kind}_{first}{more}.png"
