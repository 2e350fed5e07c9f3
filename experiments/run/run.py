"""A plan's run: its place on disk, its cells, and the stages behind them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from splitleak.experiments.cells.build import cells_of, searches_of
from splitleak.experiments.cells.cell import Cell
from splitleak.experiments.planning.names import CACHE
from splitleak.experiments.planning.plan import Plan
from splitleak.experiments.stages.match import MatchStage
from splitleak.experiments.stages.uncut import UncutStage
from splitleak.experiments.store.key import Stage
from splitleak.experiments.store.store import Store


@dataclass(frozen=True)
class Run:
    """A plan's place on disk and its cells. ``device``: the type of what networks run on.

    ``asked``: the plan as it was written; in ``plan`` the strengths that it asks to search have their values, as far
    as these are known. ``searches``: the others', by the label of the defence. Cells of those are what they will be
    but for the strength.
    """

    plan: Plan
    folder: Path
    cells: tuple[Cell, ...]
    device: str
    asked: Plan
    searches: dict[str, MatchStage]

    @classmethod
    def of(cls, plan: Plan, out: Path, device: str = "cpu") -> "Run":
        """``out``/NAME for the run; ``out``/cache for the stages, where strengths that were searched are found."""
        searches = searches_of(plan, device)
        known = {label: stage.known(out / CACHE) for label, stage in searches.items()}
        asked, plan = plan, plan.settled({label: found for label, found in known.items() if found})
        cells = tuple(cells_of(plan, device))
        for cell in cells:
            _ = cell.key  # taken now: sources that are edited while the plan runs are not what runs
        unknown = {label: stage for label, stage in searches.items() if not known[label]}
        return cls(plan, out / plan.name, cells, device, asked, unknown)

    def again(self) -> "Run":
        """With what has been found since."""
        return Run.of(self.asked, self.folder.parent, self.device)

    @property
    def uncut(self) -> dict[str, UncutStage]:
        """By the key of each victim's: how right it is before it is cut; none where it predicts nothing."""
        victims = {cell.protect.victim.key: cell.protect.victim for cell in self.cells}
        return {key: UncutStage(victim) for key, victim in victims.items()} if self.plan.victim.task else {}

    @property
    def ids(self) -> list[str]:
        """Of all cells, in the plan's order."""
        return [cell.id for cell in self.cells]


def stages_of(cells: Iterable[Cell], wanted: Callable[[Stage], bool] = lambda stage: True) -> dict[str, Stage]:
    """The stages behind some cells, see ``behind``."""
    return behind((stage for cell in cells for stage in cell.stages), wanted)


def behind(last: Iterable[Stage], wanted: Callable[[Stage], bool] = lambda stage: True) -> dict[str, Stage]:
    """These stages and what they build on by key, each after those that it builds on.

    ``wanted``: the others are left out, and with them what only they build on.
    """
    found: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        if stage.key not in found and wanted(stage):
            for upstream in stage.upstream:
                visit(upstream)
            found[stage.key] = stage

    for stage in last:
        visit(stage)
    return found


def pending_stages(cells: Iterable[Cell], store: Store) -> dict[str, Stage]:
    """Those behind some cells that have no result yet."""
    return stages_of(cells, lambda stage: not store.has(stage))
