"""What a running plan shows: a live table in a terminal, plain lines elsewhere."""

import time
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import timedelta
from operator import itemgetter
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from splitleak.experiments.cells.cell import Cell
from splitleak.experiments.cli.remaining import Remaining
from splitleak.experiments.judge.statistics.interval import Interval
from splitleak.experiments.report.tables.matrix import FORMATS, number, ranged
from splitleak.experiments.results.metrics import SHOWN_METRICS
from splitleak.experiments.results.record import Record
from splitleak.experiments.run.audience import Audience
from splitleak.experiments.run.run import Run, stages_of
from splitleak.experiments.run.schedule import Task

SECONDS_BETWEEN_LINES = 10.0
BAR = 16
"""Columns of the bar: with the numbers behind it, it fits 80."""
LABEL = len("strongest so far") + 2
"""Columns of what stands before a line."""
HEADLINE = "psnr"
PREPARING = Task("stage", "preparing", "preparing")
"""What this process does while no task runs."""


class Display(Audience):
    """Counts cells, prints one line for each that is computed, and shows a table of what goes on.

    ``failed``: now or in a run before; ``failed_now``: of these, now.
    """

    def __init__(self, console: Console, cells: int) -> None:
        self.console = console
        self.done = self.computed = self.failed = self.failed_now = 0
        self.cells = cells
        self.uses: Counter[str] = Counter()
        self.where = ""
        self.started = self.last_line = time.monotonic()
        self.remaining = Remaining()
        self.at_work: dict[Task, str] = {}
        self.leakage: dict[str, tuple[float, str]] = {}
        self.floor: tuple[float, str] | None = None
        self.live = Live(console=console, get_renderable=self.table, transient=True)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()

    def begin(self, where: str) -> None:
        """Of several plans another one begins: ``where`` is put in front of what is at work."""
        self.where, self.leakage, self.floor = where, {}, None

    def planned(self, tasks: Collection[Task]) -> None:
        """What is left is estimated from these."""
        self.remaining.planned(tasks)

    def began(self, task: Task) -> None:
        """Show it."""
        self.at_work.pop(PREPARING, None)
        self.remaining.began(task)
        self.at_work[task] = ""
        self._log(task.title)

    def said(self, task: Task, text: str) -> None:
        """Show it beside the task."""
        self.at_work[task] = text
        self._log(text)

    def ended(self, task: Task) -> None:
        """Show it no longer."""
        self.at_work.pop(task, None)
        self.remaining.ended(task)

    def stage(self, text: str) -> None:
        """What this process computes, which does one thing at a time."""
        self.said(next(iter(self.at_work), PREPARING), text)

    def loaded(self, lines: list[str]) -> None:
        """What was loaded, before anything is made of it."""
        for line in lines:
            self._line(self.where + line)

    def replanned(self, before: Run, after: Run) -> None:
        """Strengths were found: what a defence without one does not have is not waited for."""
        self.cells += len(after.cells) - len(before.cells)

    def cell(self, cell: Cell, result: Record, computed: bool) -> None:
        """A cell is done."""
        self.done += 1
        self.computed += computed
        if computed:
            self.uses.update(stage.label for stage in stages_of([cell]).values())
        self.failed += result.failed
        self.failed_now += computed and result.failed
        self._note_leakage(result)
        if computed or result.failed:
            self._line(f"[{self.done}/{self.cells}] {self.where}{cell.title}: {_outcome(result)}")

    def _note_leakage(self, result: Record) -> None:
        """Of the strongest attack on each defence so far, the latest defence last."""
        if HEADLINE not in result.metrics:
            return
        attack, defence = result.attack, result.defence.label
        reached = (result.metrics[HEADLINE].mean, attack.label)
        if attack.floor:
            self.floor = reached
        else:
            so_far = self.leakage.pop(defence, reached)
            self.leakage[defence] = max(so_far, reached, key=itemgetter(0))

    def table(self) -> Group:
        """What a terminal shows: how far it is, what is at work, and what leaks so far."""
        head = Table.grid(padding=(0, 1))
        head.add_row(ProgressBar(self.cells, self.done, BAR), self._how_far())
        body = Table.grid(padding=(0, 2))
        body.add_column(no_wrap=True)
        body.add_column(overflow="fold")
        at_work, leakage = tuple(self.at_work.items()), tuple(self.leakage.items())
        room = self.console.height - 4
        said = [
            self.where + task.title + ("" if task.title.startswith(text) else f": {text}") for task, text in at_work
        ]
        shown, room = self._fitting(said, room)
        for row, line in enumerate(shown):
            body.add_row("at work" if row == 0 else "", Text(line))
        reached = [_reached(defence, by) for defence, by in reversed(leakage)]
        latest, _ = self._fitting(reached, max(1, room - 1))
        for row, line in enumerate(reversed(latest)):
            body.add_row("strongest so far" if row == 0 else "", Text(line))
        if self.floor:
            body.add_row("" if leakage else "so far", _reached("the floor", self.floor))
        return Group(head, body)

    def _fitting(self, texts: Sequence[str], room: int) -> tuple[list[str], int]:
        """The first of them that fit into so many lines, and how many others there are; and the room left."""
        width, shown = max(1, self.console.width - LABEL), list[str]()
        for index, text in enumerate(texts):
            left = room - len(Text(text).wrap(self.console, width))
            if left < (index + 1 < len(texts)):  # a line for how many others there are
                return [*shown, f"and {len(texts) - index} more"], room - 1
            room = left
            shown.append(text)
        return shown, room

    def _how_far(self) -> str:
        elapsed = time.monotonic() - self.started
        facts = [f"{self.done}/{self.cells} cells", str(timedelta(seconds=round(elapsed)))]
        if self.computed:
            facts.append(f"{60 * self.computed / elapsed:.1f} a minute")
        left, unknown = self.remaining.estimate()
        if left:
            facts.append(f"{'at least' if unknown else 'about'} {_roughly(left)} left")
        return ", ".join(facts)

    def _log(self, text: str) -> None:
        """In a log file, at most one line in a while."""
        if not self.console.is_terminal and time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            self._line(f"  {self.where}{text}")

    def told(self, text: str) -> None:
        """Something other than a cell is done, which counts like one."""
        self.done += 1
        self._line(f"[{self.done}/{self.cells}] {self.where}{text}")

    def _line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
        self.last_line = time.monotonic()

    def summary(self, stages: Counter[str] | None = None) -> str:
        """One line for the end, and one for what was shared between cells: ``stages`` counts those computed."""
        seconds = time.monotonic() - self.started
        failed = f", {self.failed} failed" if self.failed else ""
        stored = self.done - self.computed
        lines = [f"{self.cells} cells: {self.computed} computed{failed}, {stored} already there; {seconds:.0f} s"]
        if stages is not None and self.computed:
            shared = [
                f"{label} {stages[label]} for {uses}" for label, uses in self.uses.items() if stages[label] < uses
            ]
            lines += [f"stages computed for how many cells: {', '.join(shared)}"] if shared else []
        return "\n".join(lines)


def _outcome(result: Record) -> str:
    if not result.ok:
        return f"FAILED, {result.why}" if result.failed else result.why
    scores = [(name, result.metrics[name]) for name in SHOWN_METRICS if name in result.metrics]
    facts = [f"{FORMATS[name].name} {ranged(name, Interval(of.mean, of.low, of.high))}" for name, of in scores]
    facts = facts or ["nothing to score"]
    facts += [f"{result.utility.metric} {result.utility.mean:.1%}"] if result.utility else []
    facts += [f"fitted in {result.seconds.fit:.1f} s"] if result.seconds else []
    return ", ".join(facts)


def _reached(against: str, by: tuple[float, str]) -> str:
    score, attack = by
    return f"{number(HEADLINE, score)}  {against}, by {attack}"


def _roughly(seconds: float) -> str:
    """As exact as an estimate is."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
