"""One victim of a study: where it is cut, and what was found there."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from splitleak.experiments.judge.statistics.interval import Interval
from splitleak.experiments.planning.names import MEMBERS
from splitleak.experiments.planning.plan import read_plan
from splitleak.experiments.planning.study import cut_of
from splitleak.experiments.results.group import Group
from splitleak.experiments.results.load import CELLS, load_results
from splitleak.experiments.results.results import Results
from splitleak.experiments.store.integrity import replace_if_other
from splitleak.victims.cuts import Cut

"""File in a study's folder: its victims, and the folder of each one's run beside it."""


@dataclass(frozen=True)
class Member:
    """``label``: what the study calls it; ``run``: the name of its run, which lies beside the study's folder."""

    label: str
    run: str
    cut: Cut
    results: Results

    @property
    def values(self) -> int:
        """Of the undefended features of one photo."""
        return math.prod(self.cut.shape)

    @property
    def network(self) -> str:
        """The victims that share it differ in their cut alone, as far as a figure tells."""
        victim = self.results.victim
        return "" if victim is None else victim.model

    def strongest(self, metric: str) -> Group | None:
        """The strongest attack on the undefended victim; None where none was measured."""
        return self.results.undefended.strongest(metric) if self.results.undefended else None

    def leakage(self, metric: str) -> Interval | None:
        """What it reaches."""
        strongest = self.strongest(metric)
        return strongest.scores[metric] if strongest else None

    def doubtful(self, metric: str) -> bool:
        """Whether that carries a flag."""
        strongest, row = self.strongest(metric), self.results.undefended
        return bool(strongest and row and self.results.raised(row.defence, strongest.column))


def write_members(folder: Path, text: str, runs: Mapping[str, str]) -> None:
    """Store a study: its plan's text, and which of the runs beside its folder belong to it, by victim."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_if_other(folder / "plan.toml", text.encode())
    there = {label: run for label, run in runs.items() if (folder.parent / run / CELLS).is_file()}
    replace_if_other(folder / MEMBERS, json.dumps(there, indent=1).encode())


def read_members(folder: Path) -> list[Member]:
    """The victims of a stored study with what was found at each.

    Raises:
        InvalidInputError: a run of the study is not there any more.
    """
    return [_member(label, folder.parent / run) for label, run in _listed(folder).items()]


def member_runs(folder: Path) -> list[Path]:
    """The folders of a stored study's runs."""
    return [folder.parent / run for run in _listed(folder).values()]


def _listed(folder: Path) -> dict[str, str]:
    listed: dict[str, str] = json.loads((folder / MEMBERS).read_text())
    return listed


def _member(label: str, run: Path) -> Member:
    return Member(label, run.name, cut_of(read_plan(run / "plan.toml")), load_results(run))
