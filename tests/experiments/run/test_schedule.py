"""Tasks in their order, whoever executes them, and what becomes of them when something fails."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import DECODER, HEAD, MEAN, NOISE, NONE, RIDGE, SUBSET
from toy import Toy

from splitleak.experiments.cells.attack import AttackCell
from splitleak.experiments.planning.names import CACHE
from splitleak.experiments.planning.plan import read_plan
from splitleak.experiments.run.execute import RunWorkshop, run_cells, work_of
from splitleak.experiments.run.interrupt import interruptible
from splitleak.experiments.run.run import Run
from splitleak.experiments.run.schedule import Died, Executor, Graph, Outcome, Serial, Task, Watcher, execute
from splitleak.experiments.run.workers import Processes, Ray, Workshop
from splitleak.experiments.stages.data import DataStage
from splitleak.experiments.store.integrity import DiskFullError
from splitleak.experiments.store.store import Store

A, B, C, D = (Task("stage", name) for name in "abcd")
DIAMOND = {A: set[Task](), B: {A}, C: {A}, D: {B, C}}


def ended(graph: Graph, executor: Executor) -> list[tuple[str, str | None]]:
    seen: list[tuple[str, str | None]] = []
    execute(graph, executor, lambda task, outcome: seen.append((task.name, outcome.failure)))
    return seen


def alike(needs: dict[Task, set[Task]]) -> Graph:
    return Graph(needs, dict.fromkeys(needs, "same"))


def test_a_task_waits_for_those_it_needs_and_else_the_order_is_kept() -> None:
    last, first = Task("stage", "last"), Task("stage", "first")
    reverse = {last: {first}, **DIAMOND, first: set[Task]()}
    seen = [name for name, _ in ended(alike(reverse), Serial(lambda task: Outcome()))]
    assert seen == ["a", "b", "c", "d", "first", "last"]


def test_what_needs_a_failed_task_fails_for_its_reason_and_the_rest_goes_on() -> None:
    done: list[str] = []

    def work(task: Task) -> Outcome:
        done.append(task.name)
        return Outcome("broken" if task is B else None)

    assert sorted(ended(alike(DIAMOND), Serial(work))) == [("a", None), ("b", "broken"), ("c", None), ("d", "broken")]
    assert done == ["a", "b", "c"]


def test_all_that_fails_with_a_failed_task_ends_before_another_begins() -> None:
    other = Task("stage", "other")
    needs = {A: set[Task](), B: {A}, C: {B}, other: set[Task]()}
    seen = ended(alike(needs), Serial(lambda task: Outcome("broken" if task is A else None)))
    assert [name for name, _ in seen] == ["a", "b", "c", "other"]


class _Mortal(Executor):
    """Two at a time; a task's workers die as often as ``deaths`` says."""

    def __init__(self, deaths: dict[Task, int]) -> None:
        self.deaths = deaths
        self.running: list[Task] = []
        self.together: list[set[str]] = []

    slots = 2  # type: ignore[assignment]

    def submit(self, task: Task) -> None:
        self.running.append(task)

    def wait(self) -> tuple[Task, Outcome | Died]:
        self.together.append({task.name for task in self.running})
        task = self.running.pop(0)
        if self.deaths.get(task, 0):
            self.deaths[task] -= 1
            return task, Died("SIGKILL")
        return task, Outcome()

    def __exit__(self, *_: object) -> None:
        pass


def test_a_task_whose_worker_dies_is_tried_once_more() -> None:
    assert {failure for _, failure in ended(alike(DIAMOND), _Mortal({B: 1}))} == {None}
    reasons = dict(ended(alike(DIAMOND), _Mortal({B: 2})))
    assert reasons["b"] == reasons["d"] == "its worker died 2 times, the last time with: SIGKILL"
    assert reasons["c"] is None


