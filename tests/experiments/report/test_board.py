"""The leaderboard: one row for each defence setting, under the attack that leaks most, with what it rests on."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from written_run import DEFENCES, write_run

from splitleak.experiments.report.board import board_table, write_board
from splitleak.experiments.results.archive import read_runs, write_archive
from splitleak.experiments.results.load import load_results


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_run(tmp_path / "small")
    data = 'data = { name = "index", path = "photos/cifar10.zip" }'
    (tmp_path / "small" / "plan.toml").write_text(f"[victim]\n{data}\n")
    return tmp_path / "small"


def test_a_row_for_each_setting_the_least_leaking_first(run: Path) -> None:
    table = board_table(read_runs(run))
    places = {name: table.headings.index(name) for name in ("defence", "strongest attack", "PSNR (dB)")}
    rows = {row.defence.label: row for row in load_results(run).rows}
    assert {line[places["defence"]] for line in table.lines} == {one["label"] for one in DEFENCES}
    leaks = [float(line[places["PSNR (dB)"]].split()[0]) for line in table.lines]
    assert leaks == sorted(leaks)
    for line in table.lines:
        tried = [group for group in rows[line[0]].groups.values() if group.finished and not group.floor]
        strongest = max(tried, key=lambda group: group.scores["psnr"].mean)
        assert line[places["strongest attack"]] == strongest.column
        assert line[places["PSNR (dB)"]].startswith(f"{strongest.scores['psnr'].mean:.1f} [")


def test_it_says_on_what_a_number_rests(run: Path) -> None:
    write_archive([run], run.with_suffix(".json.xz"))
    (archived,), (loose,) = (read_runs(path).values() for path in (run.with_suffix(".json.xz"), run))
    for held, seal in ((archived, archived.seal), (loose, None)):
        table = board_table({held.name: held})
        line = dict(zip(table.headings, next(line for line in table.lines if line[0] == "none"), strict=True))
        assert line["victim"] == "net, cut at C4"
        assert line["data"] == "cifar10.zip, 8 px, task expression"
        assert line["photos, people, trainings"] == "12, unknown, 2"
        assert line["attacks tried"] == "2: ridge, decoder"
        assert line["run"] == "small"
        assert line["seal"] == (seal[:8] if seal else "–")  # noqa: RUF001
        assert "few-photos" in line["flags"]


def test_the_page_needs_no_other_file(run: Path, tmp_path: Path) -> None:
    write_board(read_runs(run), tmp_path / "board.html")
    page = (tmp_path / "board.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert page.count("<tr") == 1 + len(DEFENCES)
    assert 'class="sortable"' in page


HARNESS = """
const rows = [["b", "12.0 [1]"], ["a", "9.5 [2]"], ["c", "none"]].map((texts) => ({
  cells: texts.map((text) => ({ textContent: text, dataset: {} })) }));
const listeners = [];
const node = (name) => ({ name, childNodes: [], append() {}, setAttribute(k, v) { this[k] = v; },
  getAttribute(k) { return this[k]; }, removeAttribute(k) { delete this[k]; },
  addEventListener(kind, act) { listeners.push(act); } });
const body = { rows, append(...sorted) { this.rows = sorted; } };
const table = { tBodies: [body], tHead: { rows: [{ cells: [node("th"), node("th")] }] } };
globalThis.document = { createElement: node, querySelectorAll: () => [table] };
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node, to run the page's script")
def test_a_click_sorts_by_number_and_again_the_other_way_round(run: Path, tmp_path: Path) -> None:
    write_board(read_runs(run), tmp_path / "board.html")
    page = (tmp_path / "board.html").read_text()
    script = page[page.index("<script>") + len("<script>") : page.index("</script>")]
    shown = "console.log(body.rows.map((row) => row.cells[0].textContent).join(''));"
    clicks = f"listeners[1](); {shown} listeners[1](); {shown} listeners[0](); {shown}"
    (tmp_path / "sort.js").write_text(f"{HARNESS}{script.replace(chr(34) + 'use strict' + chr(34), '')}{clicks}")
    done = subprocess.run(["node", str(tmp_path / "sort.js")], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["abc", "cba", "abc"]
