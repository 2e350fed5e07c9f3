"""The settings of the Pareto set, with what each leaks and costs."""

from splitleak.experiments.report.tables import matrix
from splitleak.experiments.report.tables.matched import compared, yardstick
from splitleak.experiments.report.tables.table import FLAG, TextTable
from splitleak.experiments.results.group import DefenceRow
from splitleak.experiments.results.metrics import LEAKAGE_METRICS
from splitleak.experiments.results.results import Results


def pareto_table(results: Results) -> TextTable | None:
    """A line for each member, the least leaking first; None where settings cannot be compared."""
    leakage, metrics = LEAKAGE_METRICS[0], compared(results)
    found = [
        (strongest.scores[leakage].mean, row)
        for row in results.rows
        if row.defence.label in results.pareto and results.pareto[row.defence.label][0]
        if (strongest := row.strongest(leakage))
    ]
    if not found:
        return None
    headings = ("defence", *map(matrix.heading, metrics), matrix.PARETO, *matrix.cost_names(results), "flags")
    lines = tuple(_line(results, row, metrics) for _, row in sorted(found, key=lambda pair: pair[0]))
    utility = results.utility_name or "utility"
    caption = (
        f"Settings that no other beats in both {utility} and {matrix.heading(leakage)} of the strongest attack, the "
        f"least leaking first; {matrix.PARETO}: with the share of bootstrap resamples that agree, at least half of "
        f"them; a setting at chance is none; {results.resting}. {matrix.PAIRED} {yardstick(results)}"
    )
    return TextTable("pareto", headings, lines, caption)


def _line(results: Results, row: DefenceRow, metrics: tuple[str, ...]) -> tuple[str, ...]:
    groups = {metric: row.strongest(metric) for metric in metrics}
    raised = {flag for group in groups.values() if group for flag in results.raised(row.defence, group.column)}
    return (
        row.defence.label,
        *(matrix.bare_range(metric, group.scores[metric] if group else None) for metric, group in groups.items()),
        matrix.membership(results.pareto[row.defence.label]),
        *matrix.paid(results, row),
        " ".join(f"{FLAG} {flag}" for flag in sorted(raised)),
    )
