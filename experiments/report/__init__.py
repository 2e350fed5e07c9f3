"""The report of a run: table of all cells, matrix, figures and one self-contained page."""

from splitleak.experiments.report.page import write_report

__all__ = ["write_report"]
