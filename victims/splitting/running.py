"""Running the real network: the last way, for networks whose code no tracer can follow.

The encoder is the network, stopped behind a module; the tail is the network with the features put in that module's
place. That is right where nothing else crosses, which is tried out: with other photos before the cut, the tail must
give the same.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from splitleak.victims.splitting.behaviour import SAME, apart, photos
from splitleak.victims.splitting.cut import RUN, Cut
from splitleak.victims.splitting.twin import twin


class ReachedError(Exception):
    """A forward pass has come to the cut."""


class _InPlaceOf(nn.Module):
    """Stands where a module stood; whoever looks at that module's attributes still finds them."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


class Stop(_InPlaceOf):
    """A module behind which a forward pass ends."""

    def forward(self, *given: Any, **options: Any) -> Any:
        """Never returns.

        Raises:
            ReachedError: always; it carries the module's output.
        """
        raise ReachedError(self.module(*given, **options))


class Put(_InPlaceOf):
    """Gives the features that its tail was given, whatever comes in."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.given: tuple[Tensor, list[Tensor]] | None = None

    def forward(self, *given: Any, **options: Any) -> Tensor:
        """A copy of them, for what follows may write into it; what was drawn on the way here was never drawn."""
        assert self.given is not None
        features, (state, *of_devices) = self.given
        torch.set_rng_state(state)
        if of_devices:
            torch.cuda.set_rng_state_all(of_devices)
        return features.clone()


class Blank(nn.Module):
    """Stands for a module before the cut: zeros of its output's shape, for what is computed from them is not used."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor, *given: Any, **options: Any) -> Tensor:
        """Zeros with a row for each row of ``x``."""
        return x.new_zeros(len(x), *self.shape)


class Plain(nn.Module):
    """A network whose own code runs: its memory stays laid out as that code expects."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Plain":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for parameter in self.parameters():
            parameter.data = parameter.data.contiguous()
        return self


class Whole(Plain):
    """The uncut network."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalised photos to logits."""
        logits: Tensor = self.network(x.contiguous().clone())
        return logits


class RunEncoder(Plain):
    """The network up to a module."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalised photos to the module's output."""
        try:
            self.network(x.contiguous().clone())
        except ReachedError as reached:
            features: Tensor = reached.args[0]
            return features
        raise RuntimeError("the network did not come to the cut")


class RunTail(Plain):
    """The network behind the module ``cut``, which a ``Put`` stands for; ``photo``: the shape of one photo."""

    def __init__(self, network: nn.Module, cut: str, photo: Sequence[int]) -> None:
        super().__init__(network)
        self.cut, self.photo = cut, tuple(photo)

    def forward(self, features: Tensor) -> Tensor:
        """The module's output to logits."""
        put = self.network.get_submodule(self.cut)
        assert isinstance(put, Put)
        states = torch.cuda.get_rng_state_all() if features.is_cuda else []
        put.given = features.contiguous(), [torch.get_rng_state(), *states]
        try:
            logits: Tensor = self.network(features.new_zeros(len(features), *self.photo))
        finally:
            put.given = None
        return logits


