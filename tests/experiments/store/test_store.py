"""Stage results: found again exactly when nothing that they depend on has changed, and whole or not at all."""

import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from filelock import FileLock

from splitleak.attacks.ridge import Ridge
from splitleak.experiments import store as store_module
from splitleak.experiments.stages.data import ArrayFile, MirroredFile
from splitleak.experiments.stages.victim import write_features
from splitleak.experiments.store.integrity import SEAL, DiskFullError, write_atomically
from splitleak.experiments.store.key import Stage, source_digest
from splitleak.experiments.store.store import LOCKS, PARTIAL, StageFailedError, Store
from splitleak.victims.settings import Settings
from splitleak.victims.tensors import to_float

CPU = torch.device("cpu")


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


def test_keys_follow_settings_upstream_and_code(monkeypatch: pytest.MonkeyPatch) -> None:
    key = _Doubled(_Number(3), Ridge()).key
    assert key == _Doubled(_Number(3), Ridge()).key
    assert key != _Doubled(_Number(4), Ridge()).key
    assert key != _Doubled(_Number(3), Ridge(window=3)).key
    monkeypatch.setattr(store_module, "source_digest", lambda module: "other code")
    assert key != _Doubled(_Number(3), Ridge()).key


def test_the_source_digest_follows_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "victims_copy"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "low.py").write_text("value = 1\n")
    (package / "high.py").write_text("from victims_copy import low\nprint(low.value)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(store_module, "PACKAGES", ("victims_copy",))

    def forget() -> None:
        source_digest.cache_clear()
        store_module._source.cache_clear()

    forget()
    before = source_digest("victims_copy.high")
    (package / "low.py").write_text("value = 2\n")
    forget()
    assert source_digest("victims_copy.high") != before
    forget()


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
    monkeypatch.setattr("splitleak.experiments.stages.data.MIRRORED_AT_A_TIME", 2)
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
    """A thousand bytes."""

    def compute(folder: Path) -> None:
        (folder / "value").write_bytes(bytes(1000))

    with store.task():
        place = store.made("number", key, compute)
    time.sleep(0.02)  # later uses have later times
    return place


def test_what_was_used_least_recently_goes_first(tmp_path: Path) -> None:
    store = Store(tmp_path, CPU, limit=2500)  # a seal takes some bytes too
    first, second = _made(store, "first"), _made(store, "second")
    assert _made(store, "first") == first
    third = _made(store, "third")
    assert [place.exists() for place in (first, second, third)] == [True, False, True]
    assert _made(store, "second").exists()


def test_what_a_running_task_has_used_stays(tmp_path: Path) -> None:
    said: list[str] = []
    store, other = Store(tmp_path, CPU, said.append, limit=2500), Store(tmp_path, CPU)
    old = _made(other, "old")
    with other.task():
        time.sleep(0.02)
        used = [other.made("number", key, lambda folder: None) for key in ("a", "b")]
        for place in used:
            (place / "value").write_bytes(bytes(2000))
        _made(store, "new")
        assert all(place.exists() for place in used)
        assert "more than its limit" in said[-1]
    assert not old.exists()
    _made(store, "newer")
    assert not any(place.exists() for place in used)


def test_the_mark_of_a_killed_task_does_not_count(tmp_path: Path) -> None:
    store = Store(tmp_path, CPU, limit=1500)
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
