"""What a file of a paper's network holds."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Architecture:
    """A network as its paper has it, under the name ``ARCHITECTURE`` in a file of its own.

    ``make``: (classes, side of the images in pixels) -> the network, untrained. Its layers are called as the paper
    calls them, so that the paper's cuts are its layers' names. ``least``: the smallest side that it takes.
    ``mean``, ``std``: what its authors normalise photos with.
    """

    summary: str
    paper: str
    make: Callable[[int, int], nn.Module]
    least: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
