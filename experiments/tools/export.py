"""``splitleak export``: a run's results in a tracking store of MLflow."""

import importlib
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from splitleak.experiments.report.page import current_report
from splitleak.experiments.results.frame import SETTINGS, Scalar, measured, rows_of, wide
from splitleak.experiments.results.load import load_results
from splitleak.experiments.results.record import Record
from splitleak.experiments.results.results import Results
from splitleak.experiments.store.integrity import digest
from splitleak.victims.errors import InvalidInputError

EXPERIMENT = "splitleak"
RUN, CELL, STATE = "splitleak.run", "splitleak.cell", "splitleak.state"
"""Tags by which what was exported before is found again: the run's folder (a digest: a path may hold what a query may
not), the cell's id, and which result it is."""
PARENT = "mlflow.parentRunId"
AT_A_TIME = 1000
"""Metrics that MLflow takes in one call."""
LONGEST_PARAMETER, LONGEST_TAG = 6000, 8000
"""Characters of a value that MLflow takes."""


class Exported(NamedTuple):
    """How many cells were written, and how many were there as they are."""

    written: int
    kept: int


def export_to_mlflow(folder: Path, uri: str) -> Exported:
    """One MLflow run for each cell, below one for the whole plan; what is there already is not written again.

    A cell has its settings as parameters, its scores with their intervals and its training curve as metrics, and its
    first reconstructions as an artefact. A cell whose result has changed replaces the one of before.

    Args:
        folder: of the run.
        uri: where to: a folder, which gets a database and the artefacts, or whatever MLflow takes.

    Raises:
        InvalidInputError: no cell has a result, or MLflow is not installed, or cannot use the store.
    """
    results = load_results(folder)
    if not results.cells:
        raise InvalidInputError(f"{folder}: no cell has a result yet; run the plan first")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        mlflow = importlib.import_module("mlflow")
        importlib.import_module("sqlalchemy")
    except ImportError:
        raise InvalidInputError("export --to mlflow needs MLflow: pip install 'splitleak[mlflow]'") from None
    try:
        return _Exporter(mlflow, uri).run(folder, results)
    except mlflow.exceptions.MlflowException as error:
        reason = str(error).partition("\n")[0]
        raise InvalidInputError(f"MLflow cannot use the store {uri}: {reason}") from error
    except OSError as error:
        raise InvalidInputError(f"--tracking-uri {uri} is no folder to write to: {error.strerror}") from error


class _Exporter:
    def __init__(self, mlflow: Any, uri: str) -> None:
        self.mlflow = mlflow
        place = None
        if "://" not in uri:
            place = Path(uri).resolve()
            place.mkdir(parents=True, exist_ok=True)
            uri = f"sqlite:///{place / 'mlflow.db'}"
        self.client = mlflow.MlflowClient(tracking_uri=uri)
        found = self.client.get_experiment_by_name(EXPERIMENT)
        artefacts = None if place is None else (place / "artifacts").as_uri()
        self.experiment = found.experiment_id if found else self.client.create_experiment(EXPERIMENT, artefacts)

    def run(self, folder: Path, results: Results) -> Exported:
        tags = {RUN: digest(str(folder.resolve()))}
        parent = self._found(tags) or self._made(results.cells[0].plan or folder.name, tags)
        page = current_report(folder)
        for file in (page, *(folder / name for name in ("results.csv", "plan.toml", "targets.png"))):
            if file.exists():
                self.client.log_artifact(parent.info.run_id, str(file))
        written = 0
        for cell in results.cells:
            written += self._cell(
                cell, results.every_flag.get((cell.defence.label, cell.column), ()), folder, parent.info.run_id
            )
        self.client.set_terminated(parent.info.run_id)
        return Exported(written, len(results.cells) - written)

    def _cell(self, cell: Record, flags: tuple[str, ...], folder: Path, parent: str) -> bool:
        """Whether it was written."""
        tags, state = {PARENT: parent, CELL: cell.id}, f"{cell.key} {cell.finished} {cell.status} {' '.join(flags)}"
        if before := self._found(tags):
            if before.data.tags.get(STATE) == state:
                return False
            self.client.delete_run(before.info.run_id)
        (row,) = wide(rows_of(cell, flags))
        run = self._made(f"{cell.defence.label} x {cell.column}, seed {cell.seed}", tags).info.run_id
        self._log(run, row, cell)
        picture = folder / "cells" / f"{cell.id}.png"
        if picture.exists():
            self.client.log_artifact(run, str(picture))
        if cell.traceback:
            self.client.log_text(run, cell.traceback, "traceback.txt")
        # last: a cell without it was not written to its end
        self.client.set_tag(run, STATE, state)
        self.client.set_terminated(run, "FINISHED" if cell.ok else "FAILED")
        return True

    def _log(self, run: str, row: Mapping[str, Scalar], cell: Record) -> None:
        entities, now, scores = self.mlflow.entities, int(time.time() * 1000), measured(row)
        curve = [{f"fit/{name}": value for name, value in of_step.items()} for of_step in cell.history]
        metrics = [
            entities.Metric(name, value, now, step)
            for step, values in enumerate([scores, *curve])
            for name, value in values.items()
            if math.isfinite(value)
        ]
        for first in range(0, len(metrics), AT_A_TIME):
            self.client.log_batch(run, metrics=metrics[first : first + AT_A_TIME])
        settings: dict[str, Any] = {name: value for name, value in row.items() if name in SETTINGS}
        tags = {name: value for name, value in row.items() if name not in {*scores, *settings}}
        settings |= {f"defence.{name}": value for name, value in cell.defence.settings.items()}
        settings |= {f"attack.{name}": value for name, value in cell.attack.settings.items()}
        given = {name: str(value) for name, value in settings.items() if value is not None}
        told = {f"splitleak.{name}": str(value) for name, value in tags.items() if value is not None}
        self.client.log_batch(
            run,
            params=[entities.Param(name, _shortened(value, LONGEST_PARAMETER)) for name, value in given.items()],
            tags=[entities.RunTag(name, _shortened(value, LONGEST_TAG)) for name, value in told.items()],
        )
        if any(len(value) > LONGEST_PARAMETER for value in given.values()):
            self.client.log_dict(run, given, "settings.json")

    def _found(self, tags: Mapping[str, str]) -> Any | None:
        wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        return next(iter(self.client.search_runs([self.experiment], wanted)), None)

    def _made(self, name: str, tags: Mapping[str, str]) -> Any:
        return self.client.create_run(self.experiment, tags=dict(tags), run_name=_shortened(name, LONGEST_TAG))


def _shortened(value: str, most: int) -> str:
    """With a mark where it ends early; all settings are then in the run's artefact settings.json."""
    return value if len(value) <= most else value[: most - 1] + "…"
