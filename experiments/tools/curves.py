"""``--tensorboard``: training curves and scores as TensorBoard's scalars, in the run's folder."""

import importlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from splitleak.experiments.cells.cell import Cell
from splitleak.experiments.results.frame import measured, rows_of, wide
from splitleak.experiments.results.load import load_results
from splitleak.experiments.store.key import Stage
from splitleak.experiments.store.store import Store
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.training import History

FOLDER, MADE_OF = "tensorboard", "made_of"


class Curves:
    """Writes what each cell brings, once: a folder for the cell, one for its victim and one for the protected one.

    Raises:
        InvalidInputError: TensorBoard is not installed.
    """

    def __init__(self, run: Path, store: Store) -> None:
        try:
            self.writer: Any = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        except ImportError:
            raise InvalidInputError("--tensorboard needs TensorBoard: pip install 'splitleak[tensorboard]'") from None
        self.run, self.store = run, store

    def cell(self, cell: Cell) -> None:
        """Of a cell that has a result; one that failed has no scores."""
        (result,) = load_results(self.run, [cell.id]).cells
        (scores,) = wide(rows_of(result))
        defence, victim = f"{cell.defense.label} seed {cell.seed}", f"victim seed {cell.seed}"
        self._write(cell.id, f"{result.key} {result.finished}", "fit", result.history, measured(scores))
        self._write(f"protect {defence}", cell.protect.key, "protect", self._history(cell.protect))
        self._write(victim, cell.protect.victim.key, "victim", self._history(cell.protect.victim))

    def _history(self, stage: Stage) -> list[dict[str, float]]:
        """Of its training; empty where its result has made room for others."""
        if not self.store.has(stage):
            return []
        facts = json.loads((self.store.folder(stage) / "facts.json").read_text())
        return History(**facts["history"]).rows

    def _write(
        self,
        name: str,
        made_of: str,
        group: str,
        history: Sequence[Mapping[str, float]],
        scores: Mapping[str, float] | None = None,
    ) -> None:
        if not history and not scores:
            return
        folder = self.run / FOLDER / name.replace("/", "_")
        mark = folder / MADE_OF
        if mark.exists() and mark.read_text() == made_of:
            return
        shutil.rmtree(folder, ignore_errors=True)
        with self.writer(folder) as writer:
            for step, row in enumerate(history, 1):
                for what, value in row.items():
                    writer.add_scalar(f"{group}/{what}", value, step)
            for what, value in (scores or {}).items():
                writer.add_scalar(f"score/{what}", value, 0)
        mark.write_text(made_of)
