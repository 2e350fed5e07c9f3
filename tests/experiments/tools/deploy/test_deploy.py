"""A defence on its way to a device: both halves run elsewhere, with the same answers and the same bytes."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from deployed import CHAIN, FIVE, NOISE, QUANTISED, deployment, run_in, store_of
from terminal import Terminal

from splitleak.defenses.fitting import SplitModel
from splitleak.experiments.planning.plan import Plan
from splitleak.experiments.results.load import run_seal
from splitleak.experiments.tools.deploy import runtime
from splitleak.experiments.tools.deploy.card import card_text
from splitleak.experiments.tools.deploy.runtime import Cloud
from splitleak.experiments.tools.finished import Setting
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.tasks.detection import Detection
from splitleak.victims.tensors import to_float

FRESH = """
import sys
import numpy as np
from runtime import Cloud, Edge

photos, seed = np.load("photos.npy"), int(sys.argv[1])
edge, cloud = Edge(".", seed), Cloud(".")
packed = [edge.send(photo) for photo in photos]
np.save("answers.npy", np.stack([cloud.answer(one) for one in packed]))
open("packed.bin", "wb").write(b"".join(packed))
loaded = [name for name in sys.modules if name.split(".")[0] in ("splitleak", "torchvision", "safetensors")]
assert not loaded, loaded
"""
"""What a process does that has the deployed folder, torch and numpy, and nothing of this project."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("run")
    yield run_in(folder)
    shutil.rmtree(folder)


def fresh(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python there, with no way to this project."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


QUICK = (CHAIN, QUANTISED)
"""The others are left to the slow tests: each deployment takes seconds."""


@pytest.mark.parametrize(
    "label", [label if label in QUICK else pytest.param(label, marks=pytest.mark.slow) for label in FIVE]
)
def test_a_fresh_process_has_the_same_answers_and_bytes(run: Path, label: str, tmp_path: Path) -> None:
    said: list[str] = []
    folder = tmp_path / "device"
    deployment(run, label).write(folder, said.append)
    setting = Setting.of(run, label)
    model, photos = setting.protect.load(store_of(run)), setting.protect.images("target", store_of(run))[:4]
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(11)
        releases = [model.edge(to_float(photo)) for photo in photos.split(1)]
        answers = torch.cat([model.tail(model.channel.receive(release)) for release in releases])
    np.save(folder / "photos.npy", photos.numpy())
    (folder / "use.py").write_text(FRESH)
    done = fresh(folder, "use.py", "11")
    assert done.returncode == 0, done.stderr
    assert (folder / "packed.bin").read_bytes() == b"".join(model.channel.pack(one[0]) for one in releases)
    assert np.abs(np.load(folder / "answers.npy") - answers.numpy()).max() < 1e-6
    checked = fresh(folder, "runtime.py")
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.count("bytes the same") == 3
    assert [line.split(":")[0] for line in said] == ["edge.pt2", "edge.onnx", "cloud.pt2", "cloud.onnx"]
    assert not any("left out" in line for line in said)
    random = label in (NOISE, CHAIN)
    assert all(("drawn outside" in line) == (random and line.startswith("edge")) for line in said)


def test_fresh_random_numbers_for_each_photo(run: Path, tmp_path: Path) -> None:
    deployment(run, NOISE).write(tmp_path / "device", lambda line: None)
    code = "from runtime import *; e = Edge('.'); p = np.zeros((3, 32, 32), np.uint8); print(e.send(p) == e.send(p))"
    assert fresh(tmp_path / "device", "-c", code).stdout == "False\n"


def test_a_damaged_program_and_other_vectors_are_noticed(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "device"
    deployment(run, QUANTISED).write(folder, lambda line: None)
    with np.load(folder / "vectors.npz") as stored:
        vectors = dict(stored)
    np.savez(folder / "vectors.npz", **{**vectors, "answer": vectors["answer"] + 0.01})
    done = fresh(folder, "runtime.py")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: vector 0: the answer is off by 0.01")
    content = bytearray((folder / "edge.pt2").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "edge.pt2").write_bytes(content)
    assert "edge.pt2 is not the file that was deployed" in fresh(folder, "runtime.py").stderr


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no deployment at"),
        ("[1]", "no deployment at"),
        ('{"format": 2}', "is of format 2"),
        ('{"format": 0}', "not written to its end"),
        ('{"format": 1}', "was altered: it does not say classes"),
    ],
)
def test_a_description_that_is_none_is_refused_in_one_line(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "deployment.json").write_text(text)
    with pytest.raises(ValueError, match=complaint):
        Cloud(tmp_path)


