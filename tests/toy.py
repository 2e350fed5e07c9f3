"""Work for executors, in a module of its own: what their workers import is little."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from splitleak.experiments.run.schedule import Outcome, Progress, Task, Work
from splitleak.experiments.run.workers import Workshop
from splitleak.experiments.store.integrity import DiskFullError


@dataclass(frozen=True)
class Toy(Workshop):
    """Its work is to do what the task is called; ``wait`` goes on once whoever hears of it makes a file."""

    folder: Path

    def open(self, number: int, progress: Progress) -> Work:
        def work(task: Task) -> Outcome:
            mark = self.folder / task.name
            if task.name == "die" or (task.name == "die once" and not mark.exists()):
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if task.name == "fill the disk":
                raise DiskFullError("full")
            progress(f"at {task.name}")
            while task.name == "wait" and not mark.exists():
                time.sleep(0.01)
            return Outcome(computed=(str(torch.get_num_threads()),))

        return work
