"""What a terminal shows: nothing is shortened at any width, and what is piped is plain and complete."""

import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType
from terminal import Terminal
from written_run import DEFENCES, fail_one, write_run

from splitleak.experiments.cli import describe
from splitleak.experiments.cli.options import console
from splitleak.experiments.cli.portrait import portrait
from splitleak.experiments.judge.flags import FLAGS
from splitleak.experiments.planning import plugins
from splitleak.experiments.planning.names import PLANS
from splitleak.experiments.report.tables.heat import BEST, Brief, heat_map
from splitleak.experiments.report.terminal import Column, Sheet
from splitleak.experiments.results.load import load_results
from splitleak.experiments.results.results import Results
from splitleak.victims.cuts import find_cuts
from splitleak.victims.models import make_network

NAMES = ("features.13.block.2.scale_activation", "features.13.block.2.mul", "a [true] b")


def on_screen(what: RenderableType, width: int) -> str:
    shown = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    with shown.capture() as captured:
        shown.print(what)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    assert all(len(line) <= width for line in lines)
    assert "…" not in captured.get()
    return "\n".join(lines)


def piped(what: RenderableType, width: int = 20) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(what, soft_wrap=True)
    return file.getvalue()


def words(text: str) -> list[str]:
    return sorted(text.split())


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    run = tmp_path_factory.mktemp("run")
    return load_results(run, write_run(run, fail_one))


@given(
    st.lists(st.tuples(*[st.from_regex(r"[a-z.]{1,12}( [a-z]{1,12}){0,5}", fullmatch=True)] * 3), min_size=1),
    st.integers(min_value=14, max_value=120),
)
def test_no_word_is_lost_at_any_width(rows: list[tuple[str, str, str]], width: int) -> None:
    sheet = Sheet([Column("name"), Column("number", right=True), Column("what it is", prose=True)], rows)
    shown = re.sub(r"\s", "", on_screen(sheet, width))
    assert all(cell.replace(" ", "") in shown for row in rows for cell in row[:1])
    letters = sorted("".join(cell.replace(" ", "") for row in rows for cell in row))
    assert all(shown.count(letter) >= letters.count(letter) for letter in set(letters))
    lines = piped(sheet).splitlines()
    assert [words(line) for line in lines[1:]] == [words(" ".join(row)) for row in rows]


@pytest.mark.parametrize(("width", "lines"), [(130, 4), (90, 8), (60, 12)])
def test_what_does_not_fit_stands_below_its_name_and_then_becomes_a_list(width: int, lines: int) -> None:
    columns = [Column("cut"), Column("node"), Column("bytes", right=True), Column("of"), Column("share", right=True)]
    rows = [(name, name, "1,548,288", "112x12x12 values", "") for name in NAMES]
    shown = on_screen(Sheet(columns, rows), width).splitlines()
    assert len(shown) == lines
    assert all(any(name in line for line in shown) for name in NAMES)


def test_a_row_that_does_not_fit_its_headings_is_a_bug() -> None:
    with pytest.raises(ValueError, match="a row of 1 cells under 2 headings"):
        Sheet([Column("a"), Column("b")], [("one",)])


@pytest.mark.parametrize("width", [40, 80, 160])
def test_every_node_of_a_network_can_be_copied(width: int) -> None:
    cuts = find_cuts(make_network("mobilenet_v3_large", 1000, 64), 64)
    table = describe.cuts_table("mobilenet_v3_large", cuts)
    for text in (on_screen(table, width), piped(table, width)):
        found = text.split()
        assert {name for cut in cuts for name in (cut.name, cut.node, f"{cut.bytes:,}")} <= {*found}


def everything() -> Iterator[RenderableType]:
    yield describe.explained(None)
    for kind in ("attacks", "defenses", "data", "victims", "plans", "cards"):
        yield describe.listing(kind, PLANS)  # type: ignore[arg-type]
    yield from map(portrait, plugins.all_classes())


def test_what_tells_of_plugins_and_flags_is_whole_at_80_columns() -> None:
    for what in everything():
        assert {*on_screen(what, 80).split()} >= {*piped(what, 80).split()}