def test_a_program_that_torch_cannot_load_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "cloud.pt2").write_bytes(b"of another torch")
    described = dict.fromkeys(runtime.KEYS) | {
        "format": 1,
        "files": {"cloud.pt2": sha256(b"of another torch").hexdigest()},
    }
    (tmp_path / "deployment.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match=r"cannot load .*cloud\.pt2"):
        Cloud(tmp_path)


def interrupted(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_a_deployment_that_was_interrupted_is_none_and_is_written_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed = deployment(run, QUANTISED)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", interrupted)
        with pytest.raises(KeyboardInterrupt):
            deployed.write(tmp_path / "device", lambda line: None)
    with pytest.raises(ValueError, match="not written to its end"):
        Cloud(tmp_path / "device")
    deployed.write(tmp_path / "device", lambda line: None)
    assert Cloud(tmp_path / "device").draws == []


def test_the_card_says_what_was_measured(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "device"
    deployment(run, NOISE).write(folder, lambda line: None)
    card, text = json.loads((folder / "card.json").read_text()), (folder / "CARD.md").read_text()
    row = next(row for row in Setting.of(run, NOISE).results().rows if row.defence.label == NOISE)
    assert card["run"]["seal"] == run_seal(run)
    assert card["measured"]["bytes"] == row.bytes
    scores = {one["attack"]: one["scores"]["psnr"]["mean"] for one in card["measured"]["attacks"]}
    assert scores == {column: group.scores["psnr"].mean for column, group in row.groups.items()}
    assert card["measured"]["guarantees"][0]["noise_std"] > 0
    assert text == card_text(card)
    for told in (run_seal(run), "ridge", f"{scores['ridge']:.1f} dB", f"{row.utility.mean:.1%}"[:-1], "noise std"):  # type: ignore[union-attr]
        assert told in text, told


def test_a_changed_result_changes_the_seal_of_the_run(run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "tiny"
    shutil.copytree(run, copied)
    assert run_seal(copied) == run_seal(run)
    record = next((copied / "cells").glob("*.json"))
    record.write_text(record.read_text().replace('"seed": 0', '"seed": 1'))
    assert run_seal(copied) != run_seal(run)


def test_a_network_that_does_not_classify_says_why(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plan, "task", Detection())
    with pytest.raises(InvalidInputError, match="its network predicts by detection"):
        deployment(run, NOISE)


def test_what_cannot_be_deployed_says_why(
    run: Path, terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInputError, match="several servers that do not talk"):
        deployment(run, "multi_server")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    monkeypatch.setattr(SplitModel, "cpu", lambda model: pytest.fail("a folder is looked at before anything is done"))
    for arguments, hint in (
        ([str(run), "--defense", "gausian_noise", "--out", "d"], "did you mean gaussian_noise sigma=0.5?"),
        ([str(run.parent), "--defense", "none", "--out", "d"], "no run at"),
        ([str(run), "--defense", "none", "--out", str(tmp_path / "mine")], "holds other files"),
        ([str(run), "--defense", "none", "--out", str(tmp_path / "mine" / "thesis.txt")], "cannot be written"),
        ([str(run), "--defense", "multi_server", "--out", "d"], "cannot be deployed"),
    ):
        assert hint in terminal.refusal("deploy", *arguments)


def test_without_the_extra_onnx_is_left_out_and_said(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("splitleak.experiments.tools.deploy.onnx.find_spec", lambda name: None)
    said: list[str] = []
    deployment(run, "none").write(tmp_path / "device", said.append)
    assert "edge.onnx: left out: needs onnx, onnxruntime, onnxscript: pip install 'splitleak[deploy]'" in said
    assert fresh(tmp_path / "device", "runtime.py").returncode == 0
