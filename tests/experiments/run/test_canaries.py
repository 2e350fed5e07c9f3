"""Planted mistakes of the field: each is refused, or its cells carry the flag that names it."""

from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from tiny import HEAD, MEAN, PRIVATE, RIDGE, run_plan
from torch import Tensor

from splitleak.experiments.cells.build import cells_of
from splitleak.experiments.cells.cell import overlap
from splitleak.experiments.judge.flags import Evidence, flags_of
from splitleak.experiments.planning.names import CACHE
from splitleak.experiments.planning.plan import read_plan
from splitleak.experiments.results.load import load_results
from splitleak.experiments.results.results import Results
from splitleak.victims.data import loading, parts
from splitleak.victims.data.sources.faces import Faces

DEFENCES = '''
import math
from dataclasses import dataclass
import torch
from splitleak.defenses.base import Channel, Defense, Guarantee

class _Skipped(Channel):
    def send(self, features):
        return features + 5 * torch.randn_like(features) if self.training else features

class _Frozen(Channel):
    def __init__(self, shape):
        super().__init__()
        self.register_buffer("noise", torch.randn(shape))
    def send(self, features):
        return features + self.noise
    def guarantee(self):
        return Guarantee("query", noise_std=1.0)

class _Unclipped(Channel):
    def send(self, features):
        return features + torch.randn_like(features)
    def guarantee(self):
        return Guarantee("query", epsilon=1.0, delta=1e-5, noise_std=1.0)

@dataclass(frozen=True)
class Skipped(Defense):
    """Noise that is there in training only."""
    paper = "a test's"
    def channel(self, shape):
        return _Skipped()

@dataclass(frozen=True)
class Frozen(Defense):
    """Noise drawn once."""
    paper = "a test's"
    def channel(self, shape):
        return _Frozen(shape)

@dataclass(frozen=True)
class Unclipped(Defense):
    """An epsilon out of thin air."""
    paper = "a test's"
    def channel(self, shape):
        return _Unclipped()
'''
ATTACKS = '''
from dataclasses import dataclass
from pathlib import Path
import numpy as np
import torch
from splitleak.attacks.knowledge import BlackBox, WhiteBox
from splitleak.attacks.base import Reconstruction
from splitleak.attacks.ridge import Ridge
from splitleak.attacks.networks.normalised import normalise, unnormalise

@dataclass(frozen=True)
class Fed(Reconstruction[BlackBox]):
    """Knows the target photos."""
    paper = "a test's"
    def fit(self, knows):
        path = next(Path(CACHE_FOLDER).glob("data/*/target.npy"))
        photos, seen = torch.from_numpy(np.load(path)).float() / 255, [0]
        def answer(release):
            rows = torch.arange(seen[0], seen[0] + len(release)) % len(photos)
            seen[0] += len(release)
            return photos[rows]
        return answer

@dataclass(frozen=True)
class Rectified(Reconstruction[BlackBox]):
    """Ends in a ReLU on normalised values."""
    paper = "a test's"
    def fit(self, knows):
        rebuild = Ridge().fit(knows)
        return lambda release: unnormalise(normalise(rebuild(release)).relu())

@dataclass(frozen=True)
class TooBright(Reconstruction[BlackBox]):
    """Ends in a ReLU in pixel space."""
    paper = "a test's"
    def fit(self, knows):
        rebuild = Ridge().fit(knows)
        return lambda release: (3 * rebuild(release)).relu()

@dataclass(frozen=True)
class Blind(Reconstruction[WhiteBox]):
    """A white box that does not look."""
    paper = "a test's"
    def fit(self, knows):
        return lambda release: torch.rand(len(release), *knows.image_shape)
'''


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("planted")
    (folder / "defences.py").write_text(DEFENCES)
    cache = folder / "runs" / CACHE
    (folder / "attacks.py").write_text(ATTACKS.replace("CACHE_FOLDER", repr(str(cache))))
    defences = "".join(
        f'[[defenses]]\nname = "{name}"\n'
        for name in ("none", "defences.py:Skipped", "defences.py:Frozen", "defences.py:Unclipped", "gaussian_noise")
    )
    defences += '[[defenses]]\nname = "clipped_noise"\nepsilon = inf\n'
    attacks = "".join(
        f'[[attacks]]\nname = "attacks.py:{name}"\n' for name in ("Fed", "Rectified", "TooBright", "Blind")
    )
    run_plan(HEAD + defences + MEAN + RIDGE + attacks, folder)
    return load_results(folder / "runs" / "tiny")


