"""Stage results: found again exactly when nothing that they depend on has changed, and whole or not at all."""

import errno
import json
import os
import platform
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from filelock import FileLock

from splitleak.attacks.ridge import Ridge
from splitleak.experiments.stages.arrays import ArrayFile, MirroredFile
from splitleak.experiments.stages.victim import write_features
from splitleak.experiments.store import provenance
from splitleak.experiments.store.integrity import SEAL, DiskFullError, sealed, write_atomically
from splitleak.experiments.store.key import Stage
from splitleak.experiments.store.provenance import checkout
from splitleak.experiments.store.store import LOCKS, PARTIAL, StageFailedError, Store
from splitleak.victims.settings import Settings
from splitleak.victims.tensors import to_float

CPU = torch.device("cpu")
LIBRARIES_OF_A_NUMBER = [
    "splitleak",
    "torch",
    "torchvision",
    "torchmetrics",
    "opacus",
    "timm",
    "numpy",
    "scipy",
    "pillow",
]
OTHERWISE: dict[str, object] = {
    "versions": {"torch": "1.0"},
    "device": "cuda",
    "threads": 99,
    "host": "elsewhere",
    "commit": "def",
    "clean": True,
}


@dataclass(frozen=True)
class _Number(Stage):
    label: ClassVar[str] = "number"
    value: int

    def compute(self, folder: Path, store: Store) -> None:
        if self.value < 0:
            raise ValueError("negative")
        (folder / "value").write_text(str(self.value))


@dataclass(frozen=True)
class _Doubled(Stage):
    label: ClassVar[str] = "doubled"
    number: _Number
    attack: Settings

    def compute(self, folder: Path, store: Store) -> None:
        value = int((store.folder(self.number) / "value").read_text())
        (folder / "value").write_text(str(2 * value))


def test_computes_once_and_with_its_upstream(tmp_path: Path) -> None:
    store = Store(tmp_path, CPU)
    stage = _Doubled(_Number(3), Ridge())
    assert (store.folder(stage) / "value").read_text() == "6"
    assert store.computed == ["number", "doubled"]
    assert store.folder(stage) == Store(tmp_path, CPU).folder(stage)
    assert store.computed == ["number", "doubled"]


def test_a_result_tells_with_what_it_and_all_that_went_into_it_were_made(tmp_path: Path) -> None:
    number, doubled = _Number(3), _Doubled(_Number(3), Ridge())
    Store(tmp_path, CPU).folder(number)
    seal = tmp_path / "number" / number.key / SEAL
    facts = json.loads(seal.read_text())
    facts["made"][0] |= {"host": "elsewhere", "versions": {"torch": "1.0"}}
    seal.write_text(json.dumps(facts))
    made = sealed(Store(tmp_path, CPU).folder(doubled))
    assert {one.stages: (one.host, one.versions["torch"]) for one in made} == {
        ("number",): ("elsewhere", "1.0"),
        ("doubled",): (platform.node(), version("torch")),
    }
    assert made[1].threads == torch.get_num_threads()
    assert made[1].device == "cpu"


def test_everything_that_moves_a_number_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "checkout", lambda project: ("abc", False))
    told = provenance.here("number", CPU)
    assert told.stages == ("number",)
    assert told.versions == {
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES_OF_A_NUMBER},
    }
    assert (told.device, told.threads, told.host) == ("cpu", torch.get_num_threads(), platform.node())
    assert (told.commit, told.clean, told.code) == ("abc", False, "abc with changes")
    differing = [told.model_copy(update={name: value}) for name, value in OTHERWISE.items()]
    assert all(len(provenance.together([told, other])) == 2 for other in differing)
    assert all(any(len(values) > 1 for values in provenance.facts_of([told, other]).values()) for other in differing)


