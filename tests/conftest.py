import pytest
import torch

from victims.allocator import keep_freed_memory


@pytest.fixture(autouse=True, scope="session")
def _as_on_two_cores() -> None:
    torch.set_num_threads(min(2, torch.get_num_threads()))
    keep_freed_memory()
