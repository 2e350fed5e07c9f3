"""Executors with workers of their own: processes of this machine, and tasks of a Ray cluster."""

import importlib
import logging
import multiprocessing
import os
import signal
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from splitleak.experiments.run.schedule import Died, Executor, Outcome, Progress, Task, Work
from splitleak.experiments.store.integrity import DiskFullError
from splitleak.victims.allocator import tune_memory
from splitleak.victims.errors import InvalidInputError

LEAVING_SECONDS = 10.0
"""Granted to an idle worker; one that is killed leaves warnings behind."""


class Workshop(ABC):
    """What a worker needs to begin: it travels to it by pickle and is hashable."""

    @abstractmethod
    def open(self, number: int, progress: Progress) -> Work:
        """Make the work ready in worker ``number``; called once in each."""


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(device: torch.device) -> int:
    """One for each GPU, or one for each core."""
    return torch.cuda.device_count() if device.type == "cuda" else cores()


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


class Ray(Executor):
    """Tasks of a Ray cluster: the one that RAY_ADDRESS names, or one started on this machine.

    Its nodes see the run's folder and the data at the same paths. Ray neither retries nor caches anything here: the
    store knows what is done.
    """

    def __init__(self, workshop: Workshop, workers: int, device: torch.device) -> None:
        try:
            ray: Any = importlib.import_module("ray")
        except ImportError:
            raise InvalidInputError("executor = ray needs Ray: pip install 'splitleak[cluster]'") from None
        self.ray = ray
        self.workshop = workshop
        self.threads = max(1, cores() // workers)
        self.mine = not ray.is_initialized()
        if self.mine:
            local = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": workers * self.threads}
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **local)
        needs = {"num_cpus": self.threads, "num_gpus": float(device.type == "cuda")}
        self.remote = ray.remote(max_retries=0, **needs)(_ray_work)
        self.running: dict[Any, Task] = {}

    @property
    def slots(self) -> int:
        """As many as the cluster has room for now."""
        return max(1, int(self.ray.cluster_resources().get("CPU", 1)) // self.threads)

    def submit(self, task: Task) -> None:
        """Give it to the cluster."""
        self.running[self.remote.remote(self.workshop, task, self.threads)] = task

    def wait(self) -> tuple[Task, Outcome | Died]:
        """The next one that ends."""
        (reference,), _ = self.ray.wait(list(self.running), num_returns=1)
        task = self.running.pop(reference)
        try:
            outcome: Outcome = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            raise (error.cause or error) from None
        except self.ray.exceptions.RayError as error:
            return task, Died(str(error).partition("\n")[0])
        return task, outcome

    def __exit__(self, *_: object) -> None:
        """Cancel what runs, and end the cluster if it was started here."""
        for reference in self.running:
            self.ray.cancel(reference, force=True)
        if self.mine:
            self.ray.shutdown()


def _ray_work(workshop: Workshop, task: Task, threads: int) -> Outcome:
    return _opened(workshop, threads)(task)


@lru_cache(maxsize=1)
def _opened(workshop: Workshop, threads: int) -> Work:
    """Ray uses a worker process again."""
    torch.set_num_threads(threads)
    return workshop.open(0, lambda text: None)
