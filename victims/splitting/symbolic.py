"""Symbolic tracing (torch.fx): layers stay modules, so this way is tried first."""

import inspect
import math
import operator
from typing import Any

import torch
import torchvision
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from splitleak.victims.splitting.flow import Flow, prune

OUT_OF_PLACE = {operator.iadd: operator.add, operator.imul: operator.mul, operator.isub: operator.sub}
KEPT_WHOLE = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd, nn.LayerNorm, nn.GroupNorm)
"""Layers that do something else in training: their subclasses, too, stay single nodes, which know their mode."""
FEW_MODULES, SMALL_SHARE = 2, 0.1
"""What cannot be followed may become a single node if it has no more parts than this, or than this share of all."""


def trace(module: nn.Module) -> Flow:
    """The graph of a network in the mode that it is in; the module's own state is used up by it.

    A part that cannot be followed, as one that decides by the values that it sees, becomes a single node.

    Raises:
        Exception: whatever the network's code raises on symbols, where too much of it would be a single node.
    """
    whole: set[type[nn.Module]] = set()
    while True:
        tracer = _Tracer(whole)
        try:
            graph = tracer.trace(module, _defaults(module))
        except Exception:
            if tracer.stuck is None or type(tracer.stuck) in whole or _is_large(tracer.stuck, module):
                raise
            whole.add(type(tracer.stuck))
            continue
        paths = {node: tracer.node_to_qualname.get(node, node.name) for node in graph.nodes}
        for node in graph.nodes:
            _make_out_of_place(node)
        prune(graph)
        for node in [node for node in graph.nodes if node.op == "placeholder"][1:]:
            graph.erase_node(node)
        return Flow(graph, paths)


class _Tracer(NodePathTracer):  # type: ignore[misc]
    """torchvision's, with its names; it remembers the innermost module in which it got stuck."""

    proxy_buffer_attributes = True  # a buffer's value of today must not be written into the graph

    def __init__(self, whole: set[type[nn.Module]]) -> None:
        super().__init__(autowrap_modules=(math, torchvision.ops), leaf_modules=[*_operations(), *KEPT_WHOLE, *whole])
        self.stuck: nn.Module | None = None

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.stuck = self.stuck or m
            raise


def _is_large(part: nn.Module, network: nn.Module) -> bool:
    count = len(list(network.modules()))
    return len(list(part.modules())) > max(FEW_MODULES, SMALL_SHARE * count)


def _defaults(module: nn.Module) -> dict[str, Any]:
    """Of the arguments behind the photos: a network is split as it is called, with its defaults."""
    parameters = list(inspect.signature(module.forward).parameters.values())[1:]
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _operations() -> list[type[nn.Module]]:
    """torchvision's own operations (stochastic depth and the like) stay single nodes."""
    members = (getattr(torchvision.ops, name) for name in dir(torchvision.ops))
    skipped = (torchvision.ops.Conv2dNormActivation, torchvision.ops.SqueezeExcitation, torchvision.ops.MLP)
    return [m for m in members if isinstance(m, type) and issubclass(m, nn.Module) and m not in skipped]


def _make_out_of_place(node: fx.Node) -> None:
    """A half must not write into the features it was given: they are cached and attacked."""
    if node.op == "call_function":
        node.target = OUT_OF_PLACE.get(node.target, node.target)  # type: ignore[arg-type]
    if node.kwargs.get("inplace"):
        node.kwargs = {**node.kwargs, "inplace": False}
    if "device" in node.kwargs:
        node.kwargs = {**node.kwargs, "device": torch.device("cpu")}  # a half makes things where its input is
    if node.op == "call_method":
        name = str(node.target)
        if name.endswith("_") and not name.startswith("_") and hasattr(Tensor, name[:-1]) and node.users:
            node.target = name[:-1]
        if name == "view" and not any(isinstance(given, torch.dtype) for given in node.args):
            node.target = "reshape"  # a view fails where memory is laid out by channels
