"""Run a plan's cells: what is missing becomes a graph of tasks, which an executor works off."""

import os
import tomllib
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from splitleak.experiments.cells.cell import EXAMPLES, Cell, save_strip
from splitleak.experiments.planning.names import CACHE
from splitleak.experiments.planning.plan import parse_plan
from splitleak.experiments.results.load import write_listing, write_record
from splitleak.experiments.results.record import Record
from splitleak.experiments.run.interrupt import stop_if_interrupted
from splitleak.experiments.run.loaded import loaded, utility_of_uncut
from splitleak.experiments.run.run import Run, behind, pending_stages, stages_of
from splitleak.experiments.run.schedule import Executor, Graph, Outcome, Progress, Task, Work, execute
from splitleak.experiments.run.searching import searched
from splitleak.experiments.run.workers import Workshop
from splitleak.experiments.store.integrity import DiskFullError, replace_if_other
from splitleak.experiments.store.key import Stage
from splitleak.experiments.store.store import Store
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.files import DATA_VARIABLE, WEIGHTS_VARIABLE
from splitleak.victims.settings import Settings


@dataclass(frozen=True)
class RunWorkshop(Workshop):
    """All that a worker elsewhere needs to take part in a run."""

    text: str
    folder: Path
    name: str
    out: Path
    device: str
    limit: int | None
    here: Path
    variables: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, run: Run, store: Store) -> "RunWorkshop":
        """It reads the plan again, with the data and the weights where this process finds them."""
        variables = tuple(
            (name, os.environ[name]) for name in (DATA_VARIABLE, WEIGHTS_VARIABLE) if name in os.environ
        )
        plan = run.plan
        out = run.folder.parent.resolve()
        here = Path.cwd()
        return cls(plan.text, plan.folder.resolve(), plan.name, out, store.device.type, store.limit, here, variables)

    def open(self, number: int, progress: Progress) -> Work:
        """On the GPU of that number, where there are GPUs."""
        os.chdir(self.here)
        os.environ.update(self.variables)
        plan = parse_plan(tomllib.loads(self.text), self.text, self.folder, self.name)
        device = torch.device(self.device)
        if device.type == "cuda":
            device = torch.device("cuda", number % torch.cuda.device_count())
        return work_of(Run.of(plan, self.out, self.device), Store(self.out / CACHE, device, progress, self.limit))


def work_of(run: Run, store: Store) -> Work:
    """What does a run's tasks with a store, those that follow from what its searches find among them."""
    known = _Tasks(run)

    def work(task: Task) -> Outcome:
        before, failure, refused = len(store.computed), None, None
        try:
            with store.task():
                if task.kind == "cell":
                    judged(known.cell(task.name), run.folder, store)
                else:
                    store.folder(known.stage(task.name))
        except DiskFullError:
            raise
        except Exception as error:
            failure = traceback.format_exc()
            refused = str(error) if isinstance(error, InvalidInputError) else None
        stop_if_interrupted()
        return Outcome(failure, tuple(store.computed[before:]), refused)

    return work


class _Tasks:
    """What a run's tasks name; strengths that another process has found since are looked for when one is unknown."""

    def __init__(self, run: Run) -> None:
        self._read(run)

    def cell(self, name: str) -> Cell:
        """By its id."""
        if name not in self.cells:
            self._read(self.run.again())
        return self.cells[name]

    def stage(self, name: str) -> Stage:
        """By its key."""
        if name not in self.stages:
            self._read(self.run.again())
        return self.stages[name]

    def _read(self, run: Run) -> None:
        self.run, self.cells = run, {cell.id: cell for cell in run.cells}
        further = [*run.uncut.values(), *run.searches.values()]
        self.stages = stages_of(run.cells) | behind(further)


def judged(cell: Cell, folder: Path, store: Store) -> Record:
    """Compute and store a cell's record; an error becomes a stored result too.

    Raises:
        DiskFullError: which is no fault of the cell's.
    """
    try:
        record = cell.compute(folder, store)
    except DiskFullError:
        raise
    except Exception:
        stop_if_interrupted()
        record = cell.record("failed", traceback=traceback.format_exc())
    return write_record(folder, record)


def run_cells(
    run: Run,
    store: Store,
    executor: Executor,
    retry_failed: bool,
    on_cell: Callable[[Cell, Record, bool], None],
    time_is_up: Callable[[], bool] = lambda: False,
    fail_fast: bool = False,
    on_loaded: Callable[[list[str]], None] = lambda lines: None,
    on_found: Callable[[Run], None] = lambda run: None,
) -> Counter[str]:
    """Compute every cell that has no result yet; each result is on disk as soon as it is there.

    Strengths that the plan asks to search are found first.

    Args:
        store: what the executor's workers use, too.
        retry_failed: compute cells again whose stored result is a failure.
        on_cell: called for each cell with its result and whether it was computed just now.
        time_is_up: no stage and no cell begins after that; what is left has no result yet.
        fail_fast: the first cell that fails now, rather than in a run before, is the last one: nothing begins after
            it, and what else runs ends with the executor.
        on_loaded: told what was loaded before the first task, what each search found, and each uncut network's
            utility once it is known.
        on_found: told the run once all strengths are searched, where there were any to search.

    Returns:
        How many stages of each kind were computed.

    Raises:
        InvalidInputError: a photo cannot be read (the photos are decoded before the first cell), a victim's halves
            compute something else than the uncut network, or another process with other code writes to this run.
        DiskFullError: there is no room for a result.
    """
    before = len(store.computed)  # of other runs
    on_loaded(_begin(run, store))
    computed = Counter(store.computed[before:])
    failures: dict[str, str] = {}
    if run.searches:
        found = searched(run, store, executor, retry_failed, on_loaded, time_is_up)
        run, failures = found.run, found.failures
        computed += found.computed
        if not found.whole:
            return computed
        write_listing(run.folder, {cell.id: cell.key for cell in run.cells})
        on_found(run)
    missing = _missing(run, retry_failed, on_cell, failures)
    if fail_fast and failures:
        return computed
    return computed + _worked_off(run, missing, store, executor, on_cell, time_is_up, fail_fast, on_loaded)


