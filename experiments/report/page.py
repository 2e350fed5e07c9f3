"""The page: one HTML file that tells what leaks, at what cost, and how it was measured."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import BaseFileLock, FileLock
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from splitleak.attacks import needs
from splitleak.attacks.needs import HELD, IMPLIED, WORDS
from splitleak.experiments.judge.flags import FLAGS
from splitleak.experiments.report.details import cell_id, details
from splitleak.experiments.report.figures import (
    INK,
    PAPER,
    further_figures,
    grid_figure,
    grids,
    save,
    tradeoff,
    vertical_scale,
)
from splitleak.experiments.report.gallery import gallery, glance
from splitleak.experiments.report.tables import matched, matrix
from splitleak.experiments.report.tables.attacks import attack_table
from splitleak.experiments.report.tables.files import write_tables
from splitleak.experiments.report.tables.found import found_table
from splitleak.experiments.report.tables.heat import BEST, heat_map, measured
from splitleak.experiments.report.tables.proved import PROVED_HEADINGS, proved
from splitleak.experiments.report.verdict import sentences
from splitleak.experiments.results.csv import write_csv
from splitleak.experiments.results.load import CELLS, cell_ids, load_results
from splitleak.experiments.results.metrics import SHOWN_METRICS
from splitleak.experiments.results.results import Results
from splitleak.experiments.store.integrity import digest
from splitleak.experiments.store.provenance import facts_of
from splitleak.victims.files import fingerprint

PAGE, MADE_OF = "index.html", ".report"
TEMPLATES = Path(__file__).parent / "templates"
PACKAGE = Path(__file__).parents[1]


def write_report(run: Path) -> Path:
    """Write table, matrix, figures and page of a run into its folder; returns the path of the page.

    Args:
        run: the folder of a run: ``plan.toml``, ``cells.json``, ``targets.png``, ``cells/<id>.json`` and
            ``cells/<id>.png``; other files in ``cells`` are left alone.

    Raises:
        InvalidInputError: there is no run, or a cell's file cannot be read.
        ValueError: the cells do not share one victim.
    """
    return reported(run, again=True)[0]


def current_report(run: Path) -> Path:
    """The page as it is if nothing that it shows has changed since, else a new one; see ``write_report``."""
    return reported(run, again=False)[0]


def reported(run: Path, again: bool) -> tuple[Path, Results]:
    """The page with the results that it shows, written anew where they have changed, or ``again``."""
    cell_ids(run)  # refuses a folder without a run before anything is written there
    page, made_of = run / PAGE, run / MADE_OF
    with alone(run):
        results = load_results(run)
        if again or not page.is_file() or not made_of.is_file() or made_of.read_text() != _made_of(run):
            _write(run, results)
    return page, results


def alone(run: Path) -> BaseFileLock:
    """Of several processes that have run one plan, one after the other writes its report."""
    return FileLock(run / f"{MADE_OF}.lock")


def _write(run: Path, results: Results) -> None:
    write_csv(results.frame, run / "results.csv")
    write_tables(results, run)
    folder = run / "figures"
    folder.mkdir(exist_ok=True)
    for stale in (*folder.glob("*.png"), *folder.glob("*.svg")):
        stale.unlink()  # of an earlier report on other cells
    curves = [curve for metric in SHOWN_METRICS if (curve := _tradeoff(results, metric, folder))]
    for grid in grids(run, results) if (run / "targets.png").exists() else ():
        save(grid_figure(run / "targets.png", grid), folder / f"grid_{grid.name}", "png")
    further = [(name, figure) for name, figure in further_figures(run, results) if figure is not None]
    figures = {name: drawn(figure, folder / name) for name, figure in further}
    (run / PAGE).write_text(_render(run, results, curves, figures), encoding="utf-8")
    (run / MADE_OF).write_text(_made_of(run))


def _made_of(run: Path) -> str:
    files = [run / "plan.toml", run / CELLS, run / "targets.png", *sorted(TEMPLATES.iterdir())]
    files += [run / "cells" / f"{identifier}.{kind}" for identifier in cell_ids(run) for kind in ("json", "png")]
    files += [Path(needs.__file__), *sorted(PACKAGE.rglob("*.py"))]  # to ask which of them it uses takes seconds
    return digest([fingerprint(file) for file in files if file.exists()])


@dataclass(frozen=True)
class _Curve:
    """A tradeoff figure as part of the page."""

    metric: str
    name: str
    svg: Markup


def _tradeoff(results: Results, metric: str, folder: Path) -> _Curve | None:
    figure = tradeoff(results, metric)
    if figure is None:
        return None
    svg, hits = str(drawn(figure, folder / f"tradeoff_{metric}")), "".join(_hits(figure, results, metric))
    answering = Markup(svg.replace("</svg>", f"{hits}</svg>"))  # safe: what the circles say is escaped there
    return _Curve(metric, matrix.FORMATS[metric].name, answering)


def drawn(figure: Figure, stem: Path) -> Markup:
    """The figure, written as PNG and SVG, as part of the page."""
    _, svg = save(figure, stem, "png", "svg")
    return inline(svg.read_text(encoding="utf-8"), stem.name)


def _hits(figure: Figure, results: Results, metric: str) -> list[str]:
    """Of each setting a circle that answers to the pointer, in the units of the figure's SVG."""
    axes, scale, columns = figure.axes[0], vertical_scale(results), results.columns
    found = []
    for i, row in enumerate(results.rows):
        point, strongest = scale.point(results, row, metric), row.strongest(metric)
        if point is None or strongest is None:
            continue
        x, y = axes.transData.transform(point.place) * 72 / figure.dpi
        height = figure.get_figheight() * 72
        cost = matrix.percent(row.utility) if row.utility else f"{matrix.thousands(row.bytes)} bytes"
        said = (
            f"{row.defence.label}\n{matrix.FORMATS[metric].name} {matrix.ranged(metric, point.x)}"
            f" ({strongest.column})\n{results.utility_name or 'sent'} {cost}"
        )
        opens = cell_id(i, columns.index(strongest.column))
        found.append(
            f'<circle class="hit" cx="{x:.1f}" cy="{height - y:.1f}" r="7" data-opens="{opens}">'
            f"<title>{escape(said)}</title></circle>"
        )
    return found


