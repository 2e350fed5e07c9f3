"""How much memory a large run needs: photos and features far beyond it, on disk."""

import subprocess
import sys
import threading
import time
from pathlib import Path

from rich.table import Table

from splitleak.experiments.benchmarks.small import scratch

PLAN = """
name = "large"
[victim]
model = "mobilenet_v3_large"
cut = "C4"
data = {{ name = "faces", photos = {photos} }}
size = 160
[parts]
train = 0
validation = 200
target = 200
[attacker]
auxiliary = {auxiliary}
[[defenses]]
name = "none"
[[attacks]]
name = "ridge"
window = [1, "whole"]
[[attacks]]
name = "decoder"
architecture = "upsample"
epochs = 1
"""


def compare(photos: int) -> Table:
    """Peak of the memory that belongs to the run alone while it encodes and attacks faces at 160 px.

    Pages of mapped files are not counted: the system takes them back when anyone needs room.
    """
    with scratch() as folder:
        plan = folder / "large.toml"
        plan.write_text(PLAN.format(photos=photos + 1000, auxiliary=photos - 400))
        start = time.perf_counter()
        command = [sys.executable, "-m", "splitleak.experiments", "run", str(plan), "--out", str(folder / "runs")]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        peak = _Peak(process.pid)
        code = process.wait()
        disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    table = Table("faces at 160 px", "peak of memory", "on disk", "seconds", "exit code", box=None)
    table.title = "memory: MobileNetV3-Large cut at C4, two linear attacks and the seed's decoder"
    taken = time.perf_counter() - start
    table.add_row(f"{photos:,}", f"{peak.bytes / 1e9:.2f} GB", f"{disk / 1e9:.1f} GB", f"{taken:.0f}", str(code))
    return table


class _Peak:
    """Watches a process from a thread until it ends."""

    def __init__(self, process: int) -> None:
        self.bytes = 0
        self.status = Path(f"/proc/{process}/status")
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            try:
                lines = self.status.read_text().splitlines()
            except OSError:
                return
            held = [int(line.split()[1]) for line in lines if line.startswith("RssAnon:")]
            self.bytes = max([self.bytes, *(kilobytes * 1024 for kilobytes in held)])
            time.sleep(0.05)
