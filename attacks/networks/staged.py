"""A trained decoder as a reconstructor that can be looked into."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from splitleak.attacks.base import Staged


@dataclass(frozen=True)
class StagedDecoder(Staged):
    """``image`` of what ``network`` makes of a release; a stage ends where a convolution of ``layers`` begins."""

    network: nn.Module
    layers: nn.Sequential
    image: Callable[[Tensor], Tensor]

    def __call__(self, release: Tensor) -> Tensor:
        """Decode."""
        return self.image(self.network(release).float())

    def stages(self, release: Tensor) -> list[Tensor]:
        """The maps after each stage but the last, then the images."""
        seen: list[Tensor] = []
        ends = [end for end, begin in pairwise(self.layers) if isinstance(begin, nn.Conv2d | nn.ConvTranspose2d)]
        hooks = [end.register_forward_hook(lambda layer, inputs, maps: seen.append(maps.detach())) for end in ends]
        try:
            images = self(release)
        finally:
            for hook in hooks:
                hook.remove()
        return [*seen, images]
