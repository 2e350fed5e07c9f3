"""A study's page: its victims side by side, each with the way to its own report."""

from collections.abc import Sequence
from pathlib import Path

from splitleak.experiments.report.figures.depth import depth_figure
from splitleak.experiments.report.page import PAGE, alone, drawn, template
from splitleak.experiments.report.tables import matched, matrix
from splitleak.experiments.report.tables.files import write_all
from splitleak.experiments.report.tables.table import ABSENT, FLAG, TextTable
from splitleak.experiments.report.terminal import Column, Sheet
from splitleak.experiments.report.verdict import verdict
from splitleak.experiments.results.group import Group
from splitleak.experiments.results.member import Member
from splitleak.experiments.results.metrics import LEAKAGE_METRICS, SHOWN_METRICS
from splitleak.experiments.results.results import Results


def write_overview(name: str, folder: Path, members: Sequence[Member]) -> Path:
    """Write tables, figures and page of a study into its folder; returns the path of the page."""
    with alone(folder):
        return _write(name, folder, members)


def _write(name: str, folder: Path, members: Sequence[Member]) -> Path:
    tables = overview_tables(members)
    write_all(tables, folder / "tables")
    (folder / "figures").mkdir(exist_ok=True)
    figures = {}
    for metric in LEAKAGE_METRICS:
        if figure := depth_figure(members, metric):
            figures[metric] = drawn(figure, folder / "figures" / f"depth_{metric}")
    page = folder / PAGE
    page.write_text(
        template("study.html").render(
            title=name,
            verdict=headline(members),
            members=[(member, verdict(member.results)) for member in members],
            page=PAGE,
            figures=figures,
            tables=[(table, [(line, FLAG in "".join(line)) for line in table.lines]) for table in tables],
            plan_text=(folder / "plan.toml").read_text(encoding="utf-8"),
        ),
        encoding="utf-8",
    )
    return page


def overview_tables(members: Sequence[Member]) -> list[TextTable]:
    """Those that there are."""
    return [table for table in (victims_table(members), equal_utility(members)) if table]


def headline(members: Sequence[Member]) -> str:
    """What a study found, in one sentence."""
    metric = LEAKAGE_METRICS[0]
    found = [(score, member) for member in members if (score := member.leakage(metric))]
    if not found:
        return f"{len(members)} victims; no photo was rebuilt."
    (most, worst), (least, best) = (choose(found, key=lambda pair: pair[0].mean) for choose in (max, min))
    return (
        f"Undefended, {len(found)} victims leak between {matrix.ranged(metric, least)} ({best.label}) "
        f"and {matrix.ranged(metric, most)} ({worst.label})."
    )


def victims_table(members: Sequence[Member]) -> TextTable:
    """A line for each victim without a defence: where it is cut, how well it works, what each attack makes of it."""
    columns = tuple(dict.fromkeys(column for member in members for column in member.results.columns))
    metric, *others = SHOWN_METRICS
    others = [name for name in others if any(member.leakage(name) for member in members)]
    headings = (
        *("victim", "release", "bytes", "edge share"),
        members[0].results.utility_name or "utility",
        *(f"{column}, {matrix.heading(metric)}" for column in columns),
        *(f"{matrix.heading(name)} of the strongest" for name in others),
        "flags",
    )
    lines = tuple(
        (
            member.label,
            "x".join(map(str, member.cut.shape)),
            f"{member.cut.bytes:,}",
            f"{member.cut.edge_share:.1%}",
            _utility(member.results),
            *(_reached(member.results, column, metric) for column in columns),
            *(matrix.bare_range(name, member.leakage(name)) for name in others),
            _flags(member.results),
        )
        for member in members
    )
    samples = " or ".join(dict.fromkeys(member.results.sample for member in members))
    about = f"Undefended victims; {samples}; in brackets 95 % bootstrap intervals."
    return TextTable("victims", headings, lines, about)


def _utility(results: Results) -> str:
    row = results.undefended
    return matrix.percent(row.utility) if row and row.utility else ABSENT


def _reached(results: Results, column: str, metric: str) -> str:
    group = results.undefended.groups.get(column) if results.undefended else None
    return matrix.bare_range(metric, group.scores.get(metric) if group else None)


def _flags(results: Results) -> str:
    row = results.undefended
    raised = [name for column in results.columns for name in (results.raised(row.defence, column) if row else ())]
    return " ".join(f"{FLAG} {name}" for name in dict.fromkeys(raised))


def equal_utility(members: Sequence[Member]) -> TextTable | None:
    """The defences of every victim at equal utility; None where no victim has any."""
    found = {member.label: table for member in members if (table := matched.table(member.results))}
    if not found:
        return None
    widest_first = sorted(found.values(), key=lambda table: -len(table.headings))  # not all have identities
    headings = tuple(dict.fromkeys(name for table in widest_first for name in table.headings))
    lines = []
    for label, table in found.items():
        for line in table.lines:
            by_heading = dict(zip(table.headings, line, strict=True))
            lines.append((label, *(by_heading.get(name, ABSENT) for name in headings)))
    captions: dict[str, list[str]] = {}
    for label, table in found.items():
        captions.setdefault(table.caption, []).append(label)
    about = " ".join(f"{', '.join(labels)}: {caption}" for caption, labels in captions.items())
    return TextTable(widest_first[0].name, ("victim", *headings), tuple(lines), about)


def terminal_overview(members: Sequence[Member]) -> Sheet:
    """For a terminal, whose lines are short: what is worst of each victim."""
    headings = ("release", "edge share", *(matrix.heading(name) for name in LEAKAGE_METRICS), "strongest")
    rows = []
    for member in members:
        scores = ((name, member.leakage(name)) for name in LEAKAGE_METRICS)
        strongest = member.strongest(LEAKAGE_METRICS[0])
        rows.append(
            (
                member.label,
                "x".join(map(str, member.cut.shape)),
                f"{member.cut.edge_share:.1%}",
                *(ABSENT if score is None else matrix.plus_minus(name, score, unit=False) for name, score in scores),
                _by(strongest) if strongest else ABSENT,
            )
        )
    return Sheet([Column("victim"), *(Column(heading, right=True) for heading in headings)], rows)


def _by(group: Group) -> str:
    """The attack; of the suite's choice the one that it chose for most photos."""
    return next(iter(group.chosen), group.column)
