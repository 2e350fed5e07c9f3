"""MyDefense: a defence against reconstruction from the features of split inference."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from splitleak.defenses.base import Calibration, Channel, Defense, Retrains
from splitleak.victims.settings import doc


# A frozen dataclass: its fields are the settings, which may not change once it is made.
@dataclass(frozen=True)
class MyDefense(Defense):
    """Add uniform noise to the features, in units of their root mean square."""

    # Facts of the class. paper: where the idea is from. strength: the setting that a tradeoff curve sweeps, and
    # strengths: values of it, the first close to no defence, each stronger than the one before. retrains: what is
    # trained with the defence in place: the cloud's "tail", the whole "network", or the network "anew".
    paper: ClassVar[str] = "ours"
    strength: ClassVar[str] = "width"
    strengths: ClassVar[tuple[float, ...]] = (0.01, 1.0, 10.0)
    retrains: ClassVar[Retrains] = "tail"

    # A setting: its type, its range (annotated_types: Ge, Gt, Le, Lt), what it means, its default. A plan that
    # gives another type or a value out of range is refused before anything runs.
    width: Annotated[float, Ge(0), doc("width of the noise in units of the features' root mean square")] = 1.0

    # Hooks; each is optional, and a defence without any is no defence. Beside ``channel`` there are:
    #   perturb(image_shape)             noise on the images, before the encoder
    #   objective(calibration, channel)  a term of the training loss
    #   prepare(training, epochs)        wraps model, optimizer and batches, as DP-SGD does
    #   adapt(half)                      changes layers of the encoder or of the tail
    #   statistic(calibration)           what the strength moves; by default the distortion of the features
    def channel(self, shape: tuple[int, ...]) -> Channel:
        """What stands between encoder and tail, for features of this shape (without the batch)."""
        return _MyDefenseChannel(self.width)


class _MyDefenseChannel(Channel):
    unit: Tensor

    # Settings and shapes only: a channel is restored from them and from its state, without the data.
    def __init__(self, width: float) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("unit", torch.zeros(()))

    # What comes from data goes into buffers or parameters. The train part is all that a defender may look at.
    def calibrate(self, calibration: Calibration) -> None:
        self.unit.fill_(calibration.root_mean_square())

    # On the edge: features (n, *shape) -> release (n, ...), which travels and is intercepted. Randomness comes from
    # torch's global generator, afresh on each call; the input must stay as it is.
    def send(self, features: Tensor) -> Tensor:
        return features + self.width * self.unit * (torch.rand_like(features) - 0.5)

    # In the cloud: release -> what the tail takes, of the features' shape. Here what arrives is what it takes.
    def receive(self, release: Tensor) -> Tensor:
        return release

    # Further hooks of a channel: pack and unpack (the bytes that travel for one image), guarantee (what is proved
    # about one send), arrived (where the release holds features), merge (what several sends tell together).


# `splitleak check FILE` says whether the file keeps its contract.
# In a plan, where a path begins at the plan's folder or where the command runs:
#
#   [[defenses]]
#   name = "FILE:MyDefense"
#   width = [0.5, 2.0]  # a list sweeps
