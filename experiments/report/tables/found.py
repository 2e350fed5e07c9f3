"""How the strengths that a plan asked to search were found."""

from splitleak.experiments.planning.found import Found
from splitleak.experiments.report.tables.table import ABSENT, TextTable
from splitleak.experiments.results.group import DefenceRow
from splitleak.experiments.results.results import Results

HEADINGS = (
    "defence",
    "asked: points lost",
    "found",
    "points lost on validation",
    "points lost, as measured",
    "trainings",
    "what the search saw: strength: points lost",
    "why none",
)


def found_table(results: Results) -> TextTable | None:
    """A line for each searched strength; None where none was."""
    searched = [(row, row.defence.match) for row in results.rows if row.defence.match]
    if not searched:
        return None
    photos, seed = (next((value for value in values if value), 0) for values in _facts(searched))
    grain = max(100 * found.tolerance for _, found in searched)
    caption = (
        f"Strengths found by bisection, on the validation part ({photos:,} photos) and the victim of seed {seed} "
        f"alone; all seeds use what was found, and no photo of the target or test part was looked at. A strength is "
        f"taken that loses what was asked for within {grain:.1f} points. Points lost, as measured: on the photos of "
        "the utility, over all seeds."
    )
    return TextTable("found", HEADINGS, tuple(_line(results, *one) for one in searched), caption)


def _facts(searched: list[tuple[DefenceRow, Found]]) -> tuple[list[int], list[int]]:
    return [found.photos for _, found in searched], [found.seed for _, found in searched]


def _line(results: Results, row: DefenceRow, found: Found) -> tuple[str, ...]:
    measured = results.undefended.utility if results.undefended else None
    lost = measured.mean - row.utility.mean if measured and row.utility else None
    return (
        row.defence.label,
        f"{100 * found.asked:g}",
        ABSENT if found.value is None else f"{found.strength} = {found.value:g}",
        ABSENT if found.lost is None else f"{100 * found.lost:.1f}",
        ABSENT if lost is None else f"{100 * lost:.1f}",
        str(len(found.tried)),
        ", ".join(f"{strength:g}: {100 * gone:.1f}" for strength, gone in found.ordered) or ABSENT,
        found.reason or "",
    )
