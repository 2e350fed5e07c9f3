"""Everything about one plugin, in words: ``splitleak show``."""

import inspect
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, fields, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import torch
from annotated_types import BaseMetadata, DocInfo
from rich.console import Group
from rich.text import Text

from splitleak.attacks.base import HELD, WORDS, Attack, AttributeInference, Linkage, Reconstruction, knowledge_of
from splitleak.attacks.knowledge import QueryFree
from splitleak.defenses.base import Channel, Defense, Retrains
from splitleak.defenses.checks import toy_calibration, toy_channel
from splitleak.experiments.planning import plugins
from splitleak.experiments.report.tables.cards import SOURCE, card_facts
from splitleak.experiments.report.terminal import Column, Sheet
from splitleak.victims.data.base import Source
from splitleak.victims.errors import unknown
from splitleak.victims.seeding import seeded
from splitleak.victims.settings import Settings

ANSWERS: Mapping[type[Settings], str] = {
    Reconstruction: "the photo, rebuilt",
    Linkage: "an embedding, near that of another release of the same person",
    AttributeInference: "a score for each value of a private attribute",
}
TRAINED: Mapping[Retrains, str] = {
    "tail": "the cloud's half, behind the encoder as it is",
    "network": "the whole network, from the victim's weights on",
    "anew": "the network anew, from where the victim's own training began",
}
MAPS, TOKENS = (64, 16, 16), (256, 64)
"""Features by which a defence's bytes are measured: large enough for what is sent beside them to be little; the
latter for one that has nothing to act on in maps."""
SYMBOLS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "min_length": "of length >="}


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
    card = [] if issubclass(cls, Source) else [fact for fact in card_facts(cls) if fact[0] != SOURCE]
    stated = ("", _grid(card)) if card else ()
    facts = _grid(_facts(cls))
    headline = Text.assemble((name, "bold"), "  ", prose(first))
    return Group(headline, *_spaced(more), "", facts, *stated, "", _settings_table(cls))


def _grid(facts: Iterable[tuple[str, str]]) -> Sheet:
    return Sheet(
        [Column(""), Column("", prose=True)], [(Text(what, style="bold"), prose(said)) for what, said in facts]
    )


def paragraphs(cls: type[Settings]) -> list[str]:
    """Of the class's description, each on one line: the terminal breaks them."""
    return [" ".join(paragraph.split()) for paragraph in (inspect.getdoc(cls) or "").split("\n\n")]


def _spaced(paragraphs: list[str]) -> Iterator[str | Text]:
    for paragraph in paragraphs:
        yield from ("", prose(paragraph))


def prose(text: str) -> Text:
    """A docstring's text for rich: what it quotes is a name, and brackets are brackets."""
    plain_and_quoted = re.split(r"``(.+?)``", text)
    return Text.assemble(*((part, "cyan" if index % 2 else "") for index, part in enumerate(plain_and_quoted)))


def _facts(cls: type[Settings]) -> list[tuple[str, str]]:
    if issubclass(cls, Attack):
        return [("attack", _answer(cls)), *_adversary(cls), ("source", cls.paper)]
    if issubclass(cls, Defense):
        return [("defence", f"trains {TRAINED[cls.retrains]}"), *_strength(cls), *_sent(cls), ("source", cls.paper)]
    assert issubclass(cls, Source)
    return [("data set", cls.summary)]


def _answer(cls: type[Attack[QueryFree]]) -> str:
    said = next(answer for base, answer in ANSWERS.items() if issubclass(cls, base))
    once = "works on each target photo anew, so a plan gives it the first ``slow_targets``" if cls.per_image else ""
    return "; ".join(filter(None, [f"answers each release with {said}", once]))


def _adversary(cls: type[Attack[QueryFree]]) -> Iterator[tuple[str, str]]:
    yield "adversary", f"{knowledge_of(cls).__name__}; it holds"
    for needed in (HELD[QueryFree], *(WORDS[requirement][0] for requirement in cls.needs())):
        yield "", f"- {needed}"
    if cls.floor:
        yield "", "and looks at no release: what it scores is the floor of the others"


