"""The last linear layer of a network: what trains alone where every weight that moves costs privacy."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from splitleak.victims.errors import InvalidInputError
from splitleak.victims.moving import moved
from splitleak.victims.tensors import to_float

SHOWN_AT_ONCE = 128


@torch.no_grad()
def last_linear(network: nn.Module, inputs: Tensor) -> nn.Linear:
    """The linear layer whose outputs are the network's.

    Args:
        network: in eval mode; what it gives is logits, or a tuple that ends in them.
        inputs: some of what it takes.

    Raises:
        InvalidInputError: it does not end in one.
    """
    seen: list[tuple[nn.Linear, Tensor, Tensor]] = []
    hooks = [
        module.register_forward_hook(lambda layer, given, made: seen.append((layer, made, made.clone())))
        for module in network.modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        outputs = network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    logits = outputs[-1] if isinstance(outputs, tuple) else outputs
    # the same object, and as it left the layer: nothing followed, in place neither
    ended = [layer for layer, made, value in seen[-1:] if made is logits and torch.equal(value, logits)]
    if not ended or sum(layer is ended[0] for layer, _, _ in seen) > 1:
        raise InvalidInputError(
            "this network does not end in a linear layer, which could train alone: trains = 'tail' trains all of it"
        )
    return ended[0]


@torch.no_grad()
def inputs_of(head: nn.Linear, network: nn.Module, batches: Iterator[Tensor]) -> Tensor:
    """What reaches the layer of batches that the network takes, (n, width) on the CPU."""
    reached: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda layer, given: reached.append(given[0].float().cpu()))
    try:
        for batch in batches:
            network(batch)
    finally:
        hook.remove()
    return torch.cat(reached)


def moved_copies(images: Tensor, device: torch.device) -> Iterator[Tensor]:
    """Photos (n, 3, h, w) uint8, each moved a little (``moved``), in order, some at a time."""
    for chunk in images.split(SHOWN_AT_ONCE):
        yield moved(to_float(chunk.to(device)))
