"""The house: rooms and their order, files and functions of a size that a reader can take in."""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
FOLDERS = ("attacks", "defenses", "victims", "experiments")
ROOMS = {"cli", "tools", "report", "run", "cells", "results", "judge", "stages", "store", "planning"}
LINES, SCREEN = 400, 60
"""Of a file, of a function."""


def files(folder: Path = PROJECT) -> Iterator[Path]:
    for name in FOLDERS:
        yield from sorted((folder / name).rglob("*.py"))


def test_experiments_has_its_rooms_and_nothing_else_beside_them() -> None:
    there = {path.name for path in (PROJECT / "experiments").iterdir() if path.name != "__pycache__"}
    assert there == ROOMS | {"__init__.py", "__main__.py", "library.py", "plans", "benchmarks"}


def test_tests_mirror_the_rooms() -> None:
    there = {path.name for path in (PROJECT / "tests" / "experiments").iterdir() if path.is_dir()}
    assert there - {"__pycache__"} <= ROOMS


@pytest.mark.parametrize("file", list(files()), ids=lambda file: str(file.relative_to(PROJECT)))
def test_a_reader_can_take_it_in(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= LINES
    functions = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))
    long = {node.name: node.end_lineno - node.lineno + 1 for node in functions if node.end_lineno}
    assert {name: lines for name, lines in long.items() if lines > SCREEN} == {}


PLANTED = {
    "three floors": ("attacks/grid.py", "from splitleak.experiments.planning import names"),
    "rooms of experiments": ("experiments/judge/rules.py", "from splitleak.experiments.cells import cell"),
    "a report knows neither": ("experiments/report/verdict.py", "from splitleak.experiments.run import schedule"),
}


def test_an_import_that_points_upwards_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "splitleak"
    for name in FOLDERS:
        shutil.copytree(PROJECT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    for file, line in PLANTED.values():
        with (place / file).open("a") as text:
            text.write(f"\n{line}  # noqa\n")
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout
    broken = [line for line in done.stdout.splitlines() if line.endswith("BROKEN")]
    assert [line for line in broken if not any(line.startswith(name) for name in PLANTED)] == []
    assert len(broken) == len(PLANTED)
