"""Checkpoints within long stages: a training that was killed goes on from one, to the same weights."""

import hashlib
import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

SECONDS_BETWEEN = 60.0
"""What a killed training may lose."""


class Stateful(Protocol):
    """Something that changes while a network trains."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Become what ``state_dict`` describes."""


@dataclass
class _Folder:
    place: Path
    seconds_between: float
    trainings: int = 0


_FOLDER: ContextVar[_Folder | None] = ContextVar("checkpoints", default=None)


@contextmanager
def resumable(folder: Path, seconds_between: float = SECONDS_BETWEEN) -> Iterator[None]:
    """Within the block, trainings leave checkpoints in ``folder`` and go on from those that they find there.

    A training is known by its number in the block, so what runs there must be the same each time.
    """
    token = _FOLDER.set(_Folder(folder, seconds_between))
    try:
        yield
    finally:
        _FOLDER.reset(token)


@dataclass
class Checkpoint:
    """One training's, with torch's random state; without a ``path`` it keeps nothing."""

    path: Path | None
    seconds_between: float = SECONDS_BETWEEN
    written: float = field(default_factory=time.monotonic)

    @classmethod
    def of_next_training(cls) -> "Checkpoint":
        """In the folder of the innermost ``resumable`` block."""
        folder = _FOLDER.get()
        if folder is None:
            return cls(None)
        folder.trainings += 1
        return cls(folder.place / f"{folder.trainings}.pt", folder.seconds_between)

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """What was saved last, None where that is nothing or damaged; torch's random state is set to what it was."""
        if self.path is None or not self.path.is_file():
            return None
        digest, _, content = self.path.read_bytes().partition(b"\n")
        if hashlib.sha256(content).hexdigest().encode() != digest:
            return None
        saved: dict[str, Any] = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        torch.set_rng_state(saved["random"].cpu())
        if device.type == "cuda":
            torch.cuda.set_rng_state(saved["random_cuda"].cpu(), device)
        state: dict[str, Any] = saved["state"]
        return state

    def save(self, state: dict[str, Any], device: torch.device) -> None:
        """Replace what was saved, if that is long ago."""
        if self.path is None or time.monotonic() - self.written < self.seconds_between:
            return
        saved = {"state": state, "random": torch.get_rng_state()}
        if device.type == "cuda":
            saved["random_cuda"] = torch.cuda.get_rng_state(device)
        content = io.BytesIO()
        torch.save(saved, content)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(f".{os.getpid()}")
        temporary.write_bytes(hashlib.sha256(content.getvalue()).hexdigest().encode() + b"\n" + content.getvalue())
        temporary.replace(self.path)
        self.written = time.monotonic()
