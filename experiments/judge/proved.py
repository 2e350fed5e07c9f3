"""What is proved of every attacker, as cells store it and reports read it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Bounds:
    """Squared errors per pixel value, and their standard errors over photos.

    ``dfil``: diagonal Fisher information leakage (Maeng et al., NeurIPS 2023). ``unbiased_error``: its inverse, which
    no UNBIASED attacker's mean error is below; learned decoders are biased and may be. ``bayes_error``: van Trees'
    bound, which no attacker's mean error is below PROVIDED THAT photos are Gaussian with the covariance of the
    auxiliary part; they are not, so that it is an estimate. ``information_bits``: what all sends of a photo tell
    about it at most, see ``gaussian_information``; ``rank1_at_most``: by Fano the most that this allows of macro
    rank-1 among the ``people`` of the target part. None where not taken.
    """

    dfil: float
    dfil_std_error: float
    unbiased_error: float
    bayes_error: float
    bayes_std_error: float
    information_bits: float | None = None
    rank1_at_most: float | None = None
    people: int | None = None
