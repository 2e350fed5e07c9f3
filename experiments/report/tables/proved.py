"""What is proved of each defence, beside what was measured."""

import math

from splitleak.experiments.report.tables.table import ABSENT, TextTable
from splitleak.experiments.results.group import DefenceRow, mean_of_known
from splitleak.experiments.results.results import Results

PROVED_HEADINGS = (
    "defence",
    "photos of the training",
    "a photo that is sent",
    "refuted below, by an adversary's test",
    "noise std on what is sent",
    "measured: PSNR of the mean error (dB)",
    "at most, for unbiased attackers (dFIL, dB)",
    "at most, were photos Gaussian (van Trees, dB)",
    "bits about a photo, at most",
    "rank-1 (%), at most (Fano)",
)


def proved(results: Results) -> tuple[tuple[str, ...], ...]:
    """A line under ``PROVED_HEADINGS`` for each setting of which something is proved."""
    stated = ((row, [cell for cell in row.by_seed if cell.guarantees]) for row in results.rows)
    return tuple(_line(row) for row, cells in stated if cells)


def proved_table(results: Results) -> TextTable | None:
    """What is proved, as a table; None where nothing is."""
    caption = (
        "A training epsilon bounds what the weights tell about the photos of the training, not what a sent photo "
        "leaks. Bounds are about the mean squared error, written as PSNR; after ±: one standard error. "
        "An epsilon per query is tested by sending two inputs many times: a claim below what that proves is false. "
        "Bits are those of a Gaussian with the covariance of what is sent, estimated from photos of other people; "
        "they bound rank-1 among equally likely people."
    )
    stated = proved(results)
    return TextTable("proved", PROVED_HEADINGS, stated, caption) if stated else None


def _line(row: DefenceRow) -> tuple[str, ...]:
    cells = row.by_seed
    training, query = (max(cell.epsilon(kind) for cell in cells) for kind in ("training", "query"))
    noise = mean_of_known(cell.noise_std for cell in cells)
    found = [cell.bounds for cell in cells if cell.bounds]
    unbiased = mean_of_known(one.unbiased_error for one in found)
    bayes = mean_of_known(one.bayes_error for one in found)
    refuted = max((one for cell in cells if (one := cell.probe.epsilon_at_least) is not None), default=None)
    bits = mean_of_known(one.information_bits for one in found)
    rank_1 = mean_of_known(one.rank1_at_most for one in found)
    return (
        row.defence.label,
        _statement("training epsilon = ", *training),
        _of_a_send(*query, max((one for cell in cells if (one := cell.information) is not None), default=None)),
        ABSENT if refuted is None else f"{refuted:.2f}",
        ABSENT if noise is None else f"{noise:.3g}",
        _decibels(_measured(row)),
        _decibels(unbiased, mean_of_known(one.dfil_std_error / one.dfil for one in found)),
        _decibels(bayes, mean_of_known(one.bayes_std_error / one.bayes_error for one in found)),
        ABSENT if bits is None else f"{bits:,.0f}",
        ABSENT if rank_1 is None else f"{100 * rank_1:.1f}",
    )


def _of_a_send(epsilon: float, delta: float, nats: float | None) -> str:
    """Such as ``per query: infinite; at most 5.8 bits``; epsilons and bits of K sends add up."""
    stated = _statement("per query: ", epsilon, delta)
    return stated if nats is None else f"{stated}; at most {nats / math.log(2):.3g} bits"


def _measured(row: DefenceRow) -> float | None:
    """The least mean squared error of an attack on one release: bounds are about that, not about mean decibels."""
    single = [group for group in row.groups.values() if not group.floor and group.threat[1] == 1]
    chosen = [group for group in single if group.suite] or single
    errors = [float(errors.mean()) for group in chosen if (errors := group.table("mse")) is not None]
    return min(errors, default=None)


def _decibels(error: float | None, relative_std_error: float | None = None) -> str:
    """A squared error as PSNR, with the standard error of its logarithm: ``18.2 ± 0.1``."""
    if not error:
        return ABSENT
    spread = "" if relative_std_error is None else f" ± {10 / math.log(10) * relative_std_error:.1f}"
    return f"{-10 * math.log10(error):.1f}{spread}"


def _statement(name: str, epsilon: float, delta: float) -> str:
    """Such as ``training epsilon = 8.0 (delta 1e-5)``; rounded up, for a smaller number would claim more."""
    if math.isinf(epsilon):
        return f"{name}infinite"
    digits = 1 if epsilon >= 1 else 1 - math.floor(math.log10(epsilon)) if epsilon > 0 else 0
    # A relative slack keeps 8.000000000001, which is 8 but for the rounding of sums, from becoming 8.1.
    shown = math.ceil(epsilon * 10**digits * (1 - 1e-9)) / 10**digits
    mantissa, _, exponent = f"{delta:.1e}".partition("e")
    return f"{name}{shown} (delta {float(mantissa):g}e{int(exponent)})" if delta else f"{name}{shown}"
