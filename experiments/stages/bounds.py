"""Bounds on what can be rebuilt from one protected edge device, where its noise allows any."""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from splitleak.experiments.judge.metrics.bounds import bounds
from splitleak.experiments.judge.metrics.information import fano_rank_1, gaussian_information
from splitleak.experiments.judge.proved import Bounds
from splitleak.experiments.stages.attack import EdgeDevice
from splitleak.experiments.stages.protect import ProtectStage
from splitleak.experiments.store.key import Stage
from splitleak.experiments.store.store import Store
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import BATCH, to_float

PHOTOS = 32
PRIOR = 2000
"""Auxiliary photos whose covariance stands for the prior: a singular value decomposition of so many takes seconds."""
PARTS = ("auxiliary", "validation")
"""Of the photos that tell where releases vary, and of those that tell how much."""
DIRECTIONS, VALUES = 1000, 2**25
"""Photos of a part whose releases are compared, and values that all of them may have: 128 megabytes."""


@dataclass(frozen=True)
class BoundsStage(Stage):
    """Takes the information on photos of the validation part: bounds are about the device, not about the targets.

    ``sends``: of each photo, which tell together what one send with less noise would, by the root of their number.
    """

    label: ClassVar[str] = "bounds"

    protect: ProtectStage
    sends: int = 1

    def compute(self, folder: Path, store: Store) -> None:
        """bounds.json: null where the channel adds no Gaussian noise, or images get noise of their own."""
        device, found = EdgeDevice(self.protect, store), None
        guarantee = device.model.channel.guarantee()
        if guarantee is not None and guarantee.noise_std and not device.model.perturbs:
            found, people = self._errors(device, store), self._people(store)
            aimed, measured = (self._sent(device, part, store) for part in PARTS)
            if found and min(len(aimed), len(measured)) > 1:
                bits = gaussian_information(aimed, measured)
                most = None if people is None else fano_rank_1(bits, people)
                found = replace(found, information_bits=bits, rank1_at_most=most, people=people)
        (folder / "bounds.json").write_text(json.dumps(found and asdict(found)))

    def _errors(self, device: EdgeDevice, store: Store) -> Bounds | None:
        def sent(images: Tensor) -> Tensor:
            with seeded("bounds", self.protect.seed):
                return self._in_noise(device, device(images))

        images = to_float(self.protect.images("validation", store)[:PHOTOS].to(store.device))
        prior = to_float(self.protect.images("auxiliary", store)[:PRIOR])
        with seeded("probes", self.protect.seed):
            return bounds(sent, images, 1.0, prior)

    def _in_noise(self, device: EdgeDevice, difference: Tensor) -> Tensor:
        """In units of the noise that is left when all sends are taken together."""
        whitened = device.model.channel.whitened(difference)
        assert whitened is not None
        return whitened * math.sqrt(self.sends)

    @torch.no_grad()
    def _sent(self, device: EdgeDevice, part: str, store: Store) -> Tensor:
        """What is sent of the first photos of a part, less what is sent of the very first under the same draw, in
        units of the noise (n, d): noise that is added is in both, and so in neither."""

        def sent(rows: Tensor) -> Tensor:
            with seeded("one draw", self.protect.seed):
                return self._in_noise(device, device.resend(part, rows)).flatten(1).float().cpu()

        most = min(DIRECTIONS, max(2, VALUES // sent(torch.tensor([0])).shape[1]))
        rows = torch.arange(len(self.protect.images(part, store)))[:most]
        return torch.cat([sent(some) - sent(torch.zeros_like(some)) for some in rows.split(BATCH)])

    def _people(self, store: Store) -> int | None:
        """How many are known on the target photos; None where nobody is."""
        identities = self.protect.victim.data.load(store).identities
        known = None if identities is None else identities["target"][identities["target"] >= 0]
        return None if known is None or not len(known) else len(known.unique())

    def load(self, store: Store) -> Bounds | None:
        """The bounds, None where there are none."""
        facts = json.loads((store.folder(self) / "bounds.json").read_text())
        return Bounds(**facts) if facts else None
