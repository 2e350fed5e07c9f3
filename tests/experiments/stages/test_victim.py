"""A victim's network is trained once, wherever it is cut."""

from pathlib import Path

import pytest
import torch
from tiny import HEAD, MEAN, NONE

from splitleak.defenses.fitting import Examples, SplitModel, fit
from splitleak.experiments.cells.build import cells_of
from splitleak.experiments.planning.names import CACHE
from splitleak.experiments.planning.plan import read_plan
from splitleak.experiments.stages.victim import VictimStage
from splitleak.experiments.store.store import Store
from splitleak.victims.seeding import seeded

CUTS = ("features.1", "features.2.block.1")


def victim_at(cut: str, folder: Path, frozen: bool = False) -> VictimStage:
    (path := folder / "plan.toml").write_text(
        HEAD.replace(CUTS[1], cut).replace(
            "epochs = 1\nlearn", f"epochs = 2\nfreeze_encoder = {str(frozen).lower()}\nlearn"
        )
        + NONE
        + MEAN
    )
    return next(iter(cells_of(read_plan(path)))).protect.victim


def test_all_cuts_of_a_network_share_its_training(tmp_path: Path) -> None:
    store = Store(tmp_path / CACHE, torch.device("cpu"))
    early, late = (victim_at(cut, tmp_path) for cut in CUTS)
    images = torch.rand(4, 3, 32, 32)
    models = [victim.load(store) for victim in (early, late)]
    with torch.no_grad():
        answers = [model(images) for model in models]
    assert store.computed == ["data", "network", "victim", "victim"]
    assert early.history(store) == late.history(store)
    assert len(early.history(store).rows) == 2
    torch.testing.assert_close(*answers, rtol=0, atol=1e-6)


@pytest.mark.parametrize("cut", CUTS)
def test_the_whole_network_learns_what_its_halves_together_learn(cut: str, tmp_path: Path) -> None:
    store = Store(tmp_path / CACHE, torch.device("cpu"))
    victim = victim_at(cut, tmp_path)
    data = victim.data.load(store)
    assert data.labels is not None
    halves = victim.initial(len(data.classes))
    parts = [Examples(data.images[part], data.labels[part]) for part in ("train", "validation")]
    with seeded("train victim", victim.seed):
        fit(SplitModel(halves.encoder, halves.tail), *parts, victim.budget)
    trained = victim.load(store)
    for half, own in ((halves.encoder, trained.encoder), (halves.tail, trained.tail)):
        torch.testing.assert_close(half.state_dict(), own.state_dict(), rtol=1e-4, atol=1e-5)


def test_behind_a_frozen_encoder_each_tail_is_trained_for_itself(tmp_path: Path) -> None:
    store = Store(tmp_path / CACHE, torch.device("cpu"))
    victim = victim_at(CUTS[1], tmp_path, frozen=True)
    before, after = victim.initial(2), victim.load(store)
    assert store.computed == ["data", "victim"]
    torch.testing.assert_close(before.encoder.state_dict(), after.encoder.state_dict(), rtol=0, atol=0)
    moved = [
        not torch.equal(old, new) for old, new in zip(before.tail.parameters(), after.tail.parameters(), strict=True)
    ]
    assert any(moved)
