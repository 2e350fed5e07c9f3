"""torch.export: follows control flow by types and defaults, and turns writing in place into values."""

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from splitleak.victims.splitting.behaviour import photos
from splitleak.victims.splitting.flow import Flow, prune


def _batch_norm(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, training: bool, momentum: float, eps: float
) -> tuple[Tensor, None, None, Tensor, Tensor]:
    """The output, and at the places where torch.export looks for them the statistics as they become."""
    mean, var = mean.clone(), var.clone()
    return F.batch_norm(x, mean, var, weight, bias, training, momentum, eps), None, None, mean, var


def _batch_norm_in_eval_mode(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, momentum: float, eps: float
) -> tuple[Tensor]:
    return (F.batch_norm(x, mean, var, weight, bias, False, momentum, eps),)


WITHOUT_GRADIENT = {
    torch.ops.aten._native_batch_norm_legit_functional.default: _batch_norm,
    torch.ops.aten._native_batch_norm_legit_no_training.default: _batch_norm_in_eval_mode,
}
"""Operations that torch.export leaves behind and that torch cannot differentiate, with what they stand for."""


def trace(module: nn.Module, size: int) -> tuple[Flow, nn.Module]:
    """The graph of a network in the mode that it is in, for any number of photos, and what holds its constants.

    Raises:
        Exception: whatever torch.export raises where it cannot follow.
    """
    batch = ({0: torch.export.Dim.DYNAMIC},)
    with _silence():
        program = torch.export.export(module, (photos(size),), dynamic_shapes=batch, strict=False)
        held = program.run_decompositions({}).module()
    assert isinstance(held, fx.GraphModule)
    graph = held.graph
    paths = {node: _path(node) for node in graph.nodes}
    for node in graph.nodes:
        if node.target in (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default):
            node.target = torch.ops.aten.reshape.default  # a view fails where memory is laid out by channels
        node.target = WITHOUT_GRADIENT.get(node.target, node.target)
    prune(graph)
    return Flow(graph, paths), held


@contextmanager
def _silence() -> Iterator[None]:
    """Where torch.export cannot follow it prints and logs whole graphs; that it could not is all there is to say."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _path(node: fx.Node) -> str:
    """The innermost module whose code the node is of, and the node's name."""
    stack = node.meta.get("nn_module_stack") or {}
    module = [path for path, _ in stack.values()][-1] if stack else ""
    module = re.sub(r"@\d+", "", module)  # of a module that is called again
    return f"{module}.{node.name}" if module else node.name
