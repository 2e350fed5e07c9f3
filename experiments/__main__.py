"""The command line: ``splitleak``."""

import math
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import torch
from cyclopts import App, CycloptsError, Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from splitleak.experiments.cells.cell import Cell
from splitleak.experiments.cli import describe
from splitleak.experiments.cli.display import Display
from splitleak.experiments.cli.examples import add_examples
from splitleak.experiments.cli.portrait import portrait
from splitleak.experiments.planning.names import CACHE
from splitleak.experiments.planning.plan import Plan
from splitleak.experiments.planning.study import read_study
from splitleak.experiments.report.figures import save, write_paper
from splitleak.experiments.report.overview import terminal_overview, write_overview
from splitleak.experiments.report.page import current_report, write_report
from splitleak.experiments.report.profile import terminal_profile, write_profile
from splitleak.experiments.report.reconstructed import opened_decoders, reconstructed_figure
from splitleak.experiments.report.tables.attacks import attack_table
from splitleak.experiments.report.tables.attacks import terminal_table as terminal_attacks
from splitleak.experiments.report.tables.compare import Comparison
from splitleak.experiments.report.tables.compare import terminal_table as terminal_comparison
from splitleak.experiments.report.tables.matrix import terminal_table
from splitleak.experiments.results.archive import SUFFIX as ARCHIVE
from splitleak.experiments.results.archive import restore_archive, write_archive
from splitleak.experiments.results.csv import write_rows
from splitleak.experiments.results.load import load_results
from splitleak.experiments.results.member import MEMBERS, member_runs, read_members, write_members
from splitleak.experiments.results.record import Record
from splitleak.experiments.run.check import check_plan
from splitleak.experiments.run.execute import RunWorkshop, run_cells, work_of
from splitleak.experiments.run.interrupt import interruptible
from splitleak.experiments.run.run import Run, pending_stages
from splitleak.experiments.run.schedule import Executor, Serial
from splitleak.experiments.run.workers import Processes, Ray, default_workers
from splitleak.experiments.store.integrity import DiskFullError
from splitleak.experiments.store.store import Store
from splitleak.experiments.tools.audit import Audit
from splitleak.experiments.tools.audit import Request as AuditRequest
from splitleak.experiments.tools.checking import check_file
from splitleak.experiments.tools.curves import Curves
from splitleak.experiments.tools.export import export_to_mlflow
from splitleak.experiments.tools.new import new_plugin
from splitleak.experiments.tools.profile import Profile, Request
from splitleak.experiments.tools.reconstruct import Question, file_name
from splitleak.victims.allocator import tune_memory
from splitleak.victims.cuts import find_cuts
from splitleak.victims.errors import InvalidInputError, unknown
from splitleak.victims.models import SCRATCH, make_network

PLANS = Path(__file__).parent / "plans"
INVALID_INPUT, FAILED_CELLS, DISK_FULL, INTERRUPTED = 2, 1, 3, 130

REPORT_MINUTES = 0.2
"""Of an audit's budget, for the report at its end."""

console = Console()
app = App(
    name="splitleak",
    help="Measures what intercepted feature maps of split inference leak, and what each defence costs.",
    suppress_keyboard_interrupt=False,  # ``main`` says what is kept
)
app.register_install_completion_command(help="Install completion of commands and options for bash, zsh or fish.")
Out = Annotated[Path, Parameter(help="folder of all runs and of the cache that they share")]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], Parameter(help="where networks run; auto takes a GPU if there is one")
]

Retry = Annotated[Literal["failed"] | None, Parameter(help="compute cells again that failed before")]
ExecutorName = Annotated[
    Literal["serial", "processes", "ray"],
    Parameter(help="serial; processes: workers on this machine; ray: on the cluster that RAY_ADDRESS names, or here"),
]
CacheLimit = Annotated[
    str | None,
    Parameter(help="such as 20GB: of what stages leave on disk; what was used least recently goes first"),
]
Workers = Annotated[int | None, Parameter(help="how many, sharing the cores; default: one per GPU, or per core")]


