"""Budgets of attacks: what ``effort`` in a plan stands for."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from splitleak.attacks.base import Attack
from splitleak.attacks.knowledge import QueryFree
from splitleak.experiments.planning.cards import (
    BATCH,
    EFFORTS,
    PASSES,
    STANDARD,
    Budget,
    Card,
    Effort,
    card_file,
    card_of,
)
from splitleak.experiments.planning.names import EFFORT
from splitleak.victims.errors import InvalidInputError, unknown

AttackClass = type[Attack[QueryFree]]


@dataclass(frozen=True)
class Spent:
    """An attack's settings at its effort; ``lacks``: why it keeps its defaults although the plan has an effort."""

    settings: Mapping[str, Any]
    effort: Effort | None = None
    lacks: str | None = None


@dataclass(frozen=True)
class Efforts:
    """What a plan says of budgets.

    ``usual``: of attacks that name none. ``photos``: how many the adversary has of its own.
    """

    usual: Effort | None = None
    photos: int = 1

    def spent(self, attack: AttackClass, given: Mapping[str, Any]) -> Spent:
        """The settings of an attack's table: those given win over those of its effort.

        Raises:
            InvalidInputError: there is no such effort, or the attack names one that its card has no budget for.
        """
        settings = {name: value for name, value in given.items() if name != EFFORT}
        named = given.get(EFFORT)
        if EFFORT in given and named not in EFFORTS:
            raise unknown(f"effort of {attack.name}:", str(named), EFFORTS)
        effort: Effort | None = named or self.usual
        if effort is None or effort == STANDARD:
            return Spent(settings, effort)
        budget = budget_of(attack, effort, settings)
        if isinstance(budget, Budget):
            return Spent({**self._settings(budget, settings), **settings}, effort)
        if named:
            raise InvalidInputError(budget)
        return Spent(settings, lacks=f"{budget}: it keeps its defaults")

    def _settings(self, budget: Budget, given: Mapping[str, Any]) -> dict[str, Any]:
        settings = dict(budget.settings)
        if budget.training_steps:
            steps_of_a_pass = max(1, self.photos // int(given.get(BATCH) or settings[BATCH]))
            settings[PASSES] = -(-budget.training_steps // steps_of_a_pass)
        return settings


def budget_of(attack: AttackClass, effort: Effort, given: Mapping[str, Any]) -> Budget | str:
    """What an effort means for an attack with these settings, or one line why it means nothing."""
    card = card_of(attack)
    if card is None:
        return f"{attack.name} has no {effort} budget: there is no card {card_file(attack)}"
    if effort not in card.effort:
        return f"{attack.name} has no {effort} budget: its card states none"
    return _applicable(attack, effort, card, given)


def _applicable(attack: AttackClass, effort: Effort, card: Card, given: Mapping[str, Any]) -> Budget | str:
    budget = card.effort[effort]
    if budget.none is not None:
        return f"{attack.name} has no {effort} budget: {budget.none}"
    defaults = {field.name: field.default for field in fields(attack)}
    for name, values in budget.where.items():
        value = given.get(name, defaults[name])
        if value not in values:
            listed = " or ".join(map(str, values))
            return f"{attack.name} has no {effort} budget with {name} = {value}; it is known with {listed}"
    return budget
