"""Cards: what a plugin's source claims, what we measured of it, and what budgets mean for it; one file beside each.

An attack or defence NAME has its card in NAME.toml, in the folder of its Python file. A card states facts for a
reader. The package computes nothing from it but the settings of an effort, see ``efforts``.
"""

import inspect
import tomllib
from dataclasses import fields
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from splitleak.attacks.base import Attack
from splitleak.victims.errors import InvalidInputError, unknown
from splitleak.victims.settings import Settings, explain

SUFFIX = ".toml"
Effort = Literal["quick", "standard", "published"]
"""What a laptop bears, the plugin's defaults, and what its source spent."""
EFFORTS: tuple[Effort, ...] = get_args(Effort)
STANDARD: Effort = "standard"
PASSES, BATCH = "epochs", "batch_size"
"""The settings by which a number of training steps is reached."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Source(_Part):
    """Where an idea is from. ``of``: what of the plugin, where it has several sources."""

    authors: str
    title: str
    venue: str
    year: int
    link: str | None = None
    of: str | None = None

    @property
    def text(self) -> str:
        """As a reference, without the link."""
        return f"{f'{self.of}: ' if self.of else ''}{self.authors}, {self.title}, {self.venue}, {self.year}"


class Published(_Part):
    """A number of the source. What the source leaves open, or is not known here, is None."""

    metric: str
    value: float
    data: str | None = None
    network: str | None = None
    cut: str | None = None
    setting: str | None = None

    @property
    def where(self) -> str:
        """Its setting in words."""
        known = [self.data, self.network, self.cut and f"cut {self.cut}", self.setting]
        return ", ".join(filter(None, known)) or "setting not known here"


class Measured(_Part):
    """A number of ours, which an archive in ``results/`` holds.

    ``stored``: where, as RUN | DEFENCE | ATTACK | METRIC. ``n``: photos of each training. ``tolerance``: by how
    much a further training may differ, in the value's unit: half the 95 % prediction interval of those measured, at
    least half a per cent of the value; None where one training was measured.
    """

    metric: str
    value: float
    setting: str
    n: int = Field(gt=0)
    trainings: int = Field(gt=0)
    measured: date
    stored: str
    tolerance: float | None = Field(default=None, gt=0)

    @property
    def basis(self) -> str:
        """What it rests on."""
        trainings = "one training" if self.trainings == 1 else f"{self.trainings} trainings"
        return f"{self.n} photos, {trainings}, {self.measured}"


class Budget(_Part):
    """What an effort means: settings, or in ``none`` why there is no such budget.

    ``says``: the budget in words. ``where``: the settings that it is known for, each with the values.
    ``training_steps``: from which ``epochs`` follow by the number of photos, for a source that saw more of them.
    """

    says: str | None = None
    none: str | None = None
    settings: dict[str, Any] = {}
    where: dict[str, list[Any]] = {}
    training_steps: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.says is None) == (self.none is None):
            raise ValueError("should say either 'says', the budget in words, or 'none', why there is none")
        if self.none is not None and (self.settings or self.training_steps):
            raise ValueError("has settings, and says that there is no such budget")
        return self


class Card(_Part):
    """``threat``: what the adversary knows. ``differs``: how ours differs from the source.

    ``paper_unknown`` stands in the place of the source's numbers where none is known.
    """

    sources: list[Source] = Field(min_length=1)
    threat: str
    paper: list[Published] = []
    paper_unknown: str | None = None
    ours: list[Measured] = []
    differs: str
    effort: dict[Effort, Budget] = {}

    @model_validator(mode="after")
    def _numbers_or_why_not(self) -> Self:
        if bool(self.paper) == (self.paper_unknown is not None):
            raise ValueError("should hold either [[paper]] tables or 'paper_unknown', why there are none")
        return self


def card_file(plugin: type[Settings]) -> Path:
    """Where its card lies, or would."""
    return Path(inspect.getfile(plugin)).with_name(f"{plugin.name}{SUFFIX}")


def card_of(plugin: type[Settings]) -> Card | None:
    """The card of an attack or defence; None where there is none beside its file.

    Raises:
        InvalidInputError: it is no TOML, lacks a fact, has one of a wrong kind, or names a setting that the plugin
            does not have.
    """
    file = card_file(plugin)
    return _read(plugin, file) if file.is_file() else None  # type: ignore[arg-type]  # classes do hash


@lru_cache
def _read(plugin: type[Settings], file: Path) -> Card:
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
        card = Card.model_validate(table)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{file} is no TOML: {error}") from None
    except ValidationError as error:
        raise InvalidInputError(f"{file}: {explain('card', error)}") from None
    _check_efforts(plugin, card, file)
    return card


def _check_efforts(plugin: type[Settings], card: Card, file: Path) -> None:
    if card.effort and not issubclass(plugin, Attack):
        raise InvalidInputError(f"{file}: [effort] is for attacks, and {plugin.name} is a defence")
    known = [field.name for field in fields(plugin)]
    for effort, budget in card.effort.items():
        place = f"{file}: effort.{effort}"
        if effort == STANDARD:
            raise InvalidInputError(f"{place}: '{STANDARD}' means the defaults; state quick or published")
        for name in (*budget.settings, *budget.where):
            if name not in known:
                raise unknown(f"setting in {place} of {plugin.name}:", name, known)
        if budget.training_steps and not (PASSES in known and isinstance(budget.settings.get(BATCH), int)):
            raise InvalidInputError(
                f"{place}.training_steps: needs a plugin with '{PASSES}', and settings.{BATCH} to count steps by"
            )
        try:
            plugin.from_mapping({**{name: values[0] for name, values in budget.where.items()}, **budget.settings})
        except InvalidInputError as error:
            raise InvalidInputError(f"{place}: {error}") from None
