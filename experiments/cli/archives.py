"""Commands that take results elsewhere, bring them back and set them side by side."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from splitleak.experiments.cli.options import Out, RunFolder, put, say, warn, writing
from splitleak.experiments.planning.names import MEMBERS
from splitleak.experiments.planning.published import published_figures
from splitleak.experiments.report.board import write_board
from splitleak.experiments.report.tables.compare import Comparison, terminal_table
from splitleak.experiments.report.tables.published import published_table
from splitleak.experiments.results.archive import SUFFIX, Archived, read_runs, restore_archive, write_archive
from splitleak.experiments.results.csv import write_rows
from splitleak.experiments.results.load import load_results
from splitleak.experiments.results.member import member_runs
from splitleak.experiments.tools.export import export_to_mlflow
from splitleak.victims.errors import InvalidInputError


def export(
    run_folder: RunFolder,
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
    say(f"{written} cells written to {to}, {kept} already there")
    return 0


def archive(
    run_folder: RunFolder,
    /,
    *,
    file: Annotated[Path | None, Parameter(help="to write; default: RUN.json.xz here")] = None,
) -> int:
    """Store all numbers of a run, or of all runs of a study, in one small file that holds no photo."""
    runs = member_runs(run_folder) if (run_folder / MEMBERS).is_file() else [run_folder]
    path = file or Path(f"{run_folder.name}{SUFFIX}")
    left_out = write_archive(runs, path)
    say(f"{len(runs)} run{'s' * (len(runs) > 1)} in {path}, {path.stat().st_size:,} bytes")
    if left_out:
        warn([f"{left_out} cells are stale or not as they were written, and left out"])
    return 0


def restore(
    file: Annotated[Path, Parameter(help="an archive that splitleak archive wrote: NAME.json.xz")],
    /,
    *,
    out: Out = Path("runs"),
) -> int:
    """Make folders of the runs that an archive holds, to be reported and compared; pictures are not in it."""
    for folder in restore_archive(file, out):
        say(str(folder))
    return 0


def board(
    *runs: Annotated[Path, Parameter(help="run or study folders, or record files (RUN.json.xz)")],
    out: Annotated[Path, Parameter(help="the page to write; it needs no other file")] = Path("board.html"),
) -> int:
    """Write one page with every defence setting of several runs under the strongest attack that met it.

    A click on a heading sorts. What lies in a damaged or stale cell takes no part.
    """
    if not runs:
        raise InvalidInputError("no run given: splitleak board runs/quick results/*.json.xz")
    found: dict[str, Archived] = {}
    for path in runs:
        for name, run in read_runs(path).items():
            if name in found:
                raise InvalidInputError(f"two runs are called '{name}', the second in {path}; give one of them")
            found[name] = run
    with writing("--out", out):
        table = write_board(found, out)
    say(f"board: {out.resolve()}, {len(table.lines)} defence settings of {len(found)} runs")
    return 0


def published(
    plan: Annotated[str, Parameter(help="a plan with published figures, such as cifar_he")],
    run: Annotated[Path, Parameter(help="its run's or study's folder, or its record file")],
    /,
) -> int:
    """Set what others published beside what a run measured: n, budget, interval, and whether it was reproduced.

    Prints a table in Markdown.
    """
    say(published_table(published_figures(plan), read_runs(run)).markdown())
    return 0


def compare(
    first: Annotated[Path, Parameter(help="the folder of a run")],
    second: Annotated[Path, Parameter(help="the folder of another, or of the same one later")],
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
    say(f"first: {first}, second: {second}")
    warn(comparison.warnings)
    if comparison.changed:
        put(terminal_table(comparison))
    for line in comparison.summary:
        put(line)
    return 0


def _write_comparison(comparison: Comparison, path: Path) -> None:
    with writing("--csv", path):
        write_rows(list(comparison.csv_rows()), path)
