"""An average of a network's weights over the steps of its training."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class Average:
    """The exponential moving average of parameters, which counts the first steps alike.

    As De et al. (Unlocking High-Accuracy Differentially Private Image Classification through Scale, 2022) average:
    the decay is min(decay, (1 + t) / (10 + t)) at step t. It is made of weights that were given out, so it costs no
    privacy.

    Args:
        parameters: that train; they are followed, not copied.
        decay: in [0, 1).
        stepped: whether the latest step moved them: one of several that gather a large batch does not.
    """

    def __init__(
        self, parameters: Sequence[Tensor], decay: float, stepped: Callable[[], bool] = lambda: True
    ) -> None:
        self.parameters, self.decay, self.stepped = list(parameters), decay, stepped
        self.values = [parameter.detach().clone() for parameter in self.parameters]
        self.steps = 0

    @torch.no_grad()
    def follow(self) -> None:
        """Take a step's weights in."""
        if not self.stepped():
            return
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for value, parameter in zip(self.values, self.parameters, strict=True):
            value.lerp_(parameter, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the parameters are their averages."""
        own = [parameter.detach().clone() for parameter in self.parameters]
        self.settle()
        try:
            yield
        finally:
            self._give(own)

    def settle(self) -> None:
        """The parameters become their averages."""
        self._give(self.values)

    @torch.no_grad()
    def _give(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """The averages and of how many steps they are."""
        return {"values": self.values, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.values, self.steps = state["values"], state["steps"]
