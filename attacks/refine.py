"""A learned decoder as start and as prior, and a search through it for the image that explains the release."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from splitleak.attacks.base import Reconstructor
from splitleak.attacks.decoder import ByDecoder
from splitleak.attacks.knowledge import WhiteBox
from splitleak.attacks.optimise import Matcher, Schedule, Space, best_on_validation, search
from splitleak.victims.settings import doc

WEIGHTS = (1.0, 10.0, 100.0, 300.0, 1000.0, 3000.0)
"""Of the squared shift, tried on validation photos where none is given."""


@dataclass(frozen=True)
class Refine(ByDecoder[WhiteBox]):
    """Move what goes into the decoder until what comes out has the intercepted release.

    The decoder h is the one that ``decoder`` trains with the same settings (trained once, if both are in a plan).
    Its answer h(z) is the start; then a shift d of its input, in units of each feature's standard deviation over
    photos, minimises the feature loss of h(z + d) plus ``weight`` times the mean of d squared. Pixels only move
    as the decoder lets them: at a deep cut many images have nearly the same release, and the prior decides. Each
    weight, and not to move at all, is tried on validation photos, so that it is chosen only where it helps.

    Where a release says little of the pixels, so does this search: at C4 of MobileNetV3-Large (64 px, 48 photos of
    LFW, 60 steps) weights of 10, 100, 1000 and 10 000 change the decoder's 17.15 dB by -0.63, -0.04, +0.04 and 0.00
    (standard error 0.10, 0.05, 0.02, 0.001), though the first lowers the feature loss from 1.48 to 0.86. Nor does
    the decoder gain there by training on with the feature loss of its answers in its own loss (weights 0.003 and
    0.03: +0.01 and -0.04 dB against training on without, 64 photos, standard error of each 0.03).
    """

    paper: ClassVar[str] = (
        "ours; search through a learned generator after Bora et al., Compressed Sensing using Generative Models, "
        "ICML 2017"
    )
    per_image: ClassVar[bool] = True

    steps: Annotated[int, Gt(0), doc("of the search, at most")] = 200
    learning_rate: Annotated[float, Gt(0), doc("of Adam, in standard deviations of a feature")] = 0.02
    weight: Annotated[float | None, Ge(0), doc("of the shift; none: the best on a few validation photos")] = None
    draws: Annotated[int, Gt(0), doc("sends averaged in each step where the channel is random")] = 4

    def fit(self, knows: WhiteBox) -> Reconstructor:
        """Train or recall the decoder, then choose the weight."""
        decode = self.decoder.fit(knows)
        matcher = Matcher.measure(knows, draws=self.draws)
        schedule = Schedule(self.steps, self.learning_rate)

        def refined(weight: float | None, release: Tensor) -> Tensor:
            if weight is None:
                return decode(release)
            return search(self._space(decode, release, matcher), matcher(release), weight, schedule, knows.log)

        candidates = [None, *WEIGHTS] if self.weight is None else [self.weight]
        weight = best_on_validation(knows, candidates, refined)
        if weight is not None:
            knows.log({"weight": weight})
        return lambda release: refined(weight, release)

    def _space(self, decode: Reconstructor, release: Tensor, matcher: Matcher) -> Space:
        spread = matcher.variance.sqrt()
        return Space(
            # the shift travels with the release that it belongs to: a converged image leaves the batch
            start=lambda release: [torch.zeros_like(release), release],
            images=lambda point: decode(point[1].detach() + spread * point[0]),
            penalty=lambda point, images: point[0].square().flatten(1).mean(1),
        )
