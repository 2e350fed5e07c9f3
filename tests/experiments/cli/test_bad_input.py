"""Bad input is one line and exit code 2: before anything runs, without a traceback, leaving nothing behind."""

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from terminal import Terminal

from splitleak.experiments.cli.app import main
from splitleak.experiments.store.store import LOCKS

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")

VICTIM = {"model": '"squeezenet1_1"', "cut": '"features.3"', "size": "32", "data": '"faces"'}
GOOD = {
    "victim": VICTIM,
    "parts": {"train": "4", "validation": "2", "target": "2"},
    "attacker": {"auxiliary": "4"},
}
PLUGINS = '\n[[defenses]]\nname = "none"\n[[attacks]]\nname = "mean_image"\n'


def plan(head: str = "", plugins: str = PLUGINS, **changes: dict[str, str]) -> str:
    """A plan of seconds with some settings changed."""
    tables = [
        "\n".join([f"[{name}]", *(f"{key} = {value}" for key, value in {**table, **changes.get(name, {})}.items())])
        for name, table in GOOD.items()
    ]
    return "\n".join([head, *tables]) + plugins


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("SPLITLEAK_DATA", "SPLITLEAK_WEIGHTS"):
        monkeypatch.delenv(variable, raising=False)


def defense(lines: str) -> str:
    return f'\n[[defenses]]\n{lines}\n[[attacks]]\nname = "mean_image"\n'


def test_the_plan_that_is_spoilt_here_is_good(terminal: Terminal) -> None:
    """Otherwise every refusal below might have another reason."""
    Path("good.toml").write_text(plan())
    code, out, error = terminal("run", "good.toml", "--out", "out", "--dry-run")
    assert (code, error) == (0, "")
    assert "1 of 1 cells to compute" in out


@pytest.mark.parametrize(
    ("text", "hints"),
    [
        (plan(plugins=defense('name = "gausian_noise"')), ["gausian_noise", "did you mean gaussian_noise"]),
        (plan(plugins=defense('name = "channel_subset"\nkep = 0.5')), ["'kep'", "did you mean keep"]),
        (plan(plugins=defense('name = "channel_subset"\nkeep = "half"')), ["channel_subset.keep = 'half'", "number"]),
        (plan(plugins=defense('name = "channel_subset"\nkeep = 0')), ["channel_subset.keep = 0", "greater than 0"]),
        (plan(plugins=defense('name = "channel_subset"\nkeep = []')), ["channel_subset.keep = []", "at least one"]),
        (plan(plugins=defense('name = "gaussian_noise"\nsigma = -1.0')), ["gaussian_noise.sigma = -1.0"]),
        (plan(plugins='\n[[attacks]]\nname = "mean_image"\n'), ["[[defenses]]"]),
        (plan("victm = 3"), ["'victm'", "did you mean victim"]),
        (plan('name = "cache"'), ["'cache'", "choose another"]),
        (plan('name = "a/b"'), ["'a/b'", "names a folder"]),
        (plan(victim={"siez": "64"}), ["'siez'", "did you mean size"]),
        (plan(victim={"size": '"64"'}), ["victim.size = '64'", "integer"]),
        (plan(victim={"size": "8"}), ["victim.size = 8", "16"]),
        (plan(victim={"model": '"squeezenet1_2"'}), ["unknown network", "squeezenet1_1"]),
        (plan(victim={"model": '"resnet18"', "cut": '"layer1.0.conv1"'}), ["skip connection", "maxpool and"]),
        (plan(victim={"cut": '"feature.3"'}), ["unknown cut", "features.3"]),
        (plan(victim={"task": '"maks"'}), ["unknown task 'maks'", "did you mean mask"]),
        (plan(victim={"weights": '"absent.pth"'}), ["weights file not found", "absent.pth", "SPLITLEAK_WEIGHTS"]),
        (plan(victim={"weights": '"IMAGENET1K_V9"'}), ["unknown weights", "IMAGENET1K_V1"]),
        (plan(victim={"data": '"face"'}), ["unknown data set 'face'", "did you mean faces"]),
        (plan(victim={"data": '{ name = "folder", path = "absent" }'}), ["not found", "absent", "SPLITLEAK_DATA"]),
        (plan(victim={"data": '{ name = "folder" }'}), ["folder needs the setting 'path'"]),
        (plan(parts={"train": "0"}, victim={"task": '"mask"'}), ["parts.train = 0"]),
        (plan(parts={"target": "0"}), ["parts.target = 0"]),
        ("[victim\nsize = 64", ["bad.toml is no TOML", "line 1"]),
        ("", ["at least one [[defenses]]"]),
    ],
)  # fmt: skip
def test_a_bad_plan_is_one_line(text: str, hints: list[str], terminal: Terminal) -> None:
    line = terminal.refused_plan(text)
    for hint in hints:
        assert hint in line