def test_workers_spread_over_groups() -> None:
    needs = {task: set[Task]() for task in (A, B, C, D)}
    executor = _Mortal({})
    ended(Graph(needs, {A: 0, B: 0, C: 1, D: 1}), executor)
    assert executor.together[0] == {"a", "c"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One for all tests; its workers find what tests import."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=os.pathsep)
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


def made(executor: str, workshop: Workshop, request: pytest.FixtureRequest) -> Executor:
    if executor == "processes":
        return Processes(workshop, 2)
    request.getfixturevalue("cluster")
    return Ray(workshop, 2, torch.device("cpu"))


@pytest.mark.parametrize("executor", ["processes", pytest.param("ray", marks=pytest.mark.slow)])
def test_workers(executor: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    names = ["one", "die once", "two", "die", "three"]
    needs = {Task("stage", name): set[Task]() for name in names}
    with made(executor, Toy(tmp_path), request) as working:
        outcomes = dict(ended(alike(needs), working))
        assert [name for name, failure in outcomes.items() if failure] == ["die"]
        assert "died 2 times" in str(outcomes["die"])
        with pytest.raises(DiskFullError, match="full"):
            ended(alike({Task("stage", "fill the disk"): set()}), working)


class Hearing(Watcher):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.all: list[tuple[str, Any]] = []

    def planned(self, tasks: Collection[Task]) -> None:
        self.all.append(("planned", [*tasks]))

    def began(self, task: Task) -> None:
        self.all.append(("began", task))

    def said(self, task: Task, text: str) -> None:
        self.all.append((text, task))

    def ended(self, task: Task) -> None:
        self.all.append(("ended", task))


def test_workers_say_what_they_are_at_and_end_when_they_are_told(tmp_path: Path) -> None:
    one, heard = Task("stage", "one"), Hearing()
    with Processes(Toy(tmp_path), 2) as executor:
        executor.watcher = heard
        ended(alike({one: set()}), executor)
        processes = [worker.process for worker in executor.workers.values()]
        assert len(processes) == 1
    assert heard.all == [("planned", [one]), ("began", one), ("at one", one), ("ended", one)]
    assert not processes[0].is_alive()


ORPHAN = """
import sys
from functools import partial
from pathlib import Path
from splitleak.experiments.run.schedule import Outcome, Task
from splitleak.experiments.run.workers import Processes
sys.path.insert(0, {tests!r})
from toy import Toy
if __name__ == "__main__":
    executor = Processes(Toy(Path({folder!r})), 1)
    executor.submit(Task("stage", "one"))
    executor.wait()
    print(executor.workers[0].process.pid, flush=True)
    sys.stdin.read()
"""


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "orphan.py"
    script.write_text(ORPHAN.format(tests=str(Path(__file__).parents[2]), folder=str(tmp_path)))
    command = [sys.executable, str(script)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as parent:  # type: ignore[call-overload]
        child = int(parent.stdout.readline())
        parent.kill()
    for _ in range(100):
        if not Path(f"/proc/{child}").exists():
            return
        time.sleep(0.1)
    pytest.fail("the worker lives on")


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    results = results_of(tmp_path_factory.mktemp("serial"), lambda run, store: Serial(work_of(run, store)))
    torch.set_num_threads(threads)
    return results


PLAN = HEAD + NONE + NOISE + SUBSET + MEAN + RIDGE + DECODER


def results_of(folder: Path, make: Callable[[Run, Store], Executor]) -> dict[str, Any]:
    path = folder / "plan.toml"
    path.write_text(PLAN)
    run = Run.of(read_plan(path), folder / "runs")
    store = Store(folder / "runs" / CACHE, torch.device("cpu"))
    with make(run, store) as executor:
        computed = run_cells(run, store, executor, False, lambda cell, result, fresh: None)
    assert computed["victim"] == 1
    assert computed["protect"] == 4
    results = [cell.result(run.folder) for cell in run.cells]
    kept = {"id", "key", "status", "metrics", "oracle", "chosen", "utility", "bytes", "queries", "history"}
    return {result.id: result.model_dump(include=kept) for result in results if result}


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["processes", "ray"])
def test_results_do_not_depend_on_who_computes_them(
    executor: str, one_by_one: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    def with_one_thread(run: Run, store: Store) -> Executor:
        working = made(executor, RunWorkshop.of(run, store), request)
        assert isinstance(working, Processes | Ray)
        working.threads = 1
        return working

    assert len(one_by_one) == 4 * 4
    assert {result["status"] for result in one_by_one.values()} == {"ok"}
    assert results_of(tmp_path, with_one_thread) == one_by_one


def test_interrupted_it_keeps_what_is_finished_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    command = [sys.executable, "-m", "splitleak.experiments", "run", str(path), "--out", str(tmp_path / "runs")]
    cells = tmp_path / "runs" / "tiny" / "cells"
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background job, as these tests may be, begins with Ctrl-C ignored, and so would its children
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and len(list(cells.glob("*.json"))) < 2:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130, complaint
    assert "finished cells are stored" in complaint
    assert "Traceback" not in complaint
    assert len(list(cells.glob("*.json"))) >= 2
    assert list((tmp_path / "runs").rglob("*.partial")) == []


@pytest.fixture
def heeded() -> Iterator[None]:
    """A shell's background job, as these tests may be, begins with Ctrl-C ignored."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


def _error(_: object, __: object) -> None:
    """As native code makes it of what is raised in what it calls back."""
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise ValueError("could not determine the shape") from None


def _nothing(_: object, __: object) -> None:
    """As where the garbage collector calls."""
    with suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize("made_of_it", [_error, _nothing])
@pytest.mark.parametrize("place", [(AttackCell, "judge"), (DataStage, "compute")])
def test_ctrl_c_that_a_library_takes_for_something_else_ends_the_run(
    made_of_it: Callable[[object, object], None],
    place: tuple[type, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = getattr(*place)

    def interrupted(self: object, first: object, store: object) -> Any:
        made_of_it(first, store)
        return original(self, first, store)

    monkeypatch.setattr(*place, interrupted)
    path = tmp_path / "plan.toml"
    path.write_text(HEAD + NONE + MEAN)
    run = Run.of(read_plan(path), tmp_path / "runs")
    store = Store(tmp_path / "runs" / CACHE, torch.device("cpu"))
    with pytest.raises(KeyboardInterrupt), interruptible():
        run_cells(run, store, Serial(work_of(run, store)), False, lambda cell, result, fresh: None)
    results = [cell.result(run.folder) for cell in run.cells]
    assert [result for result in results if result and result.failed] == []


@pytest.mark.usefixtures("heeded")
def test_ctrl_c_that_became_an_error_outside_of_any_task_is_ctrl_c() -> None:
    with pytest.raises(KeyboardInterrupt), interruptible():
        _error(None, None)


def test_an_error_without_ctrl_c_stays_one() -> None:
    with pytest.raises(ValueError, match="own"), interruptible():
        raise ValueError("its own")


def test_who_ignores_ctrl_c_goes_on_ignoring_it() -> None:
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, usual)
