"""Everything about one plugin, in words: ``splitleak show``."""

import re
from collections.abc import Iterable, Iterator

from rich.console import Group
from rich.text import Text

from splitleak.experiments.planning import plugins
from splitleak.experiments.report.tables.cards import SOURCE, card_facts
from splitleak.experiments.report.tables.plugin import HEADINGS, paragraphs, plugin_facts, setting_rows
from splitleak.experiments.report.terminal import Column, Sheet
from splitleak.victims.data.base import Source
from splitleak.victims.errors import unknown
from splitleak.victims.settings import Settings
from splitleak.victims.tasks.base import Task

WRAPPED = ("type and range", "meaning")
"""Columns of sentences, which may be broken."""


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
    headline = Text.assemble((name, "bold"), "  ", prose(first))
    return Group(headline, *_spaced(more), "", facts, *stated, "", _settings_table(cls))


def _grid(facts: Iterable[tuple[str, str]]) -> Sheet:
    return Sheet(
        [Column(""), Column("", prose=True)], [(Text(what, style="bold"), prose(said)) for what, said in facts]
    )


def _spaced(paragraphs: list[str]) -> Iterator[str | Text]:
    for paragraph in paragraphs:
        yield from ("", prose(paragraph))


def prose(text: str) -> Text:
    """A docstring's text for rich: what it quotes is a name, and brackets are brackets."""
    plain_and_quoted = re.split(r"``(.+?)``", text)
    return Text.assemble(*((part, "cyan" if index % 2 else "") for index, part in enumerate(plain_and_quoted)))


def _settings_table(cls: type[Settings]) -> Sheet | str:
    rows = setting_rows(cls)
    if not rows:
        return "no settings"
    columns = [Column(heading, prose=heading in WRAPPED) for heading in HEADINGS]
    return Sheet(columns, [(name, bounds, default, prose(meaning)) for name, bounds, default, meaning in rows])
