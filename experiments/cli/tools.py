"""Commands for one's own networks, photos, attacks and defences."""

import time
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from splitleak.experiments.cli.display import Display
from splitleak.experiments.cli.options import (
    FAILED_CELLS,
    Device,
    Model,
    Out,
    Retry,
    RunFolder,
    console,
    device_of,
    put,
    say,
    warn,
    writing,
)
from splitleak.experiments.cli.run import run
from splitleak.experiments.planning.names import CACHE
from splitleak.experiments.report.figures import save
from splitleak.experiments.report.profile import terminal_profile, write_profile
from splitleak.experiments.report.reconstructed import opened_decoders, reconstructed_figure
from splitleak.experiments.results.archive import SUFFIX
from splitleak.experiments.results.submission import check_submission
from splitleak.experiments.store.store import Store
from splitleak.experiments.tools.audit import Audit, AuditRequest
from splitleak.experiments.tools.checking import check_file
from splitleak.experiments.tools.new import new_plugin
from splitleak.experiments.tools.profile import Profile, ProfileRequest
from splitleak.experiments.tools.reconstruct import Question, file_name
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.models import SCRATCH

REPORT_MINUTES = 0.2
"""Of an audit's budget, for the report at its end."""

Size = Annotated[int, Parameter(help="side of the images in pixels")]


def profile(
    model: Model,
    /,
    *,
    weights: Annotated[str, Parameter(help="scratch, a torchvision weights name, or a file")] = SCRATCH,
    data: Annotated[
        str,
        Parameter(
            help="a data set's name; the path of a folder of photos, a zip or a CSV file; a table as in a plan"
        ),
    ] = "faces",
    size: Size = 160,
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
    request = ProfileRequest(model, weights, data, size, auxiliary, target, cuts or [], every)
    profiled = Profile.of(request, out, device_of(device).type)
    with Display(console, profiled.cell_count) as display:
        profiled.run(Store(out / CACHE, device_of(device), display.stage), retry == "failed", display)
    say(display.summary())
    measured = profiled.measured()
    write_profile(measured, profiled.folder)
    warn(measured.notes)
    put(terminal_profile(measured))
    say(f"profile: {(profiled.folder / 'profile.png').resolve()}")
    return FAILED_CELLS if display.failed else 0


def audit(
    *,
    model: Model,
    cut: Annotated[str, Parameter(help="where it is split; splitleak cuts MODEL lists all places")],
    data: Annotated[str, Parameter(help="the path of a folder of photos, a zip or a CSV file; a data set's name")],
    weights: Annotated[str, Parameter(help="a file; a torchvision name; scratch: as they are made")] = SCRATCH,
    task: Annotated[
        str | None, Parameter(help="the label that it predicts, or none; default: the photos' only one")
    ] = None,
    size: Size = 160,
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
    audited = Audit.of(request, out, device_of(device), say)
    for line in audited.lines:
        say(line)
    stored = audited.write(out)
    say(f"plan: {stored.resolve()}")
    left = budget - (time.monotonic() - started) / 60
    return run(str(stored), out=out, device=device, retry=retry, stop_after=max(0.0, left - REPORT_MINUTES))


def reconstruct(
    run_folder: RunFolder,
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
    question = Question.of(run_folder, photos, defenses or [], attacks or [], device_of(device).type)
    with Display(console, len(question.cells)) as display:
        store = Store(run_folder.parent / CACHE, device_of(device), display.stage)
        if inside:
            figure = opened_decoders(question, question.opened(store, display.told))
        else:
            figure = reconstructed_figure(question, question.answers(store, display.told))
    kind = "inside" if inside else "reconstructed"
    path = (output or run_folder / file_name(question.names, kind)).with_suffix(".png")
    with writing("--output", path):
        save(figure, path.with_suffix(""), "png")
    say(f"picture: {path.resolve()}")
    return 0


def check(
    file: Annotated[Path, Parameter(help="a Python file of attacks, defences or tasks, or a record file")],
    /,
) -> int:
    """Check the attacks and defences that a Python file defines, or a record file that is to be submitted.

    A record file (RUN.json.xz, as archive writes it) must be whole and sealed, hold all cells of its plan and their
    controls, and carry no flag that makes a number void.
    """
    if file.name.endswith(SUFFIX):
        for name, run in check_submission(file).items():
            say(f"{name}: may be submitted; {run.results.resting}")
        return 0
    return 0 if check_file(file, console) else FAILED_CELLS


def new(
    kind: Annotated[Literal["attack", "defense", "task"], Parameter(help="what to write")],
    name: Annotated[str, Parameter(help="what a plan will call it, in lower case: my_noise")],
    /,
    *,
    output: Annotated[Path | None, Parameter(help="the file to write; default: NAME.py here")] = None,
) -> int:
    """Write a commented attack, defence or task that works, to be edited: one file, which ``check`` accepts."""
    path = output or Path(f"{name}.py")
    reference = new_plugin(kind, name, path)
    say(f'wrote {path}; in a plan: {"task" if kind == "task" else "name"} = "{reference}"')
    return 0
