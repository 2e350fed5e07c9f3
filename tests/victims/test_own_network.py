"""A network from a user's own file, wherever a network is named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import MEAN, NONE, RIDGE, run_plan

from splitleak.experiments.cells.fingerprints import model_fingerprint, weights_fingerprint
from splitleak.experiments.planning.plan import read_plan
from splitleak.experiments.run.check import check_plan
from splitleak.victims.cuts import find_cuts, split
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.models import IMAGENET_MEAN, forget, make_network

NET = """
from torch import nn
from {layers} import block
from splitleak.victims.models import Network

class Net(nn.Module):
    def __init__(self, classes=5):
        super().__init__()
        self.stem, self.end, self.head = block(3, 8), block(8, 16), nn.Linear(16, classes)

    def forward(self, x):
        return self.head(self.end(self.stem(x)).mean((2, 3)))

def make_model(classes):
    return Network(Net(classes), mean=(0.5,) * 3, std=(0.25,) * 3)

def plain():
    return Net()

def three():
    return 3

def deep(depth):
    return Net(depth)

def pair():
    class Pair(Net):
        def forward(self, x):
            return super().forward(x), x
    return Pair()

def restless():
    import random
    net = Net()
    net.head.bias.data[0] = random.random()
    return net
"""
LAYERS = """
from torch import nn

def block(into, out):
    return nn.Sequential(nn.Conv2d(into, out, 3, 2, 1), nn.ReLU(inplace=True))
"""
PLAN = """
name = "own"
[victim]
model = "{model}"
cut = "stem"
data = {{ name = "faces", photos = 200 }}
size = 32
task = "mask"
epochs = 1
[parts]
train = 32
validation = 8
target = 8
[defender]
epochs = 1
[attacker]
auxiliary = 16
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a network and a module beside it, whose name no other test has."""
    layers = f"layers_of_{tmp_path.name}"
    (tmp_path / "net.py").write_text(NET.format(layers=layers))
    (tmp_path / f"{layers}.py").write_text(LAYERS)
    return tmp_path


def test_the_function_says_classes_and_normalisation(folder: Path) -> None:
    network = make_network(f"{folder}/net.py:make_model", 7, 32)
    assert (network.mean, network.std) == ((0.5,) * 3, (0.25,) * 3)
    assert network.module(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    assert not network.module.training
    plain = make_network(f"{folder}/net.py:plain", 7, 32)
    assert plain.mean == IMAGENET_MEAN
    assert {"stem", "end", "mean"} <= {cut.name for cut in find_cuts(plain, 32)}


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("net.py", "functions of this file: Net, make_model, plain"),
        ("net.py:make_modl", "functions of this file: Net, make_model, plain"),
        ("net.py:three", "returned int"),
        ("net.py:deep", "needs 'depth'"),
        ("absent.py:make_model", "no model file"),
    ],
)
def test_what_is_no_network_is_refused(folder: Path, name: str, complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        make_network(f"{folder}/{name}", 2, 32)


def test_a_network_with_two_outputs_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidInputError, match="logits alone"):
        find_cuts(make_network(f"{folder}/net.py:pair", 2, 32), 32)


def test_an_unknown_cut_names_the_nearest(folder: Path) -> None:
    with pytest.raises(InvalidInputError, match="did you mean stem"):
        split(make_network(f"{folder}/net.py:plain", 2, 32), "net.py:plain", "sten", 32)


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    torch.save(make_network("squeezenet1_1", 2, 32).module.state_dict(), folder / "other.pth")
    with pytest.raises(InvalidInputError, match="weights of another network"):
        make_network(f"{folder}/net.py:plain", 2, 32, str(folder / "other.pth"))
    own = make_network(f"{folder}/net.py:plain", 2, 32)
    torch.save(own.module.state_dict(), folder / "own.pth")
    loaded = make_network(f"{folder}/net.py:plain", 2, 32, str(folder / "own.pth"))
    assert all(map(torch.equal, own.module.state_dict().values(), loaded.module.state_dict().values()))


def test_the_fingerprint_changes_with_the_network_alone(folder: Path) -> None:
    model_fingerprint.cache_clear()
    first = model_fingerprint(f"{folder}/net.py:plain", 32)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    for change in ("", "padding=1, dilation=2", "# other weights"):
        copy = elsewhere / f"net{len(change)}"
        copy.mkdir()
        text = (folder / "net.py").read_text()
        if change.startswith("#"):
            text = text.replace("return Net()", "import torch; torch.rand(1); return Net()")
        elif change:
            (copy / f"other_{folder.name}.py").write_text(LAYERS.replace("3, 2, 1", f"3, 2, {change}"))
            text = text.replace(f"layers_of_{folder.name}", f"other_{folder.name}")
        (copy / "net.py").write_text(text)
        found = model_fingerprint(f"{copy}/net.py:plain", 32)
        assert (found == first) is not bool(change)
    assert model_fingerprint("resnet18", 32) == "resnet18"


def test_a_network_that_differs_each_time_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidInputError, match="other weights each time"):
        model_fingerprint(f"{folder}/net.py:restless", 32)


def test_nothing_of_a_training_is_left_to_an_adversary_s_own_copy(folder: Path) -> None:
    module = make_network("mobilenet_v3_small", 2, 32).module
    module.register_parameter("scale", torch.nn.Parameter(torch.arange(9.0)))
    before = {name: value.clone() for name, value in module.named_parameters()}
    torch.manual_seed(1)
    forget(module)
    after = dict(module.named_parameters())
    random = [name for name, value in before.items() if value.std() > 0]
    assert "scale" in random
    assert not any(torch.equal(before[name], after[name]) for name in random)
    assert after["scale"].sort().values.equal(before["scale"])


def test_in_a_plan_the_file_is_looked_for_from_the_plan_s_folder(folder: Path) -> None:
    (folder / "plan.toml").write_text(PLAN.format(model="net.py:make_model") + NONE + MEAN)
    plan = read_plan(folder / "plan.toml")
    assert plan.model == f"{folder}/net.py:make_model"
    check_plan(plan)
    (folder / "plan.toml").write_text(PLAN.format(model="net.py:plain") + NONE + MEAN)
    with pytest.raises(InvalidInputError, match="the task has 2 classes"):
        check_plan(read_plan(folder / "plan.toml"))


@pytest.mark.slow
def test_worker_processes_find_it_and_agree_with_the_serial_run(folder: Path) -> None:
    text = PLAN.format(model="net.py:make_model") + NONE + MEAN + RIDGE
    results, _, _ = run_plan(text, folder)
    assert {result["status"] for result in results} == {"ok"}
    assert results[0]["victim"]["model"] == "net.py:make_model"
    arguments = [str(folder / "plan.toml"), "--out", str(folder / "out"), "--executor", "processes", "--workers", "1"]
    command = [sys.executable, "-m", "splitleak.experiments", "run", *arguments]
    said = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "2 computed, 0 already there" in said


def test_weights_are_known_by_their_content(tmp_path: Path) -> None:
    (first := tmp_path / "first.pth").write_bytes(b"weights")
    before = weights_fingerprint(str(first))
    (tmp_path / "second.pth").write_bytes(b"weights")
    assert weights_fingerprint(str(tmp_path / "second.pth")) == before
    first.write_bytes(b"other weights")
    assert weights_fingerprint(str(first)) != before
    assert weights_fingerprint("IMAGENET1K_V2") == "IMAGENET1K_V2"
