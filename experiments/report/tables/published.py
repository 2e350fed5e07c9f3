"""The published number beside ours, and whether it was reproduced."""

from collections.abc import Iterator, Mapping

from splitleak.experiments.judge.statistics.interval import Interval
from splitleak.experiments.judge.statistics.reproduced import is_reproduced, reproducing
from splitleak.experiments.planning.published import Figure, PublishedFigures
from splitleak.experiments.report.tables import matrix
from splitleak.experiments.report.tables.table import ABSENT, TextTable
from splitleak.experiments.results.archive import Archived
from splitleak.experiments.results.group import DefenceRow, Group
from splitleak.experiments.results.record import AttackSetting, DefenceSetting

UTILITY = "utility"
REPRODUCED, NOT_REPRODUCED, NOT_MEASURED = "reproduced", "not reproduced", "not measured"
INCOMPARABLE = "not comparable, because"
HEADINGS = ("setting", "metric", "published", "ours", "reproduced within", "n", "our budget", "verdict")


def published_table(figures: PublishedFigures, runs: Mapping[str, Archived]) -> TextTable:
    """A line for each published value. ``runs``: those of the plan, by their names."""
    lines = tuple(line for figure in figures.figures for line in _lines(figure, figures, runs))
    source = figures.source
    caption = (
        f"Published: {source.text}. {' '.join(figures.protocol.split())} Their budget: {figures.budget}. "
        "Ours: the mean over photos and trainings with its 95 % interval. A value is reproduced where it lies within "
        "the interval beside it: ours, widened by the luck of as few photos as the source has, where it says so."
    )
    return TextTable("published", HEADINGS, lines, caption)


def _lines(figure: Figure, figures: PublishedFigures, runs: Mapping[str, Archived]) -> Iterator[tuple[str, ...]]:
    run = runs.get(f"{figures.plan}.{figure.run}" if figure.run else figures.plan)
    row = next((one for one in run.results.rows if _is(one.defence, figure.defence)), None) if run else None
    groups = row.groups.values() if row else ()
    group = next((one for one in groups if one.finished and _is(one.cells[0].attack, figure.attack)), None)
    for metric, value in figure.values.items():
        ours = _measured(row, group, metric)
        within = reproducing(ours, _spread(group, metric), figures.photos) if ours else None
        yield (
            figure.setting,
            UTILITY if metric == UTILITY else matrix.heading(metric) if matrix.known(metric) else metric,
            f"{value:g}",
            _written(ours),
            f"{within.low:.4g} to {within.high:.4g}" if within else ABSENT,
            f"{group.photos} x {len(group.finished)}" if group and ours else ABSENT,
            _budget(group) if group and ours else ABSENT,
            verdict(value, within, figure.incomparable or figures.incomparable.get(metric)),
        )


def verdict(published: float, within: Interval | None, incomparable: str | None) -> str:
    """The rule: what may not be compared is not; what was not measured is open; else the interval decides."""
    if incomparable:
        return f"{INCOMPARABLE} {incomparable}"
    if within is None:
        return NOT_MEASURED
    return REPRODUCED if is_reproduced(published, within) else NOT_REPRODUCED


def _is(setting: DefenceSetting | AttackSetting, wanted: Mapping[str, object]) -> bool:
    """Whether it has the name and the settings that are asked for."""
    known = {**setting.settings, "name": setting.name}
    return all(known.get(name) == value for name, value in wanted.items())


def _measured(row: DefenceRow | None, group: Group | None, metric: str) -> Interval | None:
    if metric == UTILITY:
        return row.utility if row else None
    return group.pooled(metric) if group else None


def _spread(group: Group | None, metric: str) -> float | None:
    """Of a metric over photos: the standard deviation of their means over trainings."""
    table = group.table(metric) if group and metric != UTILITY else None
    return float(table.mean(0).std(ddof=1)) if table is not None and table.shape[1] > 1 else None


def _written(ours: Interval | None) -> str:
    return ABSENT if ours is None else f"{ours.mean:.4g} [{ours.low:.4g}, {ours.high:.4g}]"


def _budget(group: Group) -> str:
    spent = group.cells[0].budget
    return f"{group.column}; {spent.photos:,} photos" if spent.photos is not None else group.column
