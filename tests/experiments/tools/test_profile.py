"""The leakage profile, on a small network and few faces."""

import csv
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file

from splitleak.experiments.cli.app import main
from splitleak.experiments.cli.display import Display
from splitleak.experiments.planning.names import CACHE
from splitleak.experiments.planning.plan import read_plan
from splitleak.experiments.report.profile import MeasuredProfile, bytes_text, terminal_profile, write_profile
from splitleak.experiments.store.store import Store
from splitleak.experiments.tools.profile import LOCK, SCRATCH_FOLDER, Profile, ProfileRequest, block_ends, chosen_cuts
from splitleak.experiments.tools.request import data_setting
from splitleak.victims.cuts import find_cuts
from splitleak.victims.models import make_network

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")

MODEL = "mobilenet_v3_small"
TINY = {"size": 32, "auxiliary": 96, "target": 16, "data": '{ name = "faces", photos = 400 }'}
CUTS = ["features.0", "features.3", "features.8"]
SHORT = {"size": 32, "auxiliary": 16, "target": 4, "data": '{ name = "faces", photos = 60 }'}
"""Of seconds, for what is computed more than once."""


def _profile(
    out: Path, told: Callable[[str], None] = lambda text: None, **changes: object
) -> tuple[Profile, Store, Display]:
    request = ProfileRequest(**{"model": MODEL, **TINY, "cuts": CUTS, **changes})  # type: ignore[arg-type]
    profile = Profile.of(request, out)
    store = Store(out / CACHE, torch.device("cpu"), told)
    with Display(Console(quiet=True), profile.cell_count) as display:
        profile.run(store, False, display)
    return profile, store, display


@pytest.fixture(autouse=True, scope="module")
def _short_training() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("splitleak.experiments.tools.profile.DECODER_STEPS", 12)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Profile, MeasuredProfile]:
    out = tmp_path_factory.mktemp("profile")
    profile, store, display = _profile(out)
    assert (display.computed, display.failed, store.computed) == (9, 0, ["data"])
    measured = profile.measured()
    write_profile(measured, profile.folder)
    return out, profile, measured


