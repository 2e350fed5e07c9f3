import os

import pytest
import torch

from victims.allocator import tune_memory


@pytest.fixture(autouse=True, scope="session")
def _as_on_two_cores() -> None:
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    torch.set_num_threads(max(1, 2 // workers))
    tune_memory()
