"""A run that ends with the first cell that fails."""

from pathlib import Path

import pytest
from terminal import Terminal

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")

BROKEN = """
from splitleak.attacks.base import Reconstruction
from splitleak.attacks.knowledge import QueryFree
class Broken(Reconstruction[QueryFree]):
    paper = "a test's"
    def fit(self, knows):
        raise RuntimeError("the author's mistake")
"""
PLAN = """
[victim]
model = "squeezenet1_1"
size = 32
[[victims]]
cut = ["features.3", "features.4"]
[parts]
train = 4
validation = 2
target = 2
[attacker]
auxiliary = 4
[[defenses]]
name = "none"
[[attacks]]
name = "mean_image"
[[attacks]]
name = "mine.py:Broken"
"""


def test_no_further_victim_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: Terminal) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(BROKEN)
    Path("plan.toml").write_text(PLAN)
    code, out, _ = terminal("run", "plan.toml", "--fail-fast")
    assert code == 1
    assert "4 cells: 2 computed, 1 failed, 0 already there" in out
    assert "a cell has failed: 2 cells are left; the same command goes on with them" in out
    assert "the author's mistake" in out
    code, out, _ = terminal("run", "plan.toml", "--fail-fast")
    assert code == 1
    assert "left" not in out, "that was the last cell"
