"""Which figures a run has, and their files for a paper."""

from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from splitleak.experiments.report.figures.cost import cost_figure
from splitleak.experiments.report.figures.inside import inside_figure
from splitleak.experiments.report.figures.strips import grid_figure, grids
from splitleak.experiments.report.figures.style import PRINT_DPI, PRINTED, SCREEN, Style, save
from splitleak.experiments.report.figures.tradeoff import tradeoff
from splitleak.experiments.report.figures.training import training_figure
from splitleak.experiments.results.metrics import SHOWN_METRICS
from splitleak.experiments.results.results import Results

Named = Iterator[tuple[str, Figure | None]]


def write_paper(run: Path, results: Results) -> list[Path]:
    """Write every figure at both widths of a paper as PDF, SVG and PNG to ``figures/paper``; returns the files."""
    folder = run / "figures" / "paper"
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.iterdir():
        stale.unlink()  # of an earlier report on other cells
    files = []
    for style in PRINTED:
        for name, figure in _figures(run, results, style):
            if figure is not None:
                files += save(figure, folder / f"{name}_{style.name}", "pdf", "svg", "png", dpi=PRINT_DPI)
    return files


def further_figures(run: Path, results: Results, style: Style = SCREEN) -> Named:
    """Those beside tradeoff curves and grids, by the name of their file; None of what was not measured."""
    for metric in SHOWN_METRICS:
        yield f"cost_{metric}", cost_figure(results, metric, style)
    yield "training", training_figure(results, style)
    if results.undefended:
        yield "inside", inside_figure(run, results, results.undefended, style)


def _figures(run: Path, results: Results, style: Style) -> Named:
    for metric in SHOWN_METRICS:
        yield f"tradeoff_{metric}", tradeoff(results, metric, style)
    yield from further_figures(run, results, style)
    targets = run / "targets.png"
    for grid in grids(run, results) if targets.exists() else ():
        yield f"grid_{grid.name}", grid_figure(targets, grid, style)
