"""What the cells of a plan measured: typed, pooled over seeds, and as one flat table."""

import csv
import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from splitleak.experiments.judge.flags import Evidence, Probe, flags_of
from splitleak.experiments.judge.metrics.bounds import Bounds
from splitleak.experiments.judge.statistics.interval import Array, Interval, interval
from splitleak.experiments.judge.statistics.matched import Setting, needed
from splitleak.experiments.judge.statistics.pareto import pareto
from splitleak.experiments.judge.statistics.relative import relative
from splitleak.victims.errors import InvalidInputError

AFFORDABLE = 0.03
"""Utility that a defence may cost before it is no longer comparable with those that leave the task intact."""

LEAKAGE_METRICS = ("psnr", "ssim")
"""What a report's headline, curves and colours are about: how much of the photo comes back."""

SHOWN_METRICS = (*LEAKAGE_METRICS, "rank1", "balanced_accuracy")
"""What a report shows of a cell, all higher where more leaks; ``results.csv`` holds every metric."""

UNDEFENDED = "none"
"""The name of the defence that does nothing."""

STRONGEST = "strongest"
"""The name under which the suite's choice among all attacks is stored."""


@dataclass(frozen=True)
class Victim:
    """What is attacked; ``task`` is None where the network has none."""

    model: str
    cut: str
    data: str
    size: int
    task: str | None = None


@dataclass(frozen=True)
class DefenceSetting:
    """A defence with its hyper-parameters; ``strength`` names the one that a tradeoff curve sweeps."""

    name: str
    label: str
    settings: dict[str, Any] = field(default_factory=dict)
    strength: str | None = None
    strength_value: Any = None

    @property
    def strength_text(self) -> str:
        """Such as ``0.5``; empty where there is none."""
        value = self.strength_value
        if self.strength is None or value is None:
            return ""
        return f"{value:g}" if isinstance(value, int | float) else str(value)

    @property
    def fixed(self) -> dict[str, Any]:
        """The settings apart from the strength: what the points of one curve share."""
        return {name: value for name, value in self.settings.items() if name != self.strength}


@dataclass(frozen=True)
class AttackSetting:
    """An attack with its hyper-parameters. ``floor``: it ignores the release, shows what is known anyway."""

    name: str
    label: str
    settings: dict[str, Any] = field(default_factory=dict)
    knowledge: str = ""
    floor: bool = False


@dataclass(frozen=True)
class Score:
    """A metric of one cell: its mean and 95 % interval over the images, and the value of each image."""

    mean: float
    low: float
    high: float
    values: tuple[float, ...]


@dataclass(frozen=True)
class Utility(Score):
    """What the cloud still gets: a share in [0, 1], ``chance`` is that of guessing."""

    metric: str = "accuracy"
    chance: float | None = None


@dataclass(frozen=True)
class EdgeTime:
    """Of one image on the edge; ``ratio`` is to the undefended network."""

    milliseconds: float
    ratio: float


@dataclass(frozen=True)
class GuaranteeStatement:
    """What is proved of the training photos or of one query; an ``epsilon`` of None is infinite."""

    protects: Literal["training", "query"]
    epsilon: float | None = None
    delta: float = 0.0
    noise_std: float | None = None


@dataclass(frozen=True)
class Budget:
    """What both sides may spend: the attacker's ``queries`` (None for no limit) and photos, the defence's epochs."""

    queries: int | None = None
    photos: int | None = None
    epochs: int | None = None


@dataclass(frozen=True)
class Seconds:
    """How long the attack took."""

    fit: float
    reconstruct: float


@dataclass(frozen=True)
class Inside:
    """The shapes of a release and of what each stage of a decoder makes of it, the image last; without the batch."""

    release: tuple[int, ...]
    stages: tuple[tuple[int, ...], ...]


History = tuple[dict[str, float], ...]
"""The rows that a training or a search logged, in order."""


