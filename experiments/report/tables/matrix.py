"""The matrix of defences and attacks with all that a cell holds, and how its numbers are written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from splitleak.experiments.judge.statistics.different import Change
from splitleak.experiments.judge.statistics.interval import Interval
from splitleak.experiments.report.tables.table import ABSENT, FLAG, TextTable
from splitleak.experiments.results.frame import pooled
from splitleak.experiments.results.group import DefenceRow, Group
from splitleak.experiments.results.metrics import SHOWN_METRICS
from splitleak.experiments.results.results import Membership, Results

PARETO = "Pareto set"
"""Heading of the settings that no other beats in both utility and leakage."""


NO_ANSWER = "does not apply"


class Format(NamedTuple):
    """How a metric is written; its values are multiplied with ``scale``."""

    name: str
    unit: str
    decimals: int
    scale: float = 1.0

    def bare(self, value: float) -> str:
        """Without the unit."""
        return f"{self.scale * value:.{self.decimals}f}"


FORMATS = {
    "psnr": Format("PSNR", " dB", 1),
    "ssim": Format("SSIM", "", 3),
    "rank1": Format("rank-1", " %", 1, 100),
    "tar_at_far_1": Format("TAR at FAR 1 %", " %", 1, 100),
    "balanced_accuracy": Format("balanced accuracy", " %", 1, 100),
    "task_accuracy": Format("task accuracy", " %", 1, 100),
    "task_utility": Format("task utility", " %", 1, 100),
    "identity_similarity": Format("identity similarity", "", 2),
    "lpips": Format("LPIPS", "", 3),
    "eavesdropping_accuracy": Format("eavesdropping accuracy", " %", 1, 100),
    "usable_bits": Format("usable bits", "", 0),
    "psnr_seed_convention": Format("PSNR, seed's convention", " dB", 1),
}
"""Of each shown metric, with the decimals that a few hundred photos bear."""

SHARE = Format("share", " %", 1, 100)
"""How a utility is written."""
PAIRED = "Points against none: what the utility of the same photos lost or won, in pairs."

MS_SSIM = "ms_ssim"
"""How the names of this metric begin; where it has fewer scales than published, they end with how many."""

MEANINGS = {
    "psnr": "PSNR and SSIM of the reconstruction: higher means that more leaks.",
    "rank1": "Rank-1: how often the nearest of all other photos shows the same person; each person counts once, "
    "where it was stored who is on which photo; chance: of answers that tell nothing; constant: of the best answer "
    "that is the same for all photos.",
    "tar_at_far_1": "TAR at FAR 1 %: how many pairs of photos of one person are accepted where 1 % of those of two "
    "people are; counted like rank-1.",
    "balanced_accuracy": "Balanced accuracy: of a private attribute, the share recognised, averaged over its "
    "classes; chance: of guessing.",
    "task_accuracy": "Task accuracy: of the undefended victim on the reconstructions.",
    "task_utility": "Task utility: of the undefended victim on the reconstructions, by its own measure.",
    "identity_similarity": "Identity similarity: cosine of the recogniser's embeddings of reconstruction and photo; "
    "chance: of different people.",
    "lpips": "LPIPS: perceptual distance, lower means that more leaks.",
    "eavesdropping_accuracy": "Eavesdropping accuracy: of a network of the judge's own, trained on the attacker's "
    "photos, that reads the task's label on the reconstructions; chance: of guessing.",
    "usable_bits": "Usable bits: per photo, values / 2 log2(error of the mean image / error of the attack).",
    "psnr_seed_convention": "The seed's convention takes a peak of 255 for floats of about unit variance: 20 log10 "
    "255 = 48.13 dB of it are the peak's alone, and it is comparable with the seed study's table and nothing else.",
}
"""What a reader must know of each metric, or of those that are named together."""


def known(metric: str) -> bool:
    """Whether it has a form to be shown in."""
    return metric in FORMATS or metric.startswith(MS_SSIM)


def form(metric: str) -> Format:
    """How a known metric is written."""
    if metric in FORMATS:
        return FORMATS[metric]
    scales = metric.removeprefix(MS_SSIM).removeprefix("_")
    return Format(f"MS-SSIM, {scales} scales" if scales else "MS-SSIM", "", 3)


def heading(metric: str) -> str:
    """Its name with its unit, such as ``PSNR (dB)``."""
    name, unit = form(metric)[:2]
    return f"{name} ({unit.strip()})" if unit else name


def number(metric: str, value: float) -> str:
    """A score with its unit, such as ``21.3 dB``."""
    return f"{form(metric).bare(value)}{form(metric).unit}"


def plus_minus(metric: str, score: Interval, unit: bool = True) -> str:
    """A mean with half the width of its interval, such as ``21.3 ± 0.4 dB``."""
    return _around(form(metric), score, unit)


def _around(shown: Format, score: Interval, unit: bool = True) -> str:
    """With the ends where half the width would reach beyond what a share can be: ``97.3 [92.1, 100.0] %``."""
    possible = _possible(shown, score)
    low, high = (shown.bare(end) for end in possible[1:])
    half = f" ± {shown.bare((score.high - score.low) / 2)}" if possible == score else f" [{low}, {high}]"
    return f"{shown.bare(score.mean)}{half}{shown.unit if unit else ''}"


def possible(metric: str, score: Interval) -> Interval:
    """Its part that the metric can reach: a share ends at 0 and at 100 %."""
    return _possible(form(metric), score)


def _possible(shown: Format, score: Interval) -> Interval:
    """An interval of t passes the ends of what a share can be; what is written does not."""
    if shown.scale != SHARE.scale:
        return score
    return Interval(score.mean, max(score.low, min(0.0, score.mean)), min(score.high, max(1.0, score.mean)))


def ranged(metric: str, score: Interval | None) -> str:
    """A mean with its interval, such as ``21.3 dB [21.0, 21.6]``."""
    if score is None:
        return ABSENT
    bare, (mean, low, high) = form(metric).bare, _possible(form(metric), score)
    return f"{number(metric, mean)} [{bare(low)}, {bare(high)}]"


def bare_range(metric: str, score: Interval | None) -> str:
    """Such as ``21.3 [21.0, 21.6]``: the unit stands in the heading."""
    if score is None:
        return ABSENT
    bare = form(metric).bare
    mean, low, high = map(bare, _possible(form(metric), score))
    return f"{mean} [{low}, {high}]"


def percent(share: Interval) -> str:
    """A share with half the width of its interval, such as ``85.5 ± 2.1 %``."""
    return _around(SHARE, share)


def points(change: Change | None) -> str:
    """What a share lost or won, such as ``-2.6 [-4.9, -0.2]``."""
    if change is None:
        return ABSENT
    mean, low, high = (f"{SHARE.scale * value:+.1f}" for value in change.difference)
    return f"{mean} [{low}, {high}]"


def thousands(value: float | None) -> str:
    """A whole number, grouped."""
    return ABSENT if value is None else f"{value:,.0f}"


def named_counts(counts: Mapping[str, int]) -> str:
    """Each name with its count."""
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def decimals(value: float | None, places: int = 2) -> str:
    """A number with a fixed count of decimals."""
    return ABSENT if value is None else f"{value:.{places}f}"


@dataclass(frozen=True)
class Pairing:
    """One attack on one defence setting; ``heat``: 0 at the floor, 1 at the highest PSNR of the matrix.

    ``relative``: what still leaks of what the attack gains without a defence. ``flags``: what makes it doubtful.
    """

    group: Group | None
    seeds: int
    strongest: bool = False
    heat: float | None = None
    relative: Interval | None = None
    flags: tuple[str, ...] = ()

    @property
    def scores(self) -> tuple[str, ...]:
        """Each shown metric."""
        if self.group is None:
            return (ABSENT,)
        if not self.group.finished:
            return ("failed" if any(cell.failed for cell in self.group.cells) else NO_ANSWER,)
        shown = tuple(f"{FORMATS[metric].name} {_beside_floors(self.group, metric)}" for metric in self.group.scores)
        return shown or ("no score",)

    @property
    def worth(self) -> float | None:
        """What a table is sorted by: the first score."""
        scores = self.group.scores if self.group else {}
        return next((score.mean for score in scores.values()), None)

    def bare(self, metric: str, score: Interval | None) -> str:
        """A score of it such as ``21.3 ± 0.4``, with a sign where there is a flag."""
        if self.group is None or not self.group.finished:
            return self.scores[0]
        return f"{plus_minus(metric, score, unit=False)}{f' {FLAG}' * bool(self.flags)}" if score else ABSENT

    @property
    def brief(self) -> tuple[str, ...]:
        """What a terminal has room for: scores, and a sign where there is a flag."""
        return (*self.scores, *([FLAG] if self.flags else []))

    @property
    def lines(self) -> tuple[str, ...]:
        """``scores``, what stands beside them, and the flags; one word where nothing was measured."""
        if self.group is None or not self.group.finished:
            return self.scores
        shown = list(self.scores)
        shown += [f"oracle {number('psnr', best.mean)}"] if (best := self.group.oracle.get("psnr")) else []
        shown += [f"{100 * self.relative.mean:.0f} % of undefended"] if self.relative else []
        done = len(self.group.finished)
        shown += [f"{done} of {self.seeds} seeds"] if done < self.seeds else []
        return (*shown, *(f"{FLAG} {name}" for name in self.flags))


FLOORS = ("chance", "constant")
"""References of who tells nothing of the photos: by luck, and with the best answer that is the same for all."""


def floors(groups: Sequence[Group], metric: str) -> str:
    """What the first of these that knows it says whoever tells nothing reaches: ``chance 2.0, constant 7.3``."""
    known = {
        name: next((of for group in groups if (of := group.reference(metric, name)) is not None), None)
        for name in FLOORS
    }
    return ", ".join(f"{name} {form(metric).bare(value)}" for name, value in known.items() if value is not None)


def _beside_floors(group: Group, metric: str) -> str:
    """Such as ``62.0 ± 5.1 % (chance 2.0)``."""
    known = floors([group], metric)
    return plus_minus(metric, group.scores[metric]) + (f" ({known})" if known else "")


@dataclass(frozen=True)
class MatrixRow:
    """A defence setting with what each attack makes of it.

    ``costs``: those of the setting, then whether any other is better in both utility and leakage.
    """

    row: DefenceRow
    entries: tuple[Pairing, ...]
    costs: tuple[str, ...]


def costs(row: DefenceRow) -> tuple[str, str, str]:
    """Utility, bytes and edge ratio."""
    return (
        percent(row.utility) if row.utility else ABSENT,
        thousands(row.bytes),
        decimals(row.edge_ratio),
    )


def paid(results: Results, row: DefenceRow) -> tuple[str, ...]:
    """``costs``, and after the utility what of it was lost; under ``cost_names``."""
    utility, *others = costs(row)
    return (utility, points(results.utility_lost(row)), *others)


def membership(pareto: Membership | None) -> str:
    """Such as ``in, 97 %``: of the Pareto set, with the share of bootstrap resamples that agree."""
    if pareto is None:
        return ABSENT
    member, share = pareto
    return f"{'in' if member else 'out'}, {100 * (share if member else 1 - share):.0f} %"


def cost_names(results: Results) -> tuple[str, ...]:
    """The headings of ``paid``."""
    return (results.utility_name or "utility", "points against none", "bytes", "edge time ratio")


def matrix_rows(results: Results) -> tuple[MatrixRow, ...]:
    """Defences in the order of the plan; each has one entry per ``results.columns``."""
    scores = [
        group.scores["psnr"].mean for row in results.rows for group in row.groups.values() if "psnr" in group.scores
    ]
    floor = results.floor("psnr")
    bottom = floor.mean if floor else min(scores, default=0.0)
    span = max(scores, default=bottom) - bottom

    def heat(group: Group | None) -> float | None:
        if group is None or "psnr" not in group.scores:
            return None
        return max(0.0, (group.scores["psnr"].mean - bottom) / span) if span > 0 else 0.0

    rows = []
    for row in results.rows:
        strongest = row.strongest("psnr")
        groups = [row.groups.get(column) for column in results.columns]
        entries = [
            Pairing(
                group,
                len(results.seeds),
                group is not None and group is strongest,
                heat(group),
                results.relative(row, group) if group else None,
                results.raised(row.defence, group.column) if group else (),
            )
            for group in groups
        ]
        price = (*paid(results, row), membership(results.pareto.get(row.defence.label)))
        rows.append(MatrixRow(row, tuple(entries), price))
    return tuple(rows)


def caption(results: Results) -> str:
    """What the numbers of the matrix are."""
    mean = f"{results.resting}. Mean ± half of the 95 % bootstrap interval over people and seeds. {PAIRED}"
    return " ".join([mean, *references(results, SHOWN_METRICS), *_raised(results)])


def _raised(results: Results) -> list[str]:
    """How many cells carry which flag, and which is true of most and marked at none."""
    common = results.common_flags
    few = {name: count for name, count in results.flag_counts.items() if name not in common}
    return [
        *([f"{FLAG} Of half of the cells or more, not marked: {named_counts(common)}."] if common else []),
        *([f"{FLAG} Flagged, greyed: {named_counts(few)}."] if few else []),
        *(["splitleak explain FLAG tells what it means."] if common or few else []),
    ]


def references(results: Results, metrics: Sequence[str]) -> list[str]:
    """What a reader must know of each of these metrics that was measured, and what the true photos reach."""
    groups = [group for row in results.rows for group in row.groups.values()]
    shown = {metric for group in groups for metric in group.metrics if metric in metrics}
    meanings = [meaning for metric, meaning in MEANINGS.items() if metric in shown]
    if any(group.oracle for group in groups):
        meanings.append("Oracle: had the true photo chosen among the attacks.")
    ceiling = max((of for group in groups if (of := group.reference("rank1", "ceiling")) is not None), default=None)
    return [*meanings, *([] if ceiling is None else [f"The true photos reach rank-1 {number('rank1', ceiling)}."])]


def table(results: Results) -> TextTable:
    """The matrix with all that a cell holds; the strongest attack of each row stands out."""
    rows = matrix_rows(results)
    lines = tuple(
        (row.row.defence.label, *(", ".join(entry.lines) for entry in row.entries), *row.costs) for row in rows
    )
    strong = {(i, 1 + j) for i, row in enumerate(rows) for j, entry in enumerate(row.entries) if entry.strongest}
    return TextTable("matrix", _headings(results), lines, caption(results), frozenset(strong))


def metric_table(results: Results, metric: str) -> TextTable | None:
    """The matrix of one shown metric, narrow enough for a paper; None where it was not measured."""
    scores = pooled(results.frame)
    if not any(metric in measures for measures in scores.values()):
        return None
    lines, strong = [], set()
    for i, row in enumerate(matrix_rows(results)):
        best = row.row.strongest(metric)
        strong |= {(i, 1 + j) for j, entry in enumerate(row.entries) if best and entry.group is best}
        label = row.row.defence.label
        told = zip(results.columns, row.entries, strict=True)
        bare = (entry.bare(metric, scores.get((label, column), {}).get(metric)) for column, entry in told)
        lines.append((label, *bare, *row.costs))
    about = [
        f"{heading(metric)}; {results.resting}. Mean ± half of the 95 % bootstrap interval over people and seeds.",
        PAIRED,
        "Bold: the strongest attack.",
        *([MEANINGS[metric]] if metric in MEANINGS else []),
        *([f"{FLAG} Doubtful."] if results.flags else []),
    ]
    return TextTable(f"matrix_{metric}", _headings(results), tuple(lines), " ".join(about), frozenset(strong))


def _headings(results: Results) -> tuple[str, ...]:
    return ("defence", *results.columns, *cost_names(results), PARETO)
