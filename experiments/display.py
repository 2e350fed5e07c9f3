"""What a running plan shows: a live line in a terminal, plain lines elsewhere."""

import time
from collections import Counter
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from experiments.cell import Cell
from experiments.execute import stages_of
from experiments.judge.statistics import Interval
from experiments.report.matrix import FORMATS, ranged
from experiments.report.results import SHOWN_METRICS

SECONDS_BETWEEN_LINES = 10.0


class Display:
    """Counts cells, prints one line for each that is computed, and shows the stage at work.

    ``where``: put in front of both by a caller that runs several plans.
    """

    def __init__(self, console: Console, cells: int) -> None:
        self.console = console
        self.done = self.computed = self.failed = 0
        self.cells = cells
        self.uses: Counter[str] = Counter()
        self.where = ""
        self.started = self.last_line = time.monotonic()
        self.progress = Progress(
            BarColumn(24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task("", total=cells)

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def stage(self, text: str) -> None:
        """What is being computed; in a log file at most one line in a while."""
        text = f"{self.where}{text}"
        self.progress.update(self.task, description=text)
        if not self.console.is_terminal and time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            self._line(f"  {text}")

    def cell(self, cell: Cell, result: dict[str, Any], computed: bool) -> None:
        """A cell is done."""
        self.done += 1
        self.computed += computed
        if computed:
            self.uses.update(stage.label for stage in stages_of([cell]).values())
        self.failed += result["status"] == "failed"
        self.progress.update(self.task, completed=self.done)
        if computed or result["status"] == "failed":
            self._line(f"[{self.done}/{self.cells}] {self.where}{cell.title}: {_outcome(result)}")

    def told(self, text: str) -> None:
        """Something other than a cell is done, which counts like one."""
        self.done += 1
        self.progress.update(self.task, completed=self.done)
        self._line(f"[{self.done}/{self.cells}] {self.where}{text}")

    def _line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
        self.last_line = time.monotonic()

    def summary(self, stages: Counter[str] | None = None) -> str:
        """One line for the end, and one for what was shared between cells: ``stages`` counts those computed."""
        seconds = time.monotonic() - self.started
        failed = f", {self.failed} failed" if self.failed else ""
        stored = self.cells - self.computed
        lines = [f"{self.cells} cells: {self.computed} computed{failed}, {stored} already there; {seconds:.0f} s"]
        if stages is not None and self.computed:
            shared = [
                f"{label} {stages[label]} for {uses}" for label, uses in self.uses.items() if stages[label] < uses
            ]
            lines += [f"stages computed for how many cells: {', '.join(shared)}"] if shared else []
        return "\n".join(lines)


def _outcome(result: dict[str, Any]) -> str:
    if result["status"] == "failed":
        return f"FAILED, {result['traceback'].strip().splitlines()[-1]}"
    scores = [(name, FORMATS[name], result["metrics"][name]) for name in SHOWN_METRICS if name in result["metrics"]]
    facts = [f"{form.name} {ranged(name, Interval(of['mean'], of['low'], of['high']))}" for name, form, of in scores]
    facts = facts or ["nothing to score"]
    facts += [f"accuracy {result['utility']['mean']:.1%}"] if result["utility"] else []
    facts += [f"fitted in {result['seconds']['fit']:.1f} s"] if "seconds" in result else []
    return ", ".join(facts)
