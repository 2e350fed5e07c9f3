"""What a terminal shows of a study's report."""

from pathlib import Path

from splitleak.experiments.cli.options import put, say, warn
from splitleak.experiments.report.overview import headline, terminal_overview, write_overview
from splitleak.experiments.report.page import reported
from splitleak.experiments.results.member import member_runs, read_members

__all__ = ["member_runs", "put_study"]


def put_study(folder: Path, again: bool) -> None:
    """Print what the runs of a study found, each with its page."""
    for run_folder in member_runs(folder):
        reported(run_folder, again)
    members = read_members(folder)
    page = write_overview(folder.name, folder, members)
    warn(f"{member.label}: {note}" for member in members for note in member.results.notes)
    put(headline(members))
    put(terminal_overview(members))
    say(f"report: {page.resolve()}")
