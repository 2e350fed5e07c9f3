"""Tables of rows as CSV files."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from splitleak.experiments.results.frame import Row, Scalar, wide


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """A run's frame as one line per cell with all its scalars."""
    write_rows(wide(rows), path)


def write_rows(rows: Sequence[Mapping[str, Scalar]], path: Path) -> None:
    """Write a CSV file; infinity is written ``inf``, what is absent is empty."""
    # The longest rows first: a failed measurement has fewer columns and must not decide their order.
    columns = list(dict.fromkeys(name for row in sorted(rows, key=len, reverse=True) for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
