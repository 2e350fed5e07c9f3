import os
from collections.abc import Iterator

import pytest
import torch
from terminal import Terminal
from tiny import STAGES

from splitleak.victims.allocator import tune_memory


@pytest.fixture(autouse=True, scope="session")
def _as_on_two_cores() -> None:
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    threads = int(os.environ.get("OMP_NUM_THREADS", "0")) or max(1, 2 // workers)
    torch.set_num_threads(threads)
    # for the processes that tests start: with all cores for each they would wait for one another
    os.environ["OMP_NUM_THREADS"] = str(threads)
    tune_memory()


@pytest.fixture(autouse=True, scope="session")
def _cache_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))  # processes that tests start inherit it
        base = tmp_path_factory.getbasetemp()
        stages = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "stages"
        stages.mkdir(exist_ok=True)
        patch.setenv(STAGES, str(stages))
        yield


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(monkeypatch, capsys)
