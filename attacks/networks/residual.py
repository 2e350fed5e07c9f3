"""Our default decoder: residual blocks, pixel shuffle, sigmoid."""

from collections.abc import Iterable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitleak.attacks.grid import channels_and_doublings
from splitleak.attacks.networks.standard import Arrived, Standardised

BLOCKS = (2, 2, 1)
"""Residual blocks at the first grid and after each doubling (the last number repeats): most of the depth is
spent where a convolution sees much of the image and costs little."""

NARROWEST = 16
DARKEST = 0.02
"""And one minus the brightest of a picture to begin at: the sigmoid is flat beyond."""


class ResidualDecoder(nn.Module):
    """Release (n, ...) -> images (n, 3, height, width) in [0, 1].

    What the layers paint is added, before the sigmoid, to one picture of its own: ``begin_at`` sets it to the
    mean of the photos to rebuild. Convolutions look the same everywhere and could hardly learn where a face
    sits; from there on they only need to learn what the release tells. The channels start at ``width`` and
    halve with each doubling of the grid (never below 16), so that every stage costs about the same.

    ``straight``: a linear map from each place of the release to the pixels there is added, which begins at nothing.
    A transformer's token tells of more pixels than the first grid has channels, and the layers alone lose what a
    linear map keeps (ViT, tokens of 16 pixels, 1,000 photos: 21.6 -> 25.5 dB). Maps gain nothing or 0.2 dB by it.

    Releases are put on one scale first, see ``standard``: a convolution that begins with weights of one size hears
    the loud features only, and a defence that makes some features loud would pass for a strong one.
    """

    def __init__(
        self,
        release_shape: tuple[int, ...],
        height: int,
        width_px: int,
        width: int,
        arrived: Arrived | None = None,
        straight: bool = False,
    ) -> None:
        super().__init__()
        _, doublings = channels_and_doublings(release_shape, height, width_px)
        self.size = (height, width_px)
        self.standard = Standardised(release_shape, arrived)
        layers: list[nn.Module] = [
            nn.Conv2d(self.standard.channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        for stage in range(doublings):
            narrower = max(width // 2, NARROWEST)
            layers += [_Residual(width) for _ in range(BLOCKS[min(stage, len(BLOCKS) - 1)])]
            layers += _doubling(width, 3 if stage == doublings - 1 else narrower)
            width = narrower
        if not doublings:
            layers += [_Residual(width), nn.Conv2d(width, 3, 3, padding=1)]
        self.layers = nn.Sequential(*layers)
        self.straight = _straight(self.standard.channels, doublings) if straight else None
        self.picture = nn.Parameter(torch.zeros(3, height, width_px))

    @torch.no_grad()
    def begin_at(self, batches: Iterable[Tensor]) -> None:
        """Set the picture to the mean of these images, batches of (n, 3, height, width) in [0, 1]."""
        total, count = torch.zeros_like(self.picture, dtype=torch.float64), 0
        for images in batches:
            total, count = total + images.to(total.device).double().sum(0), count + len(images)
        self.picture.copy_((total / count).clamp(DARKEST, 1 - DARKEST).logit())

    def forward(self, release: Tensor) -> Tensor:
        """Decode."""
        maps = self.standard(release)
        images: Tensor = self.layers(maps)
        return self.painted(images if self.straight is None else images + self.straight(maps))

    @property
    def stages(self) -> list[nn.Sequential]:
        """Its layers in parts: each ends where the grid doubles."""
        ends = [number + 1 for number, layer in enumerate(self.layers) if isinstance(layer, nn.PixelShuffle)]
        return [self.layers[begin:end] for begin, end in pairwise([0, *ends] if ends else [0, len(self.layers)])]

    def painted(self, images: Tensor) -> Tensor:
        """What the layers make -> images; a grid that no power of two brings to their size is resized."""
        if images.shape[2:] != self.size:
            images = F.interpolate(images, self.size, mode="bilinear")
        return torch.sigmoid(images + self.picture)


class _Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., CVPR 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.layers(x))


def _straight(channels: int, doublings: int) -> nn.Sequential:
    """Linear, from each place to its pixels."""
    patches = nn.Conv2d(channels, 3 * 4**doublings, 1, bias=False)
    nn.init.zeros_(patches.weight)
    return nn.Sequential(patches, nn.PixelShuffle(2**doublings))


def _doubling(width: int, target: int) -> list[nn.Module]:
    """Pixel shuffle (Shi et al., CVPR 2016); only the last one, which paints pixels, looks at neighbours."""
    kernel = 3 if target == 3 else 1
    return [nn.Conv2d(width, 4 * target, kernel, padding=kernel // 2), nn.PixelShuffle(2)]
