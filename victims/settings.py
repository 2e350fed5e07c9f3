"""What every plugin is: a frozen dataclass whose fields are its settings, checked when it is made."""

import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from functools import lru_cache
from typing import Any, ClassVar, Self, get_type_hints

from annotated_types import doc
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from splitleak.victims.errors import InvalidInputError, unknown

__all__ = ["Settings", "doc"]


@dataclass(frozen=True)
class Settings:
    """Base of every plugin.

    A field's annotation is its whole specification: ``keep: Annotated[float, Gt(0), Le(1), doc("...")]``
    is validated here, by whoever makes the object (a plan, the command line, a notebook).

    Raises:
        InvalidInputError: a field has the wrong type or is out of range.
    """

    name: ClassVar[str]
    """How a plan calls it; the class's name in snake case unless the class says otherwise."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    def __post_init__(self) -> None:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        for field, value in validated(type(self), values).items():
            object.__setattr__(self, field, value)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Make the plugin from a plan's table.

        Raises:
            InvalidInputError: unknown key (the nearest known one is named), missing key or bad value.
        """
        known = {field.name for field in fields(cls)}
        for key in values:
            if key not in known:
                raise unknown(f"setting of {cls.name}:", key, known)
        for field in fields(cls):
            if field.name not in values and field.default is MISSING and field.default_factory is MISSING:
                raise InvalidInputError(f"{cls.name} needs the setting '{field.name}'")
        return cls(**values)

    def to_mapping(self) -> dict[str, Any]:
        """The settings as plain values; ``from_mapping`` restores an equal object."""
        return asdict(self)


@lru_cache
def _model(cls: type[Settings]) -> type[BaseModel]:
    hints = get_type_hints(cls, include_extras=True)
    specification: dict[str, Any] = {field.name: (hints[field.name], ...) for field in fields(cls)}
    # strict: a plan that says keep = "0.5" or epochs = true is a mistake, not something to guess at
    config = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)
    return create_model(cls.__name__, __config__=config, **specification)


def validated(cls: type[Settings], values: Mapping[str, Any]) -> dict[str, Any]:
    """Check values against the annotations of ``cls``; raises InvalidInputError with one line."""
    try:
        model = _model(cls)(**values)  # type: ignore[arg-type]  # classes do hash
    except ValidationError as error:
        raise InvalidInputError(explain(cls.name, error)) from None
    return {key: getattr(model, key) for key in values}


def explain(owner: str, error: ValidationError) -> str:
    """The first complaint of pydantic as one line: where, what came, what would be right."""
    first = error.errors()[0]
    place = ".".join([owner, *(str(part) for part in first["loc"])])
    return f"{place} = {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}"
