"""What a run found, in three sentences with their numbers: what leaks, the best defence and its price, how sure."""

from collections.abc import Iterator, Sequence

from splitleak.experiments.judge.statistics.interval import Interval
from splitleak.experiments.report.tables import matrix
from splitleak.experiments.report.tables.matched import points_lost
from splitleak.experiments.report.tables.table import FLAG
from splitleak.experiments.results.group import DefenceRow, Group
from splitleak.experiments.results.results import Results


def verdict(results: Results) -> str:
    """``sentences`` as one text."""
    return " ".join(sentences(results))


def sentences(results: Results) -> tuple[str, ...]:
    """What leaks without a defence, which defence is best at what price, and how sure that is.

    Fewer where less was measured.
    """
    if not results.finished:
        return ("No cell finished: nothing was measured.",)
    if not results.rebuilt:
        return (f"No photo was rebuilt; {_beyond_pixels(results)}.", _how_sure(results))
    strongest = results.undefended.strongest("psnr") if results.undefended else None
    if strongest is None:
        found = _capital(_least(results.rows))
        return ("Nothing was measured without a defence to compare with.", f"{found}.", _how_sure(results))
    leaks = f"Undefended, {_rebuilds(results, strongest)}."
    return (leaks, f"{_capital(_best_defence(results))}.", _how_sure(results))


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _how_sure(results: Results) -> str:
    common = f" {FLAG} Throughout: {', '.join(results.common_flags)}." if results.common_flags else ""
    return f"How sure: {'; '.join([results.sample, *_equals(results)])}.{common}"


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


def _best_defence(results: Results) -> str:
    """The first of the ranking, if it leaks clearly less than none."""
    rows, reference = _defended(results), results.undefended
    if not rows:
        return "no defence was measured"
    if reference is None or reference.utility is None or not results.ranking:
        return _least(rows)
    settings = f"{len(rows)} defence setting{'s' if len(rows) > 1 else ''}"
    kept = f"{results.utility_name} ({100 * reference.utility.mean:.1f} %)"
    points = f"{points_lost(results.may_lose[-1])} of the undefended {kept}"
    best = results.best
    if best is None or best.row is None or best.row.utility is None:
        return f"none of the {settings} stays within {points}"
    gain = best.place.gain
    if gain is None or gain.difference.high >= 0:
        seen = "" if gain is None else f" (a gain of {matrix.number('psnr', gain.seen)} would have been seen)"
        return (
            f"none of the {settings} leaks clearly less and stays within {points}: the least that does, "
            f"{best.row.defence.label}, cannot be told apart from none{seen}"
        )
    return (
        f"of the {settings}, {best.row.defence.label} leaks least within {points}: "
        f"{matrix.ranged('psnr', best.place.leakage)}{_left(results, best.row)}"
        f"{_doubt(results, best.row, best.row.strongest('psnr'))}; with it, {', '.join(_price(results, best.row))}"
    )


def _price(results: Results, row: DefenceRow) -> Iterator[str]:
    """What a defence costs: utility in pairs with none, bytes, edge time."""
    lost, reference = results.utility_lost(row), results.undefended
    if row.utility:
        paid = f" ({matrix.points(lost)} points)" if lost else ""
        yield f"{results.utility_name} is {matrix.percent(row.utility)}{paid}"
    if row.bytes is not None and reference and reference.bytes is not None:
        before = "as before" if row.bytes == reference.bytes else f"instead of {matrix.thousands(reference.bytes)}"
        yield f"a photo takes {matrix.thousands(row.bytes)} bytes {before}"
    if row.edge_ratio is not None:
        yield f"the edge takes {matrix.decimals(row.edge_ratio)} times as long"


def _equals(results: Results) -> Iterator[str]:
    """How many other defences may be as good as the best, and what difference would have been seen."""
    best = results.best
    if best is None or best.place.gain is None or best.place.gain.difference.high >= 0:
        return  # no defence is called the best
    behind = [place.place.behind for place in results.ranking if place.place.behind]
    equal = [one for one in behind if not one.clear]
    if equal:
        most = matrix.number("psnr", max(one.seen for one in equal))
        others = "1 other defence" if len(equal) == 1 else f"{len(equal)} other defences"
        yield f"{others} cannot be told apart from it (a difference of {most} would have been seen)"


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
