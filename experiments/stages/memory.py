"""What an attack made and a later one can use again: decoders, generators."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from splitleak.attacks.knowledge import About, Memo
from splitleak.experiments.store.integrity import digest
from splitleak.experiments.store.key import source_digest
from splitleak.experiments.store.store import Store
from splitleak.victims.seeding import seeded


@dataclasses.dataclass(frozen=True)
class StoredMemory:
    """Memos in the store. ``scopes``: for each thing that a memo may be about, what it depends on."""

    store: Store
    scopes: dict[About, Any]
    seed: int

    def __call__(self, what: str, module: str, about: About, build: Callable[[], Memo]) -> Memo:
        """Recall, or build and keep."""

        def compute(folder: Path) -> None:
            with seeded("memory", self.seed, what):
                memo = build()
            tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in memo.tensors.items()}
            save_file(tensors, folder / "tensors.safetensors")
            facts = {"queries": memo.queries, "seconds": memo.seconds, "rows": memo.rows}
            (folder / "facts.json").write_text(json.dumps(facts))

        key = digest([what, source_digest(module), about, self.scopes[about], self.seed])
        folder = self.store.made("memory", key, compute)
        facts = json.loads((folder / "facts.json").read_text())
        return Memo(load_file(folder / "tensors.safetensors"), **{**facts, "rows": tuple(facts["rows"])})
