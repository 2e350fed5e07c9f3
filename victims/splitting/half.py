"""A part of a network: the network's own modules and weights, run along a graph."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, fx, nn


class Half(nn.Module):
    """Runs one graph in eval mode and one in training mode; modules and weights stay where the network has them.

    ``held``: by name, each module, parameter, buffer or constant that a graph refers to. In training mode networks
    may compute something else, and a graph knows only what it has seen. Activations no longer write into what they
    are given: it may be a cached release.
    """

    def __init__(self, held: Mapping[str, Any], evaluating: fx.Graph, training: fx.Graph) -> None:
        super().__init__()
        needed = {str(n.target): n.op for g in (evaluating, training) for n in g.nodes if n.op in _HELD}
        # modules first: a weight of a module that is called lies in it already
        for name in sorted(needed, key=lambda name: (needed[name] != "call_module", name.count("."))):
            _place(self, name, held[name])
        for part in self.modules():
            if getattr(part, "inplace", False):
                part.inplace = False  # type: ignore[assignment]
        self._run = {False: _compiled(evaluating), True: _compiled(training)}
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """What the graph of this mode makes of ``x``."""
        return _COMPILED[self._run[self.training]](self, x)


_HELD = ("call_module", "get_attr")


def _place(root: nn.Module, name: str, value: Any) -> None:
    *path, last = name.split(".")
    parent = root
    for step in path:
        if not hasattr(parent, step):
            parent.add_module(step, nn.Module())
        parent = getattr(parent, step)
    if hasattr(parent, last):
        return
    if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
        parent.register_buffer(last, value)
    else:
        setattr(parent, last, value)


_COMPILED: list[Callable[[nn.Module, Tensor], Tensor]] = []
"""Graphs as functions. A half holds their places: Opacus copies modules by pickling, which functions do not bear."""


def _compiled(graph: fx.Graph) -> int:
    code = graph.python_code("self")
    names: dict[str, Any] = dict(code.globals)
    exec(compile(code.src, "<half of a network>", "exec"), names)
    _COMPILED.append(names["forward"])
    return len(_COMPILED) - 1


def held_by(root: nn.Module, other: nn.Module, graphs: tuple[fx.Graph, ...]) -> dict[str, Any]:
    """What the graphs refer to, by name: the network's own, else (constants of the tracing) the other's."""
    names = {str(node.target) for graph in graphs for node in graph.nodes if node.op in _HELD}
    return {name: _found(root, name, _found(other, name, None)) for name in names}


def _found(root: nn.Module, name: str, otherwise: Any) -> Any:
    try:
        return operator.attrgetter(name)(root)
    except AttributeError:
        return otherwise