@app.command
def run(
    plan: str,
    /,
    *,
    out: Out = Path("runs"),
    device: Device = "auto",
    dry_run: Annotated[
        bool, Parameter(negative="", help="show the matrix and what is cached, compute nothing")
    ] = False,
    retry: Retry = None,
    executor: ExecutorName = "serial",
    workers: Workers = None,
    cache_limit: CacheLimit = None,
    stop_after: Annotated[float | None, Parameter(help="minutes after which nothing more is begun")] = None,
    only: Annotated[
        list[str] | None,
        Parameter(consume_multiple=True, negative="", help="of a plan with several victims, these; the others stay"),
    ] = None,
    tensorboard: Annotated[
        bool, Parameter(negative="", help="write curves and scores to RUN/tensorboard as cells finish")
    ] = False,
) -> int:
    """Run a plan: a TOML file, or the name of a built-in one (quick).

    Finished cells are kept: the same command goes on where it stopped.
    """
    started = time.monotonic()
    study = read_study(_plan_file(plan))
    chosen = study.only(only) if only else study
    for checked in chosen.plans.values():
        check_plan(checked)
    device_type = _device(device).type
    runs = {label: Run.of(checked, out, device_type) for label, checked in chosen.plans.items()}
    computed: Counter[str] = Counter()
    with Display(console, sum(len(one.cells) for one in runs.values())) as display:
        store = Store(out / CACHE, _device(device), display.stage, _bytes(cache_limit))
        if dry_run:
            for one in runs.values():
                _print_dry_run(one, store)
            return 0
        until = math.inf if stop_after is None else started + 60 * stop_after
        for label, one in runs.items():
            display.begin("" if study.single else f"{label}: ")
            on_cell = _told(display, Curves(one.folder, store) if tensorboard else None)
            with _executor(executor, workers, one, store) as working:
                working.watcher = display
                computed += run_cells(
                    one, store, working, retry == "failed", on_cell, lambda: time.monotonic() > until
                )
    console.print(display.summary(computed), highlight=False)
    if left := display.cells - display.done:
        console.print(f"time is up: {left} cells are left; the same command goes on with them", style="yellow")
    if study.single:
        _print_report(out / study.name, again=False)
    else:
        folder = out / study.name
        write_members(folder, study.text, {label: plan.name for label, plan in study.plans.items()})
        _print_study(folder, again=False)
    return FAILED_CELLS if display.failed else 0


@app.command
def report(
    run_folder: Annotated[Path, Parameter(name="run")],
    /,
    *,
    style: Annotated[
        Literal["screen", "paper"],
        Parameter(help="paper: also every figure for one and two columns, as PDF, SVG and PNG"),
    ] = "screen",
) -> int:
    """Write a run's tables, figures and page again from its stored results; of a study, those of all its runs."""
    study = (run_folder / MEMBERS).is_file()
    (_print_study if study else _print_report)(run_folder, again=True)
    if style == "paper":
        for folder in member_runs(run_folder) if study else [run_folder]:
            for file in write_paper(folder, load_results(folder)):
                console.print(str(file), soft_wrap=True, highlight=False, markup=False)
    return 0


@app.command
def export(
    run_folder: Annotated[Path, Parameter(name="run")],
    /,
    *,
    to: Annotated[Literal["mlflow"], Parameter(help="the tracking store's kind")] = "mlflow",
    tracking_uri: Annotated[
        str, Parameter(help="a folder, which gets a database and the artefacts, or any URI that MLflow takes")
    ] = "mlruns",
) -> int:
    """Write a run's results to a tracking store: one entry for each cell, below one for the plan.

    What is there already is not written again, and a cell whose result has changed replaces the one of before.
    """
    written, kept = export_to_mlflow(run_folder, tracking_uri)
    console.print(f"{written} cells written to {to}, {kept} already there", highlight=False)
    return 0


