"""The average over a training's steps."""

import torch
from torch import nn

from splitleak.victims.averages import Average


def test_the_average_is_that_of_the_steps_and_is_seen_only_where_it_is_asked_for() -> None:
    weight, moved = nn.Parameter(torch.zeros(())), True
    average = Average([weight], 0.5, lambda: moved)
    expected = 0.0
    for step in range(1, 9):
        with torch.no_grad():
            weight.fill_(float(step))
        average.follow()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    moved = False
    average.follow()
    with average.in_place():
        assert weight.item() == torch.tensor(expected).item()
    assert weight.item() == 8
    average.settle()
    assert weight.item() == torch.tensor(expected).item()
