"""Bounds on what can be rebuilt from one protected edge device, where its noise allows any."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from splitleak.experiments.judge.metrics.bounds import Bounds, bounds
from splitleak.experiments.stages.attack import EdgeDevice
from splitleak.experiments.stages.protect import ProtectStage
from splitleak.experiments.store.key import Stage
from splitleak.experiments.store.store import Store
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import to_float

PHOTOS = 32
PRIOR = 2000
"""Auxiliary photos whose covariance stands for the prior: a singular value decomposition of so many takes seconds."""


@dataclass(frozen=True)
class BoundsStage(Stage):
    """Takes the information on photos of the validation part: bounds are about the device, not about the targets."""

    label: ClassVar[str] = "bounds"

    protect: ProtectStage

    def compute(self, folder: Path, store: Store) -> None:
        """bounds.json: null where the channel adds no Gaussian noise, or images get noise of their own."""
        device, found = EdgeDevice(self.protect, store), None
        guarantee = device.model.channel.guarantee()
        if guarantee is not None and guarantee.noise_std is not None and not device.model.perturbs:

            def sent(images: Tensor) -> Tensor:
                with seeded("bounds", self.protect.seed):
                    release: Tensor = device(images)
                return release

            images = to_float(self.protect.images("validation", store)[:PHOTOS].to(store.device))
            prior = to_float(self.protect.images("auxiliary", store)[:PRIOR])
            with seeded("probes", self.protect.seed):
                found = bounds(sent, images, guarantee.noise_std, prior)
        (folder / "bounds.json").write_text(json.dumps(found and asdict(found)))

    def load(self, store: Store) -> Bounds | None:
        """The bounds, None where there are none."""
        facts = json.loads((store.folder(self) / "bounds.json").read_text())
        return Bounds(**facts) if facts else None
