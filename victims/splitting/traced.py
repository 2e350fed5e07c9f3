"""A network that is taken apart by its graphs, one in eval mode and one in training mode."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from torch import fx, nn

from splitleak.victims.splitting import exported, symbolic
from splitleak.victims.splitting.behaviour import photos
from splitleak.victims.splitting.cut import EXPORTED, TRACED, Cut
from splitleak.victims.splitting.flow import Flow, measure
from splitleak.victims.splitting.half import Half, held_by
from splitleak.victims.splitting.twin import twin


@dataclass(frozen=True)
class Traced:
    """``constants``: what holds, by name, what the graphs need and the network has not."""

    way: str
    module: nn.Module
    size: int
    evaluating: Flow
    training: Flow
    constants: nn.Module

    @property
    def text(self) -> str:
        """Its operations."""
        return str(self.evaluating.graph)

    def whole(self, module: nn.Module) -> nn.Module:
        """Normalised photos to logits, by this module's own weights."""
        return self._half(module, self.evaluating.whole(), self.training.whole())

    def cuts(self) -> list[Cut]:
        """In the order of execution."""
        return [self.describe(self.evaluating.paths[node]) for node in self.evaluating.nodes if self._pair(node)]

    def names(self) -> set[str]:
        """Of all nodes and the modules around them that the photos run through."""
        paths = [self.evaluating.paths[node].split(".") for node in self.evaluating.main]
        return {".".join(path[:depth]) for path in paths for depth in range(1, len(path) + 1)}

    def is_valid(self, name: str) -> bool:
        """Whether nothing else than this module's or node's output crosses."""
        node = self.evaluating.last_in(name)
        return node is not None and self._pair(node) is not None

    def position(self, name: str) -> int:
        """In the order of execution."""
        node = self.evaluating.last_in(name)
        assert node is not None
        return self.evaluating.nodes.index(node)

    def describe(self, name: str) -> Cut:
        """The cut behind a module or node."""
        node = self.evaluating.last_in(name)
        assert node is not None
        shapes, macs = self._measured
        edge = sum(macs[part] for part in self.evaluating.before[node])
        named, path = self.evaluating.name(node), self.evaluating.paths[node]
        return Cut(named, path, shapes[node], edge, sum(macs.values()), self.way)

    def halves(self, name: str, module: nn.Module) -> tuple[nn.Module, nn.Module]:
        """Both halves, with this module's own weights."""
        pair = self._pair(self.evaluating.last_in(name))
        assert pair is not None
        graphs = zip(self.evaluating.halves(pair[0]), self.training.halves(pair[1]), strict=True)
        encoder, tail = (self._half(module, *both) for both in graphs)
        return encoder, tail

    def _half(self, module: nn.Module, evaluating: fx.Graph, training: fx.Graph) -> Half:
        return Half(held_by(module, self.constants, (evaluating, training)), evaluating, training)

    def _pair(self, node: fx.Node | None) -> tuple[fx.Node, fx.Node] | None:
        """The node where the network can be cut, in both graphs."""
        if node is None or not self.evaluating.is_valid(node) or node not in self._measured[0]:
            return None
        if self.training is self.evaluating:
            return node, node
        other = self.training.last_in(self.evaluating.name(node))
        return None if other is None or not self.training.is_valid(other) else (node, other)

    @cached_property
    def _measured(self) -> tuple[dict[fx.Node, tuple[int, ...]], dict[fx.Node, int]]:
        whole = self.evaluating.whole()
        return measure(self.evaluating, self._half(twin(self.module), whole, whole), photos(self.size))


def by_symbols(module: nn.Module, size: int) -> Traced:
    """By torch.fx.

    Raises:
        Exception: whatever the network's code raises on symbols.
    """
    copies = {mode: twin(module).train(mode) for mode in (False, True)}
    evaluating, training = (symbolic.trace(copies[mode]) for mode in (False, True))
    if _same(evaluating, training):
        training = evaluating
    return Traced(TRACED, module, size, evaluating, training, copies[False])


def by_export(module: nn.Module, size: int) -> Traced:
    """By torch.export.

    Raises:
        Exception: whatever torch.export raises where it cannot follow.
    """
    (evaluating, constants), (training, _) = (
        exported.trace(twin(module).train(mode), size) for mode in (False, True)
    )
    return Traced(EXPORTED, module, size, evaluating, training, constants)


TRACERS: tuple[Callable[[nn.Module, int], Traced], ...] = (by_symbols, by_export)
"""In the order of preference: torch.fx keeps layers as modules, which per-sample gradients need."""


def _same(one: Flow, other: Flow) -> bool:
    return [node.format_node() for node in one.nodes] == [node.format_node() for node in other.nodes]
