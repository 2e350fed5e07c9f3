"""The floor: what an adversary knows without looking at the release."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from splitleak.attacks.base import Reconstruction, Reconstructor
from splitleak.attacks.knowledge import QueryFree


@dataclass(frozen=True)
class MeanImage(Reconstruction[QueryFree]):
    """Answers every release with the mean of the auxiliary images (the best constant in MSE)."""

    paper: ClassVar[str] = "the floor of any reconstruction; no paper"
    floor: ClassVar[bool] = True

    def fit(self, knows: QueryFree) -> Reconstructor:
        """The mean over the auxiliary part."""
        total = torch.zeros(knows.image_shape, dtype=torch.float64, device=knows.device)
        for images in knows.image_batches():
            total += images.sum(0, dtype=torch.float64)
        mean = (total / len(knows.images["auxiliary"])).float()

        def reconstruct(release: Tensor) -> Tensor:
            return mean.expand(len(release), *mean.shape)

        return reconstruct
