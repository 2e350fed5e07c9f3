"""What a run found, in one sentence with its numbers."""

from collections.abc import Sequence

from splitleak.experiments.judge.rules import MAY_LOSE
from splitleak.experiments.judge.statistics.interval import Interval
from splitleak.experiments.judge.statistics.matched import needed
from splitleak.experiments.report.tables import matrix
from splitleak.experiments.report.tables.table import FLAG
from splitleak.experiments.results.group import DefenceRow, Group
from splitleak.experiments.results.results import Results


def verdict(results: Results) -> str:
    """What the run found, in one sentence with its numbers."""
    if not results.finished:
        return "No cell finished: nothing was measured."
    if not results.rebuilt:
        return f"No photo was rebuilt; {_beyond_pixels(results)}."
    strongest = results.undefended.strongest("psnr") if results.undefended else None
    if strongest is None:
        return f"Nothing was measured without a defence to compare with; {_least(results.rows)}."
    return f"Undefended, {_rebuilds(results, strongest)}; {_best_defence(results, strongest.scores['psnr'])}."


def best_at_equal_utility(results: Results) -> DefenceRow | None:
    """The setting that leaks least of those that keep the utility, see ``MAY_LOSE``; None where none does."""
    reference = results.undefended
    if reference is None or reference.utility is None:
        return None
    least = needed(reference.utility.mean, MAY_LOSE[-1])
    equal = [row for row in _defended(results) if row.utility and row.utility.mean >= least]
    return min(equal, key=_leakage, default=None)


def _defended(results: Results) -> list[DefenceRow]:
    return [row for row in results.rows if row is not results.undefended and row.strongest("psnr")]


def _beyond_pixels(results: Results) -> str:
    """What attacks that rebuild nothing tell of the person, without a defence where that was measured."""
    row = results.undefended or results.rows[0]
    told = [
        f"{group.column} reaches {matrix.FORMATS[metric].name} {matrix.ranged(metric, score)}"
        for group in row.groups.values()
        for metric, score in group.scores.items()
    ]
    return f"against {row.defence.label}, {' and '.join(told) or 'no attack was scored'}"


def _rebuilds(results: Results, strongest: Group) -> str:
    floor = results.floor("psnr")
    known = f" ({matrix.number('psnr', floor.mean)} knowing nothing)" if floor else ""
    who = "the strongest attack" + ("" if strongest.suite else f", {strongest.column},")
    doubt = _doubt(results, results.undefended, strongest)
    return f"{who} rebuilds the photo at {matrix.ranged('psnr', strongest.scores['psnr'])}{known}{doubt}"


def _best_defence(results: Results, undefended: Interval) -> str:
    """The setting that leaks least among those that keep the utility, if it leaks clearly less than none."""
    rows, reference = _defended(results), results.undefended
    if not rows:
        return "no defence was measured"
    if reference is None or reference.utility is None:
        return _least(rows)
    settings = f"{len(rows)} defence setting{'s' if len(rows) > 1 else ''}"
    kept = f"{results.utility_name} ({100 * reference.utility.mean:.1f} %)"
    points = f"{100 * MAY_LOSE[-1]:g} points of the undefended {kept}"
    best = best_at_equal_utility(results)
    if best is None or best.utility is None:
        return f"none of the {settings} stays within {points}"
    score = _leakage(best)
    if score.high >= undefended.low:
        return f"none of the {settings} leaks clearly less and stays within {points}"
    strongest = best.strongest("psnr")
    return (
        f"of the {settings}, {best.defence.label} leaks least within {points}: "
        f"{matrix.ranged('psnr', score)} at {matrix.percent(best.utility)}{_left(results, best)}"
        f"{_doubt(results, best, strongest)}"
    )


def _left(results: Results, row: DefenceRow) -> str:
    """How much is left of what the undefended network leaks above the floor."""
    strongest = row.strongest("psnr")
    share = results.relative(row, strongest) if strongest else None
    return f", still {100 * share.mean:.0f} % of what leaks undefended" if share else ""


def _doubt(results: Results, row: DefenceRow | None, group: Group | None) -> str:
    """What is doubtful about a number of the sentence."""
    raised = results.raised(row.defence, group.column) if row and group else ()
    return f" ({FLAG} {', '.join(raised)})" if raised else ""


def _leakage(row: DefenceRow) -> Interval:
    strongest = row.strongest("psnr")
    if strongest is None:
        raise ValueError(f"no attack on {row.defence.label} was measured")
    return strongest.scores["psnr"]


def _least(rows: Sequence[DefenceRow]) -> str:
    measured = [row for row in rows if row.strongest("psnr")]
    if not measured:
        return "only the floor was measured"
    best = min(measured, key=_leakage)
    score = matrix.ranged("psnr", _leakage(best))
    return f"of the {len(measured)} defence settings, {best.defence.label} leaks least: {score}"