def test_brackets_are_no_markup(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal(monkeypatch, capsys)
    _, out, _ = terminal("explain", "unaware-attacker")
    assert "adaptive = [true] in the plan" in out
    _, out, _ = terminal("explain")
    for flag in FLAGS.values():
        assert flag.means in out
        assert flag.remedy in out


def test_a_matrix_has_one_number_a_cell_and_names_its_best(results: Results) -> None:
    assert results.best is not None
    assert results.best.row is not None
    whole = piped(Brief(results))
    rows = {line["label"]: line["cells"] for line in read(whole)}
    assert {*rows} >= {defence["label"] for defence in DEFENCES} - {results.best.row.defence.label}
    (best,) = [label for label in rows if label.startswith(BEST)]
    assert best == f"{BEST} {results.best.row.defence.label}"
    assert rows["none"].split()[:3] == ["83.3", "–", f"{results.rows[0].groups['ridge'].scores['psnr'].mean:.1f}"]  # noqa: RUF001
    assert "failed" in rows["gaussian_noise sigma=2.0"]


def read(text: str) -> list[dict[str, str]]:
    """A line for each setting: its label ends where two spaces follow."""
    lines = text.splitlines()[2 : 2 + len(DEFENCES)]
    return [dict(zip(("label", "cells"), re.split(r"  +", line, maxsplit=1), strict=True)) for line in lines]


def test_as_many_attacks_are_shown_as_fit_and_the_others_are_counted(results: Results) -> None:
    narrow, whole = on_screen(Brief(results), 62), on_screen(Brief(results), 120)
    assert "decoder" in whole
    assert "with --wide" not in whole
    assert "decoder" not in narrow.splitlines()[1]
    assert re.search(r"^\d of 3 attacks; all with --wide$", narrow, re.MULTILINE)
    wide = Console(file=io.StringIO(), force_terminal=True, width=62, color_system=None)
    with wide.capture() as captured:
        wide.print(Brief(results, wide=True), soft_wrap=True)
    assert "decoder" in captured.get()
    assert "with --wide" not in captured.get()


def test_colour_goes_from_the_floor_to_what_leaks_undefended(results: Results) -> None:
    lines = [*heat_map(results, "psnr").lines]
    floor, strongest = results.floor("psnr"), results.rows[0].strongest("psnr")
    assert floor is not None
    assert strongest is not None
    for line in lines:
        row = results.rows[line.position]
        assert line.label == row.defence.label
        for tile in line.tiles:
            score = row.groups[results.columns[tile.column]].scores.get("psnr")
            span = strongest.scores["psnr"].mean - floor.mean
            assert tile.heat == (
                None if score is None else pytest.approx(min(1, max(0, (score.mean - floor.mean) / span)))
            )
    assert [line.label for line in lines if line.best] == [results.best.row.defence.label]  # type: ignore[union-attr]


@pytest.mark.parametrize("arguments", [(), ("--metric", "ssim"), ("--wide",)])
def test_a_report_says_three_sentences_then_the_table_then_its_page(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path)
    code, out, _ = Terminal(monkeypatch, capsys)("report", str(tmp_path), *arguments)
    lines = out.splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines[:4]] == [
        "Undefended,",
        "Of",
        "How",
        "SSIM" if "ssim" in arguments else "PSNR",
    ]
    assert lines[-1] == f"report: {tmp_path / 'index.html'}"


def test_a_measure_that_is_unknown_or_was_not_made_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path)
    terminal = Terminal(monkeypatch, capsys)
    assert "did you mean ssim" in terminal.refusal("report", str(tmp_path), "--metric", "sim")
    assert "rank1: was not measured here; psnr, ssim was" in terminal.refusal(
        "report", str(tmp_path), "--metric", "rank1"
    )


def test_to_report_a_run_imports_no_networks() -> None:
    code = "import sys; import splitleak.experiments.cli.report; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "torchvision", "torchmetrics", "opacus", "scipy.stats"} & {*done.stdout.split()}


def test_the_tests_see_what_a_pipe_would(capsys: pytest.CaptureFixture[str]) -> None:
    assert not console.is_terminal
