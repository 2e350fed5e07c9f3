"""Commands that run a plan and print its report."""

import math
import re
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from splitleak.experiments.cells.cell import Cell
from splitleak.experiments.cli.display import Display
from splitleak.experiments.cli.options import FAILED_CELLS, Device, Out, Retry, console, device_of, put, say, warn
from splitleak.experiments.cli.report import put_report
from splitleak.experiments.cli.study import put_study
from splitleak.experiments.planning.names import CACHE, PLANS
from splitleak.experiments.planning.study import Study, read_study
from splitleak.experiments.report.terminal import Column, Sheet
from splitleak.experiments.results.member import write_members
from splitleak.experiments.results.record import Record
from splitleak.experiments.run.check import check_plan
from splitleak.experiments.run.execute import RunWorkshop, run_cells, work_of
from splitleak.experiments.run.run import Run, behind, pending_stages
from splitleak.experiments.run.schedule import Executor, Serial
from splitleak.experiments.run.workers import Processes, Ray, default_workers
from splitleak.experiments.store.store import Store
from splitleak.experiments.tools.curves import Curves
from splitleak.victims.data.notes import counted
from splitleak.victims.errors import InvalidInputError, unknown

ExecutorName = Annotated[
    Literal["serial", "processes", "ray"],
    Parameter(help="serial; processes: workers on this machine; ray: on the cluster that RAY_ADDRESS names, or here"),
]
CacheLimit = Annotated[
    str | None,
    Parameter(help="such as 20GB: of what stages leave on disk; what was used least recently goes first"),
]
Workers = Annotated[int | None, Parameter(help="how many, sharing the cores; default: one per GPU, or per core")]
Only = Annotated[
    list[str] | None,
    Parameter(consume_multiple=True, negative="", help="of a plan with several victims, these; the others stay"),
]
DryRun = Annotated[bool, Parameter(negative="", help="show the matrix and what is cached, compute nothing")]
StopAfter = Annotated[float | None, Parameter(help="minutes after which nothing more is begun")]
FailFast = Annotated[bool, Parameter(negative="", help="end the run at the first cell that fails")]
Tensorboard = Annotated[
    bool, Parameter(negative="", help="write curves and scores to RUN/tensorboard as cells finish")
]


def run(
    plan: Annotated[str, Parameter(help="a TOML file, or a built-in plan's name; splitleak list plans")],
    /,
    *,
    out: Out = Path("runs"),
    device: Device = "auto",
    dry_run: DryRun = False,
    retry: Retry = None,
    executor: ExecutorName = "serial",
    workers: Workers = None,
    cache_limit: CacheLimit = None,
    stop_after: StopAfter = None,
    fail_fast: FailFast = False,
    only: Only = None,
    tensorboard: Tensorboard = False,
) -> int:
    """Run a plan: a TOML file, or the name of a built-in one (quick).

    Finished cells are kept: the same command goes on where it stopped.
    """
    started = time.monotonic()
    until = math.inf if stop_after is None else started + 60 * stop_after
    study = read_study(_plan_file(plan))
    chosen = study.only(only) if only else study
    for checked in chosen.plans.values():
        check_plan(checked)
    for note in dict.fromkeys(note for checked in chosen.plans.values() for note in checked.notes):
        say(note)
    device_type = device_of(device).type
    runs = {label: Run.of(checked, out, device_type) for label, checked in chosen.plans.items()}
    computed: Counter[str] = Counter()
    with Display(console, sum(len(one.cells) for one in runs.values())) as display:
        store = Store(out / CACHE, device_of(device), display.stage, _bytes(cache_limit))
        if dry_run:
            for one in runs.values():
                _print_dry_run(one, store)
            return 0
        for label, one in runs.items():
            display.begin("" if study.single else f"{label}: ")
            on_cell = _told(display, Curves(one.folder, store) if tensorboard else None)
            with _executor(executor, workers, one, store) as working:
                working.watcher = display
                computed += run_cells(
                    one,
                    store,
                    working,
                    retry == "failed",
                    on_cell,
                    lambda: time.monotonic() > until,
                    fail_fast=fail_fast,
                    on_loaded=display.loaded,
                    on_found=partial(display.replanned, one),
                )
            if fail_fast and display.failed_now:
                break
    _print_end(
        study, out, display, computed, "a cell has failed" if fail_fast and display.failed_now else "time is up"
    )
    return FAILED_CELLS if display.failed else 0