@app.command
def archive(
    run_folder: Annotated[Path, Parameter(name="run")],
    /,
    *,
    file: Annotated[Path | None, Parameter(help="to write; default: RUN.json.xz here")] = None,
) -> int:
    """Store all numbers of a run, or of all runs of a study, in one small file that holds no photo."""
    runs = member_runs(run_folder) if (run_folder / MEMBERS).is_file() else [run_folder]
    path = file or Path(f"{run_folder.name}{ARCHIVE}")
    left_out = write_archive(runs, path)
    console.print(f"{len(runs)} run{'s' * (len(runs) > 1)} in {path}, {path.stat().st_size:,} bytes", highlight=False)
    if left_out:
        console.print(f"{left_out} cells are stale or not as they were written, and left out", style="bold yellow")
    return 0


@app.command
def restore(file: Path, /, *, out: Out = Path("runs")) -> int:
    """Make folders of the runs that an archive holds, to be reported and compared; pictures are not in it."""
    for folder in restore_archive(file, out):
        console.print(str(folder), soft_wrap=True, highlight=False, markup=False)
    return 0


@app.command
def compare(
    first: Path,
    second: Path,
    /,
    *,
    csv: Annotated[Path | None, Parameter(help="write every comparison to this file")] = None,
) -> int:
    """Show which cells changed from one run to another beyond noise, and by how much.

    Cells are matched by defence, attack, threat and seed.
    """
    comparison = Comparison.of(*(load_results(folder) for folder in (first, second)))
    if csv:
        _write_comparison(comparison, csv)
    console.print(f"first: {escape(str(first))}, second: {escape(str(second))}", soft_wrap=True, highlight=False)
    for line in comparison.warnings:
        console.print(Text(line, style="bold yellow"), soft_wrap=True)
    if comparison.changed:
        console.print(terminal_comparison(comparison))
    for line in comparison.summary:
        console.print(Text(line), soft_wrap=True)
    return 0


@app.command(name="list")
def list_(kind: Literal["attacks", "defenses", "data", "victims", "plans"], /) -> int:
    """List what a plan can name."""
    console.print(describe.listing(kind, PLANS))
    return 0


@app.command
def show(name: str, /) -> int:
    """Show an attack's, a defence's or a data set's settings, threat model, costs and source."""
    console.print(portrait(name))
    return 0


@app.command
def explain(flag: str | None = None, /) -> int:
    """Tell what a validity flag of a report means and what would lift it; without a name, all of them."""
    console.print(describe.explained(flag))
    return 0


@app.command
def cuts(model: str, /, *, size: Annotated[int, Parameter(help="side of the images in pixels")] = 224) -> int:
    """List every valid cut of a network: release shape, bytes, share of the multiply-adds on the edge."""
    if size < 16:
        raise InvalidInputError(f"size = {size}: should be at least 16")
    console.print(describe.cuts_table(model, find_cuts(make_network(model, 1000, size), size)))
    return 0


@app.command
def profile(
    model: str,
    /,
    *,
    weights: Annotated[str, Parameter(help="scratch, a torchvision weights name, or a file")] = SCRATCH,
    data: Annotated[
        str,
        Parameter(
            help="a data set's name; the path of a folder of photos, a zip or a CSV file; a table as in a plan"
        ),
    ] = "faces",
    size: Annotated[int, Parameter(help="side of the images in pixels")] = 160,
    auxiliary: Annotated[int, Parameter(help="photos that the attacks are fitted to")] = 1000,
    target: Annotated[int, Parameter(help="photos that are attacked and scored")] = 200,
    cuts: Annotated[
        list[str] | None,
        Parameter(consume_multiple=True, negative="", help="only these; otherwise the end of each block"),
    ] = None,
    every: Annotated[bool, Parameter(negative="", help="every valid cut instead")] = False,
    out: Out = Path("runs"),
    device: Device = "auto",
    retry: Retry = None,
) -> int:
    """Plot leakage, bytes and edge multiply-adds against depth: where should a network be split?

    Runs cheap attacks at one cut after the other. Finished cuts are kept: the same command goes on where it stopped.
    """
    request = Request(model, weights, data, size, auxiliary, target, cuts or [], every)
    profiled = Profile.of(request, out)
    with Display(console, profiled.cell_count) as display:
        profiled.run(Store(out / CACHE, _device(device), display.stage), retry == "failed", display)
    console.print(display.summary(), highlight=False)
    measured = profiled.measured()
    write_profile(measured, profiled.folder)
    console.print(terminal_profile(measured))
    for note in measured.notes:
        console.print(note, style="yellow")
    console.print(f"profile: {(profiled.folder / 'profile.png').resolve()}", soft_wrap=True, highlight=False)
    return FAILED_CELLS if display.failed else 0


