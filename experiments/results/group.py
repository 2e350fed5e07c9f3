"""What the seeds of a setting say together: an attack on a defence, and a defence under all attacks."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from splitleak.experiments.judge.rules import PERSONAL
from splitleak.experiments.judge.statistics.different import Sample
from splitleak.experiments.judge.statistics.groups import person_means
from splitleak.experiments.judge.statistics.interval import Array, Interval, interval, intervals, most_exposed
from splitleak.experiments.judge.statistics.matched import Setting
from splitleak.experiments.planning.names import STRONGEST
from splitleak.experiments.results.metrics import EXPOSED, LEAKAGE_METRICS, SHOWN_METRICS
from splitleak.experiments.results.record import DefenceSetting, Record, Score

K = TypeVar("K")
V = TypeVar("V")
Scored = Sequence[tuple[Record, Score]]
"""A score of some cells, each with its cell."""


def _sample(scored: Scored, personal: bool = False) -> Sample:
    """Values (seeds, images) with the groups of the images, which all seeds share; or of people (``personal``), each
    counted once where it was stored who is on which image."""
    if len({len(score.values) for _, score in scored}) > 1:
        raise ValueError("the seeds of a cell were scored on different numbers of images; they cannot be pooled")
    record, score = scored[0]
    values, groups = np.array([one.values for _, one in scored], dtype=float), record.people(score)
    if not personal or groups is None or record.groups is None:
        return Sample(values, groups)
    return Sample(person_means(values, groups), np.unique(groups))


def _pool(scored: Scored, personal: bool = False) -> Interval:
    """Mean and interval over seeds and images, or people."""
    return interval(*_sample(scored, personal))


def _sum(counts: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
    """Of all together, the most first."""
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total.most_common())


def once(known: dict[K, V], key: K, compute: Callable[[], V]) -> V:
    """What was computed for the key before, or now."""
    if key not in known:
        known[key] = compute()
    return known[key]


def mean_of_known(values: Iterable[float | None]) -> float | None:
    """The mean of what was measured; None where nothing was."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class Group:
    """The seeds of one defence setting met by one attack."""

    cells: tuple[Record, ...]

    @cached_property
    def finished(self) -> tuple[Record, ...]:
        """The cells that were measured, in the plan's order of seeds."""
        return tuple(cell for cell in self.cells if cell.ok)

    @cached_property
    def _known(self) -> dict[tuple[str | int | None, ...], Interval | None]:
        return {}

    @cached_property
    def _samples(self) -> dict[tuple[str, str | None], Sample | None]:
        return {}

    @property
    def column(self) -> str:
        """The attack as the matrix names it."""
        return self.cells[0].column

    @property
    def floor(self) -> bool:
        """Whether this attack ignores the release."""
        return self.cells[0].attack.floor

    @property
    def suite(self) -> bool:
        """Whether this is the suite's choice and no single attack."""
        return self.cells[0].attack.name == STRONGEST

    @property
    def metrics(self) -> tuple[str, ...]:
        """All that was measured."""
        return tuple(dict.fromkeys(metric for cell in self.finished for metric in cell.metrics))

    @property
    def photos(self) -> int:
        """How many each seed was scored on."""
        return max((cell.n or 0 for cell in self.finished), default=0)

    @cached_property
    def scores(self) -> Mapping[str, Interval]:
        """Each shown metric over all seeds and images that were measured."""
        self._pool_together()
        pooled = {metric: self.pooled(metric) for metric in SHOWN_METRICS}
        return {metric: score for metric, score in pooled.items() if score is not None}

    @cached_property
    def every_score(self) -> Mapping[str, Interval]:
        """Each metric over all seeds and images, shown or not, and of the suite the oracle's."""
        self._pool_together()
        found = {metric: self.pooled(metric) for metric in self.metrics}
        found |= {f"oracle_{metric}": score for metric, score in self.oracle.items()}
        found |= {f"{metric}{EXPOSED}": self.most_exposed(metric) for metric in LEAKAGE_METRICS}
        return {metric: score for metric, score in found.items() if score is not None}

    def _pool_together(self) -> None:
        """What ``pooled`` would tell of metrics of the same photos, all at once."""
        alike: dict[tuple[tuple[int, ...], bytes | None], dict[str, Sample]] = {}
        for metric in self.metrics:
            if sample := self.sample(metric):
                who = None if sample.groups is None else np.asarray(sample.groups).tobytes()
                alike.setdefault((sample.values.shape, who), {})[metric] = sample
        for samples in alike.values():
            values, groups = zip(*samples.values(), strict=True)
            pooled = intervals(values, groups)
            for metric, score in zip(samples, pooled, strict=True):
                self._known.setdefault(("pooled", metric, None), score)

    def pooled(self, metric: str, first: int | None = None) -> Interval | None:
        """A metric over all seeds and images that were measured, or over each seed's ``first`` images."""
        return once(self._known, ("pooled", metric, first), lambda: self._pooled(metric, first))

    def _pooled(self, metric: str, first: int | None) -> Interval | None:
        scored = [(cell, cell.metrics[metric]) for cell in self.finished if metric in cell.metrics]
        if first is not None:
            scored = [(cell, score.model_copy(update={"values": score.values[:first]})) for cell, score in scored]
        return _pool(scored, metric in PERSONAL) if scored else None

    def most_exposed(self, metric: str) -> Interval | None:
        """The mean over the tenth of the images that leak most, over all seeds; None where not measured."""
        sample = self.sample(metric)
        return once(self._known, ("exposed", metric), lambda: None if sample is None else most_exposed(*sample))

    @cached_property
    def oracle(self) -> Mapping[str, Interval]:
        """Of the suite: each metric had the true photo chosen among the attacks; empty for a single attack."""
        names = dict.fromkeys(name for cell in self.finished for name in cell.oracle)
        return {
            name: _pool(
                [(cell, cell.oracle[name]) for cell in self.finished if name in cell.oracle], name in PERSONAL
            )
            for name in names
        }

    @property
    def chosen(self) -> Mapping[str, int]:
        """Of the suite: how many photos went to each attack, over all seeds, the most first."""
        return _sum(cell.chosen for cell in self.finished)

    def chosen_for(self, metric: str) -> Mapping[str, int]:
        """Like ``chosen``, by an adversary who is after something else, such as structure or people; empty where the
        suite made no choice for it."""
        return _sum(cell.chosen_for.get(metric, {}) for cell in self.finished)

    @property
    def chosen_for_ssim(self) -> Mapping[str, int]:
        """By an adversary who is after structure."""
        return self.chosen_for("ssim")

    @property
    def threat(self) -> tuple[bool, int, bool]:
        """Adaptive or not, releases of each photo, and whether it learned from the victim's training photos."""
        first = self.cells[0]
        return first.adaptive, first.sends, first.photos == "train"

    def table(self, metric: str, control: str | None = None) -> Array | None:
        """A metric by seed and photo, (seeds, k): of the attack, or of a control of it; None where not measured."""
        sample = self.sample(metric, control)
        return None if sample is None else sample.values

    def sample(self, metric: str, control: str | None = None) -> Sample | None:
        """Like ``table``, with the groups of the photos."""
        return once(self._samples, (metric, control), lambda: self._sample(metric, control))

    def _sample(self, metric: str, control: str | None) -> Sample | None:
        found = [
            (cell, cell.metrics if control is None else cell.controls.get(control, {})) for cell in self.finished
        ]
        scored = [(cell, scores[metric]) for cell, scores in found if metric in scores]
        alike = len({len(score.values) for _, score in scored}) == 1
        return _sample(scored, metric in PERSONAL) if alike else None

    def reference(self, metric: str, name: str) -> float | None:
        """What a score is to be compared with, "chance" or "ceiling" (the photo itself): the mean over seeds."""
        return mean_of_known(cell.references.get(metric, {}).get(name) for cell in self.finished)


