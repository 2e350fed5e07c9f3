"""A finished run, looked at again: its cells, and those behind one of its defence settings."""

from dataclasses import dataclass
from pathlib import Path

from splitleak.experiments.cells.attack import AttackCell
from splitleak.experiments.planning.names import CACHE
from splitleak.experiments.planning.plan import read_plan
from splitleak.experiments.results.load import CELLS, load_results
from splitleak.experiments.results.results import Results
from splitleak.experiments.run.run import Run
from splitleak.experiments.stages.protect import ProtectStage
from splitleak.victims.errors import InvalidInputError, unknown


def run_at(folder: Path, device: str = "cpu") -> Run:
    """The run of a folder; ``device``: the type of what networks run on.

    Raises:
        InvalidInputError: there is none.
    """
    if not (folder / CELLS).is_file():
        raise InvalidInputError(f"no run at {folder.absolute()}: no {CELLS} there; give a folder like runs/quick")
    return Run.of(read_plan(folder / "plan.toml", folder.name), folder.parent, device)


@dataclass(frozen=True)
class Setting:
    """A defence setting of a run, protected with its first seed, and the attacks that met it."""

    folder: Path
    run: Run
    cells: tuple[AttackCell, ...]

    @classmethod
    def of(cls, folder: Path, defense: str, device: str = "cpu") -> "Setting":
        """By the label of a defence, or by its name where the run has one setting of it.

        Raises:
            InvalidInputError: no run there, no such defence in it, or several of that name.
        """
        run = run_at(folder, device)
        seed = run.plan.seeds[0]
        found: dict[str, list[AttackCell]] = {}
        for cell in run.cells:
            if isinstance(cell, AttackCell) and cell.seed == seed:
                found.setdefault(cell.defense.label, []).append(cell)
        named = [label for label, cells in found.items() if cells[0].defense.plugin.name == defense]
        if defense not in found and len(named) > 1:
            raise InvalidInputError(f"{folder} has several settings of {defense}; name one: {', '.join(named)}")
        label = defense if defense in found else next(iter(named), None)
        if label is None:
            raise unknown("defence of this run:", defense, found)
        return cls(folder, run, tuple(found[label]))

    @property
    def label(self) -> str:
        """Of the defence, as the plan's reader calls it."""
        return self.cells[0].defense.label

    @property
    def protect(self) -> ProtectStage:
        """The protected victim."""
        return self.cells[0].protect

    @property
    def cache(self) -> Path:
        """Where the run's stages are."""
        return self.folder.parent / CACHE

    def results(self) -> Results:
        """What was measured with this seed, of all defences: some are told by comparison."""
        return load_results(self.folder, [cell.id for cell in self.run.cells if cell.seed == self.protect.seed])


def labels(run: Run) -> tuple[str, ...]:
    """Of a run's defence settings, in the plan's order."""
    return tuple(dict.fromkeys(cell.defense.label for cell in run.cells))