@app.command
def audit(
    *,
    model: Annotated[str, Parameter(help="a torchvision network, timm:NAME, or file.py:function that returns yours")],
    cut: Annotated[str, Parameter(help="where it is split; splitleak cuts MODEL lists all places")],
    data: Annotated[str, Parameter(help="the path of a folder of photos, a zip or a CSV file; a data set's name")],
    weights: Annotated[str, Parameter(help="a file; a torchvision name; scratch: as they are made")] = SCRATCH,
    task: Annotated[
        str | None, Parameter(help="the label that it predicts, or none; default: the photos' only one")
    ] = None,
    size: Annotated[int, Parameter(help="side of the images in pixels")] = 160,
    budget: Annotated[float, Parameter(help="minutes that it may take on this machine")] = 15.0,
    out: Out = Path("runs"),
    device: Device = "auto",
    retry: Retry = None,
) -> int:
    """Evaluate your own network on your own photos: the standard attacks and defences that a time budget allows.

    Says what the budget buys, stores that as a plan, and runs it. The same command goes on where it stopped.
    """
    started = time.monotonic()
    request = AuditRequest(model, cut, data, weights, task, size, budget)
    audited = Audit.of(request, out, _device(device), console.print)
    for line in audited.lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    stored = audited.write(out)
    console.print(f"plan: {stored.resolve()}", soft_wrap=True, highlight=False)
    left = budget - (time.monotonic() - started) / 60
    return run(str(stored), out=out, device=device, retry=retry, stop_after=max(0.0, left - REPORT_MINUTES))


@app.command
def reconstruct(
    run_folder: Annotated[Path, Parameter(name="run")],
    /,
    *photos: Annotated[Path, Parameter(help="files; cropped and resized as the run's photos were")],
    defenses: Annotated[
        list[str] | None, Parameter(consume_multiple=True, negative="", help="only these, by name or label")
    ] = None,
    attacks: Annotated[
        list[str] | None, Parameter(consume_multiple=True, negative="", help="only these, by name or label")
    ] = None,
    inside: Annotated[
        bool, Parameter(negative="", help="of one photo: the maps that are sent, and each stage of the decoders")
    ] = False,
    output: Annotated[Path | None, Parameter(help="a PNG file; by default in the run's folder")] = None,
    device: Device = "auto",
) -> int:
    """Attack your own photos: what each attack of a finished run rebuilds of them behind each defence, as a picture.

    Attacks are fitted again, to what the run has cached. What they made of a photo is kept for the next call.
    """
    if not photos:
        raise InvalidInputError("no photo given: splitleak reconstruct RUN photo.jpg")
    question = Question.of(run_folder, photos, defenses or [], attacks or [])
    with Display(console, len(question.cells)) as display:
        store = Store(run_folder.parent / CACHE, _device(device), display.stage)
        if inside:
            figure = opened_decoders(question, question.opened(store, display.told))
        else:
            figure = reconstructed_figure(question, question.answers(store, display.told))
    kind = "inside" if inside else "reconstructed"
    path = (output or run_folder / file_name(question.names, kind)).with_suffix(".png")
    try:
        save(figure, path.with_suffix(""), "png")
    except OSError as error:
        raise InvalidInputError(f"--output {path} cannot be written: {error.strerror}; name a file") from error
    console.print(f"picture: {path.resolve()}", soft_wrap=True, highlight=False)
    return 0


@app.command
def check(file: Path, /) -> int:
    """Check the attacks and defences that a Python file defines against their contracts."""
    return 0 if check_file(file, console) else FAILED_CELLS


