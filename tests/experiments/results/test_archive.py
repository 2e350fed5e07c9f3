"""Archives: what they keep, and that tables made of them are those of the runs."""

import json
import lzma
from pathlib import Path

import pytest
from tiny import DECODER, HEAD, NOISE, NONE, RIDGE, run_plan

from splitleak.experiments.report import write_report
from splitleak.experiments.report.tables.files import tables
from splitleak.experiments.report.tables.matched import matched_rows
from splitleak.experiments.report.tables.proved import proved
from splitleak.experiments.results.archive import read_archive, restore_archive, write_archive
from splitleak.experiments.results.load import cell_ids, load_results, read_record, write_record
from splitleak.victims.errors import InvalidInputError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archived")
    run_plan(HEAD + NONE + NOISE + RIDGE + DECODER, folder, report=True, shared=True)
    return folder / "runs" / "tiny"


@pytest.fixture
def archive(run: Path, tmp_path: Path) -> Path:
    write_archive([run], tmp_path / "sub" / "tiny.json.xz")
    return tmp_path / "sub" / "tiny.json.xz"


def test_numbers_of_an_archive_are_those_of_the_run(run: Path, archive: Path) -> None:
    (stored,) = read_archive(archive).values()
    results = load_results(run)
    assert stored.name == "tiny"
    assert stored.plan == (run / "plan.toml").read_text()
    assert [cell.id for cell in stored.results.cells] == [cell.id for cell in results.cells]
    assert stored.results.flags == results.flags
    for kept, cell in zip(stored.results.cells, results.cells, strict=True):
        assert kept.metrics["psnr"].mean == cell.metrics["psnr"].mean
        assert kept.metrics["psnr"].values == pytest.approx(cell.metrics["psnr"].values, abs=0.00501)
        assert (kept.utility, kept.bytes, kept.guarantees) == (cell.utility, cell.bytes, cell.guarantees)
    assert [table.name for table in tables(stored.results)] == [table.name for table in tables(results)]
    assert proved(stored.results) == proved(results)
    for ours, theirs in zip(matched_rows(stored.results), matched_rows(results), strict=True):
        assert ours.family.label == theirs.family.label
        for key, interval in ours.leakage.items():
            assert interval == pytest.approx(theirs.leakage[key], abs=0.01)


def test_the_same_run_makes_the_same_file_and_a_small_one(run: Path, archive: Path, tmp_path: Path) -> None:
    write_archive([run], tmp_path / "again.json.xz")
    assert (tmp_path / "again.json.xz").read_bytes() == archive.read_bytes()
    assert archive.stat().st_size < 0.25 * sum(file.stat().st_size for file in (run / "cells").glob("*.json"))
    text = lzma.decompress(archive.read_bytes())
    assert not any(name in text for name in (b'"history"', b'"inside"', b"train_loss"))
    assert text.count(b'"seal"') == 1


def test_failed_and_missing_cells_stay_what_they_are(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "tiny"
    (folder / "cells").mkdir(parents=True)
    for name in ("plan.toml", "cells.json"):
        (folder / name).write_bytes((run / name).read_bytes())
    first, second, *_ = cell_ids(run)
    whole = read_record(run, first)
    assert whole is not None
    failed = {"status": "failed", "traceback": "Traceback\n  File here\nValueError: no"}
    write_record(folder, whole.record.model_copy(update=failed))
    write_archive([folder], tmp_path / "part.json.xz")
    (stored,) = read_archive(tmp_path / "part.json.xz").values()
    assert [cell.traceback for cell in stored.results.failed] == ["ValueError: no"]
    assert second in stored.results.missing


def test_a_restored_run_is_reported_like_any_other(run: Path, archive: Path, tmp_path: Path) -> None:
    (folder,) = restore_archive(archive, tmp_path / "runs")
    ids = cell_ids(folder)
    assert ids == cell_ids(run)
    assert write_report(folder).is_file()
    assert (folder / "tables" / "proved.csv").read_text() == (run / "tables" / "proved.csv").read_text()
    with pytest.raises(InvalidInputError, match="is a run already"):
        restore_archive(archive, tmp_path / "runs")


@pytest.mark.parametrize(
    "content",
    ["not packed", "no json", "[]", '{"format": 99, "runs": []}'],
)
def test_what_is_no_archive_is_refused(content: str, tmp_path: Path) -> None:
    packed = content.encode() if content == "not packed" else lzma.compress(content.encode())
    (tmp_path / "x.json.xz").write_bytes(packed)
    with pytest.raises(InvalidInputError, match=r"x\.json\.xz is no archive"):
        read_archive(tmp_path / "x.json.xz")


def test_a_damaged_archive_is_refused(archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidInputError, match="no archive"):
        read_archive(archive)
    content = json.loads(lzma.decompress(whole))
    next(iter(content["runs"][0]["cells"].values()))["status"] = "dubious"
    archive.write_bytes(lzma.compress(json.dumps(content).encode()))
    with pytest.raises(InvalidInputError, match="no archive"):
        read_archive(archive)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no run at"):
        write_archive([tmp_path], tmp_path / "x.json.xz")
