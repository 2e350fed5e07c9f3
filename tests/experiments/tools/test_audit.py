"""An audit: a request and a time budget become a plan, which runs."""

import sys
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from splitleak.experiments.cli.app import main
from splitleak.experiments.planning.plan import read_plan
from splitleak.experiments.results.load import load_results
from splitleak.experiments.tools.audit import Audit, AuditRequest
from splitleak.experiments.tools.audit.offer import LEAST, SCALES, SHARE, Offer, Scale, part_sizes
from splitleak.experiments.tools.audit.plan import chosen_task, source_of
from splitleak.experiments.tools.audit.speed import Speed
from splitleak.victims.data.base import Catalog, Labels
from splitleak.victims.data.parts import divide
from splitleak.victims.data.sources.faces import Faces
from splitleak.victims.errors import InvalidInputError

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")

CPU = torch.device("cpu")
SPEED = Speed(*[0.01] * 8, prior=1e-4)
TINY = (Scale(8, 4, 20, 8, 6, 0, 0, 0), Scale(8, 4, 20, 8, 6, 2, 2, 1))
COMMAND = ["--model", "squeezenet1_1", "--cut", "features.3", "--data", "photos", "--size", "32"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos() -> Path:
    """48 faces, in two folders."""
    faces = Faces(photos=48)
    images = faces.read(range(48), 32).images
    for number, image in enumerate(images):
        folder = Path("photos") / ("old" if number % 3 else "young")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(image.permute(1, 2, 0))).save(folder / f"{number}.png")
    return Path("photos")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["splitleak", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert isinstance(exit_.value.code, int)
    return exit_.value.code


def catalog(count: int, **facts: object) -> Catalog:
    return Catalog(tuple(map(str, range(count))), **facts)  # type: ignore[arg-type]


def test_a_label_that_is_no_task_is_refused_with_its_reason() -> None:
    known = catalog(2, labels={"smile": Labels(("no", "yes"), torch.tensor([0, 1]))}, unusable={"age": "is measured"})
    request = AuditRequest("squeezenet1_1", "features.3", "photos", task="age")
    with pytest.raises(InvalidInputError, match="'age' cannot be a task: it is measured"):
        chosen_task(request, known)
    with pytest.raises(InvalidInputError, match="unknown task 'smiles'; did you mean smile"):
        chosen_task(replace(request, task="smiles"), known)


def test_photos_of_which_none_can_be_read_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(60):
        (tmp_path / "photos" / f"{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    table = '{ name = "folder", path = "photos", on_corrupt = "skip" }'
    asked = [table if argument == "photos" else argument for argument in COMMAND]
    assert run(monkeypatch, "audit", *asked) == 2
    assert "none of 16 photos could be read" in " ".join(capsys.readouterr().err.split())


def test_a_larger_scale_takes_longer_and_a_slower_machine_too() -> None:
    def seconds(scale: Scale, speed: Speed) -> float:
        return Offer(scale, part_sizes(scale, catalog(50_000), None, 50_000), "class", False).seconds(speed)

    taken = [seconds(scale, SPEED) for scale in SCALES]
    assert all(later > 1.05 * earlier for earlier, later in pairwise(taken))
    for name, value in asdict(SPEED).items():
        assert seconds(SCALES[-1], replace(SPEED, **{name: 2 * value})) > taken[-1]


@pytest.mark.parametrize(("budget", "factor"), [(3.0, 1.0), (30.0, 1.0), (300.0, 1.0), (30.0, 4.0)])
def test_the_plan_is_the_largest_that_fits(
    budget: float, factor: float, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speed = Speed(**{name: factor * value / 20 for name, value in asdict(SPEED).items()})
    monkeypatch.setattr(Speed, "measured", lambda *arguments: speed)
    request = AuditRequest("squeezenet1_1", "features.3", "photos", size=32, budget=budget)
    plan = Audit.of(request, Path("runs"), CPU, lambda text: None).plan
    sizes = plan.part_sizes
    offers = [
        Offer(scale, part_sizes(scale, source_of("photos").catalog(), "class", 48), "class", False)
        for scale in SCALES
    ]
    allowed = [offer for offer in offers if offer.seconds(speed) < 60 * budget * SHARE]
    assert len(plan.defenses) == 1 + sum(len(values) for values in allowed[-1].strengths.values())
    assert sizes == allowed[-1].sizes
    assert sum("refine" in entry.label for entry in plan.attacks) == bool(allowed[-1].scale.searched)
    assert plan.victim.task == "class"


def test_a_budget_that_is_too_small_is_refused(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Speed, "measured", lambda *arguments: SPEED)
    with pytest.raises(InvalidInputError, match="the least audit of squeezenet1_1"):
        Audit.of(AuditRequest("squeezenet1_1", "features.3", "photos", size=32, budget=0.1), Path("runs"), CPU, print)


@pytest.mark.parametrize("count", [40, 48, 200, 1000, 20_000])
def test_few_photos_are_divided_sensibly(count: int) -> None:
    for scale in SCALES:
        sizes = part_sizes(scale, catalog(count), None, count)
        assert sizes.total <= count
        assert all(value >= getattr(LEAST, part) for part, value in asdict(sizes).items())
        assert sizes.auxiliary == max(asdict(sizes).values())


def test_utility_has_photos_of_its_own_where_some_are_left(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def tested(scale: Scale, count: int, task: str | None = "class") -> int | None:
        labels = {"class": Labels(torch.arange(count) % 2, ("a", "b"))}
        return part_sizes(scale, catalog(count, labels=labels), task, count).test

    few, many = SCALES[0], SCALES[-1]
    assert tested(few, 48) == 0  # the other parts need them all
    assert tested(few, 206) == 0  # 25 are left, of which nine tenths are fewer than the 24 targets
    assert tested(few, 268) == 72  # nine tenths of the 80 that are left
    assert tested(few, 20_000) == few.auxiliary
    assert tested(many, 50_000) == many.auxiliary
    assert tested(few, 20_000, task=None) == 0
    speed = Speed(**{name: value / 20 for name, value in asdict(SPEED).items()})
    monkeypatch.setattr(Speed, "measured", lambda *arguments: speed)
    monkeypatch.setattr("splitleak.experiments.tools.audit.offer.SCALES", (replace(TINY[0], target=6),))
    assert run(monkeypatch, "audit", *COMMAND, "--budget", "10") == 0
    assert "4 for selection, 9 for accuracy; 48 there" in " ".join(capsys.readouterr().out.split())
    (folder,) = [place for place in Path("runs").iterdir() if place.name != "cache"]
    found = load_results(folder).finished
    assert {(cell.utility.part, len(cell.utility.values)) for cell in found if cell.utility} == {("test", 9)}
    assert {cell.n for cell in found} == {6}


def test_people_who_stay_together_leave_fewer_photos() -> None:
    people = torch.arange(20).repeat_interleave(12)
    listed = catalog(240, identity=people)
    sizes = part_sizes(SCALES[-1], listed, None, 240)
    divide(listed, sizes, None, 0)
    with pytest.raises(InvalidInputError, match="too few photos: 240 can be used"):
        part_sizes(SCALES[-1], catalog(240, identity=torch.arange(2).repeat_interleave(120)), None, 240)
    with pytest.raises(InvalidInputError, match=r"too few photos: 39 .* at least 40"):
        part_sizes(SCALES[0], catalog(39), None, 39)


def test_the_task_is_the_only_label_or_the_one_that_is_named() -> None:
    one, two = Labels(torch.zeros(4), ("a", "b")), Labels(torch.zeros(4), ("c", "d"))
    alone = Labels(torch.zeros(4), ("all",))

    def task(named: str | None, **labels: Labels) -> str | None:
        return chosen_task(AuditRequest("resnet18", "layer1", "faces", task=named), catalog(4, labels=labels))

    assert task(None, one=one, alone=alone) == "one"
    assert task(None, one=one, two=two) is None
    assert task(None, alone=alone) is None
    assert task("two", one=one, two=two) == "two"
    assert task("none", one=one) is None
    with pytest.raises(InvalidInputError, match="did you mean one"):
        task("oned", one=one)


@pytest.mark.slow
def test_from_end_to_end(photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("splitleak.experiments.tools.audit.offer.SCALES", TINY)
    assert run(monkeypatch, "audit", *COMMAND, "--budget", "10") == 0
    said = capsys.readouterr().out
    assert "defences: none, channel_subset keep = 0.25, quantisation bits = 2, gaussian_noise sigma = 1.0" in said
    assert "20 cells: 20 computed" in said
    assert "UNTRAINED" in said
    (folder,) = [place for place in Path("runs").iterdir() if place.name != "cache"]
    assert (folder / "index.html").is_file()
    plan = read_plan(folder / "plan.toml")
    assert (plan.name, plan.victim.epochs, plan.victim.freeze_encoder) == (folder.name, 0, True)

    monkeypatch.setattr(Speed, "measured", lambda *arguments: pytest.fail("it calibrated again"))
    assert run(monkeypatch, "audit", *COMMAND, "--budget", "10") == 0
    assert "0 computed, 20 already there" in capsys.readouterr().out
    assert run(monkeypatch, "run", str(folder / "plan.toml")) == 0
    assert "0 computed, 20 already there" in capsys.readouterr().out


def test_without_a_task(photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for photo in list(photos.glob("*/*")):
        photo.rename(photos / photo.name)
    monkeypatch.setattr("splitleak.experiments.tools.audit.offer.SCALES", (replace(TINY[1], searched=0),))
    assert run(monkeypatch, "audit", *COMMAND, "--budget", "10") == 0
    said = capsys.readouterr().out
    assert "task: none" in said
    assert "16 cells: 16 computed, 0 already" in said


def test_time_that_is_up_leaves_cells_to_the_next_call(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("splitleak.experiments.tools.audit.offer.SCALES", TINY[:1])
    run(monkeypatch, "audit", *COMMAND, "--budget", "5")
    (folder,) = [place for place in Path("runs").iterdir() if place.name != "cache"]
    capsys.readouterr()
    for cell in (folder / "cells").iterdir():
        cell.unlink()
    assert run(monkeypatch, "run", str(folder / "plan.toml"), "--stop-after", "0") == 0
    assert "time is up: 4 cells are left" in capsys.readouterr().out
    assert run(monkeypatch, "run", str(folder / "plan.toml")) == 0
    assert "4 cells: 4 computed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--model", "squeezenet1_2"], "did you mean squeezenet1_1"),
        (["--model", "net.py:make"], "no model file"),
        (["--cut", "features.33"], "did you mean features.3"),
        (["--data", "pictures"], "pictures"),
        (["--data", "few"], "too few photos: 1 "),
        (["--weights", "absent.pth"], "absent.pth"),
        (["--task", "clas"], "did you mean class"),
        (["--budget", "0"], "budget"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    complaint: str,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("few").mkdir()
    (photos / "old/1.png").rename("few/1.png")
    given = dict(zip(COMMAND[::2], COMMAND[1::2], strict=True)) | dict(
        zip(arguments[::2], arguments[1::2], strict=True)
    )
    assert run(monkeypatch, "audit", *(word for pair in given.items() for word in pair)) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert complaint in error
    assert not Path("runs").exists()