@app.command
def new(
    kind: Literal["attack", "defense"],
    name: str,
    /,
    *,
    output: Annotated[Path | None, Parameter(help="the file to write; default: NAME.py here")] = None,
) -> int:
    """Write a commented attack or defence that works, to be edited: one file, which ``check`` accepts."""
    path = output or Path(f"{name}.py")
    reference = new_plugin(kind, name, path)
    console.print(f'wrote {path}; in a plan: name = "{reference}"', markup=False, highlight=False, soft_wrap=True)
    return 0


add_examples(app)


def _told(display: Display, curves: Curves | None) -> Callable[[Cell, Record, bool], None]:
    """What to call for each cell that is done."""

    def on_cell(cell: Cell, result: Record, fresh: bool) -> None:
        display.cell(cell, result, fresh)
        if curves:
            curves.cell(cell)

    return on_cell


def _print_report(run_folder: Path, again: bool) -> None:
    page = (write_report if again else current_report)(run_folder)
    results = load_results(run_folder)
    # a single defence against many attacks reads down, not across
    attacks = attack_table(results) if len(results.rows) == 1 else None
    console.print(terminal_attacks(attacks) if attacks else terminal_table(results))
    for note in results.notes:
        console.print(note, style="bold yellow", soft_wrap=True, highlight=False, markup=False)
    console.print(f"report: {page.resolve()}", soft_wrap=True, highlight=False)


def _print_study(folder: Path, again: bool) -> None:
    for run_folder in member_runs(folder):
        (write_report if again else current_report)(run_folder)
    members = read_members(folder)
    page = write_overview(folder.name, folder, members)
    console.print(terminal_overview(members))
    console.print(f"report: {page.resolve()}", soft_wrap=True, highlight=False)


def _write_comparison(comparison: Comparison, path: Path) -> None:
    try:
        write_rows(list(comparison.csv_rows()), path)
    except OSError as error:
        raise InvalidInputError(f"--csv {path} cannot be written: {error.strerror}; name a file") from error


def _plan_file(plan: str) -> Path:
    builtin = PLANS / f"{plan}.toml"
    if Path(plan).is_file() or (not builtin.is_file() and plan.endswith(".toml")):
        return Path(plan)
    if not builtin.is_file():
        raise unknown("plan", plan, [path.stem for path in PLANS.glob("*.toml")])
    return builtin


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise InvalidInputError("device = cuda: this machine has no CUDA device; use auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


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
    workshop, count = RunWorkshop.of(experiment, store), workers or default_workers(store.device)
    return Processes(workshop, count) if name == "processes" else Ray(workshop, count, store.device)


def _print_dry_run(experiment: Run, store: Store) -> None:
    plan: Plan = experiment.plan
    missing = [cell for cell in experiment.cells if cell.result(experiment.folder) is None]
    table = Table(
        title=f"{plan.name}: {len(plan.defenses)} defences x {len(plan.attacks)} attacks x seeds {list(plan.seeds)}"
    )
    table.add_column("cell")
    table.add_column("state")
    for cell in experiment.cells:
        state = "to compute" if cell in missing else "stored"
        table.add_row(cell.title, state)
    console.print(table)
    pending = pending_stages(missing, store).values()
    counts = Counter(stage.label for stage in pending)
    stages = ", ".join(f"{count} {label}" for label, count in counts.items())
    console.print(
        f"{len(missing)} of {len(experiment.cells)} cells to compute; stages to compute: {stages or 'none'}; "
        f"about {sum(stage.expected_bytes() for stage in pending) / 1e9:.2f} GB of disk"
    )


def main() -> None:
    """Entry point: bad input is one line and exit code 2, a bug keeps its traceback."""
    tune_memory()
    try:
        with interruptible():
            code = app(exit_on_error=False, print_error=False)
    except (InvalidInputError, CycloptsError, DiskFullError) as error:
        Console(stderr=True).print(
            f"[red]error:[/red] {escape(' '.join(str(error).split()))}", soft_wrap=True, highlight=False
        )
        code = DISK_FULL if isinstance(error, DiskFullError) else INVALID_INPUT
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; finished cells are stored, the same command goes on from there")
        code = INTERRUPTED
    sys.exit(code)


if __name__ == "__main__":
    main()
