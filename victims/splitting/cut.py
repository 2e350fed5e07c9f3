"""A place to split a network, and why a place is none."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from splitleak.victims.errors import InvalidInputError, unknown

ALIASES = {
    ("mobilenet_v3_large", "C4"): "features.13.block.0",
    ("deeplabv3_mobilenet_v3_large", "C4"): "backbone.13.block.0",
    ("ssdlite320_mobilenet_v3_large", "C4"): "backbone.features.0",
}
"""Names that the literature gives to a node: (network, alias) -> node. C4 is the seed study's: the first map of
SSDLite, which the same backbone gives the other tasks."""

TRACED, EXPORTED, RUN = "traced", "exported", "run"
WAYS = {
    TRACED: "traced by torch.fx",
    EXPORTED: "traced by torch.export, since torch.fx cannot follow it",
    RUN: "run up to the cut, since no tracer can follow it",
}
"""How a network is taken apart, and why so."""

BYTES_PER_VALUE = 4


@dataclass(frozen=True)
class Cut:
    """A place to split a network.

    ``name``: the outermost module that ends here, or the node itself; ``node``: the traced node's full name;
    ``shape``: of one image's features, without the batch; ``edge_macs``: multiply-adds up to and including
    the node, for one image; ``total_macs``: of the whole network; ``way``: how it was taken apart, one of ``WAYS``.
    """

    name: str
    node: str
    shape: tuple[int, ...]
    edge_macs: int
    total_macs: int
    way: str = TRACED

    @property
    def bytes(self) -> int:
        """Size of one image's features as 32-bit floats."""
        return math.prod(self.shape) * BYTES_PER_VALUE

    @property
    def edge_share(self) -> float:
        """Share of the multiply-adds that the edge device runs."""
        return self.edge_macs / max(self.total_macs, 1)


def no_such_cut(model: str, name: str, valid: Sequence[Cut]) -> InvalidInputError:
    """No place of the network has that name."""
    aliases = [alias for network, alias in ALIASES if network == model]
    return unknown(f"cut of {model}:", name, [*aliases, *(cut.name for cut in valid)])


def refused_cut(model: str, name: str, nearest: Sequence[Cut]) -> InvalidInputError:
    """The place exists, but something else than its output would have to be sent."""
    offer = " and ".join(cut.name for cut in nearest) or "none"
    return InvalidInputError(
        f"{model} cannot be cut at '{name}': more than its output would have to be sent "
        f"(a skip connection jumps it, or nothing follows it); the nearest valid cuts are {offer}"
    )