def test_the_csv_has_a_row_per_cut(whole: tuple[Path, Profile, MeasuredProfile]) -> None:
    _, profile, _ = whole
    with (profile.folder / "profile.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["cut"] for row in rows] == CUTS
    assert [row["release"] for row in rows] == ["16x16x16", "24x4x4", "48x2x2"]
    assert [int(row["bytes"]) for row in rows] == [16 * 16 * 16 * 4, 24 * 4 * 4 * 4, 48 * 2 * 2 * 4]
    shares = [float(row["edge_share"]) for row in rows]
    assert shares == sorted(shares)
    assert {row["n"] for row in rows} == {"16"}
    for row in rows:
        assert row["strongest"] in ("ridge", "decoder")
        for attack in ("mean_image", "ridge", "decoder"):
            for metric in ("psnr", "ssim"):
                low, mean, high = (float(row[f"{attack}_{metric}_{end}"]) for end in ("low", "mean", "high"))
                assert low <= mean <= high


def test_shallow_cuts_leak_more(whole: tuple[Path, Profile, MeasuredProfile]) -> None:
    _, _, measured = whole
    scores = [cut.score(cut.strongest, "psnr") for cut in measured.cuts]
    floor = measured.cuts[0].score("mean_image", "psnr")
    assert all(scores)
    assert floor is not None
    assert scores[0].low > scores[-1].high  # type: ignore[union-attr]
    assert scores[0].low > floor.high  # type: ignore[union-attr]


def test_the_figures_are_drawn(whole: tuple[Path, Profile, MeasuredProfile]) -> None:
    _, profile, _ = whole
    assert Image.open(profile.folder / "profile.png").width > 500
    assert (profile.folder / "profile.svg").read_text().lstrip().startswith("<?xml")


def test_a_result_tells_of_the_photos_too(whole: tuple[Path, Profile, MeasuredProfile]) -> None:
    _, _, measured = whole
    for record in measured.cuts[0].results.cells:
        stages = {label for made in record.made for label in made.stages}
        assert stages >= {"data", "victim", "protect", "features", "attack", "judge"}


def test_the_terminal_table_names_every_cut_and_the_floor(whole: tuple[Path, Profile, MeasuredProfile]) -> None:
    _, _, measured = whole
    console = Console(width=100, record=True, file=StringIO())
    console.print(terminal_profile(measured))
    text = console.export_text()
    assert all(name in text for name in (*CUTS, "ridge", "decoder", "16.4 kB", "mean image"))


def test_a_second_call_computes_nothing_and_more_cuts_only_their_own(
    whole: tuple[Path, Profile, MeasuredProfile],
) -> None:
    out, profile, measured = whole
    again, store, display = _profile(out)
    assert (display.computed, store.computed) == (0, [])
    assert list(again.measured().rows()) == list(measured.rows())
    _, store, display = _profile(out, cuts=[*CUTS, "flatten"])
    assert (display.computed, store.computed) == (3, [])  # the photos were decoded before
    assert not list(profile.folder.rglob(SCRATCH_FOLDER)), "what belongs to one cut must go with it"


def test_a_cut_that_another_process_holds_is_waited_for(
    whole: tuple[Path, Profile, MeasuredProfile], tmp_path: Path
) -> None:
    shutil.copytree(whole[0], out := tmp_path / "runs")
    cuts = out / whole[1].request.folder / "cuts"
    used, held, dead = (cuts / name / SCRATCH_FOLDER for name in (CUTS[1], "features.5", "features.6"))
    for scratch in (used, held, dead):
        scratch.mkdir(parents=True)
    said: list[str] = []
    with ThreadPoolExecutor(1) as pool, FileLock(held.with_name(LOCK)):
        with FileLock(used.with_name(LOCK)):
            waiting = pool.submit(_profile, out, said.append)
            deadline = time.monotonic() + 60
            while not said and not waiting.done() and time.monotonic() < deadline:
                time.sleep(0.05)
            assert said == [f"waiting for another process, which profiles {CUTS[1]}"]
            assert used.exists()
        _, _, display = waiting.result()
        assert (display.done, display.computed) == (9, 0)
        assert held.exists()
    assert not used.exists()
    assert not dead.exists()


PROGRAM = """
from splitleak.experiments.cli.app import main
from splitleak.experiments.tools import profile
profile.DECODER_STEPS = 12
main()
"""


@pytest.mark.slow
def test_two_processes_share_the_work(tmp_path: Path) -> None:
    given = [f"--{key}={value}" for key, value in SHORT.items()]
    command = [
        sys.executable,
        "-c",
        PROGRAM,
        "profile",
        "squeezenet1_1",
        *given,
        "--cuts=features.3",
        f"--out={tmp_path}",
    ]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=600) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    computed = [int(found[1]) for out, _ in said if (found := re.search("3 cells: ([0-9]+) computed, ", out))]
    assert sorted(computed) == [0, 3]
    assert not list(tmp_path.rglob(SCRATCH_FOLDER))


def test_what_an_interrupted_profile_leaves_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    request = {"model": "squeezenet1_1", "cuts": ["features.3"], **SHORT}
    before: list[str] = []
    after: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(Display, "cell", interrupt)
        with pytest.raises(KeyboardInterrupt):
            _profile(tmp_path, before.append, **request)
    assert list(tmp_path.rglob(SCRATCH_FOLDER))
    _, _, display = _profile(tmp_path, after.append, **request)
    assert (display.done, display.failed) == (3, 0)
    assert "protect" in before
    assert "protect" not in after
    assert not list(tmp_path.rglob(SCRATCH_FOLDER))


def test_the_plan_of_a_cut_can_be_run(whole: tuple[Path, Profile, MeasuredProfile]) -> None:
    _, profile, _ = whole
    plan = read_plan(profile.runs[1].folder / "plan.toml")
    assert (plan.victim.cut, plan.victim.size, plan.source.name) == ("features.3", 32, "faces")


def test_an_untrained_encoder_is_pointed_out(whole: tuple[Path, Profile, MeasuredProfile]) -> None:
    _, _, measured = whole
    assert "UNTRAINED" in " ".join(measured.notes)


