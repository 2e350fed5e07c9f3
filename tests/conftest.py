import os

import pytest
import torch
from terminal import Terminal

from splitleak.victims.allocator import tune_memory


@pytest.fixture(autouse=True, scope="session")
def _as_on_two_cores() -> None:
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    threads = max(1, 2 // workers)
    torch.set_num_threads(threads)
    # for the processes that tests start: with all cores for each they would wait for one another
    os.environ["OMP_NUM_THREADS"] = str(threads)
    tune_memory()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(monkeypatch, capsys)