def test_a_plan_that_is_no_text_is_one_line(terminal: Terminal) -> None:
    Image.new("RGB", (8, 8)).save("picture.png")
    Path("picture.png").rename("picture.toml")
    assert "picture.toml is no TOML" in terminal.refusal("run", "picture.toml", "--out", "out")
    assert not Path("out").exists()


def test_weights_of_another_network_are_one_line(terminal: Terminal) -> None:
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, "w.safetensors")
    line = terminal.refused_plan(plan(victim={"weights": '"w.safetensors"'}))
    assert "w.safetensors are weights of another network" in line
    assert "conv1.weight" in line


def test_damaged_weights_are_one_line(terminal: Terminal) -> None:
    Path("w.safetensors").write_bytes(b"no tensors")
    assert "no readable weights file" in terminal.refused_plan(plan(victim={"weights": '"w.safetensors"'}))


def photos(count: int) -> None:
    for number in range(count):
        folder = Path("photos") / ("ab"[number % 2])
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (number * 9, 99, 50)).save(folder / f"{number}.png")


FOLDER = {"data": '{ name = "folder", path = "photos" }'}


def test_fewer_photos_than_the_parts_need_are_one_line(terminal: Terminal) -> None:
    photos(11)
    line = terminal.refused_plan(plan(victim=FOLDER))
    assert "too few photos" in line
    assert "train 4, auxiliary 4, validation 2, target 2" in line
    assert "11 photos" in line


def test_a_folder_without_photos_is_one_line(terminal: Terminal) -> None:
    Path("photos").mkdir()
    Path("photos/readme.txt").write_text("none yet")
    assert "no photos in" in terminal.refused_plan(plan(victim=FOLDER))


def test_a_folder_that_is_a_file_is_one_line(terminal: Terminal) -> None:
    Path("photos").write_text("not a folder")
    assert "photos is no folder" in terminal.refused_plan(plan(victim=FOLDER))


def test_a_file_that_is_no_photo_is_one_line(terminal: Terminal) -> None:
    photos(12)
    Path("photos/a/0.png").write_text("this is no image")
    Path("bad.toml").write_text(plan(victim=FOLDER))
    line = terminal.refusal("run", "bad.toml", "--out", "out")
    assert "a/0.png" in line
    assert 'on_corrupt = "skip"' in line
    # photos are decoded into the cache, so its folder is there, and its locks; a run is not, and nothing half done is
    assert [path for path in Path("out").rglob("*") if path.is_file() and path.parent.name != LOCKS] == []
    assert not Path("out/bad").exists()


def test_two_plugins_of_one_name_are_one_line(terminal: Terminal) -> None:
    Path("mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from splitleak.defenses.base import Defense\n"
        "@dataclass(frozen=True)\n"
        "class GaussianNoise(Defense):\n"
        '    paper = "none"\n'
    )
    line = terminal.refused_plan(plan(plugins=defense('name = "mine.py:GaussianNoise"')))
    assert "two plugins are called 'gaussian_noise'" in line
    assert "mine.py" in line


