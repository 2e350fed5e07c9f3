"""Everything that a report says names one winner: the sentence, the table, the figure and the flags."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from splitleak.experiments.report.figures import tradeoff
from splitleak.experiments.report.tables.matched import NONE_AFFORDABLE, headings, matched_rows
from splitleak.experiments.report.tables.matched import table as matched_table
from splitleak.experiments.report.tables.matrix import ranged
from splitleak.experiments.report.verdict import verdict
from splitleak.experiments.results.archive import SUFFIX, read_archive
from splitleak.experiments.results.results import Results

PROJECT = Path(__file__).parents[3]
STORED = (
    "quick",
    "real_faces",
    "real_faces_seeds",
    "defenses_faces",
    "defenses_facemask",
    "objectives_faces",
    "extremes",
    "extremes_trained",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", STORED)
def test_every_output_names_the_same_winner(name: str) -> None:
    for results in _runs(name):
        first, table = matched_rows(results)[0], matched_table(results)
        assert results.best is not None, "each of these runs has a setting that is affordable"
        assert results.best.row is not None
        winner = results.best.row
        assert first.affordable is winner
        assert table is not None
        assert table.lines[0][0] == results.best.family.label
        assert table.lines[0][headings(results).index("above the best at 3 points")] == "–"  # noqa: RUF001 - absent
        sentence = verdict(results)
        assert f"{winner.defence.label} leaks least" in sentence
        assert ranged("psnr", results.best.place.leakage) in sentence
        figure = tradeoff(results, "psnr")
        assert figure is not None
        (said,) = [text.get_text() for text in figure.legends[0].get_texts() if text.get_text().startswith("least")]
        assert said.replace("\n", " ") == f"least within 3 points: {winner.defence.label}"
        _flags_agree(results)


def _flags_agree(results: Results) -> None:
    """A family is flagged as not comparable exactly where the table says that it has nothing affordable."""
    flagged = {label for (label, _), names in results.every_flag.items() if "utility-not-matched" in names}
    for row in matched_rows(results):
        labels = {setting.defence.label for setting in row.family.rows}
        assert (row.affordable is None) == (labels <= flagged)
        assert (row.affordable is None) == (row.leakage["psnr", 0.03] is None)
    table = matched_table(results)
    assert table is not None
    unaffordable = [
        line for line in table.lines if line[headings(results).index("setting within 3 points")] == NONE_AFFORDABLE
    ]
    assert len(unaffordable) == sum(row.affordable is None for row in matched_rows(results))


def _runs(name: str) -> Iterator[Results]:
    for run in read_archive(PROJECT / "results" / f"{name}{SUFFIX}").values():
        yield run.results
