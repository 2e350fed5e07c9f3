"""Copies of networks that may be run, changed and thrown away."""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from splitleak.victims.seeding import seeded

Module = TypeVar("Module", bound=nn.Module)

SMALL = 1e-3
"""Weights below it count as zero: layer scales and heads often start there, and an output of zeros hides errors."""
MOVED = 0.02
"""By how much all weights grow."""


def twin(module: Module) -> Module:
    """A copy with everything of its own, also of a network that keeps a tensor with a gradient's history."""
    derived = {
        id(value): value.detach().clone()
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    return copy.deepcopy(module, derived)


@torch.no_grad()
def lively(module: Module) -> Module:
    """A twin with other weights, none of them zero: what was written down of the first one's values shows."""
    other = twin(module)
    with seeded("lively"):
        for value in other.parameters():
            if not value.is_floating_point() or not value.numel():
                continue
            if value.abs().max() < SMALL:
                value.normal_(std=0.1)
            else:
                value.mul_(1 + MOVED)
    return other
