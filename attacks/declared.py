"""What an attack does not declare is out of its reach."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NoReturn

from splitleak.attacks.base import Attack
from splitleak.attacks.knowledge import QueryFree
from splitleak.attacks.needs import Requirement

FIELDS: Mapping[Requirement, tuple[str, ...]] = {
    "tail": ("tail", "receive", "as_received"),
    "labels": ("labels", "classes"),
    "identities": ("identities",),
}
"""Of an adversary's knowledge, by what must be declared to use them; queries and weights are declared as its kind."""


class UndeclaredError(RuntimeError):
    """An attack uses what it does not declare to require."""


class Sealed:
    """Stands in the place of what was not declared: may be passed on, and raises on any use."""

    def __init__(self, field: str, requirement: Requirement) -> None:
        self._said = f"it uses '{field}': declare requires = frozenset({{'{requirement}'}})"

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise UndeclaredError(self._said)

    __getattr__ = __getitem__ = __iter__ = __len__ = __contains__ = __bool__ = __call__ = _refuse


def as_declared(knows: QueryFree, attack: Attack[Any]) -> QueryFree:
    """The same knowledge, in which all that the attack does not declare raises UndeclaredError on use."""
    declared = attack.needed
    sealed: dict[str, Any] = {
        field: Sealed(field, requirement)
        for requirement, fields in FIELDS.items()
        if requirement not in declared
        for field in fields
    }
    return replace(knows, **sealed)
