"""Training step of a decoder, compiled against not: from how many steps on does compiling pay?"""

import copy
import statistics
import time

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor, nn

from splitleak.attacks.networks.residual import ResidualDecoder

BATCH, WIDTH, REPEATS = 16, 64, 8


def compare(sizes: tuple[int, ...]) -> Table:
    """Seconds to compile, and the median ratio of interleaved steps, at MobileNetV3-Large's C4."""
    table = Table("image side", "compiling, s", "plain, s/step", "times as fast", "pays from step", box=None)
    table.title = "residual decoder, compiled"
    for size in sizes:
        once, plain, compiled = _interleaved(size)
        ratio = statistics.median(slow / fast for slow, fast in zip(plain, compiled, strict=True))
        slow, fast = statistics.median(plain), statistics.median(compiled)
        pays = f"{once / (slow - fast):,.0f}" if slow > fast else "never"
        table.add_row(f"{size} px", f"{once:.0f}", f"{slow:.3f}", f"{ratio:.2f}", pays)
    return table


def _interleaved(size: int) -> tuple[float, list[float], list[float]]:
    release = torch.randn(BATCH, 672, size // 16, size // 16)
    photos = torch.rand(BATCH, 3, size, size)
    network = ResidualDecoder((672, size // 16, size // 16), size, size, WIDTH)
    other = copy.deepcopy(network)
    other.compile()
    steps = [_Step(network), _Step(other)]
    once = steps[1].seconds(release, photos)
    taken = [[step.seconds(release, photos) for step in steps] for _ in range(REPEATS + 1)][1:]
    return once, [plain for plain, _ in taken], [compiled for _, compiled in taken]


class _Step:
    def __init__(self, network: nn.Module) -> None:
        self.network, self.optimizer = network, torch.optim.AdamW(network.parameters())

    def seconds(self, release: Tensor, photos: Tensor) -> float:
        start = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        F.mse_loss(self.network(release), photos).backward()
        self.optimizer.step()
        return time.perf_counter() - start