def _strength(cls: type[Defense]) -> Iterator[tuple[str, str]]:
    """Which setting it is, and which way it goes."""
    if cls.strength:
        listed = ", ".join(map(_plain, cls.strengths))
        _, meaning = _metadata(get_type_hints(cls, include_extras=True)[cls.strength])
        yield "strength", f"``{cls.strength}``, {meaning}; from close to no defence to the strongest: {listed}"


def _sent(cls: type[Defense]) -> Iterator[tuple[str, str]]:
    """Bytes and guarantee of a defence at its defaults; nothing of one that has none, whose settings decide."""
    if any(field.default is MISSING and field.default_factory is MISSING for field in fields(cls)):
        return
    defense = cls()
    swept = [(value, replace(defense, **{cls.strength: value})) for value in cls.strengths] if cls.strength else []
    shares = {_plain(value): f"{_share_sent(one):.0%}" for value, one in swept or [("", defense)]}
    if len(set(shares.values())) == 1:
        yield "bytes", f"{next(iter(shares.values()))} of the features' own"
    else:
        listed = ", ".join(f"{share} at {value}" for value, share in shares.items())
        yield "bytes", f"of the features' own: {listed}"
    yield "guarantee", _guarantee(defense)


def _share_sent(defense: Defense) -> float:
    with seeded("bytes"), torch.no_grad():
        shape = TOKENS if defense.inapplicable(MAPS, "task") else MAPS
        features, channel = torch.randn(1, *shape), defense.channel(shape).eval()
        return len(channel.pack(channel.send(features)[0])) / len(Channel().pack(features[0]))


def _guarantee(defense: Defense) -> str:
    if type(defense.channel(MAPS)).guarantee is Channel.guarantee:
        return "nothing is proved about a photo that is sent"
    stated = toy_channel(defense, toy_calibration())[0].guarantee()
    assert stated is not None
    if stated.information is not None:
        return f"each send tells at most {stated.information:g} nats about its photo, at the defaults"
    if math.isinf(stated.epsilon):
        return "no epsilon, for nothing bounds the features; the noise is Gaussian, from which bounds follow"
    return f"epsilon = {stated.epsilon:g}, delta = {stated.delta:g} for each send, at the defaults"


def _settings_table(cls: type[Settings]) -> Sheet | str:
    if not fields(cls):
        return "no settings"
    hints = get_type_hints(cls, include_extras=True)
    described = [(field, *_metadata(hints[field.name])) for field in fields(cls)]
    columns = [
        Column("setting"),
        Column("type and range", prose=True),
        Column("default"),
        Column("meaning", prose=True),
    ]
    return Sheet(columns, [(field.name, kind, _default(field), prose(meaning)) for field, kind, meaning in described])


def _metadata(hint: Any) -> tuple[str, str]:
    """Type and range of a setting, and what it means."""
    base, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    meaning = " ".join(extra.documentation for extra in extras if isinstance(extra, DocInfo))
    bounds = [
        f"{symbol} {getattr(extra, bound)}"
        for extra in extras
        for bound, symbol in SYMBOLS.items()
        if isinstance(extra, BaseMetadata) and hasattr(extra, bound)
    ]
    required, *none = _type_names(base)
    return " | ".join([" ".join([required, *bounds]), *none]), meaning


def _type_names(hint: Any) -> list[str]:
    """The type, and "none" where there may be no value."""
    if get_origin(hint) is Literal:
        return [" | ".join(str(value) for value in get_args(hint))]
    if get_origin(hint) is UnionType:
        return ["none" if part is NoneType else _type_names(part)[0] for part in get_args(hint)]
    return [hint.__name__ if isinstance(hint, type) else re.sub(r"\w+\.", "", str(hint))]


def _default(field: "Field[Any]") -> str:
    if field.default is not MISSING:
        return _plain(field.default)
    return "required" if field.default_factory is MISSING else _plain(field.default_factory())


def _plain(value: Any) -> str:
    """As a plan would say it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)
