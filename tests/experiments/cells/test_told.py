"""How many nats a defence claims that a send tells, and whether photos that are sent keep to it."""

import csv
import math
from pathlib import Path

import pytest
from tiny import HEAD, MEAN, RIDGE, run_plan

from splitleak.experiments.results.load import load_results
from splitleak.experiments.results.record import Record
from splitleak.experiments.results.results import Results

WHISPERER = '''
from dataclasses import dataclass
import torch
from splitleak.defenses.base import Channel, Defense, Guarantee

class _Whisperer(Channel):
    def send(self, features):
        return features + 1e-3 * torch.randn_like(features)
    def guarantee(self):
        return Guarantee("query", noise_std=1e-3, information=0.5)

@dataclass(frozen=True)
class Whisperer(Defense):
    """Adds little noise, and claims that it tells next to nothing."""
    paper = "a test's"
    def channel(self, shape):
        return _Whisperer()
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("told")
    (place / "whisperer.py").write_text(WHISPERER)
    defences = '[[defenses]]\nname = "whisperer.py:Whisperer"\n[[defenses]]\nname = "pac_noise"\nnats = 8.0\n'
    run_plan(HEAD + defences + MEAN + RIDGE, place, report=True, shared=True)
    return place / "runs" / "tiny"


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    return load_results(folder)


def of(results: Results, defence: str) -> Record:
    return next(cell for cell in results.cells if cell.defence.name == defence)


def test_what_is_told_is_held_against_what_is_claimed(results: Results) -> None:
    raised = {row for (row, _), flags in results.every_flag.items() if "information-above-claim" in flags}
    assert raised == {"whisperer"}
    pac = of(results, "pac_noise")
    assert pac.information == 8.0
    assert pac.bounds is not None
    assert pac.bounds.information_bits is not None
    assert 0.5 < pac.bounds.information_bits <= 8 / math.log(2)


def test_claims_of_several_sends_add_up(results: Results) -> None:
    pac = of(results, "pac_noise")
    assert pac.bounds is not None
    found = pac.model_copy(
        update={"sends": 2, "bounds": pac.bounds.__class__(**{**vars(pac.bounds), "information_bits": 20.0})}
    )
    assert not found.talkative
    assert found.model_copy(update={"sends": 1}).talkative


def test_the_claim_stands_in_the_tables(folder: Path) -> None:
    lines = (folder / "tables" / "proved.md").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("| pac_noise")]
    assert "per query: infinite; at most 11.5 bits" in line
    with (folder / "results.csv").open() as file:
        claims = {(row["defence"], row["information"]) for row in csv.DictReader(file)}
    assert {("pac_noise", "8.0"), ("none", ""), ("whisperer", "0.5")} <= claims
