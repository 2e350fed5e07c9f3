"""What depends on what in a traced network."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

COUNT = torch.ops.aten.sym_size.int


@dataclass(frozen=True)
class Flow:
    """One graph from the photos to the output. ``paths``: of each node, the module that it lies in and its name.

    A node is a valid cut when its output is the only thing that crosses from what comes before it to what comes
    after: a skip connection that jumps the node would have to be sent as well. Nodes that only move buffers cross
    nothing.
    """

    graph: fx.Graph
    paths: dict[fx.Node, str]

    @cached_property
    def nodes(self) -> list[fx.Node]:
        """In the order of execution."""
        return list(self.graph.nodes)

    @property
    def input(self) -> fx.Node:
        """The photos."""
        return next(node for node in self.nodes if node.op == "placeholder")

    @cached_property
    def result(self) -> fx.Node:
        """The node whose value the network returns.

        Raises:
            ValueError: it returns something else than one tensor.
        """
        returned = self.nodes[-1].args[0]
        if isinstance(returned, (tuple, list)) and len(returned) == 1:
            (returned,) = returned
        if not isinstance(returned, fx.Node):
            raise ValueError("more than one tensor is returned")
        return returned

    @cached_property
    def before(self) -> dict[fx.Node, set[fx.Node]]:
        """For each node that depends on the photos: itself and all such nodes that it is computed from."""
        before: dict[fx.Node, set[fx.Node]] = {self.input: {self.input}}
        for node in self.nodes:
            upstream = [before[parent] for parent in node.all_input_nodes if parent in before]
            if upstream and not self._is_count(node):
                before[node] = {node}.union(*upstream)
        return before

    def _is_count(self, node: fx.Node) -> bool:
        """Whether this is the number of photos, which either half sees in what it is given."""
        return node.target is COUNT and node.args == (self.input, 0)

    @cached_property
    def main(self) -> set[fx.Node]:
        """What the result is computed from."""
        return self.before[self.result]

    def is_valid(self, node: fx.Node) -> bool:
        """Whether the network can be cut behind this node."""
        if node not in self.main or node in (self.input, self.result):
            return False
        inside, main = self.before[node], self.main
        crossing = {parent for after in main - inside for parent in after.all_input_nodes if parent in inside}
        return crossing == {node}

    def last_in(self, name: str) -> fx.Node | None:
        """The last node of a module, or the node of that name."""
        inside = [n for n in self.nodes if self.paths[n] == name or self.paths[n].startswith(f"{name}.")]
        return next((node for node in reversed(inside) if node in self.main), None)

    def name(self, node: fx.Node) -> str:
        """The outermost module whose last node this is, or the node itself."""
        parts = self.paths[node].split(".")
        for depth in range(1, len(parts)):
            if self.last_in(".".join(parts[:depth])) is node:
                return ".".join(parts[:depth])
        return self.paths[node]

    def whole(self) -> fx.Graph:
        """From the photos to the result."""
        return self._part(self.input, self.result, lambda node: True)

    def halves(self, cut: fx.Node) -> tuple[fx.Graph, fx.Graph]:
        """Up to a valid cut, and from there on. A buffer moves in the half that what moves it lies in."""
        inside = self.before[cut]
        owners = {_owner(node) for node in inside for node in node.all_input_nodes if node.op == "get_attr"}

        def is_edge(node: fx.Node) -> bool:
            if node not in self.before:  # a count of batches moves with the module that it belongs to
                return _owner(node.all_input_nodes[0]) in owners
            return self.before[node] & self.main <= inside

        encoder = self._part(self.input, cut, is_edge)
        return encoder, self._part(cut, self.result, lambda node: not is_edge(node))

    def _part(self, start: fx.Node, end: fx.Node, belongs: Callable[[fx.Node], bool]) -> fx.Graph:
        graph = fx.Graph()
        copies = {start: graph.placeholder("x")}
        for node in self.nodes:
            constant = node not in self.before  # parameters and the like: either half gets its own copy
            if node.op in ("placeholder", "output") or node in copies:
                continue
            if self._is_count(node):
                copies[node] = graph.call_function(COUNT, (copies[start], 0))
            elif (constant and not moves(node)) or belongs(node):
                copies[node] = graph.node_copy(node, copies.__getitem__)
                if "device" in node.kwargs:  # of the tracing: what is made on the way is made where the input is
                    with graph.inserting_before(copies[node]):
                        device = graph.call_function(getattr, (copies[start], "device"))
                    copies[node].kwargs = {**copies[node].kwargs, "device": device}
        graph.output(copies[end])
        prune(graph)
        return graph


def _owner(node: fx.Node) -> str:
    """The module that a weight or buffer belongs to."""
    return str(node.target).rpartition(".")[0]


def moves(node: fx.Node) -> bool:
    """Whether a node changes something in place, as one that writes a buffer does."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def prune(graph: fx.Graph) -> None:
    """Remove what the output does not need and what moves nothing; an assertion of shapes would make cuts invalid."""
    for node in reversed(graph.nodes):
        if not node.users and node.op != "output" and not moves(node) and node.op != "placeholder":
            graph.erase_node(node)


def measure(flow: Flow, held: nn.Module, images: Tensor) -> tuple[dict[fx.Node, tuple[int, ...]], dict[fx.Node, int]]:
    """Of every node: shape for one photo (of tensors with a row for each photo), and multiply-adds for one photo."""
    shapes: dict[fx.Node, tuple[int, ...]] = {}
    macs: dict[fx.Node, int] = {}

    class Measure(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            with FlopCounterMode(display=False) as counter:
                value = super().run_node(n)
            macs[n] = counter.get_total_flops() // 2 // len(images)
            if isinstance(value, Tensor) and value.ndim and len(value) == len(images):
                shapes[n] = tuple(value.shape[1:])
            return value

    with torch.no_grad():
        Measure(held, graph=flow.graph).run(images, enable_io_processing=False)
    return shapes, macs
