"""What others published and a plan measures too: figures with their protocol, a TOML file for each plan."""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from splitleak.experiments.planning.cards import SUFFIX, Source
from splitleak.experiments.planning.names import PLANS, UNDEFENDED
from splitleak.victims.errors import InvalidInputError, unknown
from splitleak.victims.settings import explain

FOLDER = PLANS / "published"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Figure(_Part):
    """Published values of one setting, and which of a plan's cells measures it.

    ``run``: the victim of the plan, none where it has a single one. ``defence``, ``attack``: the name, and the
    settings that tell it from others of that name. ``values``: by metric; ``utility`` is a share. ``incomparable``:
    why ours may not be held against them.
    """

    run: str | None = None
    defence: dict[str, Any] = {"name": UNDEFENDED}
    attack: dict[str, Any]
    setting: str
    values: dict[str, float] = Field(min_length=1)
    incomparable: str | None = None


class PublishedFigures(_Part):
    """Of one source. ``photos``: over how many each value is a mean, None where that is not known.

    ``incomparable``: by metric, why the source's is another than ours.
    """

    plan: str
    source: Source
    protocol: str
    budget: str
    photos: int | None = Field(default=None, gt=0)
    incomparable: dict[str, str] = {}
    figures: list[Figure] = Field(min_length=1)


def plans_with_figures() -> list[str]:
    """The plans for which there are any."""
    return sorted(path.name.removesuffix(SUFFIX) for path in FOLDER.glob(f"*{SUFFIX}"))


def published_figures(plan: str, folder: Path = FOLDER) -> PublishedFigures:
    """What was published of that which a plan measures.

    Raises:
        InvalidInputError: there is nothing for this plan, or its file lacks a fact or has one of a wrong kind.
    """
    file = folder / f"{plan}{SUFFIX}"
    if not file.is_file():
        raise unknown("plan with published figures:", plan, plans_with_figures())
    try:
        found = PublishedFigures.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(f"{file} is no TOML: {error}") from None
    except ValidationError as error:
        raise InvalidInputError(f"{file}: {explain('published', error)}") from None
    if found.plan != plan:
        raise InvalidInputError(f"{file}: plan = '{found.plan}': should be '{plan}', as its file is called")
    return found
