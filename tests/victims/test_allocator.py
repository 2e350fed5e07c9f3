"""Memory that tensors freed goes back to the system between stages."""

import sys
import weakref
from pathlib import Path

import pytest
import torch
import torch.fx

from splitleak.victims.allocator import give_back_freed_memory, tune_memory

STATUS = Path("/proc/self/status")


def held() -> int:
    """Bytes that are this process's own."""
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon:")]
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc")
def test_what_tensors_freed_is_kept_until_it_is_given_back() -> None:
    assert tune_memory()
    blocks = [torch.ones(2**20) for _ in range(64)]  # 4 MB each, under the size at which pages are mapped apart
    full = held()
    del blocks
    assert held() > full - 64e6
    assert give_back_freed_memory()
    assert held() < full - 200e6


def test_what_holds_itself_as_traced_networks_do_is_given_back() -> None:
    network = torch.fx.symbolic_trace(torch.nn.Linear(8, 8))
    seen = weakref.ref(network)
    del network
    give_back_freed_memory()
    assert seen() is None
