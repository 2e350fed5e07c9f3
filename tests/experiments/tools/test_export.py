"""What TensorBoard and MLflow are given of a run, with the real packages."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny import HEAD, RIDGE, SUBSET

from splitleak.experiments.cli.app import main
from splitleak.experiments.results.load import cell_ids, write_listing, write_record
from splitleak.experiments.results.record import Record
from splitleak.experiments.tools.export import CELL, EXPERIMENT, PARENT, RUN, export_to_mlflow
from splitleak.victims.errors import InvalidInputError

tracking = pytest.importorskip("mlflow.tracking")
pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def splitleak(*arguments: str) -> int:
    """The exit code."""
    argv, sys.argv = sys.argv, ["splitleak", *arguments]
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        sys.argv = argv
    raise AssertionError("main always exits")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run: two defences, the floor and ridge."""
    place = tmp_path_factory.mktemp("exported")
    (place / "tiny.toml").write_text(HEAD + SUBSET + RIDGE)
    assert splitleak("run", str(place / "tiny.toml"), "--out", str(place / "runs"), "--tensorboard") == 0
    return place / "runs" / "tiny"


def ids(folder: Path) -> list[str]:
    return cell_ids(folder)


def stored(folder: Path, identifier: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "cells" / f"{identifier}.json").read_text())
    return result


def unsealed(text: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(text)
    del record["seal"]
    return record


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = event_accumulator.EventAccumulator(str(folder)).Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_has_each_cells_curve_and_scores(folder: Path) -> None:
    for identifier in ids(folder):
        result, written = stored(folder, identifier), scalars(folder / "tensorboard" / identifier)
        psnr = result["metrics"]["psnr"]
        for name, value in (("psnr_mean", psnr["mean"]), ("psnr_low", psnr["low"]), ("bytes", result["bytes"])):
            assert written[f"score/{name}"] == [(0, pytest.approx(value))]
        losses = [row["validation_loss"] for row in result["history"]]
        assert [value for _, value in written.get("fit/validation_loss", [])] == pytest.approx(losses)


def test_tensorboard_has_the_curves_of_the_victim_and_of_each_defence(folder: Path) -> None:
    place = folder / "tensorboard"
    assert {one.name for one in place.iterdir()} - {*ids(folder)} == {
        "victim seed 0",
        "protect none seed 0",
        "protect channel_subset keep=0.25 seed 0",
    }
    assert [step for step, _ in scalars(place / "victim seed 0")["victim/train_loss"]] == [1]
    assert [step for step, _ in scalars(place / "protect none seed 0")["protect/train_loss"]] == [1]


def test_tensorboards_files_are_written_once_and_where_they_are_missing(folder: Path) -> None:
    place = folder / "tensorboard"
    before = {path: path.stat().st_mtime_ns for path in place.rglob("events*")}
    gone = next(path for path in before if path.parent.name == ids(folder)[0])
    gone.unlink()
    (gone.parent / "made_of").unlink()
    plan = folder.parents[1] / "tiny.toml"
    assert splitleak("run", str(plan), "--out", str(folder.parent), "--tensorboard") == 0
    del before[gone]
    after = {path: path.stat().st_mtime_ns for path in place.rglob("events*")}
    assert before.items() <= after.items()
    assert [path.parent for path in after.keys() - before.keys()] == [gone.parent]


def runs(uri: str) -> Sequence[Any]:
    client = tracking.MlflowClient(tracking_uri=uri)
    found: Sequence[Any] = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    return found


def database(store: Path) -> str:
    return f"sqlite:///{store / 'mlflow.db'}"


@pytest.fixture(scope="module")
def store(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("mlflow") / "mlruns"
    assert splitleak("export", str(folder), "--to", "mlflow", "--tracking-uri", str(place)) == 0
    return place


def test_mlflow_has_a_run_for_each_cell_below_the_plans(folder: Path, store: Path) -> None:
    found = runs(database(store))
    (parent,) = [run for run in found if RUN in run.data.tags]
    assert (parent.info.run_name, parent.info.status) == ("tiny", "FINISHED")
    cells = {run.data.tags[CELL]: run for run in found if run is not parent}
    assert {*cells} == {*ids(folder)}
    assert len(found) == 1 + len(cells)
    for identifier, run in cells.items():
        result = stored(folder, identifier)
        assert run.data.tags[PARENT] == parent.info.run_id
        assert run.data.params["defence"] == result["defence"]["name"]
        assert run.data.params["attack"] == result["attack"]["name"]
        assert (run.data.params["seed"], run.data.params["victim_model"]) == ("0", "mobilenet_v3_small")
        for name in ("mean", "low", "high"):
            assert run.data.metrics[f"psnr_{name}"] == pytest.approx(result["metrics"]["psnr"][name])
            assert run.data.metrics[f"utility_{name}"] == pytest.approx(result["utility"][name])
    subset = next(run for name, run in cells.items() if "subset" in name)
    assert (subset.data.params["defence.keep"], subset.data.params["defence.selection"]) == ("0.25", "saliency")


def test_mlflow_has_the_curve_and_the_pictures(folder: Path, store: Path) -> None:
    client = tracking.MlflowClient(tracking_uri=database(store))
    for run in runs(database(store)):
        identifier = run.data.tags.get(CELL)
        files = {one.path for one in client.list_artifacts(run.info.run_id)}
        if identifier is None:
            assert files == {"index.html", "results.csv", "plan.toml", "targets.png"}
            continue
        assert files == {f"{identifier}.png"}
        losses = [row["validation_loss"] for row in stored(folder, identifier)["history"]]
        curve = client.get_metric_history(run.info.run_id, "fit/validation_loss") if losses else []
        assert [(one.step, one.value) for one in curve] == [*enumerate(losses, 1)]


def test_a_second_export_writes_nothing_and_a_changed_cell_is_replaced(folder: Path, store: Path) -> None:
    before = {run.info.run_id for run in runs(database(store))}
    assert export_to_mlflow(folder, str(store)) == (0, 4)
    assert {run.info.run_id for run in runs(database(store))} == before
    path = folder / "cells" / f"{ids(folder)[0]}.json"
    kept = path.read_text()
    try:
        write_record(folder, Record.model_validate(unsealed(kept)).model_copy(update={"finished": "later"}))
        assert export_to_mlflow(folder, database(store)) == (1, 3)
    finally:
        path.write_text(kept)
    after = {run.info.run_id for run in runs(database(store))}
    assert (len(after), len(after - before)) == (len(before), 1)


def test_a_failed_cell_is_a_failed_run_with_its_traceback(folder: Path, tmp_path: Path) -> None:
    whole = unsealed((folder / "cells" / f"{ids(folder)[0]}.json").read_text())
    result = {**whole, "id": "one", "status": "failed", "traceback": "Traceback\nValueError: broken"}
    kept = {name: result[name] for name in result if name not in ("metrics", "utility", "history")}
    write_record(tmp_path / "run", Record.model_validate(kept))
    write_listing(tmp_path / "run", {"one": None, "absent": None})
    assert export_to_mlflow(tmp_path / "run", str(tmp_path / "store")) == (1, 0)
    (failed,) = [run for run in runs(database(tmp_path / "store")) if CELL in run.data.tags]
    assert failed.info.status == "FAILED"
    assert failed.data.tags["splitleak.error"] == "ValueError: broken"
    assert "psnr_mean" not in failed.data.metrics


def test_what_cannot_be_is_one_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match="MLflow cannot use the store nowhere://x: "):
        export_to_mlflow(folder, "nowhere://x")
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInputError, match="file is no folder to write to: File exists"):
        export_to_mlflow(folder, str(tmp_path / "file"))
    write_listing(tmp_path, {})
    with pytest.raises(InvalidInputError, match="no cell has a result yet"):
        export_to_mlflow(tmp_path, str(tmp_path / "store"))
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(InvalidInputError, match=r"pip install 'splitleak\[mlflow\]'"):
        export_to_mlflow(folder, str(tmp_path / "store"))


