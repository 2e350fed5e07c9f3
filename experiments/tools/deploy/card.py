"""The model card of a deployment: what the run measured of this defence, and what that does not say."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from splitleak.experiments.judge.statistics.interval import Interval
from splitleak.experiments.report.tables.matrix import decimals, heading, percent, ranged, thousands
from splitleak.experiments.report.tables.proved import PROVED_HEADINGS, proved
from splitleak.experiments.report.tables.table import ABSENT, markdown_text
from splitleak.experiments.results.group import DefenceRow, Group
from splitleak.experiments.results.load import run_seal
from splitleak.experiments.results.metrics import SHOWN_METRICS
from splitleak.experiments.results.results import Results
from splitleak.experiments.tools.finished import Setting

UNMEASURED = "not measured: the run has no finished cell of this defence"


def card_of(setting: Setting, facts: dict[str, Any]) -> dict[str, Any]:
    """What a reader needs, for programs. ``facts``: what was deployed, and what was left out."""
    results, victim = setting.results(), setting.run.plan.victim
    row = next((one for one in results.rows if one.defence.label == setting.label), None)
    protected = setting.cells[0].defense.plugin
    return {
        "deployed": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": {"name": setting.run.plan.name, "seal": run_seal(setting.folder), "notes": list(results.notes)},
        "network": {
            "model": victim.model,
            "cut": victim.cut,
            "size": victim.size,
            "task": victim.task,
            "data": setting.run.plan.source.name,
            "seed": setting.protect.seed,
        },
        "defence": {"label": setting.label, "name": protected.name, "settings": protected.to_mapping()},
        "measured": None if row is None else measured(results, row),
        **facts,
    }


def measured(results: Results, row: DefenceRow) -> dict[str, Any]:
    """Utility, cost, leakage under each attack, and what is proved."""
    statements = next((line for line in proved(results) if line[0] == row.defence.label), None)
    dates = sorted(cell.finished for group in row.groups.values() for cell in group.finished if cell.finished)
    return {
        "utility": _interval(row.utility),
        "bytes": row.bytes,
        "edge": {"milliseconds": row.edge_milliseconds, "ratio": row.edge_ratio},
        "attacks": [_attack(results, row, group) for group in row.groups.values() if group.finished],
        "guarantees": [one.model_dump() for cell in row.by_seed[:1] for one in cell.guarantees],
        "proved": dict(zip(PROVED_HEADINGS[1:], statements[1:], strict=True)) if statements else {},
        "finished": dates[-1] if dates else None,
    }


def _attack(results: Results, row: DefenceRow, group: Group) -> dict[str, Any]:
    cell = group.cells[0]
    return {
        "attack": group.column,
        "knowledge": cell.attack.knowledge,
        "floor": group.floor,
        "photos": group.photos,
        "scores": {name: _interval(score) for name, score in group.scores.items()},
        "flags": list(results.raised(row.defence, group.column)),
    }


def _interval(score: Interval | None) -> dict[str, float] | None:
    return None if score is None else dict(score._asdict())


def card_text(card: dict[str, Any]) -> str:
    """The same for people, as Markdown."""
    return "\n".join(_lines(card)) + "\n"


def _lines(card: dict[str, Any]) -> Iterator[str]:
    network, run, found = card["network"], card["run"], card["measured"]
    yield f"# {markdown_text(card['defence']['label'])} on {markdown_text(network['model'])}"
    yield ""
    yield f"A network cut at `{network['cut']}`, photos of {network['size']} px, task: {network['task'] or 'none'}."
    yield f"Measured by the run `{run['name']}` on `{network['data']}`, seed {network['seed']}; deployed"
    yield f"{card['deployed']}. Seal of the run: `{run['seal']}`."
    yield from (f"\n**{markdown_text(note)}**" for note in run["notes"])
    yield "\n## What it costs\n"
    yield from _costs(found) if found else [UNMEASURED + "."]
    yield "\n## What it leaks\n"
    yield from _leakage(found["attacks"]) if found else [UNMEASURED + "."]
    yield "\n## What is proved\n"
    yield from _proved(found["proved"] if found else {})
    yield "\n## What is in the folder\n"
    yield from (f"- `{name}`: {markdown_text(text)}" for name, text in card["files"].items())
    yield from (f"- `{name}` is left out: {markdown_text(reason)}" for name, reason in card["left_out"].items())
    yield "\n## What these numbers do not say\n"
    yield "Leakage is what these attacks rebuilt, with what each was given; a stronger attack may rebuild more, and"
    yield "photos of another kind may leak otherwise. Edge time is of the measuring machine. The cloud and whoever"
    yield "listens on the wire hold the same release: TLS keeps out the listener, not the cloud. Whoever gets the"
    yield "edge program gets what is secret in it, such as a key. The random numbers of `runtime.py` are those of"
    yield "torch's generator, seeded by the operating system: they are no cryptography."


def _costs(found: dict[str, Any]) -> Iterator[str]:
    utility = Interval(**found["utility"]) if found["utility"] else None
    yield "| accuracy | bytes for a photo | edge time (ms) | of the undefended edge |"
    yield "| --- | --- | --- | --- |"
    edge = found["edge"]
    cells = (thousands(found["bytes"]), decimals(edge["milliseconds"]), decimals(edge["ratio"]))
    yield f"| {percent(utility) if utility else ABSENT} | {' | '.join(cells)} |"


def _leakage(attacks: list[dict[str, Any]]) -> Iterator[str]:
    shown = [metric for metric in SHOWN_METRICS if any(metric in one["scores"] for one in attacks)]
    yield f"| attack | holds | {' | '.join(map(heading, shown))} | doubts |"
    yield f"| --- | --- | {' | '.join('---' for _ in shown)} | --- |"
    for one in attacks:
        scores = {name: Interval(**score) for name, score in one["scores"].items()}
        holds = "nothing of the release" if one["floor"] else one["knowledge"]
        cells = [one["attack"], holds, *(ranged(metric, scores.get(metric)) for metric in shown)]
        yield f"| {' | '.join(map(markdown_text, [*cells, ', '.join(one['flags'])]))} |"


def _proved(statements: dict[str, str]) -> Iterator[str]:
    told = {name: text for name, text in statements.items() if text != ABSENT}
    if not told:
        yield "Nothing: what is known of this defence was measured."
    yield from (f"- {markdown_text(name)}: {markdown_text(text)}" for name, text in told.items())
