"""The tables of a run as files: for a reader in one, for a paper each on its own."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from splitleak.experiments.report.tables import matched, matrix
from splitleak.experiments.report.tables.attacks import attack_table
from splitleak.experiments.report.tables.found import found_table
from splitleak.experiments.report.tables.pareto import pareto_table
from splitleak.experiments.report.tables.proved import proved_table
from splitleak.experiments.report.tables.table import TextTable
from splitleak.experiments.results.metrics import SHOWN_METRICS
from splitleak.experiments.results.results import Results


def tables(results: Results) -> Iterator[TextTable]:
    """Those that are written each on its own, made when asked for: the matrix by metric, and all others."""
    matrices = (partial(matrix.metric_table, results, metric) for metric in SHOWN_METRICS)
    others = (
        partial(make, results) for make in (matched.table, pareto_table, attack_table, found_table, proved_table)
    )
    yield from (table for make in (*matrices, *others) if (table := make()) is not None)


def write_tables(results: Results, run: Path) -> None:
    """Write ``matrix.md`` and ``tables/NAME.csv``, ``.md`` and ``.tex``; those of an earlier report are removed."""
    whole = (matrix.table(results), attack_table(results), found_table(results), proved_table(results))
    (run / "matrix.md").write_text("\n".join(table.markdown() for table in whole if table), encoding="utf-8")
    write_all(tables(results), run / "tables")


def write_all(found: Iterable[TextTable], folder: Path) -> None:
    """Write tables as ``NAME.csv``, ``.md`` and ``.tex``; those of an earlier report are removed."""
    folder.mkdir(exist_ok=True)
    for suffix in ("csv", "md", "tex"):
        for stale in folder.glob(f"*.{suffix}"):
            stale.unlink()
    for table in found:
        table.write(folder)
