"""What a record file must hold to stand on a leaderboard."""

from collections.abc import Iterator
from pathlib import Path

from splitleak.experiments.planning.names import FLOOR, STRONGEST, UNDEFENDED
from splitleak.experiments.results.archive import Archived, read_archive, seal_in
from splitleak.experiments.results.record import Record
from splitleak.experiments.results.results import Results
from splitleak.victims.errors import InvalidInputError

SHUFFLED = "shuffled"
"""How records call what an attack makes of the releases of other photos."""
VOID = {
    "overlap": "photos that are scored were learned from",
    "answers-without-release": "an attack knows the photos from elsewhere than the release",
}
"""Flags under which a number says nothing of a defence. The others stand beside their number on the board."""


def check_submission(path: Path) -> dict[str, Archived]:
    """The runs of a record file that may be submitted, by their names.

    Raises:
        InvalidInputError: it is no archive, or was changed; or what is wrong with it, in one line.
    """
    runs = read_archive(path)
    wrong = [] if seal_in(path) else ["it has no seal: an earlier version wrote it; store the runs again"]
    wrong += [f"{name}: {problem}" for name, run in runs.items() for problem in problems(run.results)]
    if wrong or not runs:
        raise InvalidInputError(f"{path} is no submission: {'; '.join(wrong) or 'it holds no run'}")
    return runs


def problems(results: Results) -> Iterator[str]:
    """Why a run's numbers may not stand on a leaderboard, a line each; nothing where they may."""
    if not results.finished:
        yield "no cell was measured"
        return
    counts = {"failed": len(results.failed), "not there": len(results.missing), "stale": len(results.stale)}
    for what, count in counts.items():
        if count:
            yield f"cells {what}: {count}"
    if unmade := sum(not (record.key and record.made) for record in results.finished):
        yield f"cells that do not say with what they were made: {unmade}"
    yield from _missing_controls(results)
    for flag, means in VOID.items():
        if places := [
            f"{defence} x {attack}" for (defence, attack), raised in results.every_flag.items() if flag in raised
        ]:
            yield f"flag {flag}, {means}: {places[0]}{f' and {len(places) - 1} more' if len(places) > 1 else ''}"


def _missing_controls(results: Results) -> Iterator[str]:
    if results.undefended is None or not results.undefended.by_seed:
        yield f"the control '{UNDEFENDED}' is missing: without it no defence can be compared"
    if not results.rebuilt:
        return
    for row in results.rows:
        seeds = {record.seed for record in row.by_seed}
        floors = {record.seed for group in row.groups.values() if group.floor for record in group.finished}
        if lacking := sorted(seeds - floors):
            listed = ", ".join(map(str, lacking))
            yield f"the control '{FLOOR}' is missing against {row.defence.label}, seed {listed}"
    unshuffled = [
        record for record in results.finished if _should_be_shuffled(record) and not record.controls.get(SHUFFLED)
    ]
    if unshuffled:
        first = unshuffled[0]
        more = f" and {len(unshuffled) - 1} more" if len(unshuffled) > 1 else ""
        where = f"{first.defence.label} x {first.column}, seed {first.seed}{more}"
        yield f"the control of shuffled features is missing: {where}"


def _should_be_shuffled(record: Record) -> bool:
    """The suite's choice has its members' controls."""
    return "psnr" in record.metrics and record.attack.name != STRONGEST
