"""Records as rows of a table."""

import csv
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from splitleak.experiments.results.record import Record
from splitleak.experiments.results.results import Results

Scalar = str | int | float | bool | None


def csv_row(cell: Record, flags: Sequence[str] = ()) -> dict[str, Scalar]:
    """A cell as one flat row; what was not measured is None. ``flags``: those of its defence under its attack."""
    row: dict[str, Scalar] = {"id": cell.id, "key": cell.key, "status": cell.status, "plan": cell.plan}
    row |= {"seed": cell.seed, "adaptive": cell.adaptive, "sends": cell.sends}
    row |= {f"victim_{name}": value for name, value in dict(cell.victim).items()}
    row |= {"defence": cell.defence.name, "defence_label": cell.defence.label}
    row |= {"strength": cell.defence.strength, "strength_value": cell.defence.strength_value}
    row |= {
        "defence_settings": json.dumps(cell.defence.settings),
        "attack_settings": json.dumps(cell.attack.settings),
    }
    row |= {"attack": cell.attack.name, "attack_label": cell.attack.label}
    row |= {"knowledge": cell.attack.knowledge, "floor": cell.attack.floor, "n": cell.n}
    row |= {"targets": cell.targets}
    for name, score in cell.metrics.items():
        row |= {f"{name}_mean": score.mean, f"{name}_low": score.low, f"{name}_high": score.high}
        row |= {f"{name}_{reference}": value for reference, value in cell.references.get(name, {}).items()}
    for control, scores in cell.controls.items():
        row |= {f"{control}_{name}_mean": score.mean for name, score in scores.items()}
    for name, best in cell.oracle.items():
        row |= {f"oracle_{name}_mean": best.mean, f"oracle_{name}_low": best.low, f"oracle_{name}_high": best.high}
    if cell.utility:
        row |= {"utility_metric": cell.utility.metric, "utility_mean": cell.utility.mean}
        row |= {"utility_low": cell.utility.low, "utility_high": cell.utility.high}
        row |= {"utility_chance": cell.utility.chance}
    row |= {f"budget_{name}": value for name, value in dict(cell.budget).items()}
    row |= {"bytes": cell.bytes}
    if cell.edge:
        row |= {"edge_milliseconds": cell.edge.milliseconds, "edge_ratio": cell.edge.ratio}
    if cell.ok:
        for protects in ("training", "query"):
            row[f"{protects}_epsilon"], row[f"{protects}_delta"] = cell.epsilon(protects)
    row |= {"noise_std": cell.noise_std, "queries": cell.queries, "draws": cell.draws, "flags": " ".join(flags)}
    if cell.bounds:
        row |= dataclasses.asdict(cell.bounds)
    if cell.seconds:
        row |= {"seconds_fit": cell.seconds.fit, "seconds_reconstruct": cell.seconds.reconstruct}
    row |= {f"version_{name}": version for name, version in cell.versions.items()}
    row |= {"finished": cell.finished, "error": cell.why or None}
    return row


SETTINGS = ("plan", "seed", "adaptive", "sends", "victim_", "defence", "strength", "attack", "knowledge", "budget_")
"""How the columns begin that are known before anything is measured."""


def measured(row: Mapping[str, Scalar]) -> dict[str, float]:
    """The numbers of a cell's row that are no settings, where they are finite."""
    return {
        name: float(value)
        for name, value in row.items()
        if not name.startswith(SETTINGS)
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    }


def write_csv(results: Results, path: Path) -> None:
    """One row per cell with all its scalars."""
    rows = [csv_row(cell, results.raised(cell.defence, cell.column)) for cell in results.cells]
    write_rows(rows, path)


def write_rows(rows: Sequence[Mapping[str, Scalar]], path: Path) -> None:
    """Write a CSV file; infinity is written ``inf``, what is absent is empty."""
    # The longest rows first: a failed measurement has fewer columns and must not decide their order.
    columns = list(dict.fromkeys(name for row in sorted(rows, key=len, reverse=True) for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