def test_by_default_one_cut_for_each_block_and_the_aliases() -> None:
    network = make_network("mobilenet_v3_large", 1000, 64)
    every, request = find_cuts(network, 64), ProfileRequest("mobilenet_v3_large", size=64)
    names = [cut.name for cut in chosen_cuts(every, network, request, ["features.13.block.0.2"])]
    assert names == [
        *(f"features.{block}" for block in range(13)),
        "features.13.block.0",
        *(f"features.{block}" for block in (13, 14, 15)),
        "features",
        "flatten",
        "classifier.2",
    ]
    assert chosen_cuts(every, network, ProfileRequest("mobilenet_v3_large", size=64, every=True), []) == every


def test_blocks_of_residual_stages_and_of_plain_chains() -> None:
    def ends(model: str) -> list[str]:
        network = make_network(model, 10, 64)
        return [cut.name for cut in block_ends(network.module, find_cuts(network, 64))]

    assert ends("resnet18") == [
        *("relu", "maxpool"),
        *("layer1.0", "layer1", "layer2.0", "layer2", "layer3.0", "layer3", "layer4.0", "layer4"),
        "flatten",
    ]
    # in a plain chain every layer that computes or pools, each with its activation
    assert ends("vgg11")[:4] == ["features.1", "features.2", "features.4", "features.5"]


def test_layers_without_weights_are_left_out_unless_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = make_network(MODEL, 1000, 32).module.state_dict()
    save_file(
        {key: value for key, value in state.items() if not key.startswith("classifier")}, "features.safetensors"
    )
    weights = {**TINY, "weights": "features.safetensors"}
    profile = Profile.of(ProfileRequest(MODEL, **weights), Path("runs"))  # type: ignore[arg-type]
    assert (profile.cuts[-1].name, profile.notes) == ("flatten", ())
    named = Profile.of(ProfileRequest(MODEL, **weights, cuts=["classifier.2"]), Path("runs"))  # type: ignore[arg-type]
    assert "random" in " ".join(named.notes)


def test_data_by_name_path_or_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    assert data_setting("faces") == "faces"
    assert data_setting("photos") == {"name": "folder", "path": "photos"}
    Path("photos/index.csv").write_text("path\n")
    assert data_setting("photos") == {"name": "index", "path": "photos"}
    assert data_setting("photos/index.csv") == {"name": "index", "path": "photos/index.csv"}
    assert data_setting('{ name = "faces", photos = 9 }') == {"name": "faces", "photos": 9}


@pytest.mark.parametrize(
    ("count", "text"), [(960, "960 B"), (76_800, "76.8 kB"), (1_638_400, "1.64 MB"), (1e6, "1 MB")]
)
def test_sizes_are_readable(count: float, text: str) -> None:
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["mobilenet_v3_smal"], "mobilenet_v3_small"),
        ([MODEL, "--cuts", "features.99"], "unknown cut"),
        ([MODEL, "--cuts", "features.5.block.0"], "cannot be cut"),
        ([MODEL, "--cuts", "features.1", "--every"], "every"),
        ([MODEL, "--data", "facez"], "did you mean faces"),
        ([MODEL, "--data", "no/such/photos.zip"], "photos.zip"),
        ([MODEL, "--data", '{ name = "faces"'], "TOML"),
        ([MODEL, "--data", '{ name = "faces", photo = 3 }'], "did you mean photos"),
        ([MODEL, "--data", "celeba"], "path"),
        ([MODEL, "--weights", "none.safetensors"], "none.safetensors"),
        ([MODEL, "--size", "8"], "size"),
        ([MODEL, "--target", "0"], "target"),
        ([MODEL, "--auxiliary", "100000"], "photos"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    size = [] if "--size" in arguments else ["--size", "32"]
    monkeypatch.setattr(sys, "argv", ["splitleak", "profile", *arguments, *size])
    with pytest.raises(SystemExit) as exit_:
        main()
    error = capsys.readouterr().err
    assert exit_.value.code == 2
    assert len(error.splitlines()) == 1
    assert complaint in error
    assert not Path("runs").exists(), "it began to run"
