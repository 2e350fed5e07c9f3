"""Results that are not what the plan's last run would have computed are told apart, and rest under no number."""

import json
import lzma
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
import torch
from terminal import Terminal
from tiny import HEAD, NONE, RIDGE, run_plan
from written_run import cell_of, relisted, write_run, write_sealed

from splitleak.experiments.planning.names import CACHE
from splitleak.experiments.planning.plan import read_plan
from splitleak.experiments.results import frame
from splitleak.experiments.results.archive import read_archive, restore_archive, write_archive
from splitleak.experiments.results.load import (
    CELLS,
    cell_ids,
    cell_keys,
    load_results,
    read_record,
    record_file,
    write_listing,
)
from splitleak.experiments.results.record import Record, migrate
from splitleak.experiments.run.execute import run_cells, work_of
from splitleak.experiments.run.run import Run
from splitleak.experiments.run.schedule import Serial
from splitleak.experiments.store.store import Store
from splitleak.victims.errors import InvalidInputError

PLAN = HEAD + NONE + RIDGE
DECODED = "c004"
"""The undefended cell of the decoder and the first seed."""


def everything_measured(cell: dict[str, object]) -> None:
    """As it is."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    ids = write_run(tmp_path / "run", everything_measured)
    return relisted(tmp_path / "run", ids[:6])  # the undefended ones: no curve is drawn


def edited_by_hand(run: Path) -> None:
    """Thirty decibels are added to a stored score."""
    path = record_file(run, DECODED)
    cell = json.loads(path.read_text())
    cell["metrics"]["psnr"]["mean"] += 30
    cell["metrics"]["psnr"]["values"] = [value + 30 for value in cell["metrics"]["psnr"]["values"]]
    path.write_text(json.dumps(cell))


def picture_replaced(run: Path) -> None:
    """A strip of reconstructions is another one."""
    path = run / "cells" / f"{DECODED}.png"
    path.write_bytes(path.read_bytes() + b" ")


DECODER = {"name": "decoder", "label": "decoder", "settings": {}, "knowledge": "BlackBox", "floor": False}


def of_another_key(run: Path) -> None:
    """The plan's last run wants another result there."""
    write_listing(run, {**cell_keys(run), DECODED: "key of other code"})


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "edited": (edited_by_hand, "changed by hand, or damaged"),
    "picture": (picture_replaced, "changed by hand, or damaged"),
    "stale": (of_another_key, "stale and left out"),
}


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=list(CHANGES))
def test_report_terminal_and_archive_leave_it_out_and_say_so(
    change: Callable[[Path], None], said: str, run: Path, tmp_path: Path, terminal: Terminal
) -> None:
    group = load_results(run).rows[0].groups["decoder"]
    assert len(group.finished) == 2
    other_seed = group.finished[1].metrics["psnr"].mean
    change(run)
    results = load_results(run)
    group = results.rows[0].groups["decoder"]
    assert [cell.id for cell in (*results.stale, *results.damaged)] == [DECODED]
    assert group.scores["psnr"].mean == pytest.approx(other_seed)
    code, out, _ = terminal("report", str(run))
    assert code == 0
    assert said in out
    assert said in " ".join(unescape((run / "index.html").read_text()).split())
    assert DECODED not in (run / "results.csv").read_text()
    assert DECODED not in {row.id for row in frame(run)}
    archive = tmp_path / "run.json.xz"
    assert write_archive([run], archive) == 1
    (archived,) = read_archive(archive).values()
    assert DECODED in archived.results.missing
    code, out, _ = terminal("archive", str(run), "--file", str(tmp_path / "again.json.xz"))
    assert code == 0
    assert "1 cells are stale or not as they were written, and left out" in " ".join(out.split())


def test_what_is_whole_and_of_this_key_is_reported_without_a_word(run: Path, terminal: Terminal) -> None:
    assert load_results(run).notes == ()
    _, out, _ = terminal("report", str(run))
    assert "left out" not in out


