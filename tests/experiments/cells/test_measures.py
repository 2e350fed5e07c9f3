"""What a cell states beside PSNR reaches whoever looks: the record, results.csv, the tables and the flags."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from tiny import HEAD, MEAN, RIDGE, run_plan

from splitleak.experiments.judge.statistics.interval import exposed
from splitleak.experiments.results.load import load_results

CLIPPED = '[[defenses]]\nname = "clipped_noise"\nepsilon = 8.0\n'
LIAR = '''
from dataclasses import dataclass
import torch
from splitleak.defenses.base import Channel, Defense, Guarantee

class _Liar(Channel):
    def send(self, features):
        norm = features.flatten(1).norm(dim=1).clamp_min(1e-9).view(-1, *[1] * (features.ndim - 1))
        return features / norm + 0.5 * torch.randn_like(features)
    def guarantee(self):
        return Guarantee("query", epsilon=1.0, delta=1e-5, noise_std=0.5)

@dataclass(frozen=True)
class Liar(Defense):
    """Clips and adds noise, and claims more than that gives."""
    paper = "a test's"
    def channel(self, shape):
        return _Liar()
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("measures")
    (place / "liar.py").write_text(LIAR)
    head = HEAD.replace("photos = 400", "photos = 400, photos_per_identity = 4")
    defences = CLIPPED + '[[defenses]]\nname = "liar.py:Liar"\n'
    run_plan(head + defences + MEAN + RIDGE, place, report=True, shared=True)
    return place / "runs" / "tiny"


def test_every_measure_is_a_column_of_the_long_table(folder: Path) -> None:
    with (folder / "results.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["attack"] == "ridge"]
    results = load_results(folder)
    for row in rows:
        cell = next(cell for cell in results.cells if cell.id == row["id"])
        psnr = cell.metrics["psnr"].values
        tenth = sorted(psnr)[-3:]  # of 24 photos 2.4
        by_hand = (tenth[2] + tenth[1] + 0.4 * tenth[0]) / 2.4
        assert float(row["psnr_most_exposed"]) == pytest.approx(by_hand) == pytest.approx(exposed(psnr))
        assert float(row["ssim_most_exposed"]) >= float(row["ssim_mean"])
        bits = np.array(cell.metrics["usable_bits"].values)
        assert (bits >= 0).all()
        floor = next(one for one in results.cells if one.attack.floor).metrics["mse"].values
        ratio = np.log2(np.array(floor) / np.array(cell.metrics["mse"].values))
        assert bits == pytest.approx(np.maximum(0, 3 * 32**2 / 2 * ratio), rel=0.1, abs=30)  # a rounded mean image
        assert 0 <= float(row["eavesdropping_accuracy_mean"]) <= 1
        assert float(row["eavesdropping_accuracy_chance"]) >= 0.5
        assert int(row["people"]) == 6
        assert int(row["utility_n"]) == 4 * int(row["utility_people"]) > 24
    clipped = next(row for row in rows if row["defence"] == "clipped_noise")
    assert 0 <= float(clipped["query_epsilon_at_least"]) <= float(clipped["query_epsilon"]) == pytest.approx(8)
    assert float(clipped["information_bits"]) > 0
    assert 1 / 6 <= float(clipped["rank1_at_most"]) <= 1


def test_a_claim_that_an_adversary_refutes_is_flagged(folder: Path) -> None:
    results = load_results(folder)
    assert "epsilon-refuted" in results.every_flag["liar", "ridge"]
    assert "epsilon-refuted" not in results.every_flag["clipped_noise epsilon=8.0", "ridge"]
    probe = next(cell.probe for cell in results.cells if cell.defence.name == "liar")
    assert probe.epsilon_at_least is not None
    assert 1 < probe.epsilon_at_least < math.inf


def test_what_is_proved_stands_in_its_table(folder: Path) -> None:
    text = (folder / "tables" / "proved.md").read_text()
    header, _, *lines = text.splitlines()
    for heading in (
        "refuted below, by an adversary's test",
        "bits about a photo, at most",
        "rank-1 (%), at most (Fano)",
    ):
        assert heading in header
    clipped = next(line for line in lines if line.startswith("| clipped_noise"))
    bounds = next(cell.bounds for cell in load_results(folder).cells if cell.defence.name == "clipped_noise")
    assert bounds is not None
    assert bounds.rank1_at_most is not None
    assert clipped.rstrip(" |").endswith(f"{100 * bounds.rank1_at_most:.1f}")
    attacks = (folder / "tables" / "attacks.md").read_text()
    for heading in ("eavesdropping accuracy (%), chance", "usable bits", "PSNR (dB), most exposed 10%"):
        assert heading in attacks
