"""Tasks that wait for each other, handed to whatever executes them."""

import graphlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

Work = Callable[["Task"], "Outcome"]
"""Does one task. What it raises is a bug, or a disk that is full, and ends the run."""
Progress = Callable[[str], None]
ATTEMPTS = 2
"""A task whose worker dies is given to another one, once."""


@dataclass(frozen=True)
class Task:
    """One stage, by its key, or one cell, by its id.

    ``title``: for the display. ``sort``: tasks that share it take about as long.
    """

    kind: Literal["stage", "cell"]
    name: str
    title: str = field(default="", compare=False)
    sort: str = field(default="", compare=False)


@dataclass(frozen=True)
class Outcome:
    """How a task ended: why it failed, if it did, and the labels of the stages that were computed on the way.

    ``refused``: what was wrong with the input, where that is why.
    """

    failure: str | None = None
    computed: tuple[str, ...] = ()
    refused: str | None = None


@dataclass(frozen=True)
class Died:
    """A worker ended in the middle of a task."""

    reason: str


class Watcher:
    """Is told what becomes of tasks. This one does not care."""

    def planned(self, tasks: Collection[Task]) -> None:
        """These will be done."""

    def began(self, task: Task) -> None:
        """A worker has it now."""

    def said(self, task: Task, text: str) -> None:
        """Its worker tells what it is at."""

    def ended(self, task: Task) -> None:
        """It is done, or has failed."""


class Executor(ABC):
    """Executes tasks, several at a time or one."""

    watcher = Watcher()
    """Whoever makes an executor may replace it."""

    @property
    @abstractmethod
    def slots(self) -> int:
        """How many tasks it takes at a time."""

    @abstractmethod
    def submit(self, task: Task) -> None:
        """Begin a task; called with a slot free."""

    @abstractmethod
    def wait(self) -> tuple[Task, Outcome | Died]:
        """The next task that ended; raises what its work raised."""

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(self, *_: object) -> None:
        """End all workers, whatever they do."""


class Serial(Executor):
    """One task after the other, in this process."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.submitted: list[Task] = []

    @property
    def slots(self) -> int:
        """One."""
        return 1

    def submit(self, task: Task) -> None:
        """Keep it for ``wait``."""
        self.submitted.append(task)

    def wait(self) -> tuple[Task, Outcome]:
        """Do it."""
        task = self.submitted.pop()
        return task, self.work(task)

    def __exit__(self, *_: object) -> None:
        """There are no workers."""


@dataclass(frozen=True)
class Graph:
    """What is to be done.

    ``needs``: for each task those that come before it; the order of its keys is the order of preference. ``groups``:
    tasks of one group wait for each other's by-products, so workers spread over groups.
    """

    needs: Mapping[Task, set[Task]]
    groups: Mapping[Task, Hashable]


def execute(
    graph: Graph,
    executor: Executor,
    on_end: Callable[[Task, Outcome], None],
    time_is_up: Callable[[], bool] = lambda: False,
) -> None:
    """Do every task once those that it needs are done; one that needs a failed task fails for the same reason.

    ``on_end``: called once for each task, in the order in which they end. ``time_is_up``: no task begins after that.
    """
    sorter = graphlib.TopologicalSorter(graph.needs)
    sorter.prepare()
    rank = {task: place for place, task in enumerate(graph.needs)}
    ready: list[Task] = []
    running: list[Task] = []
    attempts: Counter[Task] = Counter()
    failures: dict[Task, str] = {}
    executor.watcher.planned(graph.needs)

    def end(task: Task, outcome: Outcome) -> None:
        if outcome.failure is not None:
            failures[task] = outcome.failure
        executor.watcher.ended(task)
        on_end(task, outcome)
        sorter.done(task)

    while sorter.is_active():
        while found := sorter.get_ready():  # again: what fails with a failed task ends before others begin
            for task in found:
                failed = next((failures[needed] for needed in graph.needs[task] if needed in failures), None)
                if failed is None:
                    ready.append(task)
                else:
                    end(task, Outcome(failed))
        busy = Counter(graph.groups[task] for task in running)
        while ready and len(running) < executor.slots and not time_is_up():
            task = min(ready, key=lambda task: (busy[graph.groups[task]], rank[task]))
            ready.remove(task)
            running.append(task)
            busy[graph.groups[task]] += 1
            attempts[task] += 1
            executor.watcher.began(task)
            executor.submit(task)
        if not running:
            return  # time is up, or all that was left failed with what it needs
        task, outcome = executor.wait()
        running.remove(task)
        if isinstance(outcome, Outcome):
            end(task, outcome)
        elif attempts[task] < ATTEMPTS:
            ready.append(task)
        else:
            end(task, Outcome(f"its worker died {ATTEMPTS} times, the last time with: {outcome.reason}"))
