"""What the uncut network itself makes of photos whose labels are known: the truth that every defence starts from."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from splitleak.experiments.stages.protect import utility_facts
from splitleak.experiments.stages.victim import VictimStage
from splitleak.experiments.store.key import Stage
from splitleak.experiments.store.store import Store
from splitleak.victims.cuts import Encoder
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.splitting.behaviour import apart
from splitleak.victims.tensors import BATCH, to_float

SAME = 1e-2
"""Share of the largest output by which the halves may differ: a GPU rounds to ten bits."""


@dataclass(frozen=True)
class UncutStage(Stage):
    """The victim's own utility, by the network as it was before it was cut, and whether its halves agree with it."""

    label: ClassVar[str] = "uncut"

    victim: VictimStage

    def compute(self, folder: Path, store: Store) -> None:
        """uncut.json.

        Raises:
            InvalidInputError: the halves compute something else than the network on these photos.
        """
        data = self.victim.data.load(store)
        assert data.labels is not None, "nothing to be right about"
        images, labels = data.images[data.measured], data.labels[data.measured]
        model, network = self.victim.load(store), self.victim.uncut(store)
        halves = _outputs(lambda photos: model.tail(model.encoder(photos)), images, store)
        if network is not None:
            whole = Encoder(network.module, network.mean, network.std).to(store.device).eval()
            own = _outputs(whole, images, store)
            if (off := apart(halves, own)) > SAME:
                raise InvalidInputError(
                    f"{self.victim.model} cut at {self.victim.cut} computes something else than the uncut network: "
                    f"on the {data.measured} photos its outputs are off by {off:.1%} of the largest"
                )
            halves = own
        task = self.victim.task
        said = task.predict(halves)
        facts = utility_facts(task, task.utility(said, labels).tolist(), said, labels, data.measured)
        (folder / "uncut.json").write_text(json.dumps(facts))

    def load(self, store: Store) -> dict[str, Any]:
        """metric; values: the utility, by photo of the part; chance: see ``Task.chance``; also: of all photos."""
        facts: dict[str, Any] = json.loads((store.folder(self) / "uncut.json").read_text())
        return facts


@torch.no_grad()
def _outputs(network: Any, images: Tensor, store: Store) -> Tensor:
    chunks = [network(to_float(chunk.to(store.device))).float().cpu() for chunk in images.split(BATCH)]
    return torch.cat(chunks)