def template(name: str) -> Template:
    """A page to be filled, which knows the style and the scripts of all pages."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    parts = {"style": "page.css", "sorting": "sort.js", "script": "page.js"}
    environment.globals |= {
        part: Markup((TEMPLATES / file).read_text(encoding="utf-8")) for part, file in parts.items()
    }
    return environment.get_template(name)


def _render(run: Path, results: Results, curves: Sequence[_Curve], figures: Mapping[str, Markup]) -> str:
    plan, equal, attacks = run / "plan.toml", matched.matched_rows(results), attack_table(results)
    found = found_table(results)
    return template("page.html").render(
        results=results,
        title=next((cell.plan for cell in results.cells if cell.plan), run.name),
        sentences=[_emphasised(sentence) for sentence in sentences(results)],
        glance=glance(run, results),
        holdings=_holdings(results),
        matrix=matrix,
        heat_maps=[heat_map(results, metric) for metric in measured(results)],
        best_sign=BEST,
        caption=matrix.caption(results),
        cell_id=cell_id,
        details=details(results),
        curves=curves,
        figures=figures,
        gallery=gallery(run, results),
        attacks=attacks,
        attack_lines=_marked(attacks.lines, [bool(line[-1]) for line in attacks.lines]) if attacks else [],
        matched_headings=matched.headings(results),
        matched_caption=matched.caption(results),
        common=list(results.common_flags),
        matched=list(
            zip(matched.lines(results, equal), (matched.doubtful(results, row) for row in equal), strict=True)
        ),
        flags=[(FLAGS[name], count) for name, count in results.flag_counts.items()],
        found=found,
        found_lines=_marked(found.lines, [bool(line[-1]) for line in found.lines]) if found else [],
        proved_headings=PROVED_HEADINGS,
        proved=[(line, False) for line in proved(results)],
        failures=[(cell, cell.why or "no message") for cell in results.failed],
        made=facts_of(results.made),
        plan_text=plan.read_text(encoding="utf-8") if plan.exists() else "",
    )


def _marked(lines: Sequence[Sequence[str]], doubtful: Sequence[bool]) -> list[tuple[Sequence[str], bool]]:
    """Of each line of a table whether it is doubtful."""
    return list(zip(lines, doubtful, strict=True))


def _holdings(results: Results) -> list[tuple[str, list[str]]]:
    """What adversaries of this run hold, each kind beside what those above it do, with their attacks."""
    known = {cell.attack.label: cell.attack for cell in results.cells if not cell.attack.floor}
    kinds = list(HELD)
    most = max((kinds.index(attack.knowledge) for attack in known.values() if attack.knowledge in kinds), default=-1)
    labels = [[label for label, attack in known.items() if attack.knowledge == kind] for kind in kinds]
    held = list(zip(HELD.values(), labels, strict=True))[: most + 1]
    further = {need: [label for label, attack in known.items() if need in attack.needs] for need in WORDS}
    return held + [(WORDS[need][0], of) for need, of in further.items() if of and need not in IMPLIED]


def _emphasised(text: str) -> Markup:
    """The decibels of a sentence in bold."""
    return Markup(re.sub(r"-?\d+\.\d dB", r"<strong>\g<0></strong>", str(escape(text))))  # safe: escaped here


def inline(svg: str, prefix: str) -> Markup:
    """An SVG file as part of the page: its ids made unique there, its ink and paper those of the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)  # implied within HTML
    svg = re.sub(r'\bid="|href="#|url\(#', lambda match: f"{match[0]}{prefix}-", svg)
    svg = re.sub(
        r'(<svg[^>]*?) width="[^"]*"',
        r"\1",
        re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1),
        count=1,
    )
    svg = svg.replace(INK.lower(), "currentColor").replace(PAPER.lower(), "var(--paper)")
    return Markup(svg)  # safe: the text in it is drawn as shapes
