"""The long table holds every fact of every cell once, and what reads it says the same."""

import csv
from pathlib import Path

import pytest
from written_run import relisted, write_run

from splitleak.experiments.report.tables.matrix import metric_table
from splitleak.experiments.results import Row, frame
from splitleak.experiments.results.csv import write_csv
from splitleak.experiments.results.frame import FACTS, measured, pooled, wide
from splitleak.experiments.results.load import load_results


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frame") / "run"
    return relisted(folder, write_run(folder)[:12])  # none, and a noise one of whose cells failed


def test_each_fact_of_each_cell_has_one_row(run: Path) -> None:
    rows, results = frame(run), load_results(run)
    assert all(isinstance(row, Row) for row in rows)
    places = [(row.id, row.defence_label, row.column, row.seed, row.measure) for row in rows]
    assert len(places) == len(set(places))
    scores = {(row.id, row.measure): (row.value, row.low, row.high) for row in rows if row.id}
    for cell in results.finished:
        for name, score in cell.metrics.items():
            assert scores[cell.id, name] == (score.mean, score.low, score.high)
        assert scores[cell.id, "bytes"] == (cell.bytes, None, None)
        assert scores[cell.id, "version_torch"] == ("2.11", None, None)
    failed = {row.measure: row.value for row in rows if row.status == "failed"}
    assert failed["error"] == "ValueError: it broke"
    assert "psnr" not in failed


def test_settings_over_their_seeds_stand_behind_the_cells(run: Path) -> None:
    results = load_results(run)
    scores = pooled(results.frame)
    for row in results.rows:
        for group in (group for group in row.groups.values() if group.finished):
            assert scores[row.defence.label, group.column]["mse"] == group.pooled("mse")
            assert scores[row.defence.label, group.column]["psnr"] == group.scores["psnr"]


def test_csv_and_tables_read_it(run: Path, tmp_path: Path) -> None:
    results = load_results(run)
    write_csv(results.frame, tmp_path / "results.csv")
    with (tmp_path / "results.csv").open() as file:
        lines = {line["id"]: line for line in csv.DictReader(file)}
    assert set(lines) == {cell.id for cell in results.cells}
    first = results.finished[0]
    assert float(lines[first.id]["psnr_mean"]) == first.metrics["psnr"].mean
    table = metric_table(results, "psnr")
    assert table is not None
    means = {key: measures["psnr"].mean for key, measures in pooled(results.frame).items()}
    for line in table.lines:
        for column, text in zip(table.headings[1:], line[1:], strict=True):
            if (line[0], column) in means:
                assert text.startswith(f"{means[line[0], column]:.1f} ±")


def test_a_tracker_gets_numbers_and_no_settings(run: Path) -> None:
    row = wide(load_results(run).frame)[0]
    numbers = measured(row)
    assert {"psnr_mean", "bytes", "n"} <= set(numbers)
    assert not set(numbers) & (set(FACTS) - {"n"})
