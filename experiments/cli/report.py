"""The command that reports a stored run, and what a terminal shows of a report."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from splitleak.experiments.cli.options import RunFolder, put, say, warn
from splitleak.experiments.planning.names import MEMBERS
from splitleak.experiments.report.figures import write_paper
from splitleak.experiments.report.page import reported
from splitleak.experiments.report.tables.attacks import attack_table
from splitleak.experiments.report.tables.attacks import terminal_table as terminal_attacks
from splitleak.experiments.report.tables.heat import Brief, measured
from splitleak.experiments.report.verdict import sentences
from splitleak.experiments.results.load import load_results
from splitleak.experiments.results.metrics import LEAKAGE_METRICS, SHOWN_METRICS
from splitleak.experiments.results.results import Results
from splitleak.victims.errors import InvalidInputError, unknown

HEADLINE = LEAKAGE_METRICS[0]


def report(
    run_folder: RunFolder,
    /,
    *,
    style: Annotated[
        Literal["screen", "paper"],
        Parameter(help="paper: also every figure for one and two columns, as PDF, SVG and PNG"),
    ] = "screen",
    metric: Annotated[str, Parameter(help=f"what the table shows: {', '.join(SHOWN_METRICS)}")] = HEADLINE,
    wide: Annotated[
        bool, Parameter(negative="", help="all attacks beside one another, however long the lines")
    ] = False,
) -> int:
    """Write a run's tables, figures and page again from its stored results; of a study, those of all its runs."""
    if metric not in SHOWN_METRICS:
        raise unknown("metric", metric, SHOWN_METRICS)
    folders = [run_folder]
    if (run_folder / MEMBERS).is_file():
        from splitleak.experiments.cli import study  # knows networks, which takes longer than to report a run

        study.put_study(run_folder, again=True)
        folders = study.member_runs(run_folder)
    else:
        put_report(run_folder, True, metric, wide)
    for folder in folders if style == "paper" else ():
        for file in write_paper(folder, load_results(folder)):
            say(str(file))
    return 0


def put_report(run_folder: Path, again: bool, metric: str = HEADLINE, wide: bool = False) -> None:
    """Print what a run found, with its page written anew where it is not the one of these results, or ``again``."""
    page, results = reported(run_folder, again)
    warn(results.notes)
    for sentence in sentences(results):
        put(sentence)
    _put_table(results, metric, wide)
    for row in results.rows:
        if row.defence.match:
            put(f"{row.defence.label}: {row.defence.match.text}")
    say(f"report: {page.resolve()}")


def _put_table(results: Results, metric: str, wide: bool) -> None:
    known = measured(results)
    if metric not in known and metric != HEADLINE:
        raise InvalidInputError(f"metric = {metric}: was not measured here; {', '.join(known) or 'nothing'} was")
    # a single defence against many attacks reads down, not across
    attacks = attack_table(results) if len(results.rows) == 1 else None
    if attacks:
        put(terminal_attacks(attacks))
    elif results.rows:
        put(Brief(results, metric if metric in known else next(iter(known), HEADLINE), wide), whole=wide)
