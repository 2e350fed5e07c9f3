"""What executors with workers of their own share."""

import os
from abc import ABC, abstractmethod

import torch

from splitleak.experiments.run.schedule import Progress, Work


class Workshop(ABC):
    """What a worker needs to begin: it travels to it by pickle and is hashable."""

    @abstractmethod
    def open(self, number: int, progress: Progress) -> Work:
        """Make the work ready in worker ``number``; called once in each."""


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(device: torch.device) -> int:
    """One for each GPU, or one for each core."""
    return torch.cuda.device_count() if device.type == "cuda" else cores()
