"""Where a network can be split, and the two halves.

A network is traced by torch.fx, else by torch.export, else run up to a module: whichever is first to compute what the
network itself does, in eval mode and in training mode. What none of them can split rightly is refused.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from splitleak.victims.errors import InvalidInputError
from splitleak.victims.models import Network
from splitleak.victims.splitting.behaviour import (
    SAME_IN_ANY_BATCH,
    SAME_IN_ANY_LAYOUT,
    Behaviour,
    apart,
    by_channels,
    check_network,
    photos,
    right_behaviour,
)
from splitleak.victims.splitting.cut import ALIASES, WAYS, Cut, no_such_cut, refused_cut
from splitleak.victims.splitting.running import Running
from splitleak.victims.splitting.traced import TRACERS, Traced
from splitleak.victims.splitting.twin import lively, twin

__all__ = ["ALIASES", "WAYS", "Cut", "Encoder", "Halves", "content_digest", "find_cuts", "split", "uncut"]


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
    """A split network: ``tail(encoder(images))`` equals the uncut network on normalised images, in either mode.

    ``notes``: what a user should know of them.
    """

    encoder: Encoder
    tail: nn.Module
    cut: Cut
    notes: tuple[str, ...] = ()


def find_cuts(network: Network, size: int) -> list[Cut]:
    """Every valid cut in the order of execution, measured on ``size`` px images.

    Raises:
        InvalidInputError: the network cannot be split rightly anywhere; the reason and the place are given.
    """
    return _Apart(network.module, size).parts.cuts()


def split(network: Network, model: str, cut: str, size: int) -> Halves:
    """Split a network at a node; ``model`` is its name, for aliases.

    Raises:
        InvalidInputError: no such node (near names are given), something else than its output would cross (the
            nearest valid cuts are given), or the halves would compute something else than the network.
    """
    taken = _Apart(network.module, size)
    name = ALIASES.get((model, cut), cut)
    taken.check(name, model)
    encoder, tail = taken.parts.halves(name, network.module)
    shared = {id(value) for value in encoder.parameters()} & {id(value) for value in tail.parameters()}
    notes: tuple[str, ...] = ()
    if shared:
        tail = twin(tail)
        notes = ("weights are used on both sides of the cut: device and cloud each hold a copy of them",)
    return Halves(Encoder(encoder, network.mean, network.std), tail, taken.parts.describe(name), notes)


def uncut(network: Network, size: int) -> Encoder:
    """The whole network as one module, images to logits; its weights are the network's own."""
    body = _Apart(network.module, size).parts.whole(network.module)
    return Encoder(body, network.mean, network.std)


def content_digest(network: Network, size: int) -> str:
    """Of what a network computes: its operations, its layers' settings, its weights and its normalisation."""
    parts = _Apart(network.module, size).parts
    digest = hashlib.sha256(repr([parts.text, str(network.module), network.mean, network.std]).encode())
    for name, value in network.module.state_dict().items():
        digest.update(name.encode() + value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class _Apart:
    """A network, and the first way to take it apart that computes what the network does.

    ``probe``: a copy with other weights, on which that is tried.
    """

    def __init__(self, module: nn.Module, size: int) -> None:
        self.module, self.size = module, size
        check_network(module, size)
        self.probe = lively(module)
        self.right = right_behaviour(self.probe, size)
        self.parts = self._first_right()

    def _first_right(self) -> Traced | Running:
        for way in TRACERS:
            try:
                parts = way(self.module, self.size)
                whole = parts.whole(self.probe)
                bears = apart(by_channels(whole, self.size), self.right.evaluated) <= SAME_IN_ANY_LAYOUT
                if bears and self._difference(whole) is None:
                    return parts
            except Exception:
                # a tracer runs the network's code on symbols, on which it may raise anything: the next way may do
                pass
            self.probe = lively(self.module)
        return Running(self.module, self.size)

    def _difference(self, *halves: nn.Module) -> str | None:
        return Behaviour.of(*halves, size=self.size).difference(self.right)

    def check(self, name: str, model: str) -> None:
        """Whether the network can be split there.

        Raises:
            InvalidInputError: it cannot.
        """
        parts = self.parts
        if name not in parts.names():
            raise no_such_cut(model, name, parts.cuts())
        if not parts.is_valid(name):
            raise refused_cut(model, name, self._nearest(name))
        encoder, tail = parts.halves(name, self.probe)
        try:
            wrong = self._difference(encoder, tail)
        except ValueError as error:
            wrong = str(error)
        images = photos(self.size)
        with torch.no_grad():
            together, alone = (twin(encoder).eval()(given) for given in (images, images[:1]))
        if wrong is None and apart(alone, together[:1]) > SAME_IN_ANY_BATCH:
            wrong = "a photo's features depend on the other photos of the batch"
        if wrong is not None:
            raise InvalidInputError(f"{model} cannot be cut at '{name}': {wrong}")

    def _nearest(self, name: str) -> list[Cut]:
        """The valid cuts just before and just behind a place."""
        valid, position = self.parts.cuts(), self.parts.position
        earlier = [cut for cut in valid if position(cut.node) < position(name)]
        later = [cut for cut in valid if position(cut.node) > position(name)]
        return earlier[-1:] + later[:1]
