"""One victim of a study: where it is cut, and what was found there."""

import math
from dataclasses import dataclass

from splitleak.experiments.judge.statistics.interval import Interval
from splitleak.experiments.results.results import Group, Results
from splitleak.victims.cuts import Cut


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