def _told(display: Display, curves: Curves | None) -> Callable[[Cell, Record, bool], None]:
    """What to call for each cell that is done."""

    def on_cell(cell: Cell, result: Record, fresh: bool) -> None:
        display.cell(cell, result, fresh)
        if curves:
            curves.cell(cell)

    return on_cell


def _print_end(study: Study, out: Path, display: Display, computed: Counter[str], why: str) -> None:
    """How a run ended, and its report; ``why``: it ended before all cells were done, where some are left."""
    say(display.summary(computed))
    if left := display.cells - display.done:
        warn([f"{why}: {left} cells are left; the same command goes on with them"])
    folder = out / study.name
    if study.single:
        put_report(folder, again=False)
    else:
        write_members(folder, study.text, {label: plan.name for label, plan in study.plans.items()})
        put_study(folder, again=False)


def _plan_file(plan: str) -> Path:
    builtin = PLANS / f"{plan}.toml"
    if Path(plan).is_file() or (not builtin.is_file() and plan.endswith(".toml")):
        return Path(plan)
    if not builtin.is_file():
        raise unknown("plan", plan, [path.stem for path in PLANS.glob("*.toml")])
    return builtin


def _bytes(limit: str | None) -> int | None:
    """``20GB`` as a number."""
    if limit is None:
        return None
    matched = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B", limit.strip())
    if not matched:
        raise InvalidInputError(f"cache-limit = {limit!r}: should be a size such as 500MB or 20GB")
    return int(float(matched[1]) * 10 ** (3 * " kMGT".index(matched[2] or " ")))


def _executor(name: str, workers: int | None, experiment: Run, store: Store) -> Executor:
    if workers is not None and (name == "serial" or workers < 1):
        raise InvalidInputError(f"workers = {workers}: should be at least 1, with --executor processes or ray")
    if name == "serial":
        return Serial(work_of(experiment, store))
    workshop = RunWorkshop.of(experiment, store)
    if name == "ray":
        return Ray(workshop, workers, store.device)  # a cluster has cores of its own
    return Processes(workshop, workers or default_workers(store.device))


def _print_dry_run(experiment: Run, store: Store) -> None:
    plan, searches = experiment.plan, experiment.searches
    missing = [cell for cell in experiment.cells if cell.result(experiment.folder) is None]
    title = f"{plan.name}: {len(plan.defenses)} defences x {len(plan.attacks)} attacks x seeds {list(plan.seeds)}"
    rows = []
    for cell in experiment.cells:
        state = "to compute" if cell in missing else "stored"
        rows.append((cell.title, f"{state}, strength to be searched" if cell.defense.label in searches else state))
    put(Sheet([Column("cell"), Column("state")], rows, title))
    for entry in plan.defenses:
        if entry.found:
            say(f"{entry.label}: {entry.found.text}")
    if searches:
        most = plan.defender.match_trainings
        say(
            f"{counted(len(searches), 'strength')} to search first, on {plan.parts.validation} validation photos and "
            f"seed {plan.seeds[0]}: at most {most} trainings each, {most * len(searches)} together"
        )
    pending = (
        pending_stages(missing, store) | behind(searches.values(), lambda stage: not store.has(stage))
    ).values()
    counts = Counter(stage.label for stage in pending)
    stages = ", ".join(f"{count} {label}" for label, count in counts.items())
    say(
        f"{len(missing)} of {len(experiment.cells)} cells to compute; stages to compute: {stages or 'none'}; "
        f"about {sum(stage.expected_bytes() for stage in pending) / 1e9:.2f} GB of disk"
    )
