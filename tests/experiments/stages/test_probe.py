"""The look from outside asks every device whether its draws vary, whatever it claims."""

from pathlib import Path

import pytest
from tiny import HEAD, MEAN, run_plan

from splitleak.experiments.results.load import load_results
from splitleak.experiments.results.results import Results

PLANTED = '''
from dataclasses import dataclass
import torch
from splitleak.defenses.base import Channel, Defense
from splitleak.victims.seeding import seeded

class _Shifted(Channel):
    def __init__(self, shape):
        super().__init__()
        self.register_buffer("noise", torch.randn(shape))
    def send(self, features):
        return features + self.noise

class _Placed(Channel):
    def send(self, features):
        with seeded("always the same"):
            return features + torch.randn_like(features)

@dataclass(frozen=True)
class Shifted(Defense):
    """Noise drawn once, of which nothing is claimed."""
    paper = "a test's"
    def channel(self, shape):
        return _Shifted(shape)

@dataclass(frozen=True)
class Placed(Defense):
    """Noise drawn once for a whole batch, of which nothing is claimed."""
    paper = "a test's"
    def channel(self, shape):
        return _Placed()
'''
DEFENCES = (
    'name = "defences.py:Shifted"',
    'name = "defences.py:Placed"',
    'name = "shredder"\nscale = 4.0\ntensors = 4\nsteps = 2',
    'name = "shredder"\nscale = 4.0\ntensors = 4\nsteps = 2\nsampling = "elementwise"',
    'name = "laplace_noise"',
    'name = "dropout"',
    'name = "quantisation"\nbits = 1',
)


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder: Path = tmp_path_factory.mktemp("probed")
    (folder / "defences.py").write_text(PLANTED)
    run_plan(HEAD + "".join(f"[[defenses]]\n{one}\n" for one in DEFENCES) + MEAN, folder)
    return load_results(folder / "runs" / "tiny")


def test_draws_that_do_not_vary_are_noticed_without_any_claim(probed: Results) -> None:
    frozen = {cell.defence.name for cell in probed.cells if cell.probe.frozen}
    assert frozen == {"shifted", "placed"}


def test_a_choice_among_few_patterns_is_counted_and_flagged(probed: Results) -> None:
    patterns = {cell.defence.label: cell.probe.patterns for cell in probed.cells if cell.probe.patterns}
    (label,) = patterns
    assert "shredder" in label
    assert "elementwise" not in label
    assert patterns[label] == 4
    assert {row for (row, _), flags in probed.every_flag.items() if "few-patterns" in flags} == {label}
