"""Plans for several victims: what each becomes, and what is shown of all."""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import HEAD, NOISE, RIDGE

from splitleak.experiments.planning.plan import read_plan
from splitleak.experiments.planning.study import read_study
from splitleak.experiments.report.figures.depth import depth_figure
from splitleak.experiments.results.member import read_members
from splitleak.victims.errors import InvalidInputError

VICTIMS = """
[[victims]]
cut = ["features.1", "features.2.block.1"]
[[victims]]
name = "other"
model = "resnet18"
cut = "layer2"
parts = { target = 30 }
attacks = [{ name = "nearest_neighbor" }]
"""


def study_file(folder: Path, victims: str = VICTIMS) -> Path:
    path = folder / "study.toml"
    path.write_text(HEAD + victims + NOISE + RIDGE)
    return path


def test_each_victim_gets_a_plan_of_its_own(tmp_path: Path) -> None:
    study = read_study(study_file(tmp_path))
    assert list(study.plans) == [
        "mobilenet_v3_small-features_1",
        "mobilenet_v3_small-features_2_block_1",
        "other",
    ]
    first, second, other = study.plans.values()
    assert [plan.name for plan in study.plans.values()] == [f"tiny.{label}" for label in study.plans]
    assert (first.victim.cut, second.victim.cut) == ("features.1", "features.2.block.1")
    assert (other.victim.model, other.victim.cut, other.victim.size) == ("resnet18", "layer2", 32)
    assert (first.parts.target, other.parts.target, other.parts.train) == (24, 30, 96)
    assert [entry.label for entry in first.attacks] == ["mean_image", "ridge"]
    assert [entry.label for entry in other.attacks] == ["mean_image", "ridge", "nearest_neighbor"]
    assert not study.single


def test_victims_too_take_paired_lists_in_step(tmp_path: Path) -> None:
    paired = 'paired = { model = ["resnet18", "vgg11_bn"], cut = ["layer2", "features.14"] }'
    plans = read_study(study_file(tmp_path, f"[[victims]]\n{paired}\nsize = [32, 64]\n")).plans
    assert {label: (plan.victim.model, plan.victim.cut, plan.victim.size) for label, plan in plans.items()} == {
        "resnet18-layer2-32": ("resnet18", "layer2", 32),
        "resnet18-layer2-64": ("resnet18", "layer2", 64),
        "vgg11_bn-features_14-32": ("vgg11_bn", "features.14", 32),
        "vgg11_bn-features_14-64": ("vgg11_bn", "features.14", 64),
    }


def test_the_stored_text_of_a_victims_plan_is_that_plan(tmp_path: Path) -> None:
    for plan in read_study(study_file(tmp_path)).plans.values():
        (stored := tmp_path / "stored.toml").write_text(plan.text)
        again = read_plan(stored)
        for part in ("name", "seeds", "victim", "source", "parts", "defender", "attacker", "judge"):
            assert getattr(again, part) == getattr(plan, part)
        assert (again.defenses, again.attacks) == (plan.defenses, plan.attacks)


def test_a_plan_with_one_victim_is_itself(tmp_path: Path) -> None:
    study = read_study(study_file(tmp_path, ""))
    assert study.single
    (plan,) = study.plans.values()
    assert plan == read_plan(tmp_path / "study.toml")
    assert plan.text == (tmp_path / "study.toml").read_text()


@pytest.mark.parametrize(
    ("victims", "hint"),
    [
        ('[[victims]]\nmodle = "resnet18"\n', "'modle'"),
        ("[[victims]]\ncut = []\n", "victims.cut"),
        ('[[victims]]\ncut = "features.1"\n[[victims]]\ncut = "features.2"\n', "give each of them a name"),
        ("[[victims]]\nparts = 3\n", "parts = 3"),
        ("[[victims]]\nparts = { traget = 3 }\n", "target"),
        ("[[victims]]\ncut = [3]\n", "victim.cut"),
        ("[[victims]]\nattacks = 3\n", "attacks = 3"),
        ("[[victims]]\npaired = 3\n", "victims.paired = 3: should be a table"),
        ('[[victims]]\npaired = { cut = ["a", "b"], size = [32] }\n', "cut has 2, size has 1"),
        ('[[victims]]\npaired = { cut = ["a"] }\ncut = "b"\n', "'cut' stands beside 'paired' too"),
        ('[[victims]]\npaired = { name = ["a", "b"] }\n', "unknown setting of a victim that runs in step: 'name'"),
        ("[[victims]]\npard = { size = [32] }\n", "did you mean paired"),
    ],
)
def test_bad_victims_are_refused_with_a_hint(victims: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=hint):
        read_study(study_file(tmp_path, victims))


