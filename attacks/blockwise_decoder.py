"""A decoder whose blocks are also taught what the victim computes at their depth."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from splitleak.attacks.base import Staged
from splitleak.attacks.decoder import ByDecoder
from splitleak.attacks.edge import Edge
from splitleak.attacks.grid import grid_shape
from splitleak.attacks.knowledge import WhiteBox
from splitleak.attacks.learning import learned
from splitleak.attacks.networks.residual import ResidualDecoder
from splitleak.attacks.networks.staged import StagedDecoder
from splitleak.victims.settings import doc
from splitleak.victims.tensors import to_float
from splitleak.victims.training import Batch

STEADY = 1e-6
"""Spread below which a channel of an activation is the same on all photos."""
PHOTOS = 64
"""Of the adversary's own, on which the spread of activations is measured."""


@dataclass(frozen=True)
class BlockwiseDecoder(ByDecoder[WhiteBox]):
    """Train ``decoder`` so that each of its blocks also gives the victim's own activation at that depth.

    Who holds the device's half sees what it computes on the way to a release. A block of the decoder ends where its
    grid doubles; what it gives there, through a 1x1 convolution, is to be the victim's last activation on a grid of
    that size, each channel in units of its own spread. These errors teach and choose nothing: the weights kept are
    those with the least error of the picture on validation photos, and the convolutions are thrown away. Where the
    victim has no grid of a block's size, that block learns from the picture alone.
    """

    paper: ClassVar[str] = (
        "Zhang, Chen, Kundu, Liu, Peng, Beerel, C2PI: An Efficient Crypto-Clear Two-Party Neural Network Private "
        "Inference, DAC 2023 (DINA)"
    )

    weight: Annotated[float, Ge(0), doc("of the blocks' mean squared error, beside the picture's")] = 0.01

    def fit(self, knows: WhiteBox) -> Staged:
        """Train on the auxiliary pairs and on what the device's half computes on the same photos."""
        decoder = self._taught(knows).decoder.eval().requires_grad_(False)
        return StagedDecoder(decoder, decoder.layers, lambda images: images)

    def _taught(self, knows: WhiteBox) -> "_Taught":
        form = self.decoder.form(knows)
        decoder = form.network
        assert isinstance(decoder, ResidualDecoder)
        form.begin(knows)
        depths = _Depths(knows)
        taught = _Taught(decoder, grid_shape(knows.release_shape), depths.channels).to(knows.device)

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            release, images = batch
            answer, told = model(release)
            error = form.loss(answer.float(), images)
            if not (model.training and told):
                return error
            true = depths(images)
            return error + self.weight * torch.stack([F.mse_loss(told[grid], true[grid]) for grid in told]).mean()

        pairs = knows.pairs(batch_size=self.batch_size or form.batch_size)
        held_out = knows.pairs("validation", shuffle=False)
        taught.load_state_dict(learned(taught, form.recipe, pairs, held_out, loss, knows))
        return taught


Grid = tuple[int, int]


class _Depths:
    """Images (n, 3, h, w) -> by grid the victim's last activation on it, standardised (n, c, *grid)."""

    def __init__(self, knows: WhiteBox) -> None:
        self.edge: Edge = knows.edge
        photos = to_float(knows.images["auxiliary"][:PHOTOS].to(knows.device))
        seen = self._seen(photos)
        self.mean = {grid: maps.mean((0, 2, 3), keepdim=True) for grid, maps in seen.items()}
        self.spread = {grid: maps.std((0, 2, 3), keepdim=True) for grid, maps in seen.items()}

    @property
    def channels(self) -> dict[Grid, int]:
        """Of each grid's activation."""
        return {grid: mean.shape[1] for grid, mean in self.mean.items()}

    def __call__(self, images: Tensor) -> dict[Grid, Tensor]:
        return {
            grid: torch.where(self.spread[grid] > STEADY, (maps - self.mean[grid]) / self.spread[grid], 0)
            for grid, maps in self._seen(images).items()
        }

    @torch.no_grad()
    def _seen(self, images: Tensor) -> dict[Grid, Tensor]:
        """By grid the last maps that a layer of the device's half makes."""
        found: dict[Grid, Tensor] = {}

        def note(layer: nn.Module, inputs: object, maps: object) -> None:
            if isinstance(maps, Tensor) and maps.ndim == 4 and len(maps) == len(images):
                found[(maps.shape[2], maps.shape[3])] = maps.detach()

        hooks = [layer.register_forward_hook(note) for layer in self.edge.modules()]
        try:
            self.edge.features(images)
        finally:
            for hook in hooks:
                hook.remove()
        return found


class _Taught(nn.Module):
    """A decoder, and what its blocks tell of the activations on their grids.

    ``begins``: channels, rows and columns of the release as a grid. ``channels``: of the activation on each grid.
    """

    def __init__(self, decoder: ResidualDecoder, begins: tuple[int, int, int], channels: Mapping[Grid, int]) -> None:
        super().__init__()
        self.decoder = decoder
        self.heads = nn.ModuleDict()
        _, rows, columns = begins
        for number, stage in enumerate(decoder.stages[:-1]):
            grid = (rows := 2 * rows, columns := 2 * columns)
            if grid in channels:
                convolution = stage[-2]  # the shuffle behind it turns channels into places
                assert isinstance(convolution, nn.Conv2d)
                self.heads[str(number)] = nn.Conv2d(convolution.out_channels // 4, channels[grid], 1)

    def forward(self, release: Tensor) -> tuple[Tensor, dict[Grid, Tensor]]:
        """Images (n, 3, h, w) in [0, 1], and by grid the activation (n, c, *grid) in units of its spread."""
        maps, told = self.decoder.standard(release), {}
        for number, stage in enumerate(self.decoder.stages):
            maps = stage(maps)
            if str(number) in self.heads:
                told[(maps.shape[2], maps.shape[3])] = self.heads[str(number)](maps)
        return self.decoder.painted(maps), told
