"""Where a network can be split, and the two halves.

A network is traced (torch.fx, with torchvision's node names). A node is a valid cut when its output is the only
thing that crosses from what comes before it to what comes after: a skip connection that jumps the node would
have to be sent as well.
"""

import copy
import hashlib
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.feature_extraction import NodePathTracer

from splitleak.victims.errors import InvalidInputError, unknown
from splitleak.victims.models import Network

ALIASES = {("mobilenet_v3_large", "C4"): "features.13.block.0"}
"""Names that the literature gives to a node: (network, alias) -> node. C4 is the seed study's."""

BYTES_PER_VALUE = 4
OUT_OF_PLACE = {operator.iadd: operator.add, operator.imul: operator.mul, operator.isub: operator.sub}


@dataclass(frozen=True)
class Cut:
    """A place to split a network.

    ``name``: the outermost module that ends here, or the node itself; ``node``: the traced node's full name;
    ``shape``: of one image's features, without the batch; ``edge_macs``: multiply-adds up to and including
    the node, for one image; ``total_macs``: of the whole network.
    """

    name: str
    node: str
    shape: tuple[int, ...]
    edge_macs: int
    total_macs: int

    @property
    def bytes(self) -> int:
        """Size of one image's features as 32-bit floats."""
        return math.prod(self.shape) * BYTES_PER_VALUE

    @property
    def edge_share(self) -> float:
        """Share of the multiply-adds that the edge device runs."""
        return self.edge_macs / max(self.total_macs, 1)


class Encoder(nn.Module):
    """Everything up to the cut. Input: images (n, 3, h, w) in [0, 1]; normalisation is its first step."""

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Features at the cut, (n, *shape)."""
        features: Tensor = self.body((images - self.mean) / self.std)
        return features


@dataclass(frozen=True)
class Halves:
    """A split network: ``tail(encoder(images))`` equals the uncut network on normalised images."""

    encoder: Encoder
    tail: nn.Module
    cut: Cut


def find_cuts(network: Network, size: int) -> list[Cut]:
    """Every valid cut in the order of execution, measured on one ``size`` px image."""
    return _Trace(network.module, size).cuts()


def split(network: Network, model: str, cut: str, size: int) -> Halves:
    """Split a network at a node; ``model`` is its name, for aliases.

    Raises:
        InvalidInputError: no such node (near names are given), or something else than its output would cross
            (the nearest valid cuts are given).
    """
    trace = _Trace(network.module, size)
    node = trace.find(ALIASES.get((model, cut), cut), model)
    encoder, tail = trace.halves(node)
    return Halves(Encoder(encoder, network.mean, network.std), tail, trace.describe(node))


def uncut(network: Network, size: int) -> Encoder:
    """The whole network as one module, images to logits; its weights are the network's own."""
    body = _Trace(network.module, size).whole()
    return Encoder(body, network.mean, network.std)


