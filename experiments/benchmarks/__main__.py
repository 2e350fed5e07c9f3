"""Run every benchmark and print its table."""

import torch
from rich.console import Console

from experiments.benchmarks.seed_decoder import compare

if __name__ == "__main__":
    torch.set_num_threads(min(2, torch.get_num_threads()))
    Console().print(compare(sizes=(64, 160, 320)))