@dataclass(frozen=True)
class DefenceRow:
    """One defence setting: what it costs, and the attacks that met it by their column."""

    defence: DefenceSetting
    groups: Mapping[str, Group]

    @cached_property
    def by_seed(self) -> tuple[Record, ...]:
        """One measured cell per seed: utility, bytes and edge time do not depend on the attack."""
        first: dict[int, Record] = {}
        for group in self.groups.values():
            for cell in group.finished:
                first.setdefault(cell.seed, cell)
        return tuple(first.values())

    @cached_property
    def utility(self) -> Interval | None:
        """Over all seeds and images, a share in [0, 1]."""
        return interval(*self.useful) if self.useful else None

    @cached_property
    def useful(self) -> Sample | None:
        """Whether the cloud is right, by seed and photo; None where that is unknown."""
        scored = [(cell, cell.utility) for cell in self.by_seed if cell.utility]
        return _sample(scored) if scored else None

    @property
    def also(self) -> dict[str, float]:
        """What is known of the utility of all photos together, such as an mAP: by name the mean over seeds."""
        scored = [cell.utility.also for cell in self.by_seed if cell.utility]
        found = {name: [one[name] for one in scored if name in one] for name in (scored[0] if scored else ())}
        return {name: sum(values) / len(values) for name, values in found.items()}

    def average(self, read: Callable[[Record], float | None]) -> float | None:
        """The mean over seeds of what ``read`` finds in a cell."""
        return mean_of_known(read(cell) for cell in self.by_seed)

    @property
    def bytes(self) -> float | None:
        """What travels for one image."""
        return self.average(lambda cell: cell.bytes)

    @property
    def edge_milliseconds(self) -> float | None:
        """Of one image on the edge."""
        return self.average(lambda cell: cell.edge.milliseconds if cell.edge else None)

    @property
    def edge_ratio(self) -> float | None:
        """Edge time over that of the undefended network."""
        return self.average(lambda cell: cell.edge.ratio if cell.edge else None)

    def setting(self, metric: str) -> Setting | None:
        """Utility and leakage under the strongest attack, by seed and photo; None where either is missing."""
        strongest = self.strongest(metric)
        leakage = strongest.sample(metric) if strongest else None
        if strongest is None or leakage is None:
            return None
        scored = [(cell, cell.utility) for cell in strongest.finished if cell.utility]
        if len(scored) != len(leakage.values):
            return None
        utility = _sample(scored)
        return Setting(utility.values, leakage.values, utility.groups, leakage.groups)

    @property
    def floor(self) -> Group | None:
        """The attack that ignores the release."""
        return next((group for group in self.groups.values() if group.floor), None)

    def strongest(self, metric: str) -> Group | None:
        """The suite's choice; where a plan has no suite, the attack with the highest mean, floors apart.

        Of several threats the one that leaks most, of equals the one that the plan names first. What is no likeness
        of pictures, such as who is on them, never follows the scores themselves: the suite counts where it chose on
        other people, else the first attack that aims at it, else the suite or the first attack; under the threat that
        knows most.
        """
        return once(self._strongest, metric, lambda: self._found(metric))

    @cached_property
    def _strongest(self) -> dict[str, Group | None]:
        return {}

    def _found(self, metric: str) -> Group | None:
        groups = [group for group in self.groups.values() if not group.floor and metric in group.scores]
        suites = [group for group in groups if group.suite]
        if metric in LEAKAGE_METRICS:
            return max(suites or groups, key=lambda group: group.scores[metric].mean, default=None)
        chosen = [group for group in suites if group.chosen_for(metric)]
        aimed = [group for group in groups if LEAKAGE_METRICS[0] not in group.scores]
        return max(chosen or aimed or suites or groups, key=lambda group: group.threat, default=None)
