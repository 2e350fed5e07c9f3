"""What the commands share: the terminal that they print to, options, and the code of a failure."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.console import Console, RenderableType

from splitleak.victims.errors import InvalidInputError

if TYPE_CHECKING:
    import torch

FAILED_CELLS = 1
"""Exit code where what was asked for was done, and some of it failed."""

console = Console()


def _can_be_written(_: object, folder: Path) -> None:
    """Whether a folder is there or can be made.

    Raises:
        ValueError: a file is in the way, or who runs this may not write there.
    """
    place = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    if not place.is_dir():
        raise ValueError(f"{place} is a file; name a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"{place} may not be written to; name a folder that may")


RunFolder = Annotated[Path, Parameter(name="run", help="the folder of a run or a study, such as runs/quick")]
Model = Annotated[str, Parameter(help="a torchvision network, timm:NAME, or file.py:function that returns yours")]
Out = Annotated[
    Path, Parameter(help="folder of all runs and of the cache that they share", validator=_can_be_written)
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], Parameter(help="where networks run; auto takes a GPU if there is one")
]
Retry = Annotated[Literal["failed"] | None, Parameter(help="compute cells again that failed before")]


def put(what: RenderableType, whole: bool = False) -> None:
    """Print a table or a text: into a file or a pipe, or ``whole``, no line is broken, however long it is."""
    console.print(what, soft_wrap=whole or not console.is_terminal, highlight=False, markup=False)


def warn(lines: Iterable[str]) -> None:
    """What a reader must know before any number."""
    for line in lines:
        console.print(line, style="bold yellow", soft_wrap=True, highlight=False, markup=False)


def say(line: str) -> None:
    """Print a line as it is: brackets are no markup, numbers get no colour, and a path is not broken."""
    console.print(line, soft_wrap=True, highlight=False, markup=False)


@contextmanager
def writing(option: str, path: Path) -> Iterator[None]:
    """Around what writes the file that an option names.

    Raises:
        InvalidInputError: the system does not let it be written.
    """
    try:
        yield
    except OSError as error:
        raise InvalidInputError(f"{option} {path} cannot be written: {error.strerror}; name a file") from error


def device_of(name: str) -> "torch.device":
    """The device that ``--device`` names.

    Raises:
        InvalidInputError: it is not there.
    """
    import torch  # takes seconds, and a report does without

    if name == "cuda" and not torch.cuda.is_available():
        raise InvalidInputError("device = cuda: this machine has no CUDA device; use auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
