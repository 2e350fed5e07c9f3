"""The page: one HTML file that tells what leaks, at what cost, and how it was measured."""

import base64
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from experiments.judge.flags import FLAGS
from experiments.judge.statistics import Interval
from experiments.report import matched, matrix
from experiments.report.attacks import attack_table, markdown
from experiments.report.figures import INK, PAPER, Grid, grid_figure, grids, save, tradeoff
from experiments.report.proved import PROVED_HEADINGS, proved
from experiments.report.results import (
    LEAKAGE_METRICS,
    Cell,
    DefenceRow,
    Group,
    Results,
    last_line,
    load_results,
    write_csv,
)
from experiments.store import digest, source_digest
from victims.files import fingerprint

MATCHED_UTILITY = 0.02
"""Defences are compared at equal utility: a setting that loses at most this share counts as equal to none."""

PAGE, MADE_OF = "index.html", ".report"
TEMPLATES = Path(__file__).parent

STRIP_HEIGHT = 96
"""Pixels of a photo on the page; larger strips are scaled down, the files keep their size."""


def write_report(run: Path, ids: Sequence[str]) -> Path:
    """Write table, matrix, figures and page of a run into its folder; returns the path of the page.

    Args:
        run: the folder of a run: ``plan.toml``, ``targets.png``, ``cells/<id>.json`` and ``cells/<id>.png``.
        ids: the cells that belong to the plan, in its order; other files in ``cells`` are left alone.

    Raises:
        ValueError: a cell's file cannot be read, or the cells do not share one victim.
    """
    results = load_results(run, ids)
    write_csv(results, run / "results.csv")
    tables = [matrix.markdown(results)]
    if attacks := attack_table(results):
        tables.append(markdown(attacks))
    if stated := proved(results):
        rule = ("---",) * len(PROVED_HEADINGS)
        tables.append("\n".join(matrix.markdown_line(line) for line in (PROVED_HEADINGS, rule, *stated)) + "\n")
    (run / "matrix.md").write_text("\n".join(tables), encoding="utf-8")
    folder = run / "figures"
    folder.mkdir(exist_ok=True)
    for stale in (*folder.glob("tradeoff_*"), *folder.glob("grid_*")):
        stale.unlink()  # of an earlier report on other cells
    curves = [(metric, svg) for metric in LEAKAGE_METRICS if (svg := _write_tradeoff(results, metric, folder))]
    shown = grids(run, results) if (run / "targets.png").exists() else ()
    for grid in shown:
        save(grid_figure(run / "targets.png", grid), folder / f"grid_{grid.name}", "png")
    page = run / PAGE
    page.write_text(_render(run, results, curves, shown), encoding="utf-8")
    (run / MADE_OF).write_text(_made_of(run, ids))
    return page


def current_report(run: Path, ids: Sequence[str]) -> Path:
    """The page as it is if nothing that it shows has changed since, else a new one; see ``write_report``."""
    page, made_of = run / PAGE, run / MADE_OF
    if page.is_file() and made_of.is_file() and made_of.read_text() == _made_of(run, ids):
        return page
    return write_report(run, ids)


def _made_of(run: Path, ids: Sequence[str]) -> str:
    files = [run / "plan.toml", run / "targets.png", TEMPLATES / "page.html"]
    files += [run / "cells" / f"{identifier}.{kind}" for identifier in ids for kind in ("json", "png")]
    return digest([source_digest(__name__), [fingerprint(file) for file in files if file.exists()]])


def _write_tradeoff(results: Results, metric: str, folder: Path) -> str | None:
    figure = tradeoff(results, metric)
    if figure is None:
        return None
    save(figure, folder / f"tradeoff_{metric}", "png", "svg")
    return (folder / f"tradeoff_{metric}.svg").read_text(encoding="utf-8")


def _render(run: Path, results: Results, curves: Iterable[tuple[str, str]], shown: Iterable[Grid]) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    plan, equal = run / "plan.toml", matched.matched_rows(results)
    return environment.get_template("page.html").render(
        results=results,
        title=next((cell.plan for cell in results.cells if cell.plan), run.name),
        verdict=_emphasised(verdict(results)),
        matrix=matrix,
        rows=matrix.matrix_rows(results),
        caption=matrix.caption(results),
        curves=[(matrix.FORMATS[metric].name, _inline(svg, metric)) for metric, svg in curves],
        targets=_strip_uri(run / "targets.png") if shown else "",
        grids=[(grid.title, [(strip.label, _strip_uri(strip.path)) for strip in grid.strips]) for grid in shown],
        attacks=attack_table(results),
        matched_headings=matched.headings(results),
        matched=list(zip(matched.lines(equal), (matched.doubtful(results, row) for row in equal), strict=True)),
        flags=[(FLAGS[name], count) for name, count in results.flag_counts.items()],
        proved_headings=PROVED_HEADINGS,
        proved=proved(results),
        failures=[(cell, last_line(cell.traceback) or "no message") for cell in results.failed],
        versions=_versions(results.finished),
        plan_text=plan.read_text(encoding="utf-8") if plan.exists() else "",
    )


