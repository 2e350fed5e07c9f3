"""``match`` in a plan: defences at the strength that loses so much accuracy, which is searched, not guessed."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from splitleak.defenses.base import Defense
from splitleak.experiments.planning.found import HALF_A_POINT, Found, tolerance_on
from splitleak.experiments.planning.names import MATCH, UNDEFENDED
from splitleak.experiments.planning.sweeps import PAIRED
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.settings import Settings


def asking(tables: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tables with what the plan asks of all defences in each that asks for nothing itself."""
    defenses = tables.get("defenses")
    if MATCH not in tables or not isinstance(defenses, list):
        return tables

    def asked(table: Any) -> Any:
        if not isinstance(table, dict) or table.get("name") == UNDEFENDED:
            return table
        paired = table.get(PAIRED)
        own = MATCH in table or (isinstance(paired, dict) and MATCH in paired)
        return table if own else {**table, MATCH: tables[MATCH]}

    return {**tables, "defenses": [asked(table) for table in defenses]}


class Asked(NamedTuple):
    """What a setting's table asks for. ``settings``: without that, at the weakest strength. ``found``: if it is known
    beforehand that there is nothing to search in."""

    match: float | None
    settings: Mapping[str, Any]
    found: Found | None = None


def asked_of(plugin: type[Settings], given: Mapping[str, Any]) -> Asked:
    """How much accuracy a setting may lose, if its table asks.

    Raises:
        InvalidInputError: it is no share, names a strength beside, or is asked of no defence.
    """
    if MATCH not in given or not issubclass(plugin, Defense):
        return Asked(None, given)
    value, place = given[MATCH], f"{plugin.name}.{MATCH}"
    settings = {name: setting for name, setting in given.items() if name != MATCH}
    if plugin.name == UNDEFENDED:
        raise InvalidInputError(f"{place} = {value}: the undefended network loses nothing; leave '{MATCH}' out")
    if not isinstance(value, float) or not 0 < value < 1:
        raise InvalidInputError(
            f"{place} = {value!r}: should be the share of accuracy to lose, above 0 and below 1, such as 0.03"
        )
    if plugin.strength is None:
        return Asked(value, settings, Found(asked=value, reason=f"{plugin.name} has no strength"))
    if plugin.strength in given:
        raise InvalidInputError(
            f"{plugin.name}: '{MATCH}' finds '{plugin.strength}', which is given too; leave one of both out"
        )
    if not all(type(one) in (int, float) for one in plugin.strengths):
        return Asked(value, settings, Found(asked=value, reason=f"its strength, {plugin.strength}, is no number"))
    return Asked(value, {**settings, plugin.strength: plugin.strengths[0]})


def coarse(photos: int) -> list[str]:
    """A line for a reader of a plan whose validation part tells so little apart; none where it tells enough."""
    if tolerance_on(photos) <= HALF_A_POINT:
        return []
    return [
        f"{MATCH}: {photos} validation photos tell losses no finer than {100 * tolerance_on(photos):.1f} points; "
        f"with {round(1 / HALF_A_POINT)} or more it would be half a point"
    ]
