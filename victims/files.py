"""Where files and folders named in a plan are looked for."""

import os
from pathlib import Path

from victims.errors import InvalidInputError

DATA_VARIABLE = "SPLITLEAK_DATA"
"""Environment variable: a further folder in which data sets are looked for."""

WEIGHTS_VARIABLE = "SPLITLEAK_WEIGHTS"
"""Environment variable: a further folder in which weight files are looked for."""


def find_file(path: str, wanted: str, variable: str) -> Path:
    """The existing file or folder that ``path`` means.

    Looked for as given (absolute, or relative to the current folder), then in the folder that the environment
    variable ``variable`` names. ``wanted`` says in a few words what should be there and, where that is not
    plain, how to get it; it begins the error.

    Raises:
        InvalidInputError: neither place has it.
    """
    given = Path(path).expanduser()
    places = [Path.cwd() / given]
    folder = os.environ.get(variable)
    if folder and not given.is_absolute():
        places.append(Path(folder) / given)
    for place in places:
        if place.exists():
            return place
    looked = " and ".join(str(place) for place in places)
    advice = "give the path of an existing one"
    if not given.is_absolute():
        state = f"now {folder}" if folder else "not set"
        advice += f" or set {variable} ({state}) to the folder that holds '{path}'"
    raise InvalidInputError(f"{wanted} not found: looked for {looked}; {advice}")


def fingerprint(place: Path) -> str:
    """Size and time of a file: changes when the file does, without reading it."""
    facts = place.stat()
    return f"{facts.st_size}-{facts.st_mtime_ns}"
