"""The bench of learned attackers."""

import io
from typing import Any

import pytest
from rich.console import Console
from tiny import TABLES

from splitleak.attacks.decoder import Decoder
from splitleak.experiments.benchmarks import attackers
from splitleak.experiments.benchmarks.attackers import Contender, compare

CONTENDERS = (
    Contender("with copies", Decoder(width=16, batch_size=8), (1, 8), copies=2),
    Contender("without", Decoder(width=16, batch_size=8), (1, 8)),
)


def printed(monkeypatch: pytest.MonkeyPatch, tables: dict[str, Any]) -> list[str]:
    monkeypatch.setattr(attackers, "SETTINGS", {"tiny": tables})
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(compare("tiny", CONTENDERS))
    return [line.strip() for line in console.export_text().splitlines()]


def test_each_contender_has_a_row_for_each_training_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    title, heading, *rows, caption = printed(monkeypatch, TABLES)
    assert "tiny" in title
    assert heading.split()[:3] == ["attacker", "passes", "seconds"]
    names = [(row.split("  ")[0], row.split("  ")[-1] != "") for row in rows]
    assert [name for name, _ in names] == ["with copies", "without", "with copies", "without"]
    passes = [next(word for word in row.split() if word.isdigit()) for row in rows]
    assert passes == ["1", "1", "8", "8"]
    psnr = [row.split("[")[0].split()[-1] for row in rows]
    assert len(set(psnr[:2])) < len(set(psnr))  # the longer trainings are others
    assert "24 photos of" in caption


def test_photos_that_are_not_here_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"name": "index", "path": "nowhere.zip"}
    lines = printed(monkeypatch, {**TABLES, "victim": {**TABLES["victim"], "data": data}})
    assert "left out:" in " ".join(lines)
    assert "nowhere.zip" in " ".join(lines)
