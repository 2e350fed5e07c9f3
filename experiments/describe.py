"""Tables that tell a user what there is: plugins, networks, cuts."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from annotated_types import BaseMetadata, DocInfo
from rich.console import Group
from rich.table import Table

from attacks.base import Attack, knowledge_of
from defenses.base import Defense
from experiments import plugins
from experiments.judge.flags import FLAGS
from experiments.plan import read_plan
from victims import models
from victims.cuts import Cut
from victims.data.base import Source
from victims.errors import unknown
from victims.settings import Settings

Kind = Literal["attacks", "defenses", "data", "victims", "plans"]


def listing(kind: Kind, plans: Path) -> Table:
    """Names and one line each."""
    table = Table(box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("what it is")
    for name, what in _rows(kind, plans):
        table.add_row(name, what)
    return table


def _rows(kind: Kind, plans: Path) -> list[tuple[str, str]]:
    if kind == "victims":
        return [
            *((name, "torchvision") for name in models.names()),
            ("timm:NAME", "any network of timm, an extra"),
            ("file.py:function", "your own: what the function returns"),
        ]
    if kind == "plans":
        return [(path.stem, _first_comment(path)) for path in sorted(plans.glob("*.toml"))]
    discover: dict[str, Callable[[], Mapping[str, type[Settings]]]] = {
        "attacks": plugins.attack_classes,
        "defenses": plugins.defense_classes,
        "data": plugins.source_classes,
    }
    classes = discover[kind]()
    return [(name, _summary(cls)) for name, cls in sorted(classes.items())]


def _summary(cls: type[Settings]) -> str:
    return inspect.getdoc(cls).partition("\n")[0] if cls.__doc__ else ""  # type: ignore[union-attr]


def _first_comment(path: Path) -> str:
    read_plan(path)
    return path.read_text().partition("\n")[0].removeprefix("# ")


def plugin(name: str) -> Group:
    """Everything about one plugin.

    Raises:
        InvalidInputError: there is none of this name.
    """
    known: dict[str, type[Any]] = {
        **plugins.source_classes(),
        **plugins.defense_classes(),
        **plugins.attack_classes(),
    }
    if name not in known:
        raise unknown("plugin", name, known)
    cls = known[name]
    return Group(
        f"[bold]{name}[/bold]  {_threat_model(cls)}", "", inspect.getdoc(cls) or "", "", _settings_table(cls)
    )


def _threat_model(cls: type[Settings]) -> str:
    if issubclass(cls, Attack):
        return f"attack; knowledge: {knowledge_of(cls).__name__}\nsource: {cls.paper}"
    if issubclass(cls, Defense):
        sweep = f"; strength: {cls.strength}" if cls.strength else ""
        return f"defence; trains the {cls.retrains}{sweep}\nsource: {cls.paper}"
    assert issubclass(cls, Source)
    return f"data set; {cls.summary}"


def _settings_table(cls: type[Settings]) -> Table:
    table = Table("setting", "type and range", "default", "meaning", box=None, pad_edge=False)
    hints = get_type_hints(cls, include_extras=True)
    for field in fields(cls):
        bounds, meaning = _metadata(hints[field.name])
        table.add_row(field.name, bounds, _default(field), meaning)
    return table


def _metadata(hint: Any) -> tuple[str, str]:
    if get_origin(hint) is not Annotated:
        return _type_name(hint), ""
    base, *extras = get_args(hint)
    meaning = " ".join(extra.documentation for extra in extras if isinstance(extra, DocInfo))
    symbols = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    bounds = [
        f"{symbol} {getattr(extra, bound)}"
        for extra in extras
        for bound, symbol in symbols.items()
        if isinstance(extra, BaseMetadata) and hasattr(extra, bound)
    ]
    return " ".join([_type_name(base), *bounds]), meaning


def _type_name(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " | ".join(str(value) for value in get_args(hint))
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _default(field: "Field[Any]") -> str:
    if field.default is not MISSING:
        return str(field.default)
    return "required" if field.default_factory is MISSING else str(field.default_factory())


def cuts_table(model: str, cuts: list[Cut]) -> Table:
    """Every valid cut of a network."""
    table = Table("cut", "node", "release", "bytes", "edge multiply-adds", "edge share", box=None, pad_edge=False)
    for cut in cuts:
        shape = "x".join(map(str, cut.shape))
        macs = f"{cut.edge_macs / 1e6:.1f} M"
        table.add_row(cut.name, cut.node, shape, f"{cut.bytes:,}", macs, f"{cut.edge_share:.1%}")
    table.title = f"{model}: {len(cuts)} valid cuts"
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
