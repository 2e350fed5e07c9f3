"""Test vectors: drawn pictures, so that no photo of a run travels with a deployment, and what becomes of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from splitleak.defenses.fitting import SplitModel
from splitleak.experiments.tools.deploy.halves import Half
from splitleak.experiments.tools.deploy.runtime import drawn
from splitleak.victims.seeding import seed_of, seeded
from splitleak.victims.tensors import to_bytes, to_float

PICTURES = 3
COARSE = 5
"""Places along each side of a picture that are drawn; between them it is smooth."""


@dataclass(frozen=True)
class Vector:
    """One picture, uint8 (3, h, w), the random numbers that it is sent with, and what the run's own modules make of
    it: the release and the answer without their batch, and the bytes that travel."""

    photo: Tensor
    draws: tuple[Tensor, ...]
    release: Tensor
    packed: bytes
    answer: Tensor


def pictures(shape: tuple[int, ...]) -> Tensor:
    """uint8 (n, *shape), the same on every machine but for rounding."""
    with seeded("vectors"):
        coarse = torch.rand(PICTURES, 3, COARSE, COARSE)
    return to_bytes(F.interpolate(coarse, shape[1:], mode="bilinear", align_corners=True))


@torch.no_grad()
def vectors_of(model: SplitModel, photos: Tensor, edge: Half) -> list[Vector]:
    """Of photos, uint8 (n, 3, h, w), sent one by one by the run's own channel."""
    found = []
    for number, photo in enumerate(photos.split(1)):
        with torch.random.fork_rng():
            seed = seed_of("vector", number)
            torch.manual_seed(seed)
            release = model.edge(to_float(photo))
            answer = model.tail(model.channel.receive(release))
        draws = drawn(edge.described["draws"], torch.Generator().manual_seed(seed))
        found.append(Vector(photo[0], tuple(draws), release[0], model.channel.pack(release[0]), answer[0]))
    return found


def write_vectors(vectors: list[Vector], path: Path) -> None:
    """As arrays, without pickles: photo, release and answer of all, draw_I_J and packed_I of each."""
    stacked = {
        "photo": torch.stack([one.photo for one in vectors]).numpy(),
        "release": torch.stack([one.release for one in vectors]).contiguous().numpy(),
        "answer": torch.stack([one.answer for one in vectors]).numpy(),
    }
    packed = {f"packed_{n}": np.frombuffer(one.packed, np.uint8) for n, one in enumerate(vectors)}
    draws = {f"draw_{n}_{k}": draw.numpy() for n, one in enumerate(vectors) for k, draw in enumerate(one.draws)}
    np.savez_compressed(path, allow_pickle=False, **stacked, **packed, **draws)