def content_digest(network: Network, size: int) -> str:
    """Of what a network computes: its operations, its layers' settings, its weights and its normalisation."""
    graph = _Trace(network.module, size).nodes[0].graph
    digest = hashlib.sha256(repr([str(graph), str(network.module), network.mean, network.std]).encode())
    for name, value in network.module.state_dict().items():
        digest.update(name.encode() + value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class _Trace:
    """One traced network with, per node, what it depends on, its shape and its cost."""

    def __init__(self, module: nn.Module, size: int) -> None:
        self.module = module
        tracer = NodePathTracer(autowrap_modules=(math, torchvision.ops), leaf_modules=_operations())
        try:
            graph = tracer.trace(module)
        except (fx.proxy.TraceError, TypeError, RuntimeError) as error:
            raise InvalidInputError(f"this network cannot be traced, so no cut can be checked: {error}") from None
        self.paths: dict[fx.Node, str] = {node: tracer.node_to_qualname.get(node, node.name) for node in graph.nodes}
        for node in graph.nodes:
            _make_out_of_place(node)
        _prune(graph)
        self.nodes: list[fx.Node] = list(graph.nodes)
        self.input = next(node for node in self.nodes if node.op == "placeholder")
        self.output = self.nodes[-1]
        if not isinstance(self.output.args[0], fx.Node):
            raise InvalidInputError("this network returns more than one tensor: let it return its logits alone")
        self.before = self._dependencies()
        self.shapes, self.macs = _measure(fx.GraphModule(module, graph), self.nodes, size)

    def _dependencies(self) -> dict[fx.Node, set[fx.Node]]:
        """For each node that depends on the image: itself and all such nodes that it is computed from."""
        before: dict[fx.Node, set[fx.Node]] = {self.input: {self.input}}
        for node in self.nodes:
            upstream = [before[parent] for parent in node.all_input_nodes if parent in before]
            if upstream:
                before[node] = {node}.union(*upstream)
        return before

    def is_valid(self, node: fx.Node) -> bool:
        if node not in self.before or node in (self.input, self.output) or node not in self.shapes:
            return False
        if node in self.output.all_input_nodes:
            return False  # nothing would be left for the cloud
        inside = self.before[node]
        crossing = {
            parent for after in self.before.keys() - inside for parent in after.all_input_nodes if parent in inside
        }
        return crossing == {node}

    def cuts(self) -> list[Cut]:
        return [self.describe(node) for node in self.nodes if self.is_valid(node)]

    def describe(self, node: fx.Node) -> Cut:
        edge = sum(self.macs[part] for part in self.before[node])
        return Cut(self._name(node), self.paths[node], self.shapes[node], edge, sum(self.macs.values()))

    def _name(self, node: fx.Node) -> str:
        """The outermost module whose last node this is."""
        parts = self.paths[node].split(".")
        for depth in range(1, len(parts)):
            if self._last_in(".".join(parts[:depth])) is node:
                return ".".join(parts[:depth])
        return self.paths[node]

    def _last_in(self, name: str) -> fx.Node | None:
        inside = [node for node, path in self.paths.items() if path == name or path.startswith(f"{name}.")]
        return next((node for node in reversed(inside) if node in self.before), None)

    def find(self, name: str, model: str) -> fx.Node:
        node = self._last_in(name)
        valid = [candidate for candidate in self.nodes if self.is_valid(candidate)]
        if node is None:
            aliases = [alias for network, alias in ALIASES if network == model]
            raise unknown(f"cut of {model}:", name, [*aliases, *(self._name(cut) for cut in valid)])
        if self.is_valid(node):
            return node
        position = self.nodes.index(node)
        earlier = [cut for cut in valid if self.nodes.index(cut) < position][-1:]
        later = [cut for cut in valid if self.nodes.index(cut) > position][:1]
        nearest = " and ".join(self._name(cut) for cut in earlier + later)
        raise InvalidInputError(
            f"{model} cannot be cut at '{name}': more than its output would have to be sent "
            f"(a skip connection jumps it, or nothing follows it); the nearest valid cuts are {nearest}"
        )

    def halves(self, cut: fx.Node) -> tuple[fx.GraphModule, fx.GraphModule]:
        inside = self.before[cut]
        encoder = self._graph(self.input, cut, lambda node: node in inside)
        tail = self._graph(cut, self.output.all_input_nodes[0], lambda node: node not in inside)
        return fx.GraphModule(self.module, encoder), fx.GraphModule(self.module, tail)

    def whole(self) -> fx.GraphModule:
        graph = self._graph(self.input, self.output.all_input_nodes[0], lambda node: True)
        return fx.GraphModule(self.module, graph)

    def _graph(self, start: fx.Node, end: fx.Node, belongs: Callable[[fx.Node], bool]) -> fx.Graph:
        graph = fx.Graph()
        copies = {start: graph.placeholder("x")}
        for node in self.nodes:
            constant = node not in self.before  # parameters and the like: either half gets its own copy
            if node not in copies and node is not self.output and (constant or belongs(node)):
                copies[node] = graph.node_copy(node, copies.__getitem__)
        graph.output(copies[end])
        _prune(graph)
        return graph


def _operations() -> list[type[nn.Module]]:
    """torchvision's own operations (stochastic depth and the like) stay single nodes."""
    members = (getattr(torchvision.ops, name) for name in dir(torchvision.ops))
    skipped = (torchvision.ops.Conv2dNormActivation, torchvision.ops.SqueezeExcitation, torchvision.ops.MLP)
    return [m for m in members if isinstance(m, type) and issubclass(m, nn.Module) and m not in skipped]


def _prune(graph: fx.Graph) -> None:
    """Remove what the output does not need; shape assertions count, they would make every cut invalid."""
    for node in reversed(graph.nodes):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)


def _make_out_of_place(node: fx.Node) -> None:
    """A half must not write into the features it was given: they are cached and attacked."""
    if node.op == "call_function":
        node.target = OUT_OF_PLACE.get(node.target, node.target)  # type: ignore[arg-type]
    if node.kwargs.get("inplace"):
        node.kwargs = {**node.kwargs, "inplace": False}


def _measure(
    graph: fx.GraphModule, nodes: list[fx.Node], size: int
) -> tuple[dict[fx.Node, tuple[int, ...]], dict[fx.Node, int]]:
    """Shape without batch (tensors only) and multiply-adds of every node, for one image; computes no values."""
    shapes: dict[fx.Node, tuple[int, ...]] = {}
    macs: dict[fx.Node, int] = {}

    class Measure(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            with FlopCounterMode(display=False) as counter:
                value = super().run_node(n)
            macs[n] = counter.get_total_flops() // 2
            if isinstance(value, Tensor):
                shapes[n] = tuple(value.shape[1:])
            return value

    on_meta = copy.deepcopy(graph).to("meta")
    own = dict(zip(on_meta.graph.nodes, nodes, strict=True))
    try:
        with torch.no_grad():
            Measure(on_meta).run(torch.empty(1, 3, size, size, device="meta"))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidInputError(f"this network cannot take {size} px images: {reason}") from None
    return {own[n]: s for n, s in shapes.items()}, {own[n]: m for n, m in macs.items()}
