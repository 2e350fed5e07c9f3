"""How names and numbers stand in what is said of a data set, which is always one line."""

from collections.abc import Iterable

MOST = 12
"""Names that a line lists."""


def shown(name: str) -> str:
    """A name as a line can hold it: what no terminal shows, such as a line break, stands as Python writes it."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in name)


def counted(count: int, noun: str) -> str:
    """Such as ``1 photo`` and ``2 photos``; ``noun`` takes an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(names: Iterable[str]) -> str:
    """Names in a row, those beyond MOST as their number."""
    row = [shown(name) for name in names]
    more = [f"{len(row) - MOST} more"] if len(row) > MOST else []
    return ", ".join(row[:MOST] + more)
