"""Look at a protected edge device from outside: does its defence do what its row in the report says?"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from splitleak.attacks.mixture import patterns_added
from splitleak.defenses.base import Guarantee
from splitleak.experiments.judge.metrics.epsilon import audited_epsilon
from splitleak.experiments.judge.metrics.seen import Probe
from splitleak.experiments.stages.attack import EdgeDevice
from splitleak.experiments.stages.protect import ProtectStage
from splitleak.experiments.store.key import Stage
from splitleak.experiments.store.store import Store
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import BATCH, to_float

PHOTOS = 16
SENT_TWICE = 64
"""Photos, at most, on which it is tried whether a few patterns explain what a random device adds."""
PLACED = 0.01
"""Share of a release by which it may depend on the photo's place in the batch: sums are rounded in another order."""
STRETCHES = (10.0, 1000.0)
"""Features are multiplied with these: where a sensitivity is enforced, the larger moves the release no further."""


@dataclass(frozen=True)
class ProbeStage(Stage):
    """A probe of one protected victim."""

    label: ClassVar[str] = "probe"

    protect: ProtectStage

    def compute(self, folder: Path, store: Store) -> None:
        """probe.json."""
        device, plain = (EdgeDevice(stage, store) for stage in (self.protect, self.protect.victim))
        images = to_float(self.protect.images("validation", store)[:PHOTOS].to(store.device))
        guarantee = device.model.channel.guarantee()
        with torch.no_grad(), seeded("probe", self.protect.seed):
            features, undefended = device.model.features(images), plain(images)
            first, second = device(images), device(images)
            fixed = same(first, second)
            probe = Probe(
                absent=same(first, undefended),
                frozen=(fixed and (claims_noise(guarantee) or placed(device, images, first)))
                or one_shift(first, features),
                patterns=self._patterns(device, store),
                unbounded=claims_epsilon(guarantee) and unbounded(device.model.channel.send, features),
                epsilon_at_least=audited(device.model.channel.send, features, guarantee),
            )
        (folder / "probe.json").write_text(json.dumps(asdict(probe)))

    def _patterns(self, device: EdgeDevice, store: Store) -> int:
        """Of every device that draws at random, whatever it claims."""

        def send(rows: Tensor) -> Tensor:
            return torch.cat([device.resend("validation", some) for some in rows.split(BATCH)])

        return patterns_added(send, min(len(self.protect.images("validation", store)), SENT_TWICE))

    def load(self, store: Store) -> Probe:
        """What was seen."""
        return Probe(**json.loads((store.folder(self) / "probe.json").read_text()))


def claims_epsilon(guarantee: Guarantee | None) -> bool:
    """Whether something is said to be proved of one query."""
    return guarantee is not None and guarantee.protects == "query" and math.isfinite(guarantee.epsilon)


def audited(send: Callable[[Tensor], Tensor], features: Tensor, guarantee: Guarantee | None) -> float | None:
    """A lower bound on the epsilon of one query, from sends of the first of features (n, ...), if one is claimed."""
    if guarantee is None or not claims_epsilon(guarantee):
        return None
    gaussian = guarantee.noise_std is not None and guarantee.delta > 0
    return audited_epsilon(send, features[:1], guarantee.delta, gaussian)


def claims_noise(guarantee: Guarantee | None) -> bool:
    """Whether what is sent is said to be random: noise of size 0 is none, and an epsilon needs some."""
    return claims_epsilon(guarantee) or bool(guarantee and guarantee.noise_std)


def same(first: Tensor, second: Tensor) -> bool:
    """Bit for bit, shapes included."""
    return first.shape == second.shape and torch.equal(first, second)


def one_shift(release: Tensor, features: Tensor) -> bool:
    """Whether all photos (n, ...) got the same addition, which an attacker learns and subtracts."""
    if release.shape != features.shape:
        return False
    added = release - features
    return bool(added.any()) and torch.allclose(added, added[:1].expand_as(added), rtol=1e-3, atol=1e-5)


def placed(send: Callable[[Tensor], Tensor], images: Tensor, release: Tensor) -> bool:
    """Whether a device that does not draw sends another release of a photo in another place of the batch.

    Then what it adds was drawn once for all batches: who sends a known photo in the same place reads it off.
    """
    moved = send(images.roll(1, 0)).roll(-1, 0)
    return float((moved - release).norm()) > PLACED * float(release.norm())


def unbounded(send: Callable[[Tensor], Tensor], features: Tensor) -> bool:
    """Whether ever larger features (n, ...) move the release ever further; the noise is the same in all sends."""

    def sent(stretch: float) -> Tensor:
        with seeded("stretch"):
            return send(stretch * features).double()

    near, far = (float((sent(stretch) - sent(0.0)).norm()) for stretch in STRETCHES)
    return far > STRETCHES[0] * near
