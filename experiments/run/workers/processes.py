"""Workers that are processes of this machine."""

import multiprocessing
import os
import signal
import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

import torch

from splitleak.experiments.run.schedule import Died, Executor, Outcome, Task
from splitleak.experiments.run.workers.base import Workshop, cores
from splitleak.experiments.store.integrity import DiskFullError
from splitleak.victims.allocator import tune_memory

LEAVING_SECONDS = 10.0
"""Granted to an idle worker; one that is killed leaves warnings behind."""


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    task: Task | None = None


class Processes(Executor):
    """Worker processes of this machine, which share its cores equally.

    They are started when there is work for them, and again when one dies. They end with this process, however it
    ends.
    """

    def __init__(self, workshop: Workshop, workers: int) -> None:
        self.workshop = workshop
        self.count = workers
        self.threads = max(1, cores() // workers)
        self.workers: dict[int, _Worker] = {}

    @property
    def slots(self) -> int:
        """As many as workers."""
        return self.count

    def submit(self, task: Task) -> None:
        """Give it to an idle worker."""
        idle = [number for number, worker in self.workers.items() if worker.task is None]
        number = idle[0] if idle else next(n for n in range(self.count) if n not in self.workers)
        worker = self.workers.get(number) or self._started(number)
        worker.task = task
        with suppress(OSError):  # it died while it was idle: ``wait`` notices
            worker.connection.send(task)

    def wait(self) -> tuple[Task, Outcome | Died]:
        """Show what workers say until one is done or dead."""
        while True:
            speaking = wait([worker.connection for worker in self.workers.values() if worker.task])
            for number, worker in list(self.workers.items()):
                if worker.connection not in speaking:
                    continue
                assert worker.task is not None
                try:
                    said = worker.connection.recv()
                except (EOFError, OSError):
                    return worker.task, self._buried(number)
                if isinstance(said, str):
                    self.watcher.said(worker.task, said)
                    continue
                if isinstance(said, DiskFullError):
                    raise said
                task, worker.task = worker.task, None
                return task, said

    def __exit__(self, *_: object) -> None:
        """Idle ones leave; what busy ones had not finished is not there."""
        for worker in self.workers.values():
            worker.connection.close()
            if worker.task is not None:
                worker.process.kill()
        for worker in self.workers.values():
            worker.process.join(LEAVING_SECONDS)
            worker.process.kill()
            worker.process.join()
        self.workers.clear()

    def _started(self, number: int) -> _Worker:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(
            target=_serve, args=(there, self.workshop, number, self.threads), daemon=True, name=f"worker {number}"
        )
        process.start()
        there.close()
        self.workers[number] = _Worker(process, here)
        return self.workers[number]

    def _buried(self, number: int) -> Died:
        process = self.workers.pop(number).process
        process.join()
        code = process.exitcode or 0
        reason = f"exit code {code}"
        if code < 0:
            reason = f"{signal.Signals(-code).name}"
            if -code == signal.SIGKILL:
                reason += " (out of memory?)"
        return Died(reason)


def _serve(connection: Connection, workshop: Workshop, number: int, threads: int) -> None:
    """A worker's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tune_memory()
    torch.set_num_threads(threads)
    work = workshop.open(number, connection.send)
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            said: Outcome | DiskFullError = work(task)
        except DiskFullError as error:
            said = error
        connection.send(said)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
