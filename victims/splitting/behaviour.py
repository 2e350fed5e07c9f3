"""What a network computes, by running it: what a split network is held against."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from splitleak.victims.errors import InvalidInputError
from splitleak.victims.seeding import seeded
from splitleak.victims.splitting.twin import twin

PHOTOS = 3
SAME = 1e-5
"""Largest difference between two ways to compute the same, as a share of the largest value."""
SAME_IN_TRAINING = 1e-3
"""The same where batch statistics of a few values magnify each rounding."""
SAME_IN_ANY_LAYOUT = 1e-2
"""The same where other kernels run through the whole of a deep network."""
SAME_IN_ANY_BATCH = 1e-3
"""The same where a library chooses its kernels by the size of the batch."""


def photos(size: int, count: int = PHOTOS) -> Tensor:
    """Normalised noise (count, 3, size, size), always the same."""
    with seeded("photos to split with"):
        return torch.randn(PHOTOS, 3, size, size)[:count]


def apart(one: Tensor, other: Tensor) -> float:
    """Largest difference as a share of the largest value; infinite between shapes, zero between equal NaNs."""
    if one.shape != other.shape or one.isfinite().ne(other.isfinite()).any():
        return float("inf")
    if not one.numel():
        return 0.0
    one, other = one.detach().double().nan_to_num(), other.detach().double().nan_to_num()
    return float((one - other).abs().max() / other.abs().max().clamp_min(torch.finfo(torch.float32).tiny))


@dataclass(frozen=True)
class Behaviour:
    """Outputs for the same photos in eval mode and, with the same draws, in training mode; the buffers after that."""

    evaluated: Tensor
    trained: Tensor
    buffers: Mapping[str, Tensor]

    @classmethod
    def of(cls, *parts: nn.Module, size: int) -> "Behaviour":
        """Of modules that run one after another; they stay as they are.

        Raises:
            ValueError: a part returned something else than one tensor, or wrote into what it was given.
        """
        copies, images = twin(nn.ModuleList(parts)), photos(size)
        with torch.no_grad(), seeded("behaviour"):
            evaluated = _run(copies.eval(), images)
        with torch.no_grad(), seeded("behaviour"):
            trained = _run(copies.train(), images)
        buffers = {name: value for part in copies for name, value in part.named_buffers()}
        return cls(evaluated, trained, buffers)

    def difference(self, right: "Behaviour") -> str | None:
        """How this differs from what is right; None where it does not."""
        if apart(self.evaluated, right.evaluated) > SAME:
            return "in eval mode its output is another"
        if apart(self.trained, right.trained) > SAME_IN_TRAINING:
            return "in training mode its output is another"
        for name, value in right.buffers.items():
            if name in self.buffers and apart(self.buffers[name], value) > SAME_IN_TRAINING:
                return f"in training mode '{name}' does not move as it should"
        return None


def by_channels(module: nn.Module, size: int) -> Tensor:
    """The outputs in eval mode with photos and weights laid out by channels, as everything runs here."""
    copied, layout = twin(module).eval(), torch.channels_last
    with torch.no_grad(), seeded("behaviour"):
        outputs: Tensor = copied.to(memory_format=layout)(photos(size).to(memory_format=layout))
    return outputs


def _run(parts: nn.ModuleList, images: Tensor) -> Tensor:
    value = images
    for part in parts:
        given = value.clone()
        output = _tensor(part(value), len(images))
        # what it was given is a cached release or a photo, which others read too
        if not torch.equal(value, given):
            raise ValueError("it writes into its input")
        value = output
    return value


def _tensor(output: Any, count: int) -> Tensor:
    if not isinstance(output, Tensor) or output.ndim == 0 or len(output) != count:
        raise ValueError("it returns something else than one tensor with a row for each photo")
    return output


def check_network(module: nn.Module, size: int) -> None:
    """Whether a network may be split.

    Raises:
        InvalidInputError: it cannot take the photos, draws at random in eval mode, changes from pass to pass, mixes
            the photos of a batch, or returns more than one tensor.
    """
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise InvalidInputError("this network holds TorchScript, which cannot be split: give it as a Python module")
    images = photos(size)
    copied = twin(module).eval()
    before = images.clone()
    first = _checked(copied, images, size)
    if not torch.equal(images, before):
        raise InvalidInputError("this network writes into the photos that it is given: let it work on a copy of them")
    for seed, reason in (
        (0, "changes from one pass to the next in eval mode"),
        (1, "draws at random in eval mode, so its features are other ones each time: leave that to a defence"),
    ):
        if apart(_checked(copied, images, size, seed), first) > SAME:
            place = _first_difference(copied, (images, 0), (images, seed))
            raise InvalidInputError(f"this network {reason} (first seen {place})")
    if apart(_checked(copied, images[:1], size), first[:1]) > SAME_IN_ANY_BATCH:
        place = _first_difference(copied, (images, 0), (images[:1], 0))
        raise InvalidInputError(
            "in eval mode this network's output for a photo depends on the other photos of the batch "
            f"(first seen {place}): normalise with running statistics, or over each photo"
        )


def right_behaviour(module: nn.Module, size: int) -> Behaviour:
    """Of a network itself.

    Raises:
        InvalidInputError: it cannot be run in training mode.
    """
    try:
        return Behaviour.of(module, size=size)
    except Exception as error:  # whatever its code raises, it cannot be trained
        raise InvalidInputError(f"this network fails in training mode: {_line(error)}") from None


def _checked(module: nn.Module, images: Tensor, size: int, seed: int = 0) -> Tensor:
    try:
        with torch.no_grad(), seeded("check", seed):
            output = module(images)
    except Exception as error:
        # whatever the network of a user raises on a photo, it is the answer to "can it take one?"
        raise InvalidInputError(f"this network cannot take {size} px images: {_line(error)}") from None
    try:
        return _tensor(output, len(images))
    except ValueError:
        raise InvalidInputError("this network returns more than one tensor: let it return its logits alone") from None


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _first_difference(module: nn.Module, one: tuple[Tensor, int], other: tuple[Tensor, int]) -> str:
    """Where two runs (photos, seed) part, by what goes into modules and comes out of them."""
    rows = min(len(one[0]), len(other[0]))
    seen: list[dict[str, Tensor]] = []
    for images, seed in (one, other):
        with _recorded(module) as values, torch.no_grad(), seeded("check", seed):
            module(images)
        seen.append(values)
    for place, value in seen[0].items():
        again = seen[1].get(place)
        if again is None or apart(value[:rows], again[:rows]) > SAME_IN_ANY_BATCH:
            return place
    return "in its output"


@contextmanager
def _recorded(module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """The tensor that each module was given last, and the one that it gave, in their order."""
    seen: dict[str, Tensor] = {}

    def note(place: str, value: Any) -> None:
        if isinstance(value, Tensor) and value.ndim:
            seen.pop(place, None)
            seen[place] = value.detach().clone()

    def watch(name: str, part: nn.Module) -> list[Any]:
        return [
            part.register_forward_pre_hook(lambda part, given: note(f"before '{name}'", given[0] if given else None)),
            part.register_forward_hook(lambda part, given, output: note(f"at '{name}'", output)),
        ]

    handles = [handle for name, part in module.named_modules() if name for handle in watch(name, part)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
