"""The executor of a Ray cluster: what it asks of which nodes, what it tells, and that it leaves nothing behind."""

import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from toy import Toy

from splitleak.experiments.run.schedule import Graph, Outcome, Task, Watcher, execute
from splitleak.experiments.run.workers import Ray
from splitleak.experiments.run.workers.ray import Node
from splitleak.experiments.store.integrity import DiskFullError
from splitleak.victims.errors import InvalidInputError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class FakeRay:
    """As much of Ray as an executor asks before a task runs."""

    exceptions = SimpleNamespace(RayError=OSError, RayTaskError=OSError)

    def __init__(self, nodes: Sequence[Node], joined: bool = True) -> None:
        self.alive, self.joined = nodes, joined
        self.asked: list[dict[str, Any]] = []
        self.killed: list[object] = []
        self.started: dict[str, Any] = {}

    def is_initialized(self) -> bool:
        return self.joined

    def init(self, **options: Any) -> None:
        self.joined, self.started = True, options

    def shutdown(self) -> None:
        self.joined = False

    def nodes(self) -> list[dict[str, Any]]:
        dead = {"Alive": False, "Resources": {"CPU": 512.0, "GPU": 64.0}}
        return [dead, *({"Alive": True, "Resources": node} for node in self.alive)]

    def remote(self, **needs: Any) -> Callable[[object], object]:
        self.asked.append(needs)
        return lambda function: SimpleNamespace(remote=lambda *_: object())

    def cancel(self, reference: object, force: bool) -> None:
        self.killed.append(reference)

    def kill(self, actor: object) -> None:
        self.killed.append(actor)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeRay]:
    """Ray is this, with a cluster of these nodes."""

    def install(nodes: Sequence[Node], joined: bool = True) -> FakeRay:
        ray = FakeRay(nodes, joined)
        actor = SimpleNamespace(get=SimpleNamespace(remote=lambda timeout: object()))
        monkeypatch.setitem(sys.modules, "ray", ray)  # type: ignore[arg-type]
        queues = SimpleNamespace(Queue=lambda actor_options: SimpleNamespace(actor=actor))
        monkeypatch.setitem(sys.modules, "ray.util.queue", queues)  # type: ignore[arg-type]
        return ray

    return install


LARGE, SMALL, HEAD = {"CPU": 16.0, "GPU": 4.0}, {"CPU": 8.0}, {"memory": 1e9}


@pytest.mark.parametrize(
    ("nodes", "workers", "device", "threads", "slots"),
    [
        ([SMALL], None, CPU, 1, 8),  # one for each core
        ([SMALL, LARGE], None, CPU, 1, 24),
        ([SMALL, LARGE], 3, CPU, 8, 3),
        ([SMALL, SMALL], 3, CPU, 4, 3),  # 16 cores are five for each, but no node has room for two of five
        ([SMALL, LARGE], 1, CPU, 16, 1),  # no more cores than a node has
        ([SMALL], 100, CPU, 1, 8),
        ([LARGE, LARGE], None, CUDA, 4, 8),  # one for each GPU
        ([HEAD, SMALL, LARGE], None, CUDA, 4, 4),  # a node without a GPU has room for none
        ([LARGE], 2, CUDA, 8, 2),
        ([LARGE], 8, CUDA, 4, 4),  # no more than GPUs
        ([{"CPU": 2.0, "GPU": 4.0}], None, CUDA, 1, 2),
    ],
)
def test_as_many_tasks_as_the_nodes_have_cores_and_gpus_for(
    nodes: Sequence[Node],
    workers: int | None,
    device: torch.device,
    threads: int,
    slots: int,
    fake: Callable[..., FakeRay],
    tmp_path: Path,
) -> None:
    fake(nodes)
    with Ray(Toy(tmp_path), workers, device) as executor:
        assert (executor.threads, executor.slots) == (threads, slots)


def test_nodes_that_come_are_used(fake: Callable[..., FakeRay], tmp_path: Path) -> None:
    ray = fake([SMALL])
    with Ray(Toy(tmp_path), None, CPU) as executor:
        ray.alive = [SMALL, SMALL]
        assert executor.slots == 16


