"""The tables of a report as CSV, Markdown and LaTeX: they say the same, and nothing in a label breaks them."""

import csv
import html
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from written_run import write_run

from splitleak.experiments.judge.statistics.interval import Interval
from splitleak.experiments.report import overview
from splitleak.experiments.report.tables import matched, matrix
from splitleak.experiments.report.tables.files import tables, write_tables
from splitleak.experiments.report.tables.table import ABSENT, TextTable
from splitleak.experiments.results.load import load_results
from splitleak.experiments.results.member import Member
from splitleak.experiments.results.results import Results

PDFLATEX = shutil.which("pdflatex")
AWKWARD = r"a_b & 5 % <i>$x$ {#} \y ~ ^ | ± " + '"quoted"'
"""What a label may hold, and each format reads as its own."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    run = tmp_path_factory.mktemp("run")
    results = load_results(run, write_run(run, awkward))
    write_tables(results, run)
    return run / "tables", results


def awkward(cell: dict[str, Any]) -> None:
    if cell["defence"]["name"] == "dp_sgd":
        cell["defence"]["label"] = f"dp_sgd {AWKWARD}"


def read_markdown(text: str) -> list[list[str]]:
    lines = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| ")]
    rows = [lines[0], *lines[2:]]
    return [
        [html.unescape(re.sub(r"^\*\*(.*)\*\*$", r"\1", cell)).replace("\\|", "|") for cell in row] for row in rows
    ]


def read_csv(text: str) -> list[list[str]]:
    return list(csv.reader(text.splitlines()))


READERS: dict[str, Callable[[str], list[list[str]]]] = {"csv": read_csv, "md": read_markdown}


def test_every_table_is_written_in_every_format(written: tuple[Path, Results]) -> None:
    folder, results = written
    names = ["matrix_psnr", "matrix_ssim", "matched_utility", "pareto", "attacks", "proved"]
    assert [table.name for table in tables(results)] == names
    assert {path.name for path in folder.iterdir()} == {
        f"{name}.{kind}" for name in names for kind in ("csv", "md", "tex")
    }


@pytest.mark.parametrize("kind", READERS)
def test_what_is_read_back_is_what_was_written(written: tuple[Path, Results], kind: str) -> None:
    folder, results = written
    for table in tables(results):
        cells = READERS[kind]((folder / f"{table.name}.{kind}").read_text())
        assert [tuple(line) for line in cells] == [table.headings, *table.lines]


def test_the_numbers_are_those_of_the_results(written: tuple[Path, Results]) -> None:
    folder, results = written
    headings, *lines = read_csv((folder / "matrix_psnr.csv").read_text())
    for row, line in zip(results.rows, lines, strict=True):
        for column, group in row.groups.items():
            mean, half = map(float, re.findall(r"[\d.]+", line[headings.index(column)]))
            score = group.scores["psnr"]
            assert mean == pytest.approx(score.mean, abs=0.05)
            assert half == pytest.approx((score.high - score.low) / 2, abs=0.05)
        assert line[headings.index("bytes")] == f"{row.bytes:,.0f}"


def test_the_strongest_attack_is_bold() -> None:
    table = TextTable("t", ("defence", "ridge", "decoder"), (("none", "16.0", "21.0"),), "", frozenset({(0, 2)}))
    assert "| none | 16.0 | **21.0** |" in table.markdown()
    assert r"none & 16.0 & \textbf{21.0} \\" in table.latex()


def test_the_strongest_attack_of_each_defence_stands_out(written: tuple[Path, Results]) -> None:
    _, results = written
    matrix = next(iter(tables(results)))
    column = matrix.headings.index("decoder")
    assert matrix.strong == {(line, column) for line in range(len(results.rows))}


def test_every_row_has_all_columns(written: tuple[Path, Results]) -> None:
    folder, results = written
    for table in tables(results):
        latex = (folder / f"{table.name}.tex").read_text()
        columns = re.search(r"\\begin\{tabular\}\{([lr]+)\}", latex)
        assert columns is not None
        assert len(columns[1]) == len(table.headings)
        rows = [line for line in latex.splitlines() if line.endswith(r"\\")]
        assert len(rows) == 1 + len(table.lines)
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(table.headings) - 1}


def test_numbers_stand_right_and_words_left() -> None:
    table = TextTable("t", ("a", "b", "c"), (("one", "1.5 ± 0.2", "–"), ("two", "-3", "see 4")), "")  # noqa: RUF001
    assert r"\begin{tabular}{lrl}" in table.latex()


def test_files_of_an_earlier_report_are_removed(written: tuple[Path, Results], tmp_path: Path) -> None:
    _, results = written
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "matrix_rank1.csv").write_text("old")
    write_tables(results, tmp_path)
    assert not (tmp_path / "tables" / "matrix_rank1.csv").exists()


@pytest.mark.skipif(PDFLATEX is None, reason="no LaTeX here")
def test_latex_compiles(written: tuple[Path, Results], tmp_path: Path) -> None:
    folder, results = written
    inputs = "".join(rf"\input{{{folder / table.name}}}" for table in tables(results))
    packages = r"\usepackage{booktabs}\usepackage{graphicx}"
    (tmp_path / "all.tex").write_text(
        rf"\documentclass{{article}}{packages}\begin{{document}}{inputs}\end{{document}}"
    )
    done = subprocess.run(
        [str(PDFLATEX), "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "all.pdf").stat().st_size > 0


def test_the_pareto_table_lists_the_members_and_no_other(written: tuple[Path, Results]) -> None:
    _, results = written
    (table,) = [table for table in tables(results) if table.name == "pareto"]
    members = {label for label, (inside, _) in results.pareto.items() if inside}
    assert members
    assert {line[0] for line in table.lines} == members
    leakage = [float(line[table.headings.index("PSNR (dB)")].split()[0]) for line in table.lines]
    assert leakage == sorted(leakage)
    means = {
        row.defence.label: (setting.utility.mean(), setting.leakage.mean())
        for row in results.rows
        if (setting := row.setting("psnr"))
    }
    for label, (useful, leaks) in means.items():
        beaten = any(u >= useful and v <= leaks and (u, v) != (useful, leaks) for u, v in means.values())
        assert (beaten or results.pareto[label][1] < 0.5) == (label not in members)


@pytest.mark.parametrize("order", [("faces", "masks"), ("masks", "faces")])
def test_victims_with_and_without_identities_stand_under_the_same_headings(
    order: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = {
        "masks": TextTable("matched_utility", ("defence", "PSNR", "bytes"), (("noise", "15.0", "7"),), "Floor 11.3."),
        "faces": TextTable(
            "matched_utility",
            ("defence", "PSNR", "rank-1", "bytes"),
            (("noise", "16.0", "42.0", "8"),),
            "Floor 13.3.",
        ),
    }
    monkeypatch.setattr(matched, "table", tables.__getitem__)
    members = [SimpleNamespace(label=name, results=name) for name in order]
    table = overview.equal_utility(cast("list[Member]", members))
    assert table is not None
    assert table.headings == ("victim", "defence", "PSNR", "rank-1", "bytes")
    assert set(table.lines) == {("masks", "noise", "15.0", ABSENT, "7"), ("faces", "noise", "16.0", "42.0", "8")}
    assert [line[0] for line in table.lines] == list(order)
    assert "masks: Floor 11.3." in table.caption
    assert "faces: Floor 13.3." in table.caption
    twice = overview.equal_utility(
        cast("list[Member]", [members[0], SimpleNamespace(label="again", results=order[0])])
    )
    assert twice is not None
    assert twice.caption == f"{order[0]}, again: {tables[order[0]].caption}"


@pytest.mark.parametrize("share", [0.97, 0.03])
def test_the_interval_of_a_share_ends_where_a_share_does(share: float) -> None:
    wide = Interval(share, share - 0.2, share + 0.2)
    for text in (matrix.percent(wide), matrix.ranged("rank1", wide), matrix.plus_minus("balanced_accuracy", wide)):
        low, high = (float(end) for end in re.findall(r"\[(.*), (.*)\]", text)[0])
        assert 0 <= low < 100 * share < high <= 100
    assert matrix.possible("rank1", wide) == (share, max(share - 0.2, 0), min(share + 0.2, 1))
    assert matrix.possible("psnr", wide) == wide


def test_a_line_that_does_not_fit_its_headings_is_a_bug() -> None:
    with pytest.raises(ValueError, match="odd: a line of 1 cells under 2 headings"):
        TextTable("odd", ("defence", "PSNR"), (("none",),), "")
