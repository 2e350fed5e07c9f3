"""Networks that make a plausible photo of a blurred one: a small U-Net, and a critic of patches."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitleak.attacks.networks.standard import Arrived, Standardised

WIDTHS = (24, 48, 96, 128)
"""Channels at a half, a fourth, an eighth and a sixteenth of the photo's sides: 1.3 million weights."""
GROUPS = 8
LEAK = 0.2
"""Slope of the critic's LeakyReLU below zero."""


class Painter(nn.Module):
    """(release (n, ...), answer (n, 3, h, w)) -> photo (n, 3, h, w), not yet clipped to [0, 1].

    One step of a flow from a regression's answer to a photo (Ren et al., FIA-Flow, CVPR 2026): the network says in
    which direction the photo lies, and the whole way is gone at once. It begins with no step at all. The release
    comes in at the coarsest grid: the answer holds of it what squared error rewards, and no more.
    """

    def __init__(self, release_shape: tuple[int, ...], arrived: Arrived | None = None) -> None:
        super().__init__()
        self.standard = Standardised(release_shape, arrived)
        self.release = nn.Conv2d(self.standard.channels, WIDTHS[-1], 1)
        self.first = nn.Conv2d(12, WIDTHS[0], 3, padding=1)
        pairs = list(pairwise(WIDTHS))
        self.down = nn.ModuleList(_Block(width) for width in WIDTHS[:-1])
        self.narrow = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs)
        self.middle = nn.Sequential(_Block(WIDTHS[-1]), _Block(WIDTHS[-1]))
        self.widen = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in reversed(pairs))
        self.up = nn.ModuleList(_Block(width) for width in reversed(WIDTHS[:-1]))
        self.last = nn.Conv2d(WIDTHS[0], 3, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, release: Tensor, answer: Tensor) -> Tensor:
        """Paint; sides that do not halve often enough are padded on the way."""
        height, width = answer.shape[2:]
        unit = 2 ** len(WIDTHS)
        padded = F.pad(answer, (0, -width % unit, 0, -height % unit), mode="replicate")
        x = self.first(F.pixel_unshuffle(padded - 0.5, 2))
        seen: list[Tensor] = []
        for block, narrow in zip(self.down, self.narrow, strict=True):
            seen.append(block(x))
            x = narrow(seen[-1])
        told = self.release(self.standard(release))
        x = self.middle(x + F.interpolate(told, x.shape[2:], mode="bilinear"))
        for widen, block in zip(self.widen, self.up, strict=True):
            x = block(seen.pop() + F.interpolate(widen(x), scale_factor=2))
        # enlarged first: four colours at once for each place, from a shuffle, left a grid of single pixels
        step: Tensor = self.last(F.interpolate(x, scale_factor=2, mode="bilinear"))
        return answer + step[..., :height, :width]


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut; each photo is normalised by itself, as a critic must not see a batch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(GROUPS, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(GROUPS, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        moved: Tensor = x + self.layers(x)
        return moved


class PatchCritic(nn.Module):
    """Tells patches of photos (higher scores) from painted ones: two images (n, 3, h, w) -> (n, 1, rows, columns).

    The second is the answer that the painter began with, so that a patch must also fit what is known (Isola et al.,
    Image-to-Image Translation with Conditional Adversarial Networks, CVPR 2017). Hinge loss, spectral
    normalisation (Miyato et al., ICLR 2018). It is trained as it is used, see ``learn``.
    """

    def __init__(self, width: int, learning_rate: float) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.spectral_norm
        layers: list[nn.Module] = []
        for source, target in ((6, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [norm(nn.Conv2d(source, target, 4, stride=2, padding=1)), nn.LeakyReLU(LEAK)]
        self.layers = nn.Sequential(*layers, norm(nn.Conv2d(4 * width, 1, 3, padding=1)))
        self.optimizer = torch.optim.Adam(self.layers.parameters(), learning_rate, betas=(0.5, 0.99))

    def forward(self, images: Tensor, answer: Tensor) -> Tensor:
        """Scores."""
        scores: Tensor = self.layers(2 * torch.cat([images, answer], 1) - 1)
        return scores

    def learn(self, images: Tensor, painted: Tensor, answer: Tensor) -> None:
        """One step on photos and on what was painted of them."""
        self.layers.requires_grad_(True)
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.relu(1 - self(images, answer)).mean() + F.relu(1 + self(painted, answer)).mean()
        loss.backward()
        self.optimizer.step()
        self.layers.requires_grad_(False)  # the painter's gradient passes through it and moves nothing
