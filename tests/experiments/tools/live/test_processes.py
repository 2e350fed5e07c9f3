"""Processes as a user starts them, on a tiny run."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployed import SUBSET, deployment, run_in, store_of
from PIL import Image
from terminal import Terminal

from splitleak.experiments.cli import device
from splitleak.experiments.tools.finished import Setting
from splitleak.experiments.tools.live import realtime
from splitleak.experiments.tools.live.adversary import Adversary, chosen, measured
from splitleak.experiments.tools.live.photos import photos_of
from splitleak.experiments.tools.live.together import ANYWHERE, free_places, running
from splitleak.victims.errors import InvalidInputError

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("run")
    yield run_in(folder)
    shutil.rmtree(folder)


@pytest.mark.slow
def test_one_command_starts_all_three(run: Path) -> None:
    (page,) = free_places(ANYWHERE)
    command = [sys.executable, "-m", "splitleak.experiments", "live", str(run), "--defense", "none", "--leave"]
    options = ["--attack", "ridge", "--count", "300", "--pause", "0", "--page", page, "--megabits", "50"]
    done = subprocess.run([*command, *options], env=os.environ, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "edge: 300 photos answered, 0 of them sent again" in done.stdout
    assert "interceptor: listening at" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
def test_each_starts_alone_and_a_cloud_that_is_started_again(run: Path, tmp_path: Path) -> None:
    deployment(run, SUBSET).write(tmp_path / "halves", lambda line: None)
    (place,) = free_places(ANYWHERE)
    said: list[str] = []
    cloud = [str(tmp_path / "halves"), "--listen", place]
    edge = [str(tmp_path / "halves"), "--cloud", place, "--count", "60", "--pause", "0.05"]
    with running("cloud", cloud, said.append) as first:
        first.ready()
        with running("edge", edge, said.append) as sending:
            while not any("waits" in line for line in said):
                first.stop()
            with running("cloud", cloud, said.append) as second:
                second.ready()
                assert sending.wait() == 0, said
    assert any(line.startswith("edge: 60 photos answered") for line in said)
    assert not any("Traceback" in line for line in said)


def test_the_adversary_is_the_strongest_attack_unless_another_is_named(run: Path) -> None:
    setting = Setting.of(run, SUBSET)
    reached = measured(setting.results(), SUBSET)
    assert reached["ridge"] > reached["mean_image"]
    assert chosen(setting, None).entry.plugin.name == "ridge"
    with pytest.raises(InvalidInputError, match="did you mean ridge"):
        chosen(setting, "rigde")


def test_the_adversary_rebuilds_of_bytes_what_the_run_rebuilt(run: Path) -> None:
    setting, store = Setting.of(run, SUBSET), store_of(run)
    adversary = Adversary.of(setting, None, store)
    model, photos = setting.protect.load(store), setting.protect.images("target", store)
    stored = adversary.cell.stage.load(store)
    for photo, before in zip(photos[:3], stored[:3], strict=True):
        packed = model.channel.pack(model.edge(photo[None].float() / 255)[0])
        release = adversary.read(packed)
        assert adversary.maps(release).shape[0] == 3
        # stored features are rounded to half precision, which moves a pixel by a level
        assert (adversary.rebuilt(release).int() - before.int()).abs().max() <= 2


def test_real_time_is_measured_in_its_parts(run: Path) -> None:
    said: list[str] = []
    setting, store = Setting.of(run, SUBSET), store_of(run)
    refused = Setting.of(run, "multi_server")
    found = realtime.measured([setting, refused], store, realtime.Conditions((2.0, 50.0), 3.0, 4), said.append)
    slow, fast = found
    assert [one.megabits for one in found] == [2.0, 50.0]
    assert min(slow.wire) >= 8 * slow.size / 2e3 + 6  # the frame's time at that speed, and the delay of both ways
    assert min(fast.wire) >= 6
    assert slow.rate < fast.rate
    assert said[-1].startswith("left out: multi_server cannot be deployed")
    folder = realtime.write(found, setting, 3.0)
    table = (folder / "realtime.md").read_text()
    assert len(re.findall(rf"^\| {SUBSET} \|", table, re.M)) == 2
    assert "3 ms of delay" in table
    row = next(row for row in setting.results().rows if row.defence.label == SUBSET)
    assert row.utility is not None
    assert f"{100 * row.utility.mean:.1f}" in table
    assert Image.open(folder / "realtime.png").width > 600


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["cloud", "nowhere"], "no deployment at"),
        (["edge", "nowhere"], "no deployment at"),
        (["edge", "nowhere", "--cloud", "here"], "is no place on a network"),
        (["cloud", "nowhere", "--certificate", "c.pem"], "both --certificate and --key"),
        (["cloud", "nowhere", "--certificate", "c.pem", "--key", "k.pem"], "no certificate with its key"),
        (["cloud", "nowhere", "--megabits", "0"], "a speed is above 0"),
        (["edge", "nowhere", "--pause", "nan"], "a number of seconds"),
        (["edge", "nowhere", "--cloud", "a..b:1"], "is no place on a network"),
        (["RUN", "--defense", "nothing"], "unknown defence of this run"),
        (["RUN", "--defense", "none", "--photos", "nowhere"], "no folder of photos at"),
        (["RUN", "--defense", "none", "--count", "-1"], "as many photos cannot be sent"),
        (["RUN", "--defense", "none", "--page", "x"], "is no place on a network"),
        (["interceptor", "RUN", "--defense", "none", "--cloud", "127.0.0.1:7002"], "to itself"),
        (["RUN", "--defense", "none", "--attack", "rigde"], "did you mean ridge"),
        (["interceptor", "RUN", "--defense", "none", "--page", "x"], "is no place on a network"),
        (["realtime", "RUN", "--megabits", "-1"], "a speed is above 0"),
        (["realtime", "RUN", "--count", "0"], "at least one photo"),
        (["realtime", "nowhere"], "no run at"),
    ],
)
def test_bad_input_is_one_line(run: Path, arguments: list[str], hint: str, terminal: Terminal) -> None:
    assert hint in terminal.refusal("live", *(str(run) if one == "RUN" else one for one in arguments))


def test_a_process_that_ends_before_it_listens_is_not_taken_for_ready() -> None:
    said: list[str] = []
    with running("cloud", ["nowhere"], said.append) as cloud:
        cloud._reader.join()
        cloud._process.poll = lambda: None  # type: ignore[method-assign]  # it has ended, and nobody knows yet
        with pytest.raises(InvalidInputError, match="ended before"):
            cloud.ready()
    assert said[-1].startswith("cloud: error: no deployment at")


def test_photos_that_cannot_be_read_are_said_when_it_comes_to_them(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    photos = photos_of(tmp_path, 8, 1)
    with pytest.raises(InvalidInputError, match="is unreadable"):
        next(photos)


def test_a_place_that_is_taken_is_said_before_anything_is_fitted(
    run: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Adversary, "of", lambda *arguments: pytest.fail("it was fitted"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        page = f"127.0.0.1:{taken.getsockname()[1]}"
        places = ["--listen", "127.0.0.1:0", "--page", page]
        said = terminal.refusal("live", "interceptor", str(run), "--defense", "none", *places)
    assert f"cannot listen at {page}" in said


def test_the_demonstration_ends_with_ctrl_c_and_says_no_word_of_cells(
    run: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted:
        def __init__(self, what: str, arguments: list[str], say: object) -> None:
            self.what = what

        def __enter__(self) -> "Interrupted":
            return self

        def __exit__(self, *raised: object) -> None:
            pass

        def ready(self) -> None:
            pass

        def wait(self) -> int:
            assert self.what == "edge"
            raise KeyboardInterrupt

    monkeypatch.setattr(device, "running", Interrupted)
    (page,) = free_places(ANYWHERE)
    before = [signal.getsignal(number) for number in device.ENDINGS]
    try:
        code, _, said = terminal("live", str(run), "--defense", "none", "--page", page)
    finally:
        for number, handler in zip(device.ENDINGS, before, strict=True):
            signal.signal(number, handler)
    assert code == 0
    assert "cells" not in said
