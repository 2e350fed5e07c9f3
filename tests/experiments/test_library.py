"""Protecting, attacking and judging from Python."""

import doctest
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tiny import HEAD, RIDGE, SUBSET, TABLES, run_plan

from splitleak.attacks.knowledge import BlackBox
from splitleak.attacks.ridge import Ridge
from splitleak.defenses.channel_subset import ChannelSubset
from splitleak.experiments import library
from splitleak.experiments.library import Experiment
from splitleak.victims.errors import InvalidInputError


def test_the_lines_of_the_documentation_run() -> None:
    failed, tried = doctest.testmod(library)
    assert (failed, tried > 5) == (0, True)


def test_it_measures_what_a_plan_measures(tmp_path: Path) -> None:
    planned, _, _ = run_plan(HEAD + SUBSET + RIDGE, tmp_path, shared=True)
    protected = Experiment(tmp_path / "library", **TABLES).protect(ChannelSubset(keep=0.25))
    judged = protected.attack(Ridge()).judge()
    (expected,) = planned
    assert judged.metrics["psnr"].values == tuple(expected["metrics"]["psnr"]["values"])
    assert judged.utility is not None
    assert expected["utility"]["values"] == list(judged.utility.values)
    assert (judged.bytes, judged.defence.label) == (expected["bytes"], "channel_subset keep=0.25")


class Curious(Ridge):
    """Keeps what it was given."""

    name = "curious"
    seen: list[Any] = []  # noqa: RUF012

    def fit(self, knows: BlackBox) -> Any:
        self.seen.append(knows)
        return super().fit(knows)


def test_an_attack_gets_what_it_declares_and_no_target(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path, **TABLES)
    attacked = experiment.protect(ChannelSubset()).attack(Curious())
    (knows,) = Curious.seen
    assert type(knows) is BlackBox
    assert {*knows.images} == {"auxiliary", "validation"}
    targets = {photo.numpy().tobytes() for photo in attacked.photos}
    assert not targets & {photo.numpy().tobytes() for part in knows.images.values() for photo in part}
    assert attacked.answers.shape == attacked.photos.shape == (24, 3, 32, 32)


def test_the_network_and_a_folder_are_there_for_further_use(tmp_path: Path) -> None:
    first = Experiment(tmp_path, **TABLES)
    logits = first.protect(ChannelSubset()).network(torch.rand(2, 3, 32, 32))
    assert logits.shape == (2, 2)
    judged = first.protect(ChannelSubset()).attack(Ridge()).judge()
    second = Experiment(tmp_path, **TABLES)
    assert second.protect(ChannelSubset()).attack(Ridge()).judge() == judged
    assert second.store.computed == []
    assert json.loads((tmp_path / "experiment" / "cells" / f"{judged.id}.json").read_text())["status"] == "ok"


def test_a_temporary_folder_goes_with_the_experiment() -> None:
    experiment = Experiment(**TABLES)
    folder = experiment.run.parent
    assert folder.is_dir()
    del experiment
    assert not folder.exists()


def test_what_cannot_be_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match="unknown table 'victims'; did you mean victim"):
        Experiment(tmp_path, victims={})
    with pytest.raises(InvalidInputError, match="unknown table 'defenses'"):
        Experiment(tmp_path, defenses={})
    with pytest.raises(InvalidInputError, match="an experiment has one threat"):
        Experiment(tmp_path, **{**TABLES, "attacker": {"adaptive": [True, False]}})
    monkeypatch.setitem(sys.modules, "notebook", ModuleType("notebook"))
    nowhere = type("Nowhere", (ChannelSubset,), {"__module__": "notebook"})
    with pytest.raises(InvalidInputError, match="Nowhere is defined in no file"):
        Experiment(tmp_path, **TABLES).protect(nowhere())
