"""Randomness that depends on what is computed, never on what ran before."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seed_of(*parts: object) -> int:
    """A seed from the meaning of a step, e.g. ``seed_of("victim", 3)``; the same on every machine."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch takes signed 64 bits


@contextmanager
def seeded(*parts: object) -> Iterator[None]:
    """Run a block under its own seed and leave the caller's random state as it was (CPU and CUDA)."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed_of(*parts))
        yield
