"""What cells measured: the record that they write, and what report, export and compare read."""

from splitleak.experiments.results.frame import Row, frame

__all__ = ["Row", "frame"]
