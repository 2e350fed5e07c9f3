"""What of a release the cloud's first layer sees, where that layer is linear."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from splitleak.defenses.base import channel_axis
from splitleak.victims.seeding import seeded

REARRANGES = {"view", "_unsafe_view", "reshape", "permute", "transpose", "t", "clone", "detach", "alias"}
"""Operations that only lay out what they are given: it is what follows that sees it."""
SAME, ZERO = 1e-4, 1e-5
"""Difference, as a share of the largest value, of two ways to compute the same; the same of a singular value."""
VALUES = 2**24
"""Of the probes that run at a time."""
MASKS, PLACES, WHOLE = 16, 1024, 4096
"""Patterns over places that channels are tried with; places, and values of a release, that are tried one by one."""

Linear = Callable[[Tensor], list[Tensor]]


@dataclass(frozen=True)
class Seen:
    """Orthonormal directions of a release that a layer sees.

    A release (n, *shape) is taken apart by ``layout`` into (n, parts, groups, size). ``basis``: (groups, size, rank),
    for each group its directions, zero where it has fewer than the most; ``gains``: (groups, rank) of the layer.
    """

    layout: "Layout"
    basis: Tensor
    gains: Tensor

    @property
    def share(self) -> float:
        """Directions that are seen, of all."""
        return float((self.gains > 0).sum()) / (self.basis.shape[0] * self.basis.shape[1])


@dataclass(frozen=True)
class Layout:
    """``channels``: the same directions at each place; ``places``: each channel has its own; ``whole``: one."""

    form: str
    shape: tuple[int, ...]

    def apart(self, release: Tensor) -> Tensor:
        """(n, *shape) -> (n, parts, groups, size)."""
        rows = release.movedim(channel_axis(self.shape) + 1, -1)
        if self.form == "channels":
            return rows.flatten(1, -2)[:, :, None] if rows.ndim > 2 else rows[:, None, None]
        if self.form == "places":
            return rows.flatten(1, -2).mT[:, None]
        return release.flatten(1)[:, None, None]

    def together(self, values: Tensor) -> Tensor:
        """The other way round."""
        if self.form == "whole":
            return values.reshape(len(values), *self.shape)
        axis = channel_axis(self.shape)
        others = [size for place, size in enumerate(self.shape) if place != axis]
        rows = values[:, :, 0] if self.form == "channels" else values[:, 0].mT
        return rows.reshape(len(values), *others, self.shape[axis]).movedim(-1, axis + 1)


def seen_by(tail: nn.Module, shape: tuple[int, ...], device: torch.device) -> Seen | None:
    """The fewest directions of a release of this shape that hold all that the tail's first layer sees.

    None where they are all: a layer that is not linear, or a sum that the release goes into, may see everything.
    Whatever is found was tried out: the layer answers the same to random releases and to what is left of them.
    """
    layer = first_layer(tail, shape, device)
    if layer is None:
        return None
    found = [seen for seen in _candidates(layer, shape, device) if _holds(seen, layer, device)]
    return min((seen for seen in found if seen.share < 1), key=lambda seen: seen.share, default=None)


def first_layer(tail: nn.Module, shape: tuple[int, ...], device: torch.device) -> Linear | None:
    """releases (n, *shape) -> what all operations make of them that see the release itself, each (n, ...), less what
    they make of zeros; None where that is not linear."""

    @torch.no_grad()
    def outputs(releases: Tensor) -> list[Tensor]:
        with _Watch(releases.clone()) as watch:
            tail(watch.release)
        made: list[Tensor] = watch.outputs
        return made

    @torch.no_grad()
    def linear(releases: Tensor) -> list[Tensor]:
        nothing = outputs(torch.zeros(1, *shape, device=device))
        return [one - zero for one, zero in zip(outputs(releases), nothing, strict=True)]

    one, other = random_releases(2, shape, device).split(1)
    parts = [linear(values) for values in (one, other, one + 2 * other)]
    if not parts[0] or any(len(output) != 1 for output in parts[0]):
        return None
    good = all(_same(first + 2 * second, both) for first, second, both in zip(*parts, strict=True))
    return linear if good else None


def random_releases(count: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Normally distributed, always the same."""
    with seeded("releases"):
        return torch.randn(count, *shape).to(device)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one - other).abs().max() <= SAME * other.abs().max())


