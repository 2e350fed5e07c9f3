"""The pruner sees an image's maps, learns against a decoder and keeps exactly its share."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitleak.defenses.base import Calibration, CalibrationBatch, Channel
from splitleak.defenses.checks import toy_calibration, toy_channel
from splitleak.defenses.disco import Disco
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import to_float
from splitleak.victims.toy import toy_images

BRIEF = Disco(0.75, steps=3)
HEADER = 120
"""Bytes that a packed release may have beyond its payload."""


def kept_by(channel: Channel, features: Tensor) -> Tensor:
    """Bool (n, channels)."""
    with torch.no_grad():
        return channel.send(features).flatten(2).any(2)


def test_disco_prunes_its_share_of_each_images_channels() -> None:
    channel, features = toy_channel(BRIEF, toy_calibration())
    release = channel.send(features)
    sent = kept_by(channel, features)
    assert sent.sum(1).tolist() == [24] * len(features)
    assert len({tuple(row) for row in sent.tolist()}) > 1  # not the same channels for all images
    assert torch.equal(release[sent], features[sent])
    assert torch.equal(channel.arrived(release)[:, :, 0, 0], sent)
    assert len(channel.pack(release[0])) <= release[0].numel() + 2 * 24 + 2 * HEADER  # a quarter of four bytes each


def test_half_precision_keeps_as_many() -> None:
    channel, features = toy_channel(BRIEF, toy_calibration())
    with torch.autocast("cpu", torch.bfloat16):
        assert kept_by(channel, features).sum(1).tolist() == [24] * len(features)
        release = channel.send(features.bfloat16())
    assert release.dtype == torch.bfloat16
    assert (release != 0).flatten(2).any(2).sum(1).tolist() == [24] * len(features)


def test_a_search_sees_all_channels_and_training_only_those_that_are_sent() -> None:
    channel, features = toy_channel(BRIEF, toy_calibration())
    seen = {}
    for training in (False, True):
        searched = features.clone().requires_grad_()
        channel.train(training).send(searched).sum().backward()
        assert searched.grad is not None
        seen[training] = searched.grad
    assert torch.equal(seen[False], torch.ones_like(features))
    assert torch.equal(seen[True], kept_by(channel, features)[:, :, None, None].expand_as(features).float())


def test_a_dead_channel_is_not_kept() -> None:
    calibration = toy_calibration()
    dead = torch.arange(96) % 4 == 0

    def batches() -> list[CalibrationBatch]:
        return [
            replace(batch, features=batch.features.masked_fill(dead[:, None, None], 0))
            for batch in calibration.batches()
        ]

    channel, features = toy_channel(BRIEF, replace(calibration, batches=lambda: iter(batches())))
    assert kept_by(channel, features).sum(1).tolist() == [24] * len(features)


def _two_kinds() -> tuple[Calibration, Tensor]:
    """Of two groups of four channels one holds the picture and one the label, the other way round in half the photos.

    Returns: the calibration, and which group holds the label.
    """
    with seeded("kinds"):
        images = F.avg_pool2d(to_float(toy_images(128)), 4)
        labels, where = torch.randint(2, (2, 128))
        tail = nn.Sequential(nn.Flatten(), nn.Linear(32, 2))
    picture = F.adaptive_avg_pool2d(images.mean(1, keepdim=True), 2)[:, 0]
    picture = 2 * (picture - picture.mean()) / picture.std()
    label = (2.0 * labels - 1)[:, None, None].expand(-1, 2, 2)
    features = torch.stack([picture, label], 1)
    features[where == 0] = features[where == 0].flip(1)
    features = features.repeat_interleave(4, 1)
    batch = CalibrationBatch(images, features, labels)
    return Calibration(lambda: iter([batch]), nn.Identity(), tail, torch.device("cpu")), where


@pytest.mark.slow
def test_the_pruner_learns_of_each_photo_which_channels_reveal_it() -> None:
    calibration, where = _two_kinds()
    shares = []
    for steps in (1, 500):
        channel, features = toy_channel(Disco(0.5, weight=2.0, steps=steps), calibration)
        kept = kept_by(channel, features).view(-1, 2, 4).float().mean(2)
        shares.append(float(kept[torch.arange(128), where].mean()))
    assert shares[0] < 0.75
    assert shares[1] > 0.8


def test_the_defence_leaves_nothing_of_it_to_train_with_the_tail() -> None:
    channel, features = toy_channel(BRIEF, toy_calibration())
    channel.train().send(features.requires_grad_()).sum().backward()
    assert all(parameter.grad is None for parameter in channel.parameters())


@pytest.mark.parametrize("shape", [(5, 8), (12,)], ids=["tokens", "vector"])
def test_channels_of_tokens_and_vectors_are_pruned(shape: tuple[int, ...]) -> None:
    with seeded("features", shape):
        batch = CalibrationBatch(torch.rand(32, 3, 32, 32), torch.randn(32, *shape), torch.randint(3, (32,)))
        tail = nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), 3))
    calibration = Calibration(lambda: iter([batch]), nn.Identity(), tail, torch.device("cpu"))
    channel, features = toy_channel(Disco(0.5, steps=2), calibration)
    per_photo = channel.send(features).reshape(32, -1, shape[-1]).ne(0).any(1).sum(1)
    assert per_photo.tolist() == [shape[-1] // 2] * 32
