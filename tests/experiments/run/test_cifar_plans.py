"""The plans of the field's own benchmark, each from end to end with a few photos in the layout of the real file."""

import io
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from PIL import Image

from splitleak.experiments.cells.cell import Cell
from splitleak.experiments.planning.names import CACHE, PLANS
from splitleak.experiments.planning.study import read_study
from splitleak.experiments.results.record import Record
from splitleak.experiments.run.check import check_plan
from splitleak.experiments.run.execute import run_cells, work_of
from splitleak.experiments.run.run import Run
from splitleak.experiments.run.schedule import Serial
from splitleak.experiments.store.store import Store

CLASSES = ("airplane", "automobile", "bird")
FEW = {"train": 48, "validation": 12, "target": 12, "test": 12}
SHORT = {"epochs": 1, "steps": 3, "search_steps": 3, "decoder_epochs": 1, "draws": 1}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """cifar10.zip with an index.csv (path, label, split) and the photos in SPLIT/CLASS."""
    random, lines = np.random.default_rng(0), ["path,label,split"]
    with zipfile.ZipFile(tmp_path / "cifar10.zip", "w") as file:
        for split, count in (("test", 12), ("train", 36)):
            for number, name in enumerate(CLASSES):
                for photo in range(count):
                    path = f"{split}/{name}/{photo:04d}.jpg"
                    pixels = random.integers(0, 256, (32, 32, 3)) // 2 + 60 * number
                    written = io.BytesIO()
                    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(written, "JPEG")
                    file.writestr(path, written.getvalue())
                    lines.append(f"{path},{name},{split}")
        file.writestr("index.csv", "\n".join(lines))
    monkeypatch.setenv("SPLITLEAK_DATA", str(tmp_path))


def shrunk(tables: dict[str, Any]) -> dict[str, Any]:
    """The plan with as few photos, passes, strengths and seeds as there can be."""
    tables["seeds"] = [0]
    tables["victim"] |= {"epochs": 1, "batch_size": 16}
    tables["parts"] |= {name: count for name, count in FEW.items() if tables["parts"].get(name) != 0}
    tables["attacker"] |= {"auxiliary": 16, "slow_targets": 2}
    if tables["victim"].get("weights"):
        tables["victim"] |= {"weights": "scratch", "size": 32}
    for table in plugins_of(tables):
        table |= {name: few for name, few in SHORT.items() if name in table}
        table |= {name: value[0] for name, value in table.items() if isinstance(value, list)}
    return tables


def plugins_of(tables: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for place in (tables, *tables.get("victims", [])):
        for kind in ("attacks", "defenses"):
            yield from place.get(kind, [])


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize(
    ("name", "victims", "defenses"),
    [
        ("cifar_he", ["own-ReLU32", "same-ReLU32"], 1),
        pytest.param("cifar_he", ["own-conv11", "defended"], 1, marks=pytest.mark.slow),
        ("cifar_cem", ["cifar_cem"], 2),
        pytest.param("cifar_cem", ["cifar_cem"], 6, marks=pytest.mark.slow),
        ("cifar_seed", ["cifar_seed"], 1),
    ],
)
def test_a_plan_runs_from_end_to_end(tmp_path: Path, name: str, victims: list[str], defenses: int) -> None:
    path = tmp_path / f"{name}.toml"
    tables = shrunk(tomllib.loads((PLANS / f"{name}.toml").read_text()))
    path.write_text(tomli_w.dumps({**tables, "defenses": tables["defenses"][:defenses]}))
    plans = read_study(path).plans
    failed: list[str] = []

    def note(cell: Cell, record: Record, computed: bool) -> None:
        if record.status != "ok":
            failed.append(f"{cell.title}: {record.why}")

    store = Store(tmp_path / "runs" / CACHE, torch.device("cpu"))
    for plan in (plans[victim] for victim in victims):
        check_plan(plan)
        run = Run.of(plan, tmp_path / "runs")
        run_cells(run, store, Serial(work_of(run, store)), False, note)
    assert failed == []


def test_each_trains_three_times_and_attacks_what_the_papers_cut() -> None:
    for path in sorted(PLANS.glob("cifar_*.toml")):
        assert all(len(plan.seeds) == 3 for plan in read_study(path).plans.values())
    plans = read_study(PLANS / "cifar_he.toml").plans
    cuts = {label: (plan.victim.cut, plan.attacker.photos) for label, plan in plans.items()}
    own, train = ["own"], ["train"]
    assert cuts == {
        **{f"own-{cut}": (cut, own) for cut in ("conv11", "ReLU22", "ReLU32")},
        **{f"same-{cut}": (cut, train) for cut in ("conv11", "ReLU22", "ReLU32")},
        "defended": ("ReLU22", own),
    }
    cem = read_study(PLANS / "cifar_cem.toml").plans["cifar_cem"].defenses
    strengths = [entry.plugin.name for entry in cem if entry.plugin.name != "none"]
    assert {name: strengths.count(name) for name in strengths} == dict.fromkeys(strengths, 2)
    assert len(set(strengths)) == 5