def test_a_checkout_tells_its_commit_and_whether_there_is_more(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e"]
        command = ["git", "-C", str(tmp_path), *identity, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert checkout(tmp_path) == (None, None)
    checkout.cache_clear()
    git("init", "-q")
    (tmp_path / "code.py").write_text("one = 1\n")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    assert checkout(tmp_path) == (git("rev-parse", "HEAD"), True)
    checkout.cache_clear()
    (tmp_path / "code.py").write_text("one = 2\n")
    assert checkout(tmp_path) == (git("rev-parse", "HEAD"), False)
    checkout.cache_clear()


def test_a_failure_leaves_nothing_and_is_not_repeated(tmp_path: Path) -> None:
    store = Store(tmp_path, CPU)
    with pytest.raises(ValueError, match="negative"):
        store.folder(_Number(-1))
    with pytest.raises(StageFailedError) as caught:
        store.folder(_Number(-1))
    assert isinstance(caught.value.__cause__, ValueError)
    assert list((tmp_path / "number").iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_a_living_ones_kept(tmp_path: Path) -> None:
    dead, alive = (tmp_path / "number" / f".{key}{PARTIAL}" for key in ("dead", "alive"))
    dead.mkdir(parents=True)
    alive.mkdir()
    (tmp_path / LOCKS).mkdir()
    with FileLock(tmp_path / LOCKS / "alive"):
        Store(tmp_path, CPU)
    assert not dead.exists()
    assert alive.exists()


def test_two_at_once_compute_a_stage_once(tmp_path: Path) -> None:
    made: list[int] = []
    both = threading.Barrier(2)

    def compute(folder: Path) -> None:
        made.append(1)
        time.sleep(0.3)
        (folder / "value").write_text("7")

    def take() -> str:
        both.wait()
        return (Store(tmp_path, CPU).made("number", "key", compute) / "value").read_text()

    with ThreadPoolExecutor(2) as pool:
        values = [future.result() for future in [pool.submit(take), pool.submit(take)]]
    assert (values, made) == (["7", "7"], [1])


@pytest.mark.parametrize("damage", ["truncated", "altered", "removed", "unsealed"])
def test_a_damaged_artefact_is_made_again(tmp_path: Path, damage: str) -> None:
    stage = _Number(3)
    place = Store(tmp_path, CPU).folder(stage)
    if damage == "truncated":
        (place / "value").write_text("")
    elif damage == "altered":
        (place / "value").write_text("4")
    elif damage == "removed":
        (place / "value").unlink()
    else:
        (place / SEAL).write_text('{"value"')
    store = Store(tmp_path, CPU)
    assert (store.folder(stage) / "value").read_text() == "3"
    assert store.computed == ["number"]


@pytest.mark.parametrize(
    "complaint", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("I/O error: (os error 28)")]
)
def test_a_full_disk_is_no_failed_stage(tmp_path: Path, complaint: Exception) -> None:
    def compute(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise complaint

    with pytest.raises(DiskFullError, match=r"the disk is full: no space left for .*key; finished cells are stored"):
        Store(tmp_path, CPU).made("number", "key", compute)
    assert list((tmp_path / "number").iterdir()) == []
    assert Store(tmp_path, CPU).made("number", "key", lambda folder: None).is_dir()


def test_an_array_grows_on_disk(tmp_path: Path) -> None:
    rows = torch.arange(24.0).view(6, 2, 2)
    file = ArrayFile(tmp_path / "grown.npy", (2, 2), "float32")
    for chunk in rows.split(4):
        file.add(chunk)
    assert torch.equal(file.tensor(), rows)
    assert np.array_equal(np.load(tmp_path / "grown.npy"), rows.numpy())
    empty = ArrayFile(tmp_path / "empty.npy", (2, 2), "float32")
    assert empty.tensor().shape == (0, 2, 2)


def test_mirrored_photos_stand_behind_all_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitleak.experiments.stages.arrays.MIRRORED_AT_A_TIME", 2)
    photos = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    file = MirroredFile(tmp_path / "photos.npy", (3, 4, 4), "uint8")
    for chunk in photos.split(2):
        file.add(chunk)
    assert torch.equal(file.tensor(), torch.cat([photos, photos.flip(3)]))


@pytest.mark.parametrize(("scale", "dtype"), [(1.0, torch.float16), (1e6, torch.float32)])
def test_features_are_kept_in_half_precision_where_they_fit(tmp_path: Path, scale: float, dtype: torch.dtype) -> None:
    class Scaled(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return scale * images.mean(1, keepdim=True)

    photos = torch.randint(0, 256, (70, 3, 8, 8), dtype=torch.uint8)
    features = write_features(tmp_path / "features.npy", Scaled(), photos, Store(tmp_path, CPU))
    assert features.dtype == dtype
    torch.testing.assert_close(features.float(), Scaled()(to_float(photos)), rtol=6e-4, atol=0)


def _made(store: Store, key: str) -> Path:
    """Ten thousand bytes, beside which a seal is little."""

    def compute(folder: Path) -> None:
        (folder / "value").write_bytes(bytes(10_000))

    with store.task():
        place = store.made("number", key, compute)
    time.sleep(0.02)  # later uses have later times
    return place


def test_what_was_used_least_recently_goes_first(tmp_path: Path) -> None:
    store = Store(tmp_path, CPU, limit=25_000)
    first, second = _made(store, "first"), _made(store, "second")
    assert _made(store, "first") == first
    third = _made(store, "third")
    assert [place.exists() for place in (first, second, third)] == [True, False, True]
    assert _made(store, "second").exists()


def test_what_a_running_task_has_used_stays(tmp_path: Path) -> None:
    said: list[str] = []
    store, other = Store(tmp_path, CPU, said.append, limit=25_000), Store(tmp_path, CPU)
    old = _made(other, "old")
    with other.task():
        time.sleep(0.02)
        used = [other.made("number", key, lambda folder: None) for key in ("a", "b")]
        for place in used:
            (place / "value").write_bytes(bytes(20_000))
        _made(store, "new")
        assert all(place.exists() for place in used)
        assert "more than its limit" in said[-1]
    assert not old.exists()
    _made(store, "newer")
    assert not any(place.exists() for place in used)


def test_the_mark_of_a_killed_task_does_not_count(tmp_path: Path) -> None:
    store = Store(tmp_path, CPU, limit=15_000)
    first = _made(store, "first")
    os.utime(tmp_path / "number" / "first" / SEAL, (1, 1))
    (tmp_path / "running").mkdir(exist_ok=True)
    (tmp_path / "running" / "1-1").touch()
    os.utime(tmp_path / "running" / "1-1", (0, 0))
    _made(store, "second")
    assert not first.exists()


def test_writes_are_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cells" / "one.json"
    write_atomically(path, "old")

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, "new")
    assert path.read_text() == "old"