@dataclass
class _Calls:
    """Of one module in a forward pass: when it began and ended, and its output's shape for one photo."""

    began: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    shapes: list[tuple[int, ...] | None] = field(default_factory=list)
    takes_photos: bool = True

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Of a module that is called once with a tensor and gives one."""
        return self.shapes[0] if len(self.shapes) == 1 and self.takes_photos else None


class Running:
    """A network that is taken apart by running it."""

    way = RUN
    text = RUN
    """What is known of its operations: none are."""

    def __init__(self, module: nn.Module, size: int) -> None:
        self.images = photos(size)
        self.photo = self.images.shape[1:]
        self.calls = _calls(module, self.images)
        self.network = twin(module).eval()
        self.total = _macs(self.network, self.images)

    def whole(self, module: nn.Module) -> nn.Module:
        """Normalised photos to logits, by this module's own weights."""
        return Whole(module)

    def cuts(self) -> list[Cut]:
        """In the order in which the modules end."""
        return [self.describe(name) for name in sorted(self.names(), key=self.position) if self.is_valid(name)]

    def names(self) -> set[str]:
        """Of all modules that run."""
        return {name for name, calls in self.calls.items() if name and calls.began}

    def position(self, name: str) -> int:
        """In the order in which the modules end."""
        return self.calls[name].ended[-1]

    def is_valid(self, name: str) -> bool:
        """Whether other photos before the cut change nothing behind it, and something is left to compute."""
        if self.calls[name].shape is None:
            return False
        encoder, tail = RunEncoder(stopped(self.network, name)), RunTail(put(self.network, name), name, self.photo)
        with torch.no_grad():
            right = self.network(self.images)
            try:
                features = encoder(self.images)
                return apart(tail(features), right) <= SAME and not torch.equal(features, right)
            except Exception:  # where the network's own code does not get on with zeros is no place to cut it
                return False

    def describe(self, name: str) -> Cut:
        """The cut behind a module that is called once."""
        shape = self.calls[name].shape
        assert shape is not None
        edge = _macs(RunEncoder(stopped(self.network, name)), self.images)
        return Cut(name, name, shape, edge, self.total, self.way)

    def halves(self, name: str, module: nn.Module) -> tuple[nn.Module, nn.Module]:
        """Of copies of ``module``; what only the other half runs is left out of each, where it can be."""
        first, last = self.calls[name].began[0], self.calls[name].ended[0]
        later: dict[str, nn.Module] = {}
        earlier: dict[str, nn.Module] = {name: nn.Identity()}
        for other, calls in self.calls.items():
            if not other or not calls.began or _is_inside(other, name) or _is_inside(name, other):
                continue
            if min(calls.began) > last:
                later[other] = nn.Identity()
            if max(calls.ended) < first and calls.shape is not None:
                earlier[other] = Blank(calls.shape)
        shape = self.calls[name].shape
        assert shape is not None
        encoder = _lighter(lambda n: RunEncoder(stopped(n, name)), module, later, self.images)
        features = torch.zeros(len(self.images), *shape)
        return encoder, _lighter(lambda n: RunTail(put(n, name), name, self.photo), module, earlier, features)


def stopped(network: nn.Module, name: str) -> nn.Module:
    """A copy that stops behind a module."""
    copied = twin(network)
    copied.set_submodule(name, Stop(copied.get_submodule(name)))
    return copied


def put(network: nn.Module, name: str) -> nn.Module:
    """A copy with a place for features instead of a module."""
    copied = twin(network)
    copied.set_submodule(name, Put(copied.get_submodule(name)))
    return copied


def _lighter(
    make: Callable[[nn.Module], nn.Module], network: nn.Module, replaced: Mapping[str, nn.Module], given: Tensor
) -> nn.Module:
    """A half without what it does not run, or with it where the network's own code looks at it all the same."""
    light = twin(network)
    for name, other in replaced.items():
        _replace(light, name, other)
    try:
        half = make(light)
        with torch.no_grad():
            twin(half).eval()(given)
    except Exception:  # a network's own code raises what it likes where a part of it is missing
        return make(network)
    return half


def _is_inside(name: str, outer: str) -> bool:
    return name == outer or name.startswith(f"{outer}.")


def _replace(network: nn.Module, name: str, other: nn.Module) -> None:
    """Unless a module around it was replaced already."""
    try:
        network.get_submodule(name)
    except AttributeError:
        return
    network.set_submodule(name, other)


def _calls(module: nn.Module, images: Tensor) -> dict[str, _Calls]:
    """Of each module by its name, outer ones before those in them."""
    network = twin(module).eval()
    calls = {name: _Calls() for name, _ in network.named_modules()}
    clock = itertools.count()

    def watch(part: nn.Module, seen: _Calls) -> None:
        def begin(part: nn.Module, given: Any) -> None:
            seen.began.append(next(clock))
            seen.takes_photos &= bool(given) and isinstance(given[0], Tensor) and len(given[0]) == len(images)

        def end(part: nn.Module, given: Any, output: Any) -> None:
            seen.ended.append(next(clock))
            rows = isinstance(output, Tensor) and output.is_floating_point() and len(output) == len(images)
            seen.shapes.append(tuple(output.shape[1:]) if rows else None)

        part.register_forward_pre_hook(begin)
        part.register_forward_hook(end)

    for name, part in network.named_modules():
        watch(part, calls[name])
    with torch.no_grad():
        network(images)
    return calls


def _macs(module: nn.Module, images: Tensor) -> int:
    """Multiply-adds for one photo."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(images)
    flops: int = counter.get_total_flops()
    return flops // 2 // len(images)
