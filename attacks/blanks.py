"""What stands where a feature did not arrive: the zero that was sent, or the feature's mean."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from splitleak.attacks.knowledge import BlackBox
from splitleak.attacks.linear import Map, linear_map
from splitleak.attacks.networks.standard import Arrived, Standardised
from splitleak.victims.tensors import BATCH

SIDE = 24
"""Of the pictures, in pixels, from which a choice is made."""


def better_at_mean(knows: BlackBox) -> Arrived | None:
    """``arrived`` where blanks are better replaced by the feature's mean; None where they are better left as sent.

    A blank may be chance, as behind dropout: then a zero is a wrong value. Or it says that a feature is small, as
    behind a top k: then it is a right one. So linear maps from the release to small pictures, one from each form,
    are compared on validation photos; they take seconds, and agreed with trained decoders.
    """
    first = knows.arrived(knows.intercepted[:1])
    chunks = knows.intercepted.split(BATCH)
    if not any((knows.arrived(some) != first).any() for some in chunks):
        return None  # what is always empty, or never, is the same in both forms

    def build() -> dict[str, Tensor]:
        at_mean, as_sent = (_error(knows, arrived) for arrived in (knows.arrived, None))
        return {"better": torch.tensor(at_mean < as_sent)}

    return knows.arrived if knows.remember("form of blanks", build)["better"] else None


def _error(knows: BlackBox, arrived: Arrived | None) -> float:
    """Mean squared error of the best linear map on validation photos."""
    standard = Standardised(knows.release_shape, arrived).to(knows.device)
    standard.begin_from(release for release, _ in knows.pairs(shuffle=False))

    def rows(pairs: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        for release, images in pairs:
            yield standard(release).flatten(1), F.adaptive_avg_pool2d(images, SIDE).flatten(1)

    held_out = list(rows(iter(knows.pairs("validation", BATCH, shuffle=False))))

    def error(linear: Map) -> float:
        wrong = [(linear(inputs) - outputs).square().mean(1) for inputs, outputs in held_out]
        return float(torch.cat(wrong).mean())

    examples = rows(iter(knows.pairs(batch_size=BATCH, shuffle=False)))
    return error(linear_map(examples, len(knows.images["auxiliary"]), error, knows.log))
