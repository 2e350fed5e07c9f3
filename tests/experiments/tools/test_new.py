"""What ``splitleak new`` writes keeps its contract, whatever becomes of the contract."""

import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
from rich.console import Console

from splitleak.attacks.base import Attack
from splitleak.attacks.checks import check_attack
from splitleak.defenses.base import Defense
from splitleak.defenses.checks import check_defense
from splitleak.experiments.planning import plugins
from splitleak.experiments.planning.plan import parse_plan
from splitleak.experiments.tools.checking import check_file
from splitleak.experiments.tools.new import Kind, new_plugin
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.tasks.base import Task
from splitleak.victims.tasks.checks import check_task

BASES: dict[str, tuple[type[Any], Any]] = {
    "attack": (Attack, check_attack),
    "defense": (Defense, check_defense),
    "task": (Task, check_task),
}
HEAD = '[victim]\ndata = "faces"\n'
CONTROLS = {"attack": '\n[[defenses]]\nname = "none"\n', "defense": '[[attacks]]\nname = "mean_image"\n', "task": ""}


def in_plan(file: Path) -> str:
    """The tables that the file's last comment shows."""
    comment = file.read_text().rpartition("\n#\n")[2]
    return "\n".join(line.removeprefix("#").strip() for line in comment.splitlines())


@pytest.mark.parametrize("kind", get_args(Kind))
def test_it_keeps_its_contract(kind: Kind, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    assert new_plugin(kind, "my_own", file) == f"{file}:MyOwn"
    base, check = BASES[kind]
    (cls,) = plugins.in_file(file, base)
    assert (cls.name, cls.__name__) == ("my_own", "MyOwn")
    assert check(cls()) == []
    with (tmp_path / "out").open("w") as out:
        assert check_file(file, Console(file=out))


@pytest.mark.parametrize("kind", get_args(Kind))
def test_a_plan_takes_it_as_its_last_lines_say(kind: Kind, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    new_plugin(kind, "SomethingElse", file)
    text = HEAD + CONTROLS[kind] + in_plan(file)
    if kind == "task":
        text = in_plan(file) + CONTROLS["attack"] + CONTROLS["defense"]
    plan = parse_plan(tomllib.loads(text), text, tmp_path, "plan")
    if kind == "task":
        assert plan.task is not None
        assert (plan.task.name, plan.label) == ("something_else", "pose")
        return
    entries = plan.attacks if kind == "attack" else plan.defenses
    assert [entry.plugin.name for entry in entries][-2:] == ["something_else"] * 2


@pytest.mark.parametrize("kind", get_args(Kind))
def test_nothing_is_left_of_the_templates_name(kind: Kind, tmp_path: Path) -> None:
    new_plugin(kind, "renamed", tmp_path / "renamed.py")
    text = (tmp_path / "renamed.py").read_text()
    assert "class Renamed(" in text
    assert not any(word in text for word in ("MyAttack", "MyDefense", "MyTask", "FILE"))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("3d", "'3d': it names a class"),
        ("my-noise", "it names a class"),
        ("", "it names a class"),
        ("_", "it names a class"),
        ("true", "it names a class"),
        ("gaussian_noise", "gaussian_noise.py has it"),
        ("GaussianNoise", "gaussian_noise.py has it"),
        ("none", "none.py has it"),
        ("faces", "faces/source.py has it"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=hint):
        new_plugin("attack", name, tmp_path / "mine.py")
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("precious")
    with pytest.raises(InvalidInputError, match="there already; name another file with --output"):
        new_plugin("defense", "mine", file)
    assert file.read_text() == "precious"
    with pytest.raises(InvalidInputError, match="cannot be written: No such file"):
        new_plugin("defense", "mine", tmp_path / "absent" / "mine.py")
