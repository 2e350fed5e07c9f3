"""Tables that tell a user what there is: plugins, networks, cuts."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from rich.markup import escape
from rich.table import Table

from splitleak.experiments.cli.portrait import prose
from splitleak.experiments.judge.flags import FLAGS
from splitleak.experiments.planning import plugins
from splitleak.experiments.planning.study import read_study
from splitleak.experiments.report.tables.cards import OURS, PUBLISHED, card_table
from splitleak.experiments.report.tables.plugin import paragraphs
from splitleak.victims import models
from splitleak.victims.cuts import WAYS, Cut
from splitleak.victims.errors import unknown
from splitleak.victims.networks import architectures
from splitleak.victims.settings import Settings

Kind = Literal["attacks", "defenses", "data", "tasks", "victims", "plans", "cards"]


def listing(kind: Kind, plans: Path) -> Table:
    """Names and one line each; of cards the numbers."""
    if kind == "cards":
        return _cards()
    table = Table(box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("what it is")
    for name, what in _rows(kind, plans):
        table.add_row(name, what)
    return table


def _cards() -> Table:
    """What sources claim beside what we measured, attacks first."""
    table = Table(box=None, pad_edge=False)
    shown = (PUBLISHED, OURS, "tolerance")
    table.add_column("name", no_wrap=True)
    for heading in shown:
        table.add_column(heading)
    for text in (card_table("attack", plugins.attack_classes()), card_table("defence", plugins.defense_classes())):
        for line in text.lines:
            facts = dict(zip(text.headings, line, strict=True))
            table.add_row(line[0], *(escape(facts[heading]) for heading in shown))
    return table


def _rows(kind: Kind, plans: Path) -> list[tuple[str, str]]:
    if kind == "victims":
        return [
            *((name, of.summary) for name, of in architectures().items()),
            *((name, "torchvision") for name in models.names() if name not in architectures()),
            ("timm:NAME", "any network of timm, an extra"),
            ("file.py:function", "your own: what the function returns"),
        ]
    if kind == "plans":
        return [(path.stem, _first_comment(path)) for path in sorted(plans.glob("*.toml"))]
    discover: dict[str, Callable[[], Mapping[str, type[Settings]]]] = {
        "attacks": plugins.attack_classes,
        "defenses": plugins.defense_classes,
        "data": plugins.source_classes,
        "tasks": plugins.task_classes,
    }
    classes = discover[kind]()
    return [(name, prose(paragraphs(cls)[0])) for name, cls in sorted(classes.items())]


def _first_comment(path: Path) -> str:
    read_study(path)
    return path.read_text().partition("\n")[0].removeprefix("# ")


def cuts_table(model: str, cuts: list[Cut]) -> Table:
    """Every valid cut of a network."""
    table = Table("cut", "node", "release", "bytes", "edge multiply-adds", "edge share", box=None, pad_edge=False)
    for cut in cuts:
        shape = "x".join(map(str, cut.shape))
        macs = f"{cut.edge_macs / 1e6:.1f} M"
        table.add_row(cut.name, cut.node, shape, f"{cut.bytes:,}", macs, f"{cut.edge_share:.1%}")
    way = f", {WAYS[cuts[0].way]}" if cuts else ": nowhere does a single tensor cross"
    table.title = f"{model}: {len(cuts)} valid cuts{way}"
    return table


def explained(name: str | None) -> Table:
    """What a validity flag means and what would lift it; all flags without a name.

    Raises:
        InvalidInputError: there is no such flag.
    """
    if name is not None and name not in FLAGS:
        raise unknown("flag", name, FLAGS)
    table = Table(box=None, pad_edge=False, show_lines=True)
    table.add_column("flag", no_wrap=True)
    table.add_column("what it means")
    table.add_column("what would lift it")
    for flag in FLAGS.values():
        if name in (None, flag.name):
            table.add_row(flag.name, flag.means, flag.remedy)
    return table
