"""One test of what is different: flags, tables, verdict and ``compare`` ask the same function, none has its own."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from written_run import PHOTOS, score, write_run

from splitleak.experiments.judge.flags import Evidence, flags_of
from splitleak.experiments.judge.statistics.different import Change, Sample, different
from splitleak.experiments.judge.statistics.interval import Interval
from splitleak.experiments.judge.statistics.matched import Setting, ranking
from splitleak.experiments.report.tables.compare import Comparison
from splitleak.experiments.report.verdict import verdict
from splitleak.experiments.results.load import load_results

EXPERIMENTS = Path(__file__).parents[3] / "experiments"
RULES = EXPERIMENTS / "judge" / "statistics"
OWN = {"Change", "quantile", "percentile", "bootstrap", "resampled", "around"}
"""What makes an interval or a change, or could."""
SAID = Change(Interval(-7.0, -8.0, -6.0), 1e-9, 1.5)


@pytest.fixture
def decided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is asked, the test of difference says the same."""
    monkeypatch.setattr("splitleak.experiments.judge.statistics.different._change", lambda *arguments: SAID)


def _differing(cell: dict[str, Any]) -> None:
    """No two defences have the same utility, so that a test of one's own would find some difference."""
    cell["targets"] = "one"
    right = 10 - 2 * (cell["defence"]["name"] == "dp_sgd")
    cell["utility"] = {"metric": "accuracy", "chance": 0.25, **score((np.arange(PHOTOS) < right).astype(float))}


@pytest.mark.usefixtures("decided")
def test_flags_tables_verdict_and_compare_say_what_it_says(tmp_path: Path) -> None:
    equal = np.random.default_rng(0).normal(20, 1, (2, 50))
    assert different(Sample(equal), Sample(equal)) == SAID
    # flags: with equal PSNR nothing would be below anything
    assert "below-floor" in flags_of(Evidence(photos=500, seeds=2, leakage=equal, floor=equal))
    # tables
    results = load_results(tmp_path / "a", write_run(tmp_path / "a", _differing))
    changes = {row.defence.label: results.utility_lost(row) for row in results.rows}
    assert changes.pop("none") is None
    assert set(changes.values()) == {SAID}
    setting = Setting(np.ones((2, 50)), equal)
    first, second = ranking(setting, [[setting], [setting]], 0.0)
    assert first.lost == second.lost == SAID
    assert second.behind is not None
    assert first.gain is not None
    assert second.behind.difference.mean == first.gain.difference.mean == SAID.difference.mean
    # the sentence on top
    assert "leaks least within 3 points" in verdict(results)
    assert "cannot be told apart" not in verdict(results)
    # compare
    other = load_results(tmp_path / "b", write_run(tmp_path / "b", _moved))
    rows = Comparison.of(results, other).rows
    assert {row.change for row in rows if row.change} == {SAID}
    assert {row.verdict for row in rows if not row.scored.identical} == {"changed"}


def _moved(cell: dict[str, Any]) -> None:
    _differing(cell)
    if cell["attack"]["name"] == "ridge":
        random = np.random.default_rng([cell["seed"], *cell["id"].encode()])
        cell["metrics"]["psnr"] = score(np.array(cell["metrics"]["psnr"]["values"]) + random.normal(0, 3, PHOTOS))


def test_nothing_else_makes_changes_or_tests() -> None:
    """Outside the judge's statistics no code tests by itself, takes quantiles of scores or makes a change."""
    own = {
        f"{file.relative_to(EXPERIMENTS)}: {name}"
        for file in sorted(EXPERIMENTS.rglob("*.py"))
        if RULES not in file.parents and file.parent.name != "benchmarks"
        for name in _statistics(ast.parse(file.read_text()))
    }
    # an epsilon is refuted by exact binomial bounds, at thresholds that are quantiles of what was seen
    assert own == {"judge/metrics/epsilon.py: scipy.stats", "judge/metrics/epsilon.py: quantile"}


def _statistics(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            imported = [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
            yield from ["scipy.stats"] * ("scipy.stats" in imported)
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            yield from [called] * (called in OWN)
