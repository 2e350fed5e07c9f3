"""Retrieval finds what a slow search in double precision finds, whatever arrived."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from splitleak.attacks.knowledge import BlackBox
from splitleak.attacks.nearest_neighbor import CHUNK, NEIGHBORS, Gallery, NearestNeighbor
from splitleak.attacks.toy import toy_knowledge
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import to_float
from splitleak.victims.toy import toy_images

ROUNDING = 0.01
"""What half precision may add to a root mean squared difference of values of unit variance, generously."""


def numbered(releases: Tensor) -> BlackBox:
    """An adversary with these releases, whose photo number i is a picture of the number i."""
    photos = torch.arange(len(releases), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)
    return BlackBox(
        images={"auxiliary": photos, "validation": photos[:0]},
        intercepted=releases[:1],
        tail=torch.nn.Identity(),
        new_encoder=torch.nn.Identity,
        device=torch.device("cpu"),
        arrived=lambda release: release != 0,
        send=lambda images: torch.zeros(len(images), *releases.shape[1:]),
        resend=lambda part, rows: releases[rows],
    )


def number(images: Tensor) -> list[int]:
    """What the pictures show."""
    return images[:, 0, 0, 0].mul(255).round().int().tolist()


def distances(query: Tensor, releases: Tensor) -> np.ndarray:
    """Root mean squared difference over what is not zero in both, entry by entry in double precision."""
    found = np.full((len(query), len(releases)), np.inf)
    for i, a in enumerate(query.double().flatten(1).numpy()):
        for j, b in enumerate(releases.double().flatten(1).numpy()):
            both = (a != 0) & (b != 0)
            if both.any():
                found[i, j] = math.sqrt(((a[both] - b[both]) ** 2).mean())
    return found


def dropped(values: Tensor, rate: float) -> Tensor:
    return values * (torch.rand_like(values) >= rate)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.sampled_from([(3,), (40,), (7, 5), (4, 3, 2), (6, 4, 4)]),
    count=st.sampled_from([1, 2, 50, CHUNK, CHUNK + 70]),
    rate=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    offset=st.sampled_from([0.0, 100.0]),
    scale=st.sampled_from([1.0, 1e6, 1e-6]),
    draw=st.integers(0, 2**31),
)
def test_equals_a_slow_search(
    shape: tuple[int, ...], count: int, rate: float, offset: float, scale: float, draw: int
) -> None:
    with seeded("search", draw):
        releases = dropped(scale * (offset + torch.randn(count, *shape)), rate)
        query = dropped(scale * (offset + torch.randn(5, *shape)), rate)
    found = number(NearestNeighbor(neighbors=1).fit(numbered(releases))(query))
    oracle = distances(query, releases) / scale
    for row, chosen in zip(oracle, found, strict=True):
        assert row[chosen] <= row.min() + ROUNDING
    if rate == 1.0:
        assert found == [0] * 5, "nothing arrived, all are as far"


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.7])
def test_an_auxiliary_photo_is_found_by_its_own_release(rate: float) -> None:
    knows, encoder = toy_knowledge(NearestNeighbor())
    assert isinstance(knows, BlackBox)
    resend = knows.resend
    knows.arrived = lambda release: release != 0
    knows.resend = lambda part, rows: dropped(resend(part, rows), rate)
    photos = to_float(knows.images["auxiliary"])
    with seeded("own release"), torch.no_grad():
        rebuilt = NearestNeighbor(neighbors=1).fit(knows)(dropped(encoder(photos), rate))
    assert torch.equal(rebuilt, photos)


def test_blanks_are_not_taken_for_features() -> None:
    releases = torch.tensor([[5.0, 5.0, 5.0, 5.0], [0.1, 0.1, 0.1, 0.1], [5.0, 0.0, 0.0, 0.0]])
    knows, query = numbered(releases), torch.tensor([[4.9, 0.0, 0.0, 0.0], [0.0, 5.1, 0.0, 4.9]])
    assert number(NearestNeighbor(neighbors=1).fit(knows)(query)) == [0, 0]
    knows.arrived = lambda release: torch.ones_like(release, dtype=torch.bool)
    assert number(NearestNeighbor(neighbors=1).fit(knows)(query))[0] == 2


def test_the_mean_of_the_nearest_few() -> None:
    knows = numbered(torch.tensor([[9.0], [1.0], [2.0], [4.0]]))
    for neighbors, mean in [(1, 1), (2, 1.5), (3, 2), (4, 1.5), (9, 1.5)]:
        rebuilt = NearestNeighbor(neighbors=neighbors).fit(knows)(torch.tensor([[1.2]]))
        assert float(rebuilt.mean()) * 255 == pytest.approx(mean, abs=1e-4)


def test_the_number_of_neighbors_is_the_best_on_validation_photos() -> None:
    knows, encoder = toy_knowledge(NearestNeighbor())
    assert isinstance(knows, BlackBox)
    rows: list[dict[str, float]] = []
    knows.log = rows.append
    images = to_float(knows.images["validation"])
    with torch.no_grad():
        chosen = NearestNeighbor().fit(knows)(encoder(images))
        errors = {
            neighbors: float(
                (NearestNeighbor(neighbors=neighbors).fit(knows)(encoder(images)) - images).square().mean()
            )
            for neighbors in NEIGHBORS
        }
    assert {int(row["neighbors"]): row["validation_loss"] for row in rows} == pytest.approx(errors)
    assert float((chosen - images).square().mean()) == pytest.approx(min(errors.values()))


def test_where_photos_repeat_the_nearest_one_is_enough() -> None:
    knows, encoder = toy_knowledge(NearestNeighbor())
    assert isinstance(knows, BlackBox)
    knows.images = {"auxiliary": knows.images["auxiliary"], "validation": knows.images["auxiliary"][:8]}
    knows.resend = lambda part, rows: encoder(to_float(knows.images[part][rows]))
    images = to_float(toy_images(384, seed=1)[8:16])
    with torch.no_grad():
        assert torch.equal(NearestNeighbor().fit(knows)(encoder(images)), images)


def test_queries_and_memory() -> None:
    knows, _ = toy_knowledge(NearestNeighbor())
    assert isinstance(knows, BlackBox)
    gallery = Gallery.of(knows)
    assert knows.queries == len(knows.images["auxiliary"])
    assert sum(chunk.nbytes for chunk in gallery.chunks) == 2 * 384 * math.prod(knows.release_shape)
    NearestNeighbor().fit(knows)
    assert knows.queries == 2 * 384 + 64