def test_a_stage_takes_a_gpu_and_judging_a_part_of_one(fake: Callable[..., FakeRay], tmp_path: Path) -> None:
    ray = fake([LARGE])
    with Ray(Toy(tmp_path), None, CUDA) as executor:
        executor.submit(Task("stage", "victim"))
        executor.submit(Task("cell", "first"))
    assert [(needs["num_cpus"], needs["num_gpus"]) for needs in ray.asked] == [(4, 1), (4, 0.25)]
    assert len(ray.killed) == 3  # with the mailbox
    assert ray.joined  # by somebody else, who still uses it


@pytest.mark.parametrize(
    ("nodes", "device", "complaint"),
    [
        ([SMALL, SMALL], CUDA, "has a CPU and a GPU, as a task on cuda needs; its nodes: 8 CPUs and 0 GPUs$"),
        ([HEAD], CPU, "has a CPU, as a task needs; its nodes: 0 CPUs and 0 GPUs"),
        ([SMALL, {"GPU": 1.0}], CUDA, "no node of the cluster has a CPU and a GPU"),
        ([], CPU, "its nodes: none"),
    ],
)
def test_what_no_node_can_do_is_said_at_once_and_the_cluster_is_left(
    nodes: Sequence[Node], device: torch.device, complaint: str, fake: Callable[..., FakeRay], tmp_path: Path
) -> None:
    ray = fake(nodes, joined=False)
    with pytest.raises(InvalidInputError, match=complaint):
        Ray(Toy(tmp_path), 1, device)
    assert ray.started
    assert not ray.joined


def test_a_cluster_here_has_the_cores_of_this_process_and_one_elsewhere_its_own(
    fake: Callable[..., FakeRay], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("splitleak.experiments.run.workers.ray.cores", lambda: 6)
    ray = fake([{"CPU": 6.0}], joined=False)
    with Ray(Toy(tmp_path), 2, CPU) as executor:
        assert (ray.started["num_cpus"], executor.threads, executor.slots) == (6, 3, 2)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{listening.getsockname()[1]}")
        ray = fake([LARGE], joined=False)
        with Ray(Toy(tmp_path), 2, CPU) as executor:
            assert "num_cpus" not in ray.started
            assert (executor.threads, executor.slots) == (8, 2)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(InvalidInputError, match=r"RAY_ADDRESS = 127.0.0.1:1: no cluster answers there"):
        Ray(Toy(tmp_path), 2, CPU)
    assert not ray.joined


def test_an_address_that_ray_refuses_is_bad_input(
    fake: Callable[..., FakeRay], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: FakeRay, **options: Any) -> None:
        raise ValueError("Invalid address format: nonsense")

    monkeypatch.setattr(FakeRay, "init", refuse)
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    fake([LARGE], joined=False)
    with pytest.raises(InvalidInputError, match="RAY_ADDRESS = nonsense: Invalid address format"):
        Ray(Toy(tmp_path), 2, CPU)


class Answering(Watcher):
    """Writes down what a task says, and lets it go on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.heard: list[tuple[str, str]] = []

    def said(self, task: Task, text: str) -> None:
        self.heard.append((task.title, text))
        (self.folder / task.name).touch()


def children(of: int) -> set[int]:
    """Processes that descend from one."""
    found: set[int] = set()
    for task in Path(f"/proc/{of}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child, *children(child)}
    return found


def test_workers_tell_what_they_are_at_and_nothing_is_left_of_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=os.pathsep)  # for the workers
    before = children(os.getpid())
    waiting, full = Task("stage", "wait", "its title"), Task("stage", "fill the disk")
    watcher = Answering(tmp_path)
    ended: list[Outcome] = []

    def run() -> None:
        with Ray(Toy(tmp_path), 1, CPU) as executor:
            executor.watcher = watcher
            graph = Graph({waiting: set(), full: {waiting}}, dict.fromkeys([waiting, full], "same"))
            execute(graph, executor, lambda task, outcome: ended.append(outcome))

    with pytest.raises(DiskFullError, match="full"):
        run()
    assert watcher.heard == [("its title", "at wait")]
    assert [outcome.failure for outcome in ended] == [None]
    assert not ray.is_initialized()
    for _ in range(100):
        if children(os.getpid()) <= before:
            return
        time.sleep(0.1)
    pytest.fail("processes of Ray live on")
