"""How long what is left of a run will take, from what tasks of the same sort took."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from splitleak.experiments.run.schedule import Task


class Estimate(NamedTuple):
    """Seconds for those tasks whose sort has been seen, and how many others there are."""

    seconds: float
    unknown: int


class Remaining:
    """Takes the times of tasks. ``clock``: seconds, from any beginning."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.waiting: dict[Task, None] = {}
        self.began_at: dict[Task, float] = {}
        self.took: dict[str, list[float]] = defaultdict(list)

    def planned(self, tasks: Iterable[Task]) -> None:
        """These are to be done."""
        self.waiting |= dict.fromkeys(tasks)

    def began(self, task: Task) -> None:
        """It runs now; again, where its worker had died."""
        self.waiting.pop(task, None)
        self.began_at[task] = self.clock()

    def ended(self, task: Task) -> None:
        """It ran, or failed with what it needs before it could."""
        self.waiting.pop(task, None)
        if task in self.began_at:
            self.took[task.sort].append(self.clock() - self.began_at.pop(task))

    def estimate(self) -> Estimate:
        """For all that wait and the rest of those that run, as many at a time as run now."""
        running, now = tuple(self.began_at.items()), self.clock()
        usual = {sort: statistics.fmean(taken) for sort, taken in tuple(self.took.items())}
        left = [max(0.0, usual[task.sort] - (now - began)) for task, began in running if task.sort in usual]
        left += [usual[task.sort] for task in tuple(self.waiting) if task.sort in usual]
        return Estimate(sum(left) / max(1, len(running)), len(running) + len(self.waiting) - len(left))
