"""Everything that a plugin declares, in words: for ``splitleak show`` and for its page in the documentation.

What a text quotes between double backticks is a name.
"""

import inspect
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import torch
from annotated_types import BaseMetadata, DocInfo

from splitleak.attacks.base import Attack, AttributeInference, Linkage, Reconstruction, knowledge_of
from splitleak.attacks.knowledge import QueryFree
from splitleak.attacks.needs import HELD, WORDS
from splitleak.defenses.base import Channel, Defense, Retrains
from splitleak.defenses.checks import toy_calibration, toy_channel
from splitleak.victims.data.base import Source
from splitleak.victims.seeding import seeded
from splitleak.victims.settings import Settings
from splitleak.victims.tasks.base import Task

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
HEADINGS = ("setting", "type and range", "default", "meaning")
"""Of a table of settings."""
REQUIRED = "required"
"""In the place of a default."""


def paragraphs(cls: type[Settings]) -> list[str]:
    """Of the class's description, each on one line: the terminal breaks them."""
    return [" ".join(paragraph.split()) for paragraph in (inspect.getdoc(cls) or "").split("\n\n")]


def plugin_facts(cls: type[Settings]) -> list[tuple[str, str]]:
    """What it is, what its adversary holds or what it sends and proves, and its source: each with a word before."""
    if issubclass(cls, Attack):
        return [("attack", _answer(cls)), *_adversary(cls), ("source", cls.paper)]
    if issubclass(cls, Defense):
        return [("defence", f"trains {TRAINED[cls.retrains]}"), *_strength(cls), *_sent(cls), ("source", cls.paper)]
    if issubclass(cls, Task):
        return [("task", f"takes labels of the form '{cls.form}'"), ("utility", f"{cls.metric}, per photo")]
    assert issubclass(cls, Source)
    return [("data set", cls.summary)]


def _answer(cls: type[Attack[QueryFree]]) -> str:
    said = next(answer for base, answer in ANSWERS.items() if issubclass(cls, base))
    once = "works on each target photo anew, so a plan gives it the first ``slow_targets``" if cls.per_image else ""
    return "; ".join(filter(None, [f"answers each release with {said}", once]))


def _adversary(cls: type[Attack[QueryFree]]) -> Iterator[tuple[str, str]]:
    yield "adversary", f"{knowledge_of(cls).__name__}; it holds"
    for needed in (HELD["QueryFree"], *(WORDS[requirement][0] for requirement in cls.needs())):
        yield "", f"- {needed}"
    if cls.floor:
        yield "", "and looks at no release: what it scores is the floor of the others"


def _strength(cls: type[Defense]) -> Iterator[tuple[str, str]]:
    """Which setting it is, and which way it goes."""
    if cls.strength:
        listed = ", ".join(map(_plain, cls.strengths))
        _, meaning = metadata(get_type_hints(cls, include_extras=True)[cls.strength])
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


def setting_rows(cls: type[Settings]) -> list[tuple[str, str, str, str]]:
    """Of each setting the name, type and range, the default, and what it means."""
    hints = get_type_hints(cls, include_extras=True)
    return [
        (field.name, bounds, _default(field), meaning)
        for field in fields(cls)
        for bounds, meaning in [metadata(hints[field.name])]
    ]


def metadata(hint: Any) -> tuple[str, str]:
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
    return REQUIRED if field.default_factory is MISSING else _plain(field.default_factory())


def _plain(value: Any) -> str:
    """As a plan would say it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)
