"""The figures of a run, each a function of its results that returns a matplotlib figure."""

from splitleak.experiments.report.figures.cost import cost_figure
from splitleak.experiments.report.figures.files import further_figures, write_paper
from splitleak.experiments.report.figures.inside import Decoded, inside_figure, opened_figure
from splitleak.experiments.report.figures.strips import Grid, Strip, grid_figure, grids
from splitleak.experiments.report.figures.style import DOUBLE, INK, PAPER, SCREEN, SINGLE, Style, save
from splitleak.experiments.report.figures.tradeoff import tradeoff, vertical_scale
from splitleak.experiments.report.figures.training import training_figure

__all__ = [
    "DOUBLE",
    "INK",
    "PAPER",
    "SCREEN",
    "SINGLE",
    "Decoded",
    "Grid",
    "Strip",
    "Style",
    "cost_figure",
    "further_figures",
    "grid_figure",
    "grids",
    "inside_figure",
    "opened_figure",
    "save",
    "tradeoff",
    "training_figure",
    "vertical_scale",
    "write_paper",
]