def test_without_tensorboard_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    (tmp_path / "tiny.toml").write_text(HEAD + SUBSET + RIDGE)
    assert splitleak("run", str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "runs"), "--tensorboard") == 2
    assert "pip install 'splitleak[tensorboard]'" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.json"))


def test_settings_longer_than_mlflow_takes_are_whole_in_a_file(folder: Path, tmp_path: Path) -> None:
    result = {**unsealed((folder / "cells" / f"{ids(folder)[0]}.json").read_text()), "id": "one"}
    parts = [{"name": "gaussian_noise", "sigma": k / 1000} for k in range(400)]
    result["defence"] = {**result["defence"], "settings": {"parts": parts}}
    write_record(tmp_path / "run", Record.model_validate(result))
    write_listing(tmp_path / "run", {"one": None})
    assert export_to_mlflow(tmp_path / "run", str(tmp_path / "store")) == (1, 0)
    (cell,) = [run for run in runs(database(tmp_path / "store")) if CELL in run.data.tags]
    assert cell.data.params["defence.parts"] == f"{str(parts)[:5999]}…"
    client = tracking.MlflowClient(tracking_uri=database(tmp_path / "store"))
    whole = client.download_artifacts(cell.info.run_id, "settings.json", str(tmp_path))
    assert json.loads(Path(whole).read_text())["defence.parts"] == str(parts)
