"""Least-squares maps in closed form, with the penalty that does best on what was held out."""

import math
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

PENALTIES = tuple(10.0**power for power in range(-6, 2))
"""Tried in turn, as multiples of the features' mean variance."""
SUMMED, SUMMED_AT_MOST = 4096, 9216
"""Features up to which the normal equations are summed over all rows; beyond, the rows are kept. The larger number
counts where not all rows could be kept: a minute and 2 GiB, rather than most of them left out."""
KEPT_ROWS, KEPT_BYTES = 4096, 2**30
"""No more of them, and no more memory, are kept."""

Map = Callable[[Tensor], Tensor]
Log = Callable[[dict[str, float]], None]


def linear_map(batches: Iterable[tuple[Tensor, Tensor]], rows: int, error: Callable[[Map], float], log: Log) -> Map:
    """The map of inputs (m, d) to outputs (m, p) with the penalty of least ``error``, or their mean if that has less.

    Sums or rows are taken in batch by batch, so memory does not grow with their number; where rows are kept, no more
    batches are asked for than fit.

    Args:
        batches: inputs (m, d) and outputs (m, p) of some rows; at least one.
        rows: how many there are in all.
        error: of a map on what was held out.
        log: takes a row for each penalty.
    """
    sums: _LeastSquares | None = None
    for inputs, outputs in batches:
        sums = sums or _least_squares(inputs.shape[1], rows)
        if sums.full:
            break
        sums.add(inputs, outputs)
    assert sums is not None, "nothing to learn from"
    best, kept = math.inf, sums.mean()
    for penalty in PENALTIES:
        found = sums.solve(penalty)
        if found is None:
            continue
        reached = error(found)
        log({"penalty": penalty, "validation_loss": reached})
        if reached < best:
            best, kept = reached, found
    return kept


class _LeastSquares(Protocol):
    """Takes in rows and solves for any penalty; neither the intercept nor the rows' offset is penalised."""

    @property
    def full(self) -> bool:
        """More rows would not be used."""

    def add(self, inputs: Tensor, outputs: Tensor) -> None:
        """Add rows: inputs (m, d), outputs (m, p)."""

    def mean(self) -> Map:
        """The solution under an infinite penalty."""

    def solve(self, penalty: float) -> Map | None:
        """The map of (m, d) to (m, p).

        None where rounding makes the matrix indefinite: the penalty is too small for these features.
        """


class _NormalEquations:
    """Sums that the solution needs: float64, while each batch's products stay in float32."""

    full = False

    def __init__(self) -> None:
        self.count = 0
        self.gram, self.cross, self.inputs, self.outputs = (torch.zeros(()) for _ in range(4))

    def add(self, inputs: Tensor, outputs: Tensor) -> None:
        if not self.count:
            # Products of values near a common offset lose digits; any fixed offset leaves the solution as it is.
            self.offset = inputs.mean(0)
        shifted = inputs - self.offset
        self.count += len(inputs)
        self.gram = self.gram.to(inputs.device) + (shifted.T @ shifted).double()
        self.cross = self.cross.to(inputs.device) + (shifted.T @ outputs).double()
        self.inputs = self.inputs.to(inputs.device) + shifted.sum(0, dtype=torch.float64)
        self.outputs = self.outputs.to(inputs.device) + outputs.sum(0, dtype=torch.float64)

    def mean(self) -> Map:
        average = (self.outputs / self.count).float()
        return lambda rows: average.expand(len(rows), -1)

    def solve(self, penalty: float) -> Map | None:
        input_mean, output_mean = self.inputs / self.count, self.outputs / self.count
        gram = self.gram / self.count - torch.outer(input_mean, input_mean)
        cross = self.cross / self.count - torch.outer(input_mean, output_mean)
        factor = _factor(gram, penalty, float(gram.diagonal().mean()))
        if factor is None:
            return None
        weights = torch.cholesky_solve(cross, factor)
        intercept = (output_mean - (input_mean + self.offset.double()) @ weights).float()
        factors = weights.float()
        return lambda rows: rows @ factors + intercept


class _KeptRows:
    """The dual form, for more features than rows: an answer is a weighted mean of the outputs that were taken in."""

    def __init__(self) -> None:
        self.count = 0
        self.inputs, self.outputs = torch.empty(0), torch.empty(0)

    @property
    def full(self) -> bool:
        return 0 < self.count == len(self.inputs)

    def add(self, inputs: Tensor, outputs: Tensor) -> None:
        if not self.count:
            room = min(KEPT_ROWS, KEPT_BYTES // (inputs[0].nbytes + outputs[0].nbytes))
            # pages that are never written take no memory
            self.inputs, self.outputs = (part.new_empty(room, part.shape[1]) for part in (inputs, outputs))
        taken = min(len(inputs), len(self.inputs) - self.count)
        rows = slice(self.count, self.count + taken)
        self.inputs[rows], self.outputs[rows] = inputs[:taken], outputs[:taken]
        self.count += taken

    def mean(self) -> Map:
        average = self._taken[3]
        return lambda rows: average.expand(len(rows), -1)

    def solve(self, penalty: float) -> Map | None:
        rows, input_mean, outputs, output_mean = self._taken
        factor = _factor(self._gram, penalty, float(self._gram.diagonal().sum()) / rows.shape[1])
        if factor is None:
            return None

        def linear(inputs: Tensor) -> Tensor:
            weights = torch.cholesky_solve((rows @ (inputs - input_mean).T).double(), factor).T.float()
            # of outputs less their mean, of which no copy is made
            return output_mean * (1 - weights.sum(1, keepdim=True)) + weights @ outputs

        return linear

    @cached_property
    def _taken(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Centred inputs (m, d) and their mean; outputs (m, p) and their mean."""
        rows, outputs = self.inputs[: self.count], self.outputs[: self.count]
        input_mean = rows.mean(0)
        return rows.sub_(input_mean), input_mean, outputs, outputs.mean(0)

    @cached_property
    def _gram(self) -> Tensor:
        """The products of all pairs of rows, (m, m)."""
        rows = self._taken[0]
        return (rows @ rows.T).double()


def _least_squares(features: int, rows: int) -> _LeastSquares:
    """What takes in so many rows of so many features best."""
    if features <= SUMMED or (rows > KEPT_ROWS and features <= SUMMED_AT_MOST):
        return _NormalEquations()
    return _KeptRows()


def _factor(gram: Tensor, penalty: float, scale: float) -> Tensor | None:
    """Cholesky's of gram + penalty * scale * I; None where rounding makes that indefinite."""
    regular = gram.clone()
    regular.diagonal().add_(penalty * max(scale, torch.finfo(torch.float32).tiny))
    factor, failed = torch.linalg.cholesky_ex(regular)
    return None if failed else factor