def verdict(results: Results) -> str:
    """What the run found, in one sentence with its numbers."""
    if not results.finished:
        return "No cell finished: nothing was measured."
    if not results.rebuilt:
        return f"No photo was rebuilt; {_beyond_pixels(results)}."
    reference = results.undefended
    strongest = reference.strongest("psnr") if reference else None
    if reference is None or strongest is None:
        return f"Nothing was measured without a defence to compare with; {_least(results.rows)}."
    leakage = strongest.scores["psnr"]
    return f"Undefended, {_rebuilds(results, strongest, leakage)}; {_best_defence(results, reference, leakage)}."


def _beyond_pixels(results: Results) -> str:
    """What attacks that rebuild nothing tell of the person, without a defence where that was measured."""
    row = results.undefended or results.rows[0]
    told = [
        f"{group.column} reaches {matrix.FORMATS[metric].name} {matrix.ranged(metric, score)}"
        for group in row.groups.values()
        for metric, score in group.scores.items()
    ]
    return f"against {row.defence.label}, {' and '.join(told) or 'no attack was scored'}"


def _rebuilds(results: Results, strongest: Group, leakage: Interval) -> str:
    floor = results.floor("psnr")
    known = f" (mean-image floor {matrix.number('psnr', floor.mean)})" if floor else ""
    who = "the suite's choice of attack" if strongest.suite else f"the strongest attack, {strongest.column},"
    doubt = _doubt(results, results.undefended, strongest)
    return f"{who} rebuilds the photo at {matrix.ranged('psnr', leakage)}{known}{doubt}"


def _best_defence(results: Results, reference: DefenceRow, undefended: Interval) -> str:
    """The setting that leaks least among those that keep the utility, if it leaks clearly less than none."""
    rows = [row for row in results.rows if row is not reference and row.strongest("psnr")]
    if not rows:
        return "no defence was measured"
    settings = f"{len(rows)} defence setting{'s' if len(rows) > 1 else ''}"
    if reference.utility is None:
        return _least(rows)
    name, kept = results.utility_name, reference.utility.mean
    points = f"{100 * MATCHED_UTILITY:g} points of the undefended {name} ({100 * kept:.1f} %)"
    equal = [row for row in rows if row.utility and row.utility.mean >= kept - MATCHED_UTILITY]
    best = min(equal, key=_leakage, default=None)
    if best is None:
        return f"none of the {settings} stays within {points}"
    score = _leakage(best)
    if score.high >= undefended.low:
        return f"none of the {settings} leaks clearly less and stays within {points}"
    assert best.utility is not None  # chosen by it
    return (
        f"of the {settings}, {best.defence.label} leaks least within {points}: "
        f"{matrix.ranged('psnr', score)} at {matrix.percent(best.utility)}"
        f"{_doubt(results, best, best.strongest('psnr'))}"
    )


def _doubt(results: Results, row: DefenceRow | None, group: Group | None) -> str:
    """What is doubtful about a number of the sentence."""
    raised = results.raised(row.defence, group.column) if row and group else ()
    return f" ({matrix.FLAG} {', '.join(raised)})" if raised else ""


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


def _emphasised(text: str) -> Markup:
    """The decibels of a sentence in bold."""
    return Markup(re.sub(r"-?\d+\.\d dB", r"<strong>\g<0></strong>", str(escape(text))))  # safe: escaped here


def _inline(svg: str, prefix: str) -> Markup:
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


def _strip_uri(path: Path) -> str:
    """A strip of photos as a data URI."""
    image = Image.open(path).convert("RGB")
    if image.height > STRIP_HEIGHT:
        image = image.resize(
            (round(image.width * STRIP_HEIGHT / image.height), STRIP_HEIGHT), Image.Resampling.LANCZOS
        )
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _versions(cells: Sequence[Cell]) -> dict[str, str]:
    """Each package with every version that a cell was made with."""
    found: dict[str, dict[str, Any]] = {}
    for cell in cells:
        for name, version in cell.versions.items():
            found.setdefault(name, {})[version] = None
    return {name: ", ".join(versions) for name, versions in found.items()}
