"""Run every benchmark and print its table."""

import torch
from rich.console import Console

from splitleak.experiments.benchmarks import (
    attackers,
    calibration,
    compiled,
    coverage,
    faults,
    judging,
    memory,
    networks,
    scaling,
    seed_decoder,
    sharing,
)
from splitleak.victims.allocator import tune_memory
from splitleak.victims.gaussian import GaussianVictim

if __name__ == "__main__":
    torch.set_num_threads(min(2, torch.get_num_threads()))
    tune_memory()
    console = Console()
    console.print(seed_decoder.compare(sizes=(64, 160, 320)))
    console.print(seed_decoder.recipe(size=320))
    console.print(compiled.compare(sizes=(64, 160)))
    console.print(sharing.compare())
    console.print(scaling.compare())
    console.print(scaling.overhead())
    console.print(faults.compare())
    console.print(memory.compare(photos=20_000))
    console.print(networks.compare(networks.every()))
    for setting in attackers.SETTINGS:
        console.print(attackers.compare(setting))
    console.print(calibration.compare(GaussianVictim(), targets=512))
    console.print(coverage.compare(repeats=1000))
    console.print(judging.compare(images=1000, photos=100_000))
    console.print(judging.share())
