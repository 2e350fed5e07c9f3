"""On a GPU training runs under autocast: a trained encoder then gives bfloat16, which every channel must bear."""

from typing import Any

import pytest
import torch

from splitleak.defenses.base import Defense
from splitleak.defenses.chain import Chain
from splitleak.defenses.channel_subset import ChannelSubset
from splitleak.defenses.checks import takes_tokens, toy_channel, toy_of
from splitleak.experiments.planning import plugins
from splitleak.victims.seeding import seeded

LIGHTER: dict[str, dict[str, Any]] = {
    "adversarial_perturbation": {"training_steps": 2},
    "shredder": {"tensors": 2, "steps": 2},
    "cloak": {"steps": 2},
}
ALONE = [
    *(cls.from_mapping(LIGHTER.get(name, {})) for name, cls in plugins.defense_classes().items() if name != "chain"),
    plugins.defense_classes()["shredder"].from_mapping({"tensors": 2, "steps": 2, "sampling": "elementwise"}),
]
SUBSET = ChannelSubset(0.5)
CHAINS = [
    Chain(parts)
    for defense in ALONE
    # who trains anew accounts for every photo, and a subset looks at them; who has its own cloud goes with none
    if defense.retrains != "anew" and type(defense).cloud is Defense.cloud and not takes_tokens(defense)
    for parts in ((SUBSET, defense), (defense, SUBSET))
]


@pytest.mark.parametrize("defense", [*ALONE, *CHAINS], ids=lambda one: " ".join(map(str, one.to_mapping().values())))
def test_every_channel_bears_bfloat16(defense: Defense) -> None:
    calibration = toy_of(defense)
    channel, _ = toy_channel(defense, calibration)
    objective = defense.objective(calibration, channel)
    batch = next(calibration.batches())
    calibration.encoder.requires_grad_(True)
    with seeded("half"), torch.autocast("cpu", torch.bfloat16):
        features = calibration.encoder(batch.images)
        assert features.dtype == torch.bfloat16
        release = channel.send(features)
        received = channel.receive(release)
        logits = calibration.tail(received)
        loss = torch.nn.functional.cross_entropy(logits.float(), batch.labels)
        if objective is not None:
            loss = loss + objective(batch.images, features, release, logits, batch.labels)
    loss.backward()
    assert received.shape == features.shape
    assert channel.arrived(release).shape == release.shape
    assert bool(loss.isfinite())
    gradients = [parameter.grad for parameter in calibration.encoder.parameters()]
    assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)
