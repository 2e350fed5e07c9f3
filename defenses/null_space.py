"""What the cloud's first layer cannot see is left out of what is sent."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Gt, Le
from torch import Tensor

from splitleak.defenses.base import Calibration, Channel, Defense
from splitleak.defenses.first_layer import Layout, first_layer, project, seen_by
from splitleak.victims.settings import doc

FORMS = ("none", "channels", "places", "whole")


@dataclass(frozen=True)
class NullSpace(Defense):
    """Project features onto the directions that the tail's first layer sees; with ``keep`` below 1 onto fewer.

    Where that layer is linear and has fewer outputs than inputs (a pointwise convolution to fewer maps, one with a
    stride, pooling, a linear layer), what it does not see changes no answer: leaving it out is lossless, and every
    defence that loses something must leak less than this. Where a non-linearity, a normalisation over the features or
    a sum comes first, all may be seen: nothing is left out, and the report says that the defence is absent.

    The tail is trained behind it, from the weights that the directions were taken of. What travels has the features'
    shape and bytes: that it could be sent as fewer numbers is not counted. Of the directions that are seen, ``keep``
    holds those along which the layer sees most of the train part's features; below 1 that loses something.
    """

    paper: ClassVar[str] = (
        "Samragh, Hosseini, Triastcyn, Azarian, Soriaga, Koushanfar, Unsupervised Information Obfuscation for Split "
        "Inference of Neural Networks, arXiv 2104.11413"
    )
    strength: ClassVar[str] = "keep"
    strengths: ClassVar[tuple[float, ...]] = (1.0, 0.67, 0.34)

    keep: Annotated[float, Gt(0), Le(1), doc("share of the directions that are seen; 1 is lossless")] = 1.0

    def channel(self, shape: tuple[int, ...]) -> Channel:
        """Projects."""
        return _Projecting(shape, self.keep)

    def statistic(self, calibration: Calibration) -> float:
        """The share of what the tail's first layer sees that is gone."""
        features = next(calibration.batches()).features
        shape = tuple(features.shape[1:])
        channel = self.channel(shape).to(calibration.device)
        channel.calibrate(calibration)
        layer = first_layer(calibration.tail, shape, calibration.device)
        if layer is None:
            return 0.0
        whole, left = (torch.cat([one.flatten(1) for one in layer(of)], 1) for of in (features, channel(features)))
        return float((whole - left).norm() / whole.norm())


class _Projecting(Channel):
    """``basis``: see ``Seen``; ``form``: its layout, a number of ``FORMS``. Both are only known from the tail."""

    basis: Tensor
    form: Tensor

    def __init__(self, shape: tuple[int, ...], keep: float) -> None:
        super().__init__()
        self.shape, self.keep = shape, keep
        self.register_buffer("basis", torch.zeros(1, 1, 1))
        self.register_buffer("form", torch.zeros((), dtype=torch.int64))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *given: Any) -> None:
        self.basis = torch.empty_like(state_dict[f"{prefix}basis"], device=self.basis.device)
        super()._load_from_state_dict(state_dict, prefix, *given)

    def calibrate(self, calibration: Calibration) -> None:
        seen = seen_by(calibration.tail, self.shape, calibration.device)
        if seen is None:
            return
        self.basis = seen.basis
        self.form.fill_(FORMS.index(seen.layout.form))
        if self.keep < 1:
            energy = torch.zeros_like(seen.gains)
            for batch in calibration.batches():
                along = torch.einsum("npgs,gsr->npgr", seen.layout.apart(batch.features), seen.basis)
                energy += along.square().sum((0, 1))
            told = (energy * seen.gains.square()).where(seen.gains > 0, -1.0)
            count = max(1, round(self.keep * int((seen.gains > 0).sum())))
            least = told.flatten().topk(count).values[-1]
            self.basis = seen.basis * (told >= least)[:, None]

    def send(self, features: Tensor) -> Tensor:
        form = FORMS[int(self.form)]
        if form == "none":
            return features
        layout = Layout(form, self.shape)
        return layout.together(project(layout.apart(features), self.basis))
