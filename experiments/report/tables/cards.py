"""What cards say, in words: for one plugin, and for all of a kind side by side."""

from collections.abc import Iterator, Mapping
from typing import Any

from splitleak.experiments.planning.cards import Budget, Card, Measured, Published, card_file, card_of
from splitleak.experiments.report.tables.table import ABSENT, TextTable
from splitleak.victims.settings import Settings

SOURCE, PUBLISHED, OURS = "source", "published", "ours"
"""What facts of a card are called."""
NOT_MEASURED = "not measured here"


def card_facts(plugin: type[Settings]) -> list[tuple[str, str]]:
    """Everything that its card states, each with what it is; of one without a card, that there is none."""
    card = card_of(plugin)
    if card is None:
        return [("card", f"none: there is no {card_file(plugin)}")]
    return list(_facts(card))


def card_table(kind: str, plugins: Mapping[str, type[Settings]]) -> TextTable:
    """All of a kind, by name: the first number of the source, ours, and what the source spent."""
    lines = [(name, *_line(card_of(plugin))) for name, plugin in sorted(plugins.items())]
    headings = (kind, SOURCE, PUBLISHED, "its setting", OURS, "our setting", "tolerance", "published budget")
    caption = (
        "The first number of each card; the card holds the others. Tolerance: by how much a further training may "
        "differ, in the unit of the value: half the 95 % prediction interval of the trainings that were measured, at "
        "least half a per cent of the value; none where a single training was."
    )
    return TextTable(f"cards_{kind}", headings, tuple(lines), caption)


def _line(card: Card | None) -> tuple[str, ...]:
    if card is None:
        return ("no card", *[ABSENT] * 6)
    first, spent = card.sources[0], card.effort.get("published")
    paper = (_number(card.paper[0]), card.paper[0].where) if card.paper else ("not known", card.paper_unknown or "")
    ours = (NOT_MEASURED, "", "")
    if card.ours:
        one = card.ours[0]
        ours = (
            _number(one),
            f"{one.setting}; {one.basis}",
            ABSENT if one.tolerance is None else f"{one.tolerance:g}",
        )
    budget = ABSENT if spent is None else spent.says or f"none: {spent.none}"
    return (f"{first.venue} {first.year}", *paper, *ours, budget)


def _facts(card: Card) -> Iterator[tuple[str, str]]:
    for source in card.sources:
        yield SOURCE, source.text
        if source.link:
            yield "link", source.link
    yield "threat", card.threat
    for number in card.paper:
        yield PUBLISHED, f"{_number(number)}: {number.where}"
    if card.paper_unknown:
        yield PUBLISHED, f"not known: {card.paper_unknown}"
    for one in card.ours:
        yield OURS, f"{_number(one)}{_tolerated(one)}: {one.setting}; {one.basis}; archive: {one.stored}"
    if not card.ours:
        yield OURS, NOT_MEASURED
    yield "differs", " ".join(card.differs.split())
    for effort, budget in card.effort.items():
        yield f"effort {effort}", _spending(budget)


def _number(of: Published | Measured) -> str:
    return f"{of.metric} {of.value:g}"


def _tolerated(one: Measured) -> str:
    if one.tolerance is None:
        return ", by how much a further training differs is not known"
    return f" ± {one.tolerance:g}"


def _spending(budget: Budget) -> str:
    if budget.none is not None:
        return f"none: {budget.none}"
    settings: dict[str, Any] = dict(budget.settings)
    if budget.training_steps:
        settings["epochs"] = f"{budget.training_steps} steps' worth"
    stated = ", ".join(f"{name} = {value}" for name, value in settings.items())
    only = ", ".join(f"{name} = {' or '.join(map(str, values))}" for name, values in budget.where.items())
    return "".join([budget.says or "", f" ({stated})" if stated else "", f"; where {only}" if only else ""])
