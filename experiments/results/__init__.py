"""What cells measured: the record that they write, and what report, export and compare read."""

from pathlib import Path

from splitleak.experiments.results.frame import Row
from splitleak.experiments.results.load import load_results

__all__ = ["Row", "frame"]


def frame(run: Path) -> list[Row]:
    """The long table of a run: a row for every fact of every cell, then for every score of a setting over its seeds.

    ``pandas.DataFrame(frame(run))`` takes it as it is. Stale and damaged cells are left out, as from every report.

    Args:
        run: its folder.

    Raises:
        InvalidInputError: there is no run, or a cell's file is no record.
    """
    return list(load_results(run).frame)