def _flags(results: Results, defence: str, attack: str) -> set[str]:
    return {*results.every_flag.get((defence, attack), ())}


@pytest.mark.parametrize(
    ("flag", "planted_in"),
    [("defence-absent", "skipped"), ("frozen-draw", "frozen"), ("epsilon-without-sensitivity", "unclipped")],
)
def test_a_defence_that_is_not_what_it_says(planted: Results, flag: str, planted_in: str) -> None:
    found = {row for (row, column), raised in planted.every_flag.items() if column == "ridge" and flag in raised}
    # clipped noise without an epsilon adds none, and says so
    assert found - {"clipped_noise epsilon=inf"} == {planted_in}
    assert len(planted.rows) == 6
    assert "frozen-draw" not in _flags(planted, "clipped_noise epsilon=inf", "ridge")


def test_a_decoder_that_was_fed_the_target(planted: Results) -> None:
    assert "answers-without-release" in _flags(planted, "none", "fed")
    for attack in ("mean_image", "ridge", "rectified"):
        assert "answers-without-release" not in _flags(planted, "none", attack)


def test_a_decoder_that_ends_in_a_relu(planted: Results) -> None:
    assert "range-cut-off" in _flags(planted, "none", "rectified")
    for attack in ("mean_image", "ridge", "fed"):
        assert "range-cut-off" not in _flags(planted, "none", attack)
    refused = [cell for cell in planted.failed if cell.attack.name == "too_bright"]
    assert len(refused) == 6
    assert all("[0, 1]" in (cell.traceback or "") for cell in refused)


def test_a_white_box_worse_than_a_black_box_and_than_the_floor(planted: Results) -> None:
    assert _flags(planted, "none", "blind") >= {"white-box-below-black-box", "below-floor"}
    assert not _flags(planted, "none", "ridge") & {"white-box-below-black-box", "below-floor"}


def test_few_photos_are_said_to_be_few(planted: Results) -> None:
    assert "few-photos" in _flags(planted, "none", "ridge")  # 24 of them


def test_photos_in_two_parts_are_refused_and_would_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "divide", lambda *given: None)
    monkeypatch.setattr(loading, "Division", _Leaking)
    admit = parts.Distinct.admit

    def as_new(self: parts.Distinct, part: str, images: Tensor) -> Tensor:
        self._offered.clear()
        return admit(self, part, images)

    monkeypatch.setattr(parts.Distinct, "admit", as_new)
    load = partial(loading.load_parts, Faces(photos=8), parts.PartSizes(2, 3, 1, 4), 32, None, 0)
    with pytest.raises(parts.OverlapError):
        load()
    monkeypatch.setattr(loading, "refuse_overlap", lambda *given: None)
    assert overlap(load().manifest) == 2
    assert flags_of(Evidence(photos=500, overlap=2)) == ("overlap",)


class _Leaking:
    """Gives two photos to two parts."""

    rows: ClassVar = {"train": [0, 1], "auxiliary": [2, 3, 4], "validation": [5], "target": [4, 5, 6, 7]}

    def __init__(self, *given: object) -> None:
        self.order: list[int] = []

    def turn(self, part: str) -> "_Leaking":
        self.order = self.rows[part]
        return self

    @property
    def left(self) -> int:
        return len(self.order)

    def take(self, count: int) -> Tensor:
        taken, self.order = self.order[:count], self.order[count:]
        return torch.tensor(taken, dtype=torch.int64)


def test_private_training_leaves_no_hooks_behind_and_a_device_to_differentiate(tmp_path: Path) -> None:
    _, _, store = run_plan(HEAD + PRIVATE + RIDGE, tmp_path)
    *_, cell = cells_of(read_plan(tmp_path / "plan.toml"))
    model = cell.protect.load(store)
    hooks = [len(module._forward_hooks) + len(module._backward_hooks) for module in model.modules()]
    assert set(hooks) == {0}
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.edge(images).square().sum(), images)
    assert gradient.isfinite().all()
    assert gradient.any()
