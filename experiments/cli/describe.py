"""Tables that tell a user what there is: plugins, networks, cuts."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from rich.text import Text

from splitleak.experiments.cli.portrait import prose
from splitleak.experiments.judge.flags import FLAGS
from splitleak.experiments.planning import plugins
from splitleak.experiments.planning.study import read_study
from splitleak.experiments.report.tables.cards import OURS, PUBLISHED, card_table
from splitleak.experiments.report.tables.plugin import paragraphs
from splitleak.experiments.report.terminal import Column, Sheet
from splitleak.victims import models
from splitleak.victims.cuts import WAYS, Cut
from splitleak.victims.errors import unknown
from splitleak.victims.networks import architectures
from splitleak.victims.settings import Settings

Kind = Literal["attacks", "defenses", "data", "tasks", "victims", "plans", "cards"]


def listing(kind: Kind, plans: Path) -> Sheet:
    """Names and one line each; of cards the numbers."""
    if kind == "cards":
        return _cards()
    return Sheet([Column("name"), Column("what it is", prose=True)], _rows(kind, plans))


def _cards() -> Sheet:
    """What sources claim beside what we measured, attacks first."""
    shown = (PUBLISHED, OURS, "tolerance")
    tables = (card_table("attack", plugins.attack_classes()), card_table("defence", plugins.defense_classes()))
    rows = [
        (line[0], *(dict(zip(text.headings, line, strict=True))[heading] for heading in shown))
        for text in tables
        for line in text.lines
    ]
    return Sheet([Column("name"), *(Column(heading, prose=True) for heading in shown)], rows)


def _rows(kind: Kind, plans: Path) -> list[tuple[str, str | Text]]:
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


def cuts_table(model: str, cuts: list[Cut]) -> Sheet:
    """Every valid cut of a network."""
    rows = [
        (
            cut.name,
            cut.node,
            "x".join(map(str, cut.shape)),
            f"{cut.bytes:,}",
            f"{cut.edge_macs / 1e6:.1f} M",
            f"{cut.edge_share:.1%}",
        )
        for cut in cuts
    ]
    numbers = (Column(name, right=True) for name in ("release", "bytes", "edge multiply-adds", "edge share"))
    way = f", {WAYS[cuts[0].way]}" if cuts else ": nowhere does a single tensor cross"
    title = f"{model}: {len(cuts)} valid cuts{way}"
    return Sheet([Column("cut"), Column("node"), *numbers], rows, title)


def explained(name: str | None) -> Sheet:
    """What a validity flag means and what would lift it; all flags without a name.

    Raises:
        InvalidInputError: there is no such flag.
    """
    if name is not None and name not in FLAGS:
        raise unknown("flag", name, FLAGS)
    columns = [Column("flag"), Column("what it means", prose=True), Column("what would lift it", prose=True)]
    rows = [(flag.name, flag.means, flag.remedy) for flag in FLAGS.values() if name in (None, flag.name)]
    return Sheet(columns, rows)