def test_a_plugin_file_without_the_class_is_one_line(terminal: Terminal) -> None:
    Path("mine.py").write_text("number = 3\n")
    assert "no defence at all" in terminal.refused_plan(plan(plugins=defense('name = "mine.py:Thing"')))


@pytest.mark.parametrize("name", ["[red]", "[/red]", "[link=x]", "plans [/x]"])
def test_brackets_in_a_name_are_printed_as_they_are(name: str, terminal: Terminal) -> None:
    """They are markup to the library that prints."""
    assert f"{name}.toml" in terminal.refusal("run", f"{name}.toml")


@pytest.mark.parametrize(
    ("arguments", "hints"),
    [
        (["run", "quik"], ["unknown plan 'quik'", "did you mean quick"]),
        (["run", "absent.toml"], ["no plan at", "absent.toml"]),
        (["run", "good.toml", "--colour"], ["--colour"]),
        (["run", "good.toml", "--device", "tpu"], ["tpu", "cuda"]),
        (["run", "good.toml", "--retry", "all"], ["all", "failed"]),
        (["run"], ["PLAN"]),
        (["run", "good.toml", "more.toml"], ["more.toml"]),
        (["rnu", "quick"], ["rnu", "run"]),
        (["report", "absent"], ["no run at", "absent"]),
        (["compare", "absent", "missing"], ["no run at", "absent", "runs/quick"]),
        (["compare", "absent"], ["requires an argument"]),
        (["list", "atacks"], ["atacks", "attacks"]),
        (["show", "rigde"], ["unknown plugin 'rigde'", "did you mean ridge"]),
        (["cuts", "resnet19"], ["unknown network 'resnet19'", "resnet18"]),
        (["cuts", "resnet18", "--size", "4"], ["size = 4", "16"]),
        (["cuts", "resnet18", "--size", "big"], ["big", "int"]),
        (["cuts", "vit_b_32", "--size", "50"], ["50 px"]),
        (["check", "absent.py"], ["no plugin file at", "absent.py"]),
        (["check", "empty.py"], ["empty.py", "no attack, no defence and no task"]),
    ],
)
def test_a_bad_command_line_is_one_line(arguments: list[str], hints: list[str], terminal: Terminal) -> None:
    Path("good.toml").write_text(plan())
    Path("empty.py").touch()
    before = {*Path().rglob("*")}
    line = terminal.refusal(*arguments)
    for hint in hints:
        assert hint in line
    assert {*Path().rglob("*")} - before <= {Path("__pycache__"), *Path("__pycache__").glob("*")}


@pytest.mark.parametrize(
    ("listed", "hints"),
    [
        ('["none-yet"]', ["first run has no finished cell", "splitleak run"]),
        ("{", ["cells.json is no list of cells", "run the plan again"]),
    ],
)
def test_runs_without_results_are_one_line(listed: str, hints: list[str], terminal: Terminal) -> None:
    Path("a").mkdir()
    Path("a/cells.json").write_text(listed)
    line = terminal.refusal("compare", "a", "a", "--csv", "changes.csv")
    for hint in hints:
        assert hint in line
    assert not Path("changes.csv").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_one_line(terminal: Terminal) -> None:
    Path("good.toml").write_text(plan())
    assert "no CUDA device" in terminal.refusal("run", "good.toml", "--device", "cuda", "--out", "out")
    assert not Path("out").exists()


def test_a_bug_keeps_its_traceback(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path) -> None:
        raise KeyError("bug")

    monkeypatch.setattr("splitleak.experiments.cli.run.read_study", broken)
    monkeypatch.setattr(sys, "argv", ["splitleak", "run", "quick"])
    with pytest.raises(KeyError, match="bug"):
        main()


@pytest.mark.parametrize("out", ["afile", "afile/below"])
def test_a_file_in_the_way_of_the_runs_is_named(out: str, terminal: Terminal) -> None:
    Path("good.toml").write_text(plan())
    Path("afile").touch()
    code, _, error = terminal("run", "good.toml", "--out", out)
    assert code == 2
    assert "is a file; name a folder" in " ".join(error.split())