def _worked_off(
    run: Run,
    missing: Mapping[str, Cell],
    store: Store,
    executor: Executor,
    on_cell: Callable[[Cell, Record, bool], None],
    time_is_up: Callable[[], bool],
    fail_fast: bool,
    on_loaded: Callable[[list[str]], None],
) -> Counter[str]:
    """Compute the cells that are missing, by id; see ``run_cells``."""
    computed: Counter[str] = Counter()
    uncut = {stage.key: stage for stage in run.uncut.values()}
    for stage in uncut.values():
        if store.has(stage):
            on_loaded([utility_of_uncut(stage, store)])

    def on_end(task: Task, outcome: Outcome) -> None:
        computed.update(outcome.computed)
        if task.name in uncut:
            if outcome.refused:
                raise InvalidInputError(outcome.refused)  # no cell of a network that is cut wrongly says anything
            if outcome.failure is None:
                on_loaded([utility_of_uncut(uncut[task.name], store)])
        if task.kind == "cell":
            cell = missing[task.name]
            result = _result(cell, run.folder, outcome)
            on_cell(cell, result, True)
            if fail_fast and result.failed:
                raise _FailedError

    with suppress(_FailedError):
        execute(_graph(run, list(missing.values()), store), executor, on_end, time_is_up)
    return computed


def _result(cell: Cell, folder: Path, outcome: Outcome) -> Record:
    """What a cell's task has left, or the failure of what it needs.

    Raises:
        InvalidInputError: another process with other code wrote there.
    """
    if outcome.failure is not None:
        write_record(folder, cell.record("failed", traceback=outcome.failure))
    result = cell.result(folder)
    if result is None:
        raise InvalidInputError(
            f"{cell.title}: another process stored this cell, with other code or other data, in {folder}; "
            "give each process its own --out"
        )
    return result


def _missing(
    run: Run, retry_failed: bool, on_cell: Callable[[Cell, Record, bool], None], failures: Mapping[str, str]
) -> dict[str, Cell]:
    """The cells that are to be computed, by id; of the others is told what they are.

    ``failures``: of the search for a strength, by the defence's label: its cells fail with it.
    """
    missing = {}
    for cell in run.cells:
        result = cell.result(run.folder)
        if cell.inapplicable and (result is None or result.failed):
            on_cell(cell, write_record(run.folder, cell.record("does not apply", reason=cell.inapplicable)), True)
        elif cell.defense.label in failures:
            failed = cell.record("failed", traceback=failures[cell.defense.label])
            on_cell(cell, write_record(run.folder, failed), True)
        elif result is None or (retry_failed and result.failed):
            missing[cell.id] = cell
        else:
            on_cell(cell, result, False)
    return missing


def _begin(run: Run, store: Store) -> list[str]:
    """Decode the photos, and write what a reader of the run's folder must know from now on; tells what was loaded."""
    with store.task():
        data = run.cells[0].protect.victim.data.load(store)
        save_strip(run.folder / "targets.png", data.images["target"][:EXAMPLES])
    replace_if_other(run.folder / "plan.toml", run.plan.text.encode())
    write_listing(run.folder, {cell.id: cell.key for cell in run.cells})
    return loaded(run, data)


class _FailedError(Exception):
    """A cell has failed, and the run is to end with it."""


def _graph(run: Run, cells: list[Cell], store: Store) -> Graph:
    """Each cell after the stages that it still needs; in the plan's order, so that results come early.

    Before all else that needs a victim: how right it is uncut.
    """
    needs: dict[Task, set[Task]] = {}
    groups: dict[Task, str] = {}
    tasks: dict[str, Task] = {}
    of_victim = run.uncut

    def add(stages: Mapping[str, Stage], cell: Cell) -> set[Task]:
        for key, stage in stages.items():
            if key not in tasks:
                tasks[key] = Task("stage", key, f"{stage.label} for {cell.title}", _sort(stage))
                needs[tasks[key]] = {tasks[one.key] for one in stage.upstream if one.key in tasks}
                groups[tasks[key]] = cell.protect.key
        return {tasks[key] for key in stages}

    for cell in cells:
        uncut = [of_victim[victim]] if (victim := cell.protect.victim.key) in of_victim else []
        first = add(behind(uncut, lambda stage: not store.has(stage)), cell)
        last = Task("cell", cell.id, f"judging {cell.title}", f"judging {cell.attack['name']}")
        needs[last] = first | add(pending_stages([cell], store), cell)
        groups[last] = cell.protect.key
    return Graph(needs, groups)


def _sort(stage: Stage) -> str:
    """Its label and the plugin that it runs."""
    values = [getattr(stage, field.name) for field in fields(stage)]
    return " ".join([stage.label, *(value.name for value in values if isinstance(value, Settings))])
