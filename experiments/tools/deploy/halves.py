"""The two halves of a protected network as programs: their randomness becomes an input, the rest a fixed graph."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx

from splitleak.defenses.fitting import SplitModel
from splitleak.experiments.tools.deploy.runtime import drawn

Kind = Literal["normal", "uniform", "exponential", "integers"]

DRAWN: dict[str, Kind] = {
    "aten::randn": "normal",
    "aten::randn_like": "normal",
    "aten::normal_": "normal",
    "aten::rand": "uniform",
    "aten::rand_like": "uniform",
    "aten::uniform_": "uniform",
    "aten::exponential_": "exponential",
    "aten::randint": "integers",
}
"""Operations that draw from a standard distribution, by their names; integers: from 0 to below ``high``."""


class NotExportableError(Exception):
    """Why something cannot be written as a program, as one line."""


@dataclass(frozen=True)
class Draw:
    """Random numbers that a program is given with each call. ``stride``: the order in which memory is filled.

    ``high``: of integers, the first that is not drawn.
    """

    kind: Kind
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    high: int | None = None


@dataclass(frozen=True)
class Half:
    """A half as a program of (one photo or release, *draws). ``inputs``: an example of each."""

    exported: ExportedProgram
    draws: tuple[Draw, ...]
    inputs: tuple[Tensor, ...]

    @property
    def described(self) -> dict[str, Any]:
        """As the description of a deployment holds it."""
        return {"draws": [asdict(draw) for draw in self.draws]}


class OnEdge(nn.Module):
    """Images (n, 3, h, w) in [0, 1] -> release."""

    def __init__(self, model: SplitModel) -> None:
        super().__init__()
        self.perturb, self.encoder, self.channel = model.perturb, model.encoder, model.channel

    def forward(self, images: Tensor) -> Tensor:
        """The channel's."""
        release: Tensor = self.channel.send(self.encoder(self.perturb(images)))
        return release


class InCloud(nn.Module):
    """Release -> logits (n, classes)."""

    def __init__(self, model: SplitModel) -> None:
        super().__init__()
        self.channel, self.tail = model.channel, model.tail

    def forward(self, release: Tensor) -> Tensor:
        """The tail's."""
        logits: Tensor = self.tail(self.channel.receive(release))
        return logits


def exported(module: nn.Module, example: Tensor) -> Half:
    """A half in eval mode as a program for inputs of the example's shape (1, ...).

    It is run once with every operation noted: what depends on its settings and buffers is settled then, and what
    draws becomes an input.

    Raises:
        NotExportableError: it cannot be followed, or draws from a distribution that is not known here.
    """
    with silence():
        try:
            with torch.random.fork_rng():
                traced = make_fx(module, tracing_mode="real")(example)
        except Exception as error:  # whatever the network's or the defence's own code makes of being followed
            raise NotExportableError(f"torch cannot follow its code: {first_line(error)}") from error
        draws = lifted(traced.graph)
        traced.recompile()
        given = (example, *drawn([asdict(draw) for draw in draws], torch.Generator()))
        try:
            program = torch.export.export(traced, given, strict=False)
        except Exception as error:  # as above
            raise NotExportableError(f"torch.export refuses it: {first_line(error)}") from error
    return Half(program, tuple(draws), given)


def lifted(graph: fx.Graph) -> list[Draw]:
    """Put an input in the place of each operation that draws, in the order in which they draw.

    Raises:
        NotExportableError: one draws from a distribution that is not known here.
    """
    draws: list[Draw] = []
    last = [node for node in graph.nodes if node.op == "placeholder"][-1]
    for node in list(graph.nodes):
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        if torch.Tag.nondeterministic_seeded not in node.target.tags:
            continue
        draws.append(_draw(node))
        with graph.inserting_after(last):
            last = graph.placeholder(f"draw_{len(draws) - 1}")
        replacement = last
        if node.target._schema.is_mutable:  # it fills a tensor, which others may hold
            with graph.inserting_before(node):
                replacement = graph.call_function(torch.ops.aten.copy_.default, (node.args[0], last))
        node.replace_all_uses_with(replacement)
        graph.erase_node(node)
    return draws


def _draw(node: fx.Node) -> Draw:
    assert isinstance(node.target, torch._ops.OpOverload)
    name, value = node.target._schema.name, node.meta["val"]
    settings: list[Any] = [given for given in node.args if not isinstance(given, fx.Node | list | tuple)]
    kind = DRAWN.get(name)
    high: int | None = settings[0] if kind == "integers" and len(settings) == 1 else None
    if kind is None or (settings and high is None):
        raise NotExportableError(
            f"it draws by {name} with {settings or 'no settings'}, which cannot be drawn outside"
        )
    return Draw(kind, tuple(value.shape), tuple(value.stride()), high)


def first_line(error: Exception) -> str:
    """Its kind and the first line of what it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}, {lines[0]}" if lines else type(error).__name__


@contextmanager
def silence() -> Iterator[None]:
    """Where torch cannot follow it logs whole graphs; that it could not is all there is to say."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
