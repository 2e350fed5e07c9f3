"""Who is told how one or several plans get on."""

from abc import ABC, abstractmethod

from splitleak.experiments.cells.cell import Cell
from splitleak.experiments.results.record import Record
from splitleak.experiments.run.schedule import Watcher


class Audience(Watcher, ABC):
    """Hears of tasks, and of the cells that they make up."""

    @abstractmethod
    def begin(self, where: str) -> None:
        """Of several plans another one begins: ``where`` is put in front of what is told of it."""

    @abstractmethod
    def loaded(self, lines: list[str]) -> None:
        """What was loaded, before anything is made of it."""

    @abstractmethod
    def cell(self, cell: Cell, result: Record, computed: bool) -> None:
        """A cell is done; ``computed``: just now."""
