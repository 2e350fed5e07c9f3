"""A run first tells what it has loaded, and how right the network itself is."""

import json
from pathlib import Path

import pytest
import torch
from terminal import Terminal
from tiny import HEAD, MEAN, NONE, RIDGE, link_stages, run_plan

from splitleak.experiments.planning.names import CACHE
from splitleak.experiments.planning.plan import read_plan
from splitleak.experiments.run.loaded import utility_of_uncut
from splitleak.experiments.run.run import Run
from splitleak.experiments.stages.uncut import UncutStage
from splitleak.experiments.stages.victim import VictimStage
from splitleak.experiments.store.store import Store
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.tensors import to_float

PLAN = HEAD + NONE + MEAN + RIDGE


def stage(folder: Path, text: str = PLAN) -> tuple[UncutStage, Store]:
    (folder / "plan.toml").write_text(text)
    run = Run.of(read_plan(folder / "plan.toml"), folder / "runs")
    (uncut,) = run.uncut.values()
    return uncut, Store(folder / "runs" / "cache", torch.device("cpu"))


def test_what_was_loaded_is_told_first(tmp_path: Path, terminal: Terminal) -> None:
    link_stages(tmp_path / "runs" / CACHE)
    uncut, store = stage(tmp_path)
    code, output, _ = terminal("run", str(tmp_path / "plan.toml"), "--out", str(tmp_path / "runs"))
    assert code == 0
    data, model = uncut.victim.data.load(store), uncut.victim.load(store)
    assert data.identities is not None
    assert data.labels is not None
    people = {part: len(set(of.tolist())) for part, of in data.identities.items()}
    counts = [int((data.labels["test"] == index).sum()) for index in (0, 1)]
    with torch.no_grad():
        right = model(to_float(data.images["test"])).argmax(1) == data.labels["test"]
    for line in (
        f"photos: train 96 of {people['train']} people, validation 32 of {people['validation']} people, ",
        f"target 24 of {people['target']} people, test 104 of {people['test']} people",
        "classes of mask, in the order of the outputs: "
        f"0 {data.classes[0]} ({counts[0]}), 1 {data.classes[1]} ({counts[1]}) test photos",
        "network: mobilenet_v3_small cut at features.2.block.1, release ",
        "traced by torch.fx",
        "weights: ",
        "normalisation: mean 0.485, 0.456, 0.406, standard deviation 0.229, 0.224, 0.225",
        f"uncut network, seed 0: {float(right.float().mean()):.1%} [",
        f"of 104 photos of {people['test']} people (test) are right; always the commonest class would be "
        f"{max(counts) / 104:.1%}",
    ):
        assert line in output.replace("\n", " ") or line in output, line
    assert output.index("photos: ") < output.index("weights: ") < output.index("uncut network") < output.index("[1/")


def test_an_uncut_network_that_is_not_its_halves_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uncut, store = stage(tmp_path)
    load = VictimStage.load

    def other(self: VictimStage, store: Store) -> object:
        model = load(self, store)
        with torch.no_grad():
            next(model.tail.parameters()).mul_(1.5)
        return model

    monkeypatch.setattr(VictimStage, "load", other)
    with pytest.raises(InvalidInputError, match="something else than the uncut network"):
        store.folder(uncut)
    with pytest.raises(InvalidInputError, match="something else than the uncut network"):
        run_plan(HEAD + NONE + MEAN, tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*/cells/*.json")), "no cell says anything of such a network"


def test_a_victim_at_chance_is_told(tmp_path: Path) -> None:
    uncut, store = stage(tmp_path)
    folder = store.folder(uncut)
    facts = {"metric": "accuracy", "values": [1, 0] * 52, "chance": 0.5, "part": "test"}
    (folder / "uncut.json").write_text(json.dumps(facts))
    assert "no better than a guess" in utility_of_uncut(uncut, store)
    (folder / "uncut.json").write_text(json.dumps({**facts, "values": [1] * 104}))
    text = utility_of_uncut(uncut, store)
    assert "100.0%" in text
    assert "no better" not in text