@dataclass(frozen=True)
class Cell:
    """One victim x defence setting x attack setting x seed. A failed one may lack what has a default.

    ``n``: how many photos were scored, the first of the target part; ``targets``: a digest of that whole part.
    ``history``: of fitting the attack, one row of numbers for each step or epoch; ``training``: the victim's and the
    defence's.
    """

    status: Literal["ok", "failed"]
    seed: int
    adaptive: bool
    victim: Victim
    defence: DefenceSetting
    attack: AttackSetting
    plan: str = ""
    id: str = ""
    key: str = ""
    traceback: str | None = None
    n: int | None = None
    metrics: dict[str, Score] = field(default_factory=dict)
    references: dict[str, dict[str, float]] = field(default_factory=dict)
    utility: Utility | None = None
    targets: str | None = None
    bytes: float | None = None
    edge: EdgeTime | None = None
    guarantees: tuple[GuaranteeStatement, ...] = ()
    budget: Budget = Budget()
    queries: int | None = None
    seconds: Seconds | None = None
    history: History = ()
    training: dict[str, History] = field(default_factory=dict)
    inside: Inside | None = None
    sends: int = 1
    draws: int = 1
    random: bool = False
    converged: bool | None = None
    gradient: float | None = None
    cut_off: float | None = None
    overlap: int = 0
    probe: Probe = field(default_factory=Probe)
    bounds: Bounds | None = None
    controls: dict[str, dict[str, Score]] = field(default_factory=dict)
    oracle: dict[str, Score] = field(default_factory=dict)
    chosen: dict[str, int] = field(default_factory=dict)
    chosen_for: dict[str, dict[str, int]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    finished: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it was measured."""
        return self.status == "ok"

    @property
    def column(self) -> str:
        """The attack as the matrix names it."""
        threat = [*([] if self.adaptive else ["unaware"]), *([f"{self.sends} sends"] if self.sends > 1 else [])]
        return f"{self.attack.label} ({', '.join(threat)})" if threat else self.attack.label

    def epsilon(self, protects: Literal["training", "query"]) -> tuple[float, float]:
        """The smallest epsilon that is proved, with its delta; infinity where none is."""
        statements = [one for one in self.guarantees if one.protects == protects]
        proved = [(one.epsilon, one.delta) for one in statements if one.epsilon is not None]
        return min(proved, default=(math.inf, 0.0))

    @property
    def noise_std(self) -> float | None:
        """Of additive Gaussian noise on the release, where there is any."""
        return next((one.noise_std for one in self.guarantees if one.noise_std is not None), None)


def _pool(rows: Sequence[Sequence[float]]) -> Interval:
    """Mean and interval over (seeds, images)."""
    if len({len(row) for row in rows}) > 1:
        raise ValueError("the seeds of a cell were scored on different numbers of images; they cannot be pooled")
    return interval(rows)


def _sum(counts: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
    """Of all together, the most first."""
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total.most_common())


def mean_of_known(values: Iterable[float | None]) -> float | None:
    """The mean of what was measured; None where nothing was."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class Group:
    """The seeds of one defence setting met by one attack."""

    cells: tuple[Cell, ...]

    @property
    def finished(self) -> tuple[Cell, ...]:
        """The cells that were measured, in the plan's order of seeds."""
        return tuple(cell for cell in self.cells if cell.ok)

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
        pooled = {metric: self.pooled(metric) for metric in SHOWN_METRICS}
        return {metric: score for metric, score in pooled.items() if score is not None}

    def pooled(self, metric: str, first: int | None = None) -> Interval | None:
        """A metric over all seeds and images that were measured, or over each seed's ``first`` images."""
        rows = [cell.metrics[metric].values[:first] for cell in self.finished if metric in cell.metrics]
        return _pool(rows) if rows else None

    @cached_property
    def oracle(self) -> Mapping[str, Interval]:
        """Of the suite: each metric had the true photo chosen among the attacks; empty for a single attack."""
        names = dict.fromkeys(name for cell in self.finished for name in cell.oracle)
        return {
            name: _pool([cell.oracle[name].values for cell in self.finished if name in cell.oracle]) for name in names
        }

    @property
    def chosen(self) -> Mapping[str, int]:
        """Of the suite: how many photos went to each attack, over all seeds, the most first."""
        return _sum(cell.chosen for cell in self.finished)

    @property
    def chosen_for_ssim(self) -> Mapping[str, int]:
        """Like ``chosen``, by an adversary who is after structure; empty where the suite chose for PSNR alone."""
        return _sum(cell.chosen_for.get("ssim", {}) for cell in self.finished)

    @property
    def threat(self) -> tuple[bool, int]:
        """Adaptive or not, and releases of each photo."""
        return self.cells[0].adaptive, self.cells[0].sends

    def table(self, metric: str, control: str | None = None) -> Array | None:
        """A metric by seed and photo, (seeds, k): of the attack, or of a control of it; None where not measured."""
        found = [cell.metrics if control is None else cell.controls.get(control, {}) for cell in self.finished]
        rows = [scores[metric].values for scores in found if metric in scores]
        return np.array(rows) if rows and len({len(row) for row in rows}) == 1 else None

    def reference(self, metric: str, name: str) -> float | None:
        """What a score is to be compared with, "chance" or "ceiling" (the photo itself): the mean over seeds."""
        return mean_of_known(cell.references.get(metric, {}).get(name) for cell in self.finished)


@dataclass(frozen=True)
class DefenceRow:
    """One defence setting: what it costs, and the attacks that met it by their column."""

    defence: DefenceSetting
    groups: Mapping[str, Group]

    @cached_property
    def by_seed(self) -> tuple[Cell, ...]:
        """One measured cell per seed: utility, bytes and edge time do not depend on the attack."""
        first: dict[int, Cell] = {}
        for group in self.groups.values():
            for cell in group.finished:
                first.setdefault(cell.seed, cell)
        return tuple(first.values())

    @cached_property
    def utility(self) -> Interval | None:
        """Over all seeds and images, a share in [0, 1]."""
        rows = [cell.utility.values for cell in self.by_seed if cell.utility]
        return _pool(rows) if rows else None

    def average(self, read: Callable[[Cell], float | None]) -> float | None:
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
        leakage = strongest.table(metric) if strongest else None
        if strongest is None or leakage is None:
            return None
        utility = [cell.utility.values for cell in strongest.finished if cell.utility]
        return Setting(np.array(utility, dtype=float), leakage) if len(utility) == len(leakage) else None

    @property
    def floor(self) -> Group | None:
        """The attack that ignores the release."""
        return next((group for group in self.groups.values() if group.floor), None)

    def strongest(self, metric: str) -> Group | None:
        """The suite's choice; where a plan has no suite, the attack with the highest mean, floors apart.

        The suite chooses among attacks that rebuild: those that tell something else of the photo stand beside it. Of
        several threats the one that leaks most, of equals the one that the plan names first.
        """
        groups = [group for group in self.groups.values() if not group.floor and metric in group.scores]
        chosen = [group for group in groups if group.suite or LEAKAGE_METRICS[0] not in group.scores]
        competing = chosen if any(group.suite for group in groups) else groups
        return max(competing, key=lambda group: group.scores[metric].mean, default=None)


Membership = tuple[bool, float]
"""Whether a setting is in the Pareto set, and the share of bootstrap resamples in which it is."""


@dataclass(frozen=True)
class Family:
    """A defence with all its settings but the strength fixed: one curve, in order of the strength's value."""

    label: str
    rows: tuple[DefenceRow, ...]


@dataclass(frozen=True)
class Results:
    """The cells of one plan in its order; ``missing``: those without a result yet.

    Raises:
        ValueError: the cells do not share one victim.
    """

    cells: tuple[Cell, ...]
    missing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len({cell.victim for cell in self.cells}) > 1:
            raise ValueError("a report compares defences of one victim; these cells have several")

    @property
    def victim(self) -> Victim | None:
        """The network that all cells attack; None where there are no cells."""
        return self.cells[0].victim if self.cells else None

    @property
    def finished(self) -> tuple[Cell, ...]:
        """The measured cells."""
        return tuple(cell for cell in self.cells if cell.ok)

    @property
    def rebuilt(self) -> bool:
        """Whether any attack rebuilt photos."""
        return any("psnr" in cell.metrics for cell in self.finished)

    @property
    def failed(self) -> tuple[Cell, ...]:
        """The cells that ended in an error."""
        return tuple(cell for cell in self.cells if not cell.ok)

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds of the plan, in its order."""
        return tuple(dict.fromkeys(cell.seed for cell in self.cells))

    @property
    def columns(self) -> tuple[str, ...]:
        """The suite's choice, then the attacks in the order of the plan."""
        ordered = sorted(self.cells, key=lambda cell: cell.attack.name != STRONGEST)
        return tuple(dict.fromkeys(cell.column for cell in ordered))

    @cached_property
    def rows(self) -> tuple[DefenceRow, ...]:
        """The defence settings in the order of the plan."""
        found: dict[str, dict[str, list[Cell]]] = {}
        for cell in self.cells:
            found.setdefault(cell.defence.label, {}).setdefault(cell.column, []).append(cell)
        return tuple(
            DefenceRow(
                next(iter(columns.values()))[0].defence,
                {column: Group(tuple(cells)) for column, cells in columns.items()},
            )
            for columns in found.values()
        )

    @property
    def undefended(self) -> DefenceRow | None:
        """The reference, where the plan has one."""
        return next((row for row in self.rows if row.defence.name == UNDEFENDED), None)

    @cached_property
    def families(self) -> tuple[Family, ...]:
        """The defences but ``none``, one per combination of the settings that are not the strength."""
        members: dict[tuple[str, str], list[DefenceRow]] = {}
        for row in self.rows:
            if row.defence.name != UNDEFENDED:
                fixed = json.dumps(row.defence.fixed, sort_keys=True, default=str)
                members.setdefault((row.defence.name, fixed), []).append(row)
        return tuple(
            Family(
                _family_label(rows[0].defence, [other[0].defence for other in members.values()]),
                _sorted(rows),
            )
            for rows in members.values()
        )

    def floor(self, metric: str) -> Interval | None:
        """What an attack that ignores the release scores; the highest, should a plan have several."""
        floors = [
            group.scores[metric]
            for row in self.rows
            for group in row.groups.values()
            if group.floor and metric in group.scores
        ]
        return max(floors, default=None)

    @cached_property
    def flags(self) -> Mapping[tuple[str, str], tuple[str, ...]]:
        """What makes a number doubtful, by the labels of defence and attack; absent where nothing does."""
        unmatched = {row.defence.label for family in self.families for row in family.rows if self._unmatched(family)}
        found = {}
        for row in self.rows:
            for group in row.groups.values():
                if group.finished and (
                    raised := flags_of(self._evidence(row, group, row.defence.label in unmatched))
                ):
                    found[row.defence.label, group.column] = raised
        return found

    def raised(self, defence: DefenceSetting, column: str) -> tuple[str, ...]:
        """The flags of a defence setting under an attack."""
        return self.flags.get((defence.label, column), ())

    @property
    def flag_counts(self) -> Mapping[str, int]:
        """How many of these pairs carry which flag, the most frequent first."""
        return dict(Counter(name for raised in self.flags.values() for name in raised).most_common())

    def _unmatched(self, family: Family) -> bool:
        """Whether every strength loses more utility than is comparable."""
        reference = self.undefended.utility if self.undefended else None
        known = [row.utility.mean for row in family.rows if row.utility]
        return reference is not None and bool(known) and max(known) < needed(reference.mean, AFFORDABLE)

    def _evidence(self, row: DefenceRow, group: Group, unmatched: bool) -> Evidence:
        cells, leakage = group.finished, group.table("psnr")
        floor = row.floor or (self.undefended.floor if self.undefended else None)
        gradients = [cell.gradient for cell in cells if cell.gradient is not None]
        return Evidence(
            photos=group.photos,
            seeds=len(cells),
            draws=min(cell.draws for cell in cells),
            random=any(cell.random for cell in cells),
            adaptive=cells[0].adaptive,
            floors=group.floor,
            leakage=leakage,
            floor=_like(leakage, floor.table("psnr") if floor else None),
            black_box=self._best_black_box(row, group, leakage),
            shuffled=_like(leakage, group.table("psnr", "shuffled")),
            converged=False if any(cell.converged is False for cell in cells) else None,
            gradient=min(gradients, key=lambda norm: norm if norm > 0 else -1.0, default=None),  # a NaN is the worst
            cut_off=max((cell.cut_off for cell in cells if cell.cut_off is not None), default=None),
            overlap=max(cell.overlap for cell in cells),
            absent=row.defence.name != UNDEFENDED and all(cell.probe.absent for cell in cells),
            frozen=any(cell.probe.frozen for cell in cells),
            unbounded=any(cell.probe.unbounded for cell in cells),
            unmatched=unmatched,
        )

    def _best_black_box(self, row: DefenceRow, group: Group, leakage: Array | None) -> Array | None:
        """What the best attack without gradients makes of the photos that a white box was tried on."""
        if leakage is None or group.cells[0].attack.knowledge != "WhiteBox":
            return None
        others = [
            _like(leakage, other.table("psnr"))
            for other in row.groups.values()
            if other.threat == group.threat
            and other.cells[0].attack.knowledge in ("BlackBox", "QueryFree")
            and not other.floor
        ]
        shared = [table[:, : leakage.shape[1]] for table in others if table is not None]
        return max(shared, key=lambda table: float(table.mean()), default=None)

    def relative(self, row: DefenceRow, group: Group) -> Interval | None:
        """How much of what the same attack gains over the floor without a defence it still gains, by PSNR."""
        reference = self.undefended
        if reference is None or row is reference or group.floor or group.column not in reference.groups:
            return None
        defended = group.table("psnr")
        undefended = _like(defended, reference.groups[group.column].table("psnr"))
        floor = _like(defended, reference.floor.table("psnr") if reference.floor else None)
        if defended is None or undefended is None or floor is None:
            return None
        return relative(defended, undefended, floor)

    @cached_property
    def pareto_sets(self) -> Mapping[str, Mapping[str, Membership]]:
        """Under the strongest attack, by metric and the defence's label; empty where settings cannot be compared."""
        return {metric: self._pareto(metric) for metric in SHOWN_METRICS}

    @property
    def pareto(self) -> Mapping[str, Membership]:
        """That of PSNR."""
        return self.pareto_sets[LEAKAGE_METRICS[0]]

    def _pareto(self, metric: str) -> Mapping[str, Membership]:
        settings = {row.defence.label: row.setting(metric) for row in self.rows}
        known = {label: setting for label, setting in settings.items() if setting is not None}
        if len(known) < 2 or len({len(setting.utility) for setting in known.values()}) > 1:
            return {}
        return dict(zip(known, zip(*pareto(list(known.values())), strict=True), strict=True))

    @property
    def chance(self) -> float | None:
        """The utility of guessing."""
        return next((cell.utility.chance for cell in self.finished if cell.utility), None)

    @property
    def utility_name(self) -> str | None:
        """The metric of the task; None where the victim has none."""
        return next((cell.utility.metric for cell in self.finished if cell.utility), None)

    @property
    def photos(self) -> str:
        """How many photos each cell is scored on."""
        counts = sorted({cell.n for cell in self.finished if cell.n is not None})
        return " to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else "0"

    @property
    def sample(self) -> str:
        """What every number rests on, such as ``n = 200 photos x 2 seeds``."""
        return f"n = {self.photos} photos x {len(self.seeds)} seed{'' if len(self.seeds) == 1 else 's'}"


def _like(table: Array | None, other: Array | None) -> Array | None:
    """``other``, where it has the same seeds."""
    return other if table is not None and other is not None and len(table) == len(other) else None


def _family_label(defence: DefenceSetting, others: Sequence[DefenceSetting]) -> str:
    """The name, with the settings in which it differs from its namesakes; the plan's label where nothing is swept."""
    if defence.strength is None:
        return defence.label
    namesakes = [other for other in others if other.name == defence.name]
    differing = [
        f"{name}={value}"
        for name, value in defence.fixed.items()
        if any(other.fixed.get(name) != value for other in namesakes)
    ]
    return " ".join([defence.name, *differing])


def _sorted(rows: Sequence[DefenceRow]) -> tuple[DefenceRow, ...]:
    """By the strength's value; in the order of the plan where the values are not all numbers."""
    if not all(isinstance(row.defence.strength_value, int | float) for row in rows):
        return tuple(rows)
    return tuple(sorted(rows, key=lambda row: float(row.defence.strength_value)))


_CELL = TypeAdapter(Cell)


def load_results(run: Path, ids: Sequence[str]) -> Results:
    """Read the cells of a plan from ``run/cells``; files of other ids are left alone.

    Raises:
        InvalidInputError: a file is not a cell; the message names it.
        ValueError: the cells do not share one victim.
    """
    cells, missing = [], []
    for identifier in ids:
        path = run / "cells" / f"{identifier}.json"
        if not path.exists():
            missing.append(identifier)
            continue
        try:
            cell = _CELL.validate_json(path.read_bytes())
        except ValidationError as error:
            raise InvalidInputError(f"{path} is not a cell of a run: {error}") from error
        cells.append(dataclasses.replace(cell, id=identifier))
    return Results(tuple(cells), tuple(missing))


def results_of(stored: Mapping[str, Mapping[str, Any] | None]) -> Results:
    """The cells of a plan from their plain values, by id; None for a cell without a result.

    Raises:
        ValueError: something is no cell, or they do not share one victim.
    """
    cells = [_CELL.validate_json(json.dumps({**cell, "id": name})) for name, cell in stored.items() if cell]
    return Results(tuple(cells), tuple(name for name, cell in stored.items() if cell is None))


Scalar = str | int | float | bool | None


def csv_row(cell: Cell, flags: Sequence[str] = ()) -> dict[str, Scalar]:
    """A cell as one flat row; what was not measured is None. ``flags``: those of its defence under its attack."""
    row: dict[str, Scalar] = {"id": cell.id, "key": cell.key, "status": cell.status, "plan": cell.plan}
    row |= {"seed": cell.seed, "adaptive": cell.adaptive, "sends": cell.sends}
    row |= {f"victim_{name}": value for name, value in dataclasses.asdict(cell.victim).items()}
    row |= {"defence": cell.defence.name, "defence_label": cell.defence.label}
    row |= {"strength": cell.defence.strength, "strength_value": cell.defence.strength_value}
    row |= {
        "defence_settings": json.dumps(cell.defence.settings),
        "attack_settings": json.dumps(cell.attack.settings),
    }
    row |= {"attack": cell.attack.name, "attack_label": cell.attack.label}
    row |= {"knowledge": cell.attack.knowledge, "floor": cell.attack.floor, "n": cell.n}
    row |= {"targets": cell.targets}
    for name, score in cell.metrics.items():
        row |= {f"{name}_mean": score.mean, f"{name}_low": score.low, f"{name}_high": score.high}
        row |= {f"{name}_{reference}": value for reference, value in cell.references.get(name, {}).items()}
    for control, scores in cell.controls.items():
        row |= {f"{control}_{name}_mean": score.mean for name, score in scores.items()}
    for name, best in cell.oracle.items():
        row |= {f"oracle_{name}_mean": best.mean, f"oracle_{name}_low": best.low, f"oracle_{name}_high": best.high}
    if cell.utility:
        row |= {"utility_metric": cell.utility.metric, "utility_mean": cell.utility.mean}
        row |= {"utility_low": cell.utility.low, "utility_high": cell.utility.high}
        row |= {"utility_chance": cell.utility.chance}
    row |= {f"budget_{name}": value for name, value in dataclasses.asdict(cell.budget).items()}
    row |= {"bytes": cell.bytes}
    if cell.edge:
        row |= {"edge_milliseconds": cell.edge.milliseconds, "edge_ratio": cell.edge.ratio}
    if cell.ok:
        for protects in ("training", "query"):
            row[f"{protects}_epsilon"], row[f"{protects}_delta"] = cell.epsilon(protects)
    row |= {"noise_std": cell.noise_std, "queries": cell.queries, "draws": cell.draws, "flags": " ".join(flags)}
    if cell.bounds:
        row |= dataclasses.asdict(cell.bounds)
    if cell.seconds:
        row |= {"seconds_fit": cell.seconds.fit, "seconds_reconstruct": cell.seconds.reconstruct}
    row |= {f"version_{name}": version for name, version in cell.versions.items()}
    row |= {"finished": cell.finished, "error": last_line(cell.traceback)}
    return row


SETTINGS = ("plan", "seed", "adaptive", "sends", "victim_", "defence", "strength", "attack", "knowledge", "budget_")
"""How the columns begin that are known before anything is measured."""


def measured(row: Mapping[str, Scalar]) -> dict[str, float]:
    """The numbers of a cell's row that are no settings, where they are finite."""
    return {
        name: float(value)
        for name, value in row.items()
        if not name.startswith(SETTINGS)
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    }


def last_line(traceback: str | None) -> str | None:
    """The line of a traceback that says what went wrong."""
    lines = (traceback or "").strip().splitlines()
    return lines[-1] if lines else None


def write_csv(results: Results, path: Path) -> None:
    """One row per cell with all its scalars."""
    rows = [csv_row(cell, results.raised(cell.defence, cell.column)) for cell in results.cells]
    write_rows(rows, path)


def write_rows(rows: Sequence[Mapping[str, Scalar]], path: Path) -> None:
    """Write a CSV file; infinity is written ``inf``, what is absent is empty."""
    # The longest rows first: a failed measurement has fewer columns and must not decide their order.
    columns = list(dict.fromkeys(name for row in sorted(rows, key=len, reverse=True) for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