def test_victims_are_tables(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text("victims = 3\n" + HEAD + NOISE + RIDGE)
    with pytest.raises(InvalidInputError, match=r"\[\[victims\]\]"):
        read_study(path)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("study")
    return folder, splitleak("run", str(study_file(folder)), "--out", str(folder / "runs"))


def splitleak(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "splitleak.experiments", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_study_runs_every_victim_and_compares_them(ran: tuple[Path, str]) -> None:
    folder, said = ran
    study = folder / "runs" / "tiny"
    assert str(study / "index.html") in said
    assert "data 2 for" in said.replace("\n", " ")  # the first two share their photos
    members = read_members(study)
    assert [member.label for member in members] == list(read_study(folder / "study.toml").plans)
    assert [member.cut.shape for member in members] == [(16, 8, 8), (72, 4, 4), (128, 4, 4)]
    assert all(member.results.finished and not member.results.missing for member in members)
    with (study / "tables" / "victims.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["victim"] for line in lines] == [member.label for member in members]
    assert [line["release"] for line in lines] == ["16x8x8", "72x4x4", "128x4x4"]
    for line, member in zip(lines, members, strict=True):
        undefended = member.results.undefended
        assert undefended is not None
        assert line["ridge, PSNR (dB)"].startswith(f"{undefended.groups['ridge'].scores['psnr'].mean:.1f} [")
    assert len({line["nearest_neighbor, PSNR (dB)"] for line in lines}) == 2


@pytest.mark.slow
def test_the_page_leads_to_every_victims_report(ran: tuple[Path, str]) -> None:
    folder, _ = ran
    page = (folder / "runs" / "tiny" / "index.html").read_text()
    for run in json.loads((folder / "runs" / "tiny" / "study.json").read_text()).values():
        assert f'href="../{run}/index.html"' in page
        assert (folder / "runs" / run / "index.html").is_file()
    assert page.count("<svg") == 2  # two cuts of one network: by PSNR and by SSIM
    assert "gaussian_noise" in page


@pytest.mark.slow
def test_a_study_is_resumed_and_reported_again(ran: tuple[Path, str]) -> None:
    folder, _ = ran
    assert "0 computed" in splitleak("run", str(folder / "study.toml"), "--out", str(folder / "runs"))
    page = folder / "runs" / "tiny" / "index.html"
    before = page.read_bytes()
    page.unlink()
    assert str(page) in splitleak("report", str(folder / "runs" / "tiny"))
    assert page.read_bytes() == before


@pytest.mark.slow
def test_a_dry_run_of_a_study_computes_nothing(tmp_path: Path) -> None:
    said = splitleak("run", str(study_file(tmp_path)), "--out", str(tmp_path / "runs"), "--dry-run")
    assert said.count("cells to compute") == 3
    assert not (tmp_path / "runs" / "tiny").exists()


@pytest.mark.slow
def test_only_some_victims_run_and_the_others_stay(tmp_path: Path) -> None:
    plan, out = str(study_file(tmp_path)), str(tmp_path / "runs")
    first, _, other = read_study(Path(plan)).plans
    splitleak("run", plan, "--out", out, "--only", other)
    assert [member.label for member in read_members(tmp_path / "runs" / "tiny")] == [other]
    splitleak("run", plan, "--out", out, "--only", first)
    assert [member.label for member in read_members(tmp_path / "runs" / "tiny")] == [first, other]
    with pytest.raises(InvalidInputError, match=r"'othre'.*other"):
        read_study(Path(plan)).only(["othre"])


@pytest.mark.slow
def test_a_curve_over_depth_needs_two_depths(ran: tuple[Path, str]) -> None:
    first, second, _ = read_members(ran[0] / "runs" / "tiny")
    assert depth_figure([first, second], "psnr") is not None
    assert depth_figure([first, replace(first, label="the same cut, another task")], "psnr") is None
