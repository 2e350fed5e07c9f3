"""The one error that means "the user asked for something that cannot be"."""

from collections.abc import Iterable
from difflib import get_close_matches


class InvalidInputError(ValueError):
    """Bad input from outside: one line that says what is wrong and what would be right.

    The command line prints the message without a traceback and exits with code 2. Anything else that
    is raised is a bug and keeps its traceback.
    """


def unknown(kind: str, name: str, known: Iterable[str]) -> InvalidInputError:
    """An error for a name that does not exist, with the nearest names that do."""
    names = sorted(known)
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names) or 'none'}"
    return InvalidInputError(f"unknown {kind} '{name}'; {hint}")