def test_stages_that_were_not_computed_alike_are_told(run: Path, terminal: Terminal) -> None:
    cell = cell_of(DECODED, 0, {"name": "none", "label": "none"}, DECODER)
    cell["made"][0]["versions"]["torch"] = "2.12"
    write_sealed(run, cell)
    assert load_results(run).notes == ("not all was computed alike: torch 2.11 and 2.12",)
    _, out, _ = terminal("report", str(run))
    assert "torch 2.11 and 2.12" in out
    assert "not all was computed alike" in unescape((run / "index.html").read_text())


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a plan that was run."""
    folder = tmp_path_factory.mktemp("computed")
    run_plan(PLAN, folder, shared=True)
    return folder


def test_every_cell_says_with_what_each_of_its_stages_was_made(computed: Path) -> None:
    for cell in load_results(computed / "runs" / "tiny").finished:
        told = {stage for made in cell.made for stage in made.stages}
        assert {"data", "victim", "protect", "attack", "floor", "probe", "judge"} <= told
        for made in cell.made:
            assert {"python", "torch", "splitleak"} <= set(made.versions)
            assert all(value is not None for value in (made.device, made.threads, made.host))


def test_an_interrupted_rerun_of_changed_data_marks_the_earlier_generation(computed: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN.replace("photos = 400", "photos = 400, seed = 1"))
    shutil.copytree(computed / "runs" / "tiny", tmp_path / "runs" / "tiny")
    run = Run.of(read_plan(plan), tmp_path / "runs")
    assert [cell.id for cell in run.cells] == cell_ids(run.folder)
    assert len(load_results(run.folder).cells) == len(run.cells)
    store = Store(tmp_path / "runs" / CACHE, torch.device("cpu"))
    with Serial(work_of(run, store)) as executor:
        run_cells(run, store, executor, False, lambda *told: None, time_is_up=lambda: True)
    results = load_results(run.folder)
    assert not results.cells
    assert len(results.stale) == len(run.cells)


def test_a_run_of_before_keys_were_listed_is_read_as_it_is(run: Path) -> None:
    (run / CELLS).write_text(json.dumps(cell_ids(run)))
    results = load_results(run)
    assert not results.stale
    assert not results.damaged
    (run / CELLS).write_text('{"listing": 99}')
    with pytest.raises(InvalidInputError, match="reads up to"):
        load_results(run)


def test_an_archive_that_was_changed_is_refused(run: Path, tmp_path: Path) -> None:
    archive = tmp_path / "run.json.xz"
    write_archive([run], archive)
    content = json.loads(lzma.decompress(archive.read_bytes()))
    content["runs"][0]["cells"][DECODED]["metrics"]["psnr"]["mean"] += 30
    archive.write_bytes(lzma.compress(json.dumps(content).encode()))
    with pytest.raises(InvalidInputError, match="its seal is broken"):
        read_archive(archive)


def test_what_an_archive_gives_back_is_no_result_of_a_plan(computed: Path, tmp_path: Path) -> None:
    run = computed / "runs" / "tiny"
    write_archive([run], tmp_path / "tiny.json.xz")
    (folder,) = restore_archive(tmp_path / "tiny.json.xz", tmp_path / "runs")
    restored, stored = load_results(folder), load_results(run)
    assert restored.notes == stored.notes
    assert [cell.key for cell in restored.cells] == [cell.key for cell in stored.cells]
    cells = Run.of(read_plan(computed / "plan.toml"), computed / "runs").cells
    assert all(cell.result(run) for cell in cells)
    assert not any(cell.result(folder) for cell in cells)


def test_a_record_of_the_first_version_is_read(run: Path) -> None:
    stored = json.loads(record_file(run, DECODED).read_text())
    del stored["schema_version"], stored["seal"]
    old = {**stored, "versions": {"torch": "2.9"}}
    del old["made"]
    write_sealed(run, old)
    found = read_record(run, DECODED)
    assert found is not None
    assert found.whole
    assert found.record.versions == {"torch": "2.9"}
    with pytest.raises(ValueError, match="reads up to"):
        migrate({"schema_version": 99})
    with pytest.raises(ValueError, match="extra"):
        Record.model_validate({**migrate(stored), "psnr": 3})
