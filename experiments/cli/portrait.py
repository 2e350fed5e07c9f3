"""Everything about one plugin, in words: ``splitleak show``."""

import re
from collections.abc import Iterable, Iterator

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from splitleak.experiments.planning import plugins
from splitleak.experiments.report.tables.cards import SOURCE, card_facts
from splitleak.experiments.report.tables.plugin import HEADINGS, paragraphs, plugin_facts, setting_rows
from splitleak.victims.data.base import Source
from splitleak.victims.errors import unknown
from splitleak.victims.settings import Settings
from splitleak.victims.tasks.base import Task


def portrait(name: str) -> Group:
    """Everything about one plugin.

    Raises:
        InvalidInputError: there is none of this name.
    """
    known = plugins.all_classes()
    if name not in known:
        raise unknown("plugin", name, known)
    cls = known[name]
    first, *more = paragraphs(cls)
    card = [] if issubclass(cls, Source | Task) else [fact for fact in card_facts(cls) if fact[0] != SOURCE]
    stated = ("", _grid(card)) if card else ()
    facts = _grid(plugin_facts(cls))
    return Group(f"[bold]{name}[/bold]  {prose(first)}", *_spaced(more), "", facts, *stated, "", _settings_table(cls))


def _grid(facts: Iterable[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for what, said in facts:
        grid.add_row(f"[bold]{what}[/bold]", prose(said))
    return grid


def _spaced(paragraphs: list[str]) -> Iterator[str]:
    for paragraph in paragraphs:
        yield from ("", prose(paragraph))


def prose(text: str) -> str:
    """A docstring's text for rich: what it quotes is a name."""
    return re.sub(r"``(.+?)``", r"[cyan]\1[/cyan]", escape(text))


def _settings_table(cls: type[Settings]) -> Table | str:
    rows = setting_rows(cls)
    if not rows:
        return "no settings"
    table = Table(*HEADINGS, box=None, pad_edge=False)
    for name, bounds, default, meaning in rows:
        table.add_row(name, escape(bounds), default, prose(meaning))
    return table