class _Watch(TorchDispatchMode):
    """Notes what operations make of a release, however it is laid out."""

    def __init__(self, release: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.release, self.outputs = release, list[Tensor]()
        self._tracked = [release]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if any(given is tracked for given in tree_leaves((args, kwargs)) for tracked in self._tracked):
            tensors = [value for value in tree_leaves(found) if isinstance(value, Tensor) and value.numel()]
            if func.overloadpacket.__name__ in REARRANGES:
                self._tracked += tensors
            else:
                self.outputs += [value.reshape(len(self.release), -1, *value.shape[2:]) for value in tensors]
        return found


def _candidates(layer: Linear, shape: tuple[int, ...], device: torch.device) -> Iterator[Seen]:
    axis, values = channel_axis(shape), int(torch.tensor(shape).prod())
    places = values // shape[axis]
    if len(shape) == 3 and places <= PLACES:
        layout = Layout("places", shape)
        matrices = _of_places(layer, layout, device)
        if matrices is not None:
            yield _directions(layout, matrices)
    if shape[axis] > 1:
        layout = Layout("channels", shape)
        yield _directions(layout, _of_channels(layer, layout, places, device))
    if values <= WHOLE:
        yield _directions(
            Layout("whole", shape), _of_all(layer, torch.eye(values, device=device).view(-1, *shape))[None]
        )


def _of_all(layer: Linear, probes: Tensor) -> Tensor:
    """What it makes of each probe, all in one, float64 (probes, outputs)."""
    chunk = max(1, VALUES // probes[0].numel())
    return torch.cat([torch.cat([one.flatten(1) for one in layer(some)], 1).double() for some in probes.split(chunk)])


def _of_places(layer: Linear, layout: Layout, device: torch.device) -> Tensor | None:
    """For each channel what it makes of each place, (channels, places, outputs); None where it mixes channels."""
    channels, places = layout.shape[0], layout.shape[1] * layout.shape[2]
    release = random_releases(1, layout.shape, device)
    factors = torch.linspace(0.5, 2, channels, device=device)
    plain, scaled = layer(release), layer(release * factors[:, None, None])
    for one, other in zip(plain, scaled, strict=True):
        if one.ndim < 2 or one.shape[1] != channels or not _same(factors[:, None] * one.flatten(2), other.flatten(2)):
            return None
    rows = []
    for some in torch.eye(places, device=device).split(max(1, VALUES // (channels * places))):
        probes = some[:, None].expand(-1, channels, -1).reshape(-1, *layout.shape)
        rows.append(torch.cat([one.flatten(2) for one in layer(probes)], 2).double())
    return torch.cat(rows).movedim(0, 1)


def _of_channels(layer: Linear, layout: Layout, places: int, device: torch.device) -> Tensor:
    """What it makes of each channel under some patterns over places, (1, channels, channels) with the same Gram."""
    axis = channel_axis(layout.shape)
    channels = layout.shape[axis]
    masks = torch.eye(places, device=device) if places <= MASKS else random_releases(MASKS, (places,), device)
    gram = torch.zeros(channels, channels, dtype=torch.float64, device=device)
    for mask in masks:
        probes = torch.eye(channels, device=device)[:, None, None] * mask[:, None]
        made = _of_all(layer, layout.together(probes.movedim(1, 2)))
        gram += made @ made.T
        values, vectors = torch.linalg.eigh(gram)
        if values[0] > ZERO**2 * values[-1]:  # it sees all of them: no further pattern can change that
            break
    root: Tensor = vectors * values.clamp_min(0).sqrt()
    return root[None]


def _directions(layout: Layout, matrices: Tensor) -> Seen:
    """Of matrices (groups, size, outputs): those that any output sees."""
    vectors, gains, _ = torch.linalg.svd(matrices, full_matrices=False)
    gains = torch.where(gains > ZERO * gains.max(), gains, 0.0)
    most = max(1, int((gains > 0).sum(1).max()))
    seen = gains[:, None, :most] > 0
    return Seen(layout, (vectors[:, :, :most] * seen).float(), gains[:, :most].float())


def _holds(seen: Seen, layer: Linear, device: torch.device) -> bool:
    releases = random_releases(4, seen.layout.shape, device)
    left = seen.layout.together(project(seen.layout.apart(releases), seen.basis))
    return all(_same(one, other) for one, other in zip(layer(left), layer(releases), strict=True))


def project(values: Tensor, basis: Tensor) -> Tensor:
    """Values (n, parts, groups, size) onto the directions of each group (groups, size, rank)."""
    along = torch.einsum("npgs,gsr->npgr", values, basis)
    projected: Tensor = torch.einsum("npgr,gsr->npgs", along, basis)
    return projected
