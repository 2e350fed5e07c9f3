"""What ``list``, ``show``, ``--help`` and completion tell a user."""

import io
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from rich.console import Console, RenderableType

from splitleak.attacks.base import Attack, knowledge_of
from splitleak.attacks.knowledge import BlackBox, WhiteBox
from splitleak.attacks.needs import HELD
from splitleak.defenses.base import Defense
from splitleak.experiments.cli import describe
from splitleak.experiments.cli.app import app
from splitleak.experiments.cli.examples import EXAMPLES, FIRST
from splitleak.experiments.cli.portrait import portrait
from splitleak.experiments.planning import plugins
from splitleak.experiments.planning.names import PLANS
from splitleak.experiments.report.tables.plugin import metadata
from splitleak.victims.errors import InvalidInputError

PLUGINS = plugins.all_classes()
BUILT_IN = [*FIRST, *(example for examples in EXAMPLES.values() for example in examples)]


def printed(what: RenderableType, width: int = 400) -> str:
    """Without the spaces that end lines."""
    out = io.StringIO()
    Console(file=out, width=width).print(what, soft_wrap=True)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


@pytest.mark.parametrize("name", PLUGINS)
def test_every_setting_is_shown_with_its_meaning(name: str) -> None:
    cls, shown = PLUGINS[name], printed(portrait(name))
    hints = get_type_hints(cls, include_extras=True)
    for field in fields(cls):
        kind, meaning = metadata(hints[field.name])
        assert meaning, f"{name}.{field.name} has no meaning: annotate it with doc(...)"
        (line,) = [line for line in shown.splitlines() if re.match(rf"{field.name}  .*  \S", line)]
        assert kind in line
        assert meaning.replace("``", "") in line
        if field.default is MISSING and field.default_factory is MISSING:
            assert "required" in line


@pytest.mark.parametrize("name", plugins.attack_classes())
def test_an_attack_says_what_its_adversary_holds(name: str) -> None:
    cls, shown = PLUGINS[name], printed(portrait(name))
    assert issubclass(cls, Attack)
    assert cls.paper in shown
    kinds = [kind.__name__ for kind in knowledge_of(cls).__mro__]
    for kind, held in HELD.items():
        assert (held in shown) == (kind in kinds)


@pytest.mark.parametrize("name", plugins.defense_classes())
def test_a_defence_says_what_its_strength_does_and_what_it_sends(name: str) -> None:
    cls, shown = PLUGINS[name], printed(portrait(name))
    assert issubclass(cls, Defense)
    assert cls.paper in shown
    assert (f"strength   {cls.strength}, " in shown) == (cls.strength is not None)
    assert ("of the features' own" in shown) == (name != "chain")  # whose parts decide


def test_static_facts_are_those_of_the_settings() -> None:
    assert "bytes      of the features' own: 50% at 16, 25% at 8, 13% at 4, 6% at 2, 3% at 1" in printed(
        portrait("quantisation")
    )
    assert "epsilon = 8, delta = 1e-05 for each send" in printed(portrait("clipped_noise"))
    assert "no epsilon" in printed(portrait("gaussian_noise"))
    assert "nothing is proved about a photo that is sent" in printed(portrait("dp_sgd"))


def test_a_type_names_its_range_and_what_may_be_absent() -> None:
    assert re.search(r"weight +float >= 0 \| none +none +of the prior", printed(portrait("rmle")))
    assert re.search(r"parts +tuple\[Defense, \.\.\.\] of length >= 1 +required", printed(portrait("chain")))
    assert printed(portrait("none")).endswith("no settings")


def test_an_unknown_plugin_gets_the_nearest_name() -> None:
    with pytest.raises(InvalidInputError, match="unknown plugin 'rigde'; did you mean ridge"):
        portrait("rigde")


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        ("attacks", plugins.attack_classes()),
        ("defenses", plugins.defense_classes()),
        ("data", plugins.source_classes()),
        ("plans", {path.stem: None for path in PLANS.glob("*.toml")}),
    ],
)
def test_every_name_is_listed_with_what_it_is(kind: Any, known: dict[str, object]) -> None:
    lines = printed(describe.listing(kind, PLANS)).splitlines()[1:]
    assert [line.split()[0] for line in lines] == sorted(known)
    assert all(re.match(r"\S+ +\w.{19}", line) for line in lines)
    assert not any("``" in line for line in lines)


def test_what_an_adversary_holds_grows_with_its_kind() -> None:
    shown = [printed(portrait(name)) for name in ("mean_image", "ridge", "rmle")]
    assert [sum(held in text for held in HELD.values()) for text in shown] == [1, 2, 3]
    assert [knowledge_of(PLUGINS[name]) for name in ("ridge", "rmle")] == [BlackBox, WhiteBox]  # type: ignore[type-var]


def commands() -> list[str]:
    """All, --help and --version excepted."""
    return [name for name in app if name not in {*app.help_flags, *app.version_flags}]


def test_every_positional_argument_has_its_line_of_help() -> None:
    positional = [
        (command, argument.name, argument.parameter.help)
        for command in commands()
        if app[command].default_command
        for argument in app[command].assemble_argument_collection(parse_docstring=True)
        if argument.field_info.is_positional
    ]
    assert len(positional) >= len(commands()) - 3  # audit, live and completion have none
    assert [(command, name) for command, name, said in positional if not said] == []


def test_every_command_has_examples_at_the_end_of_its_help() -> None:
    assert sorted(EXAMPLES) == sorted(commands())
    for tokens, examples in [([], FIRST), *(([command], EXAMPLES[command]) for command in commands())]:
        out = io.StringIO()
        app.help_print(tokens, console=Console(file=out, width=120))
        _, _, end = out.getvalue().rpartition("Examples:")
        assert [line.split("  ")[0].strip() for line in end.splitlines() if line.strip()] == [
            command for command, _ in examples
        ]


def test_the_overview_says_what_each_command_is_for() -> None:
    asked = [sys.executable, "-m", "splitleak.experiments", "--help"]
    shown = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    for command in commands():
        assert re.search(rf"^│ {re.escape(command)} +[A-Z]\w+", shown, re.MULTILINE), command


def parses(command: str) -> None:
    """Raises what the command line would refuse; runs nothing."""
    program, *tokens = shlex.split(command, comments=True)
    assert program == "splitleak"
    app.parse_args(tokens, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("command", [command for command, _ in BUILT_IN])
def test_an_example_is_a_command_that_is_understood(command: str) -> None:
    parses(command)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed_for_a_shell(
    shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    app(["--install-completion", "--shell", shell], exit_on_error=False, result_action="return_value")
    files = [path for path in tmp_path.rglob("*splitleak*") if path.is_file()]
    assert len(files) == 1
    script = files[0].read_text()
    assert all(word in script for word in ("compare", "cache-limit", "processes"))
    assert str(files[0]) in capsys.readouterr().out.replace("\n", "")
    if program := shutil.which(shell):
        subprocess.run([program, "-n", files[0]], check=True)


def test_bash_completes_a_command(tmp_path: Path) -> None:
    script = tmp_path / "splitleak"
    script.write_text(app.generate_completion(shell="bash"))
    typed = f'source "{script}"; COMP_WORDS=(splitleak comp); COMP_CWORD=1; _splitleak; echo "${{COMPREPLY[*]}}"'
    done = subprocess.run(["bash", "-c", typed], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["compare"], done.stderr
