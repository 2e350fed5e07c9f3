"""A small victim for contract checks and tests: smooth pictures, a random linear encoder, a linear tail."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitleak.victims.seeding import seeded

T = TypeVar("T")

SIZE, STRIDE, CHANNELS, CLASSES = 32, 16, 96, 3


def toy_images(count: int, seed: int = 0) -> Tensor:
    """Smooth colour pictures, uint8 (count, 3, 32, 32): few degrees of freedom, so little data teaches much."""
    with seeded("toy images", seed):
        knots = torch.rand(count, 3, 4, 4)
    images = F.interpolate(knots, (SIZE, SIZE), mode="bilinear", align_corners=True)
    return images.mul(255).round().to(torch.uint8)


def toy_encoder() -> nn.Module:
    """Images (n, 3, 32, 32) in [0, 1] -> features (n, 96, 2, 2)."""
    with seeded("toy encoder"):
        return nn.Sequential(nn.Conv2d(3, CHANNELS, STRIDE, stride=STRIDE), nn.LeakyReLU(0.5)).eval()


def toy_tail() -> nn.Module:
    """Features (n, 96, 2, 2) -> logits (n, 3)."""
    with seeded("toy tail"):
        return nn.Sequential(nn.Flatten(), nn.Linear(CHANNELS * 4, CLASSES)).eval()


def toy_halves(tokens: bool = False) -> tuple[nn.Module, nn.Module]:
    """The toy's encoder and tail, between them maps (n, 96, 2, 2) or the same as tokens (n, 4, 96)."""
    encoder, tail = toy_encoder(), toy_tail()
    if not tokens:
        return encoder, tail
    to_tokens = nn.Sequential(nn.Flatten(2), _Transposed())
    to_maps = nn.Sequential(_Transposed(), nn.Unflatten(2, (SIZE // STRIDE, SIZE // STRIDE)))
    return nn.Sequential(encoder, to_tokens).eval(), nn.Sequential(to_maps, tail).eval()


class _Transposed(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.transpose(1, 2)


def toy_colours(count: int, seed: int = 0) -> Tensor:
    """Four squares of random colour, much red and little blue, uint8 (count, 3, 16, 16)."""
    with seeded("coloured", seed):
        colours = torch.rand(count, 3, 2, 2) ** torch.tensor([0.3, 1.0, 3.0])[:, None, None]
    return F.interpolate(colours, scale_factor=8).mul(255).round().to(torch.uint8)


def toy_gains() -> nn.Module:
    """Images (n, 3, 16, 16) in [0, 1] -> each colour's mean over a square, times a gain of its own, (n, 3, 2, 2).

    Drawn from torch's global state. Colours differ in distribution, so the features' distribution gives it away.
    """
    scale = nn.Conv2d(3, 3, 1, groups=3)
    with torch.no_grad():
        scale.weight.uniform_(0.5, 2)
    return nn.Sequential(nn.AvgPool2d(8), scale)


def broken_promises(checks: Iterable[Callable[[T], None]], subject: T) -> list[str]:
    """Run contract checks on a plugin: one line for each that fails, the check's name and what it saw."""
    broken = []
    for check in checks:
        try:
            check(subject)
        except AssertionError as error:
            broken.append(f"{check.__name__.strip('_').replace('_', ' ')}: {error}")
    return broken


@contextmanager
def left_as_found(*modules: nn.Module, tensors: tuple[Tensor, ...] = ()) -> Iterator[None]:
    """Assert that a block changes nothing in modules (state, modes, gradients, hooks) and tensors.

    The check runs also when the block raises.

    Raises:
        AssertionError: something changed; the message says what.
    """
    before, copies = [_snapshot(module) for module in modules], [tensor.clone() for tensor in tensors]
    try:
        yield
    finally:
        for tensor, copy in zip(tensors, copies, strict=True):
            assert torch.equal(tensor, copy), "it changed a tensor that it was given"
        for module, (state, facts) in zip(modules, before, strict=True):
            new_state, new_facts = _snapshot(module)
            assert facts == new_facts, "it changed the mode, the gradients' need or the hooks of a given module"
            assert state.keys() == new_state.keys(), "it changed the structure of a given module"
            changed = [key for key in state if not torch.equal(state[key], new_state[key])]
            assert not changed, f"it changed the weights of a given module: {', '.join(changed)}"


def _snapshot(module: nn.Module) -> tuple[dict[str, Tensor], list[Any]]:
    state = {key: value.clone() for key, value in module.state_dict().items()}
    facts: list[Any] = [(name, parameter.requires_grad) for name, parameter in module.named_parameters()]
    for name, part in module.named_modules():
        hooks = [len(part._forward_hooks), len(part._forward_pre_hooks), len(part._backward_hooks)]
        facts.append((name, part.training, hooks))
    return state, facts
