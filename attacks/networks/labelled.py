"""Networks that are told which class a picture shows, and critics that tell real ones of a class from made ones."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitleak.attacks.grid import grid_shape
from splitleak.attacks.networks.residual import ResidualDecoder
from splitleak.attacks.networks.standard import Standardised

NARROWEST, WIDEST = 32, 128
"""Of a critic: channels of its first and of its widest layer; half as many as published."""
LARGE, LARGEST = 16, 4
"""A critic halves a grid wider than the first number at once, and goes on until it has the second."""
LEAK, DROPPED = 0.2, 0.4
"""Slope below zero, and share of a critic's last activations that are dropped as it learns, as published."""


Labelled = tuple[Tensor, Tensor]
"""A grid (n, channels, rows, columns) and the classes (n,) of its pictures."""


class BesideLabel(nn.Module):
    """A grid (n, channels, rows, columns) and classes (n,) -> the grid and one more channel, learned by class."""

    def __init__(self, classes: int, rows: int, columns: int) -> None:
        super().__init__()
        self.planes = nn.Embedding(classes, rows * columns)

    def forward(self, grid: Tensor, labels: Tensor) -> Tensor:
        """(n, channels + 1, rows, columns)."""
        return torch.cat([grid, self.planes(labels).view(-1, 1, *grid.shape[2:])], 1)


class LabelledDecoder(nn.Module):
    """Features (n, *shape) and the class of each picture (n,) -> images (n, 3, height, width) in [0, 1]."""

    def __init__(self, shape: tuple[int, ...], classes: int, height: int, width_px: int, width: int) -> None:
        super().__init__()
        channels, rows, columns = grid_shape(shape)
        self.standard = Standardised(shape)
        self.beside_label = BesideLabel(classes, rows, columns)
        self.decoder = ResidualDecoder((channels + 1, rows, columns), height, width_px, width)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Decode."""
        images: Tensor = self.decoder(self.beside_label(self.standard(features), labels))
        return images


class LabelledCritic(nn.Module):
    """The log-odds that a grid (n, channels, rows, columns) of a class (n,) is a real one: (n, 1).

    Trained as it is used: Mirza & Osindero, Conditional Generative Adversarial Nets, 2014.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, learning_rate: float) -> None:
        super().__init__()
        channels, rows, columns = shape
        self.beside_label = BesideLabel(classes, rows, columns)
        width, stride = NARROWEST, 2 if max(rows, columns) > LARGE else 1
        layers: list[nn.Module] = [nn.Conv2d(channels + 1, width, 3, stride, padding=1), nn.LeakyReLU(LEAK)]
        rows, columns = -(-rows // stride), -(-columns // stride)
        while max(rows, columns) > LARGEST:
            wider = min(2 * width, WIDEST)
            layers += [nn.Conv2d(width, wider, 3, stride=2, padding=1), nn.BatchNorm2d(wider), nn.LeakyReLU(LEAK)]
            width, rows, columns = wider, -(-rows // 2), -(-columns // 2)
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(DROPPED), nn.Linear(width * rows * columns, 1))
        self.optimizer = torch.optim.Adam(self.parameters(), learning_rate)

    def forward(self, grid: Tensor, labels: Tensor) -> Tensor:
        """Log-odds."""
        odds: Tensor = self.layers(self.beside_label(grid, labels))
        return odds

    def outwit(self, real: Labelled, made: Labelled) -> Tensor:
        """``unconvinced`` by what was made, after one step of learning to tell it from what is real."""
        # half precision would drown the small differences that are left
        with torch.autocast(real[0].device.type, enabled=False):
            self.learn(real, (made[0].detach(), made[1]))
            return self.unconvinced(*made)

    def learn(self, real: Labelled, made: Labelled) -> None:
        """One step, on both kinds."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.softplus(-self(*real)).mean() + F.softplus(self(*made)).mean()
        loss.backward()
        self.optimizer.step()

    def unconvinced(self, made: Tensor, labels: Tensor) -> Tensor:
        """How far it is from taking these for real: the mean -log of the probability, a scalar."""
        return F.softplus(-self(made, labels)).mean()
