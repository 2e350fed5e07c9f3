"""Lists in a plan's table that sweep: each for itself, or in step in a table ``paired``."""

from collections.abc import Mapping
from typing import Any

from splitleak.victims.errors import InvalidInputError

PAIRED = "paired"
"""Lists in it run in step; no setting may be called so."""


def check_not_empty(table: Mapping[str, Any], owner: str) -> None:
    """Whether every list of a table has something to sweep over.

    Raises:
        InvalidInputError: one is empty.
    """
    for key, value in table.items():
        if value == []:
            raise InvalidInputError(f"{owner}.{key} = []: a sweep needs at least one value")


def in_step(table: Mapping[str, Any], owner: str) -> list[dict[str, Any]]:
    """The tables that one with ``paired`` stands for: in its place the first has the first value of each list there.

    One without it stands for itself.

    Raises:
        InvalidInputError: it is no table of lists that have equally many values, or a key stands beside it too.
    """
    if PAIRED not in table:
        return [dict(table)]
    lists = _lists(table, owner)
    keys = list(table)
    place = keys.index(PAIRED)
    before, after = ({key: table[key] for key in part} for part in (keys[:place], keys[place + 1 :]))
    return [{**before, **dict(zip(lists, row, strict=True)), **after} for row in zip(*lists.values(), strict=True)]


def _lists(table: Mapping[str, Any], owner: str) -> dict[str, list[Any]]:
    lists, place = table[PAIRED], f"{owner}.{PAIRED}"
    if not isinstance(lists, dict) or not lists:
        raise InvalidInputError(
            f"{place} = {lists!r}: should be a table of lists, as in {{ a = [1, 2], b = [3, 4] }}"
        )
    for key, values in lists.items():
        if not isinstance(values, list):
            raise InvalidInputError(f"{place}.{key} = {values!r}: should be a list; a single value stands beside it")
        if key in table:
            raise InvalidInputError(f"{place}.{key}: '{key}' stands beside '{PAIRED}' too")
    check_not_empty(lists, place)
    if len({len(values) for values in lists.values()}) > 1:
        have = ", ".join(f"{key} has {len(values)}" for key, values in lists.items())
        raise InvalidInputError(f"{place}: lists that run in step have equally many values, but {have}")
    return lists
