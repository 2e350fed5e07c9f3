"""Workers that are tasks of a Ray cluster."""

import importlib
import logging
import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from splitleak.experiments.run.schedule import Died, Executor, Outcome, Progress, Task, Work
from splitleak.experiments.run.workers.base import Workshop, cores, default_workers
from splitleak.victims.errors import InvalidInputError

ADDRESS = "RAY_ADDRESS"
"""Ray's own variable: which cluster to join."""
ANSWER_SECONDS = 10.0
"""Granted to a cluster's head; Ray itself asks for many minutes."""
JUDGING_GPUS = 0.25
"""What judging a cell takes of a GPU: it runs small networks, and other runs may use the rest."""

Node = Mapping[str, float]
"""What a node of the cluster has, as Ray counts it: so many of CPU, so many of GPU."""


class Ray(Executor):
    """Tasks of a Ray cluster: the one that RAY_ADDRESS names, or one started on this machine.

    Its nodes see the run's folder and the data at the same paths. Ray neither retries nor caches anything here: the
    store knows what is done. A task takes as many cores as ``workers`` tasks at a time leave to each of them;
    ``None``: one for each GPU, or for each core, of the cluster.

    Raises:
        InvalidInputError: Ray is not installed, no cluster answers, or none of its nodes has what a task needs.
    """

    def __init__(self, workshop: Workshop, workers: int | None, device: torch.device) -> None:
        try:
            ray: Any = importlib.import_module("ray")
            queues: Any = importlib.import_module("ray.util.queue")
        except ImportError:
            raise InvalidInputError("executor = ray needs Ray: pip install 'splitleak[cluster]'") from None
        self.ray = ray
        self.workshop = workshop
        self.workers = workers
        self.gpus = int(device.type == "cuda")
        self.running: dict[Any, Task] = {}
        self.mailbox: Any = None
        self.mine = not ray.is_initialized()
        try:
            if self.mine:
                self._join(device)
            self.threads = threads_for(self._nodes(), self.gpus, workers)
            self.mailbox = queues.Queue(actor_options={"num_cpus": 0}).actor
            self.letters = [self.mailbox.get.remote(None)]
        except BaseException:
            self.__exit__()
            raise

    def _join(self, device: torch.device) -> None:
        """Join the cluster, or start one."""
        local = {}
        if ADDRESS in os.environ:
            check_answers(os.environ[ADDRESS])
        else:
            self.workers = self.workers or default_workers(device)
            local = {"num_cpus": self.workers * max(1, cores() // self.workers)}
        try:
            self.ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **local)
        except (ConnectionError, ValueError) as error:
            where = f"{ADDRESS} = {os.environ[ADDRESS]}" if ADDRESS in os.environ else "executor = ray"
            raise InvalidInputError(f"{where}: {error}") from None

    def _nodes(self) -> list[Node]:
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    @property
    def slots(self) -> int:
        """As many as the cluster's nodes have room for now, and no more than was asked for."""
        places = room(self._nodes(), self.threads, self.gpus)
        return max(1, min(places, self.workers or places))

    def submit(self, task: Task) -> None:
        """Give it to the cluster."""
        gpus = self.gpus * (JUDGING_GPUS if task.kind == "cell" else 1)
        remote = self.ray.remote(max_retries=0, num_cpus=self.threads, num_gpus=gpus)(_work)
        self.running[remote.remote(self.workshop, task, self.threads, self.mailbox)] = task

    def wait(self) -> tuple[Task, Outcome | Died]:
        """Show what workers say until one is done or dead."""
        while True:
            (reference,), _ = self.ray.wait([*self.letters, *self.running], num_returns=1)
            if reference in self.running:
                return self._ended(reference)
            self._read(reference)

    def _ended(self, reference: Any) -> tuple[Task, Outcome | Died]:
        task = self.running.pop(reference)
        try:
            outcome: Outcome = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            raise (error.cause or error) from None
        except self.ray.exceptions.RayError as error:
            return task, Died(str(error).partition("\n")[0])
        return task, outcome

    def _read(self, letter: Any) -> None:
        """One that may be late: its task has ended."""
        try:
            task, text = self.ray.get(letter)
        except self.ray.exceptions.RayError:  # the mailbox's node is gone: tasks go on without a word
            self.letters = []
            return
        self.letters = [self.mailbox.get.remote(None)]
        if task in self.running.values():
            self.watcher.said(task, text)

    def __exit__(self, *_: object) -> None:
        """Cancel what runs, and end the cluster if it was started here."""
        try:
            for reference in self.running:
                self.ray.cancel(reference, force=True)
            self.running.clear()
            if self.mailbox is not None:
                self.ray.kill(self.mailbox)
        finally:
            if self.mine:
                self.ray.shutdown()


def room(nodes: Sequence[Node], threads: int, gpus: int) -> int:
    """How many tasks run on these nodes at a time, each with so many cores and GPUs of one node."""
    places = 0
    for node in nodes:
        needs = [("CPU", threads), *([("GPU", gpus)] if gpus else [])]
        places += min(int(node.get(name, 0) // count) for name, count in needs)
    return places


def threads_for(nodes: Sequence[Node], gpus: int, workers: int | None) -> int:
    """The most cores for each of ``workers`` tasks at a time that these nodes have; None: as many tasks as they can.

    Raises:
        InvalidInputError: no node has a core, and a GPU where that is needed.
    """
    most = room(nodes, 1, gpus)
    if not most:
        kinds = dict.fromkeys(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        have = ", ".join(kinds) or "none"
        needed = "a CPU and a GPU, as a task on cuda needs" if gpus else "a CPU, as a task needs"
        raise InvalidInputError(f"executor = ray: no node of the cluster has {needed}; its nodes: {have}")
    wanted = min(workers or most, most)
    cpus = int(max(node.get("CPU", 0) for node in nodes))
    return max(threads for threads in range(1, cpus + 1) if room(nodes, threads, gpus) >= wanted)


def check_answers(address: str) -> None:
    """Whether anything listens at ``host:port``; other forms of an address are Ray's own to judge.

    Raises:
        InvalidInputError: nothing does.
    """
    named = re.fullmatch(r"(?:ray://)?([^:/]+):(\d+)", address)
    if not named:
        return
    try:
        socket.create_connection((named[1], int(named[2])), timeout=ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InvalidInputError(f"{ADDRESS} = {address}: no cluster answers there ({error})") from None


def _work(workshop: Workshop, task: Task, threads: int, mailbox: Any) -> Outcome:
    """One task, in a worker of the cluster."""
    voice, work = _opened(workshop, threads)
    voice.say = lambda text: mailbox.put.remote((task, text))
    return work(task)


@dataclass
class _Voice:
    """A worker's: it speaks of the task that the worker has now."""

    say: Progress = print

    def __call__(self, text: str) -> None:
        self.say(text)


@lru_cache(maxsize=1)
def _opened(workshop: Workshop, threads: int) -> tuple[_Voice, Work]:
    """Ray uses a worker process again."""
    torch.set_num_threads(threads)
    voice = _Voice()
    return voice, workshop.open(0, voice)
