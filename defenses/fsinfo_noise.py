"""Gaussian noise as large as the encoder's own gain asks for."""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt, Lt
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from splitleak.defenses.base import Calibration, Channel, Defense, Guarantee
from splitleak.victims.settings import doc

ZERO = 1e-3
"""Share of its largest singular value below which one of a Jacobian counts as zero: of their squares, which are what
is found, single precision tells a millionth of the largest from nothing."""


@dataclass(frozen=True)
class FsInfoNoise(Defense):
    """Send features + noise of sigma = det(J'J)^(1 / 2d) / (e^F sqrt(2 pi e)) for the information F.

    J is the Jacobian of the encoder at a photo of d values, so that det(J'J)^(1 / 2d) is the geometric mean of its
    singular values: by how much a step in the photo moves the release. Where the release has fewer values than the
    photo, or J is not of full rank (a unit that is off has no gradient), that is 0 and would ask for no noise at all;
    taken is the geometric mean of the singular values that are not zero. So F, which stands
    for Shannon's information and is made of Fisher's, is nats for each direction of the photo that the release shows,
    and says nothing about how many those are.

    A sigma for each photo would itself be released, for its noise can be measured. So there is one: the geometric
    mean over some photos of the train part. It is taken before anything is trained, of the encoder alone.

    F is a measure and proves nothing about a single photo; what bounds follow from the noise is the judge's.
    """

    name: ClassVar[str] = "fsinfo_noise"
    paper: ClassVar[str] = (
        "Deng, Lu, Duan, Quantifying Privacy Leakage in Split Inference via Fisher-Approximated Shannon Information "
        "Analysis, arXiv 2504.10016 (FSInfoGuard); Deng et al., InfoDecom, AAAI 2026"
    )
    strength: ClassVar[str] = "information"
    strengths: ClassVar[tuple[float, ...]] = (2.0, -2.0, -4.0, -8.0)

    information: Annotated[float, Gt(-30), Lt(30), doc("F, in nats for each direction; less is more noise")] = -4.0
    photos: Annotated[int, Gt(0), doc("of the train part, whose Jacobians are looked at")] = 8
    probes: Annotated[int, Gt(0), doc("random vectors for each photo, from which singular values are estimated")] = 4
    steps: Annotated[int, Gt(1), doc("of Lanczos' algorithm from each")] = 24

    def channel(self, shape: tuple[int, ...]) -> Channel:
        """Noise of a calibrated size."""
        return _FsInfoChannel(self)


class _FsInfoChannel(Channel):
    std: Tensor

    def __init__(self, settings: FsInfoNoise) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("std", torch.zeros(()))

    def calibrate(self, calibration: Calibration) -> None:
        settings = self.settings
        images = next(calibration.batches()).images[: settings.photos]
        found = [log_gain(calibration.encoder, images, settings.steps) for _ in range(settings.probes)]
        gain = float(torch.stack(found).mean())
        self.std.fill_(math.exp(gain - settings.information) / math.sqrt(2 * math.pi * math.e))

    def send(self, features: Tensor) -> Tensor:
        return features + self.std * torch.randn_like(features)

    def guarantee(self) -> Guarantee:
        return Guarantee("query", noise_std=float(self.std))


def log_gain(encoder: nn.Module, images: Tensor, steps: int) -> Tensor:
    """Logarithm of the geometric mean of the singular values of an encoder's Jacobian that are not zero, (n,).

    Stochastic Lanczos quadrature (Ubaru, Chen, Saad, SIAM J. Matrix Anal. 2017) on JJ' or J'J, whichever is smaller,
    from one random vector for each photo: photos of a batch must not influence one another.

    Args:
        encoder: images (n, 3, h, w) -> features (n, ...), in eval mode.
        images: (n, 3, h, w).
        steps: of Lanczos' algorithm, at most the number of values.
    """
    normal, size = _normal_map(encoder, images)
    nodes, weights = _lanczos(normal, torch.randn(len(images), size, device=images.device), min(steps, size))
    kept = nodes > ZERO**2 * nodes.amax(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    weights = weights * kept
    logarithms = torch.where(kept, nodes, 1.0).log()
    return (weights * logarithms).sum(1) / (2 * weights.sum(1).clamp_min(1e-12))


def _normal_map(encoder: nn.Module, images: Tensor) -> tuple[Callable[[Tensor], Tensor], int]:
    """v -> JJ'v or J'Jv of each photo, (n, size) -> (n, size), and the size."""
    inputs = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        outputs = encoder(inputs)

    def pull(values: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(outputs, inputs, values.view_as(outputs), retain_graph=True)
        return found.flatten(1)

    def push(values: Tensor) -> Tensor:
        # forward mode: of some layers, hard sigmoid for one, there is no second derivative to get this from
        with _plain_attention(), torch.no_grad():
            found: Tensor = torch.func.jvp(encoder, (images,), (values.view_as(images),))[1]
        return found.flatten(1)

    if outputs[0].numel() < inputs[0].numel():
        return (lambda values: push(pull(values))), outputs[0].numel()
    return (lambda values: pull(push(values))), inputs[0].numel()


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention is computed step by step: its fused kernels have no derivative in forward mode."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)  # torch's own use
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _lanczos(normal: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights (n, steps) of the quadrature that each start (n, size) gives, float64."""
    current = start.double() / start.double().norm(dim=1, keepdim=True)
    seen, diagonal, beside = [current], [], []
    for step in range(steps):
        moved = normal(current.to(start.dtype)).double()
        diagonal.append((current * moved).sum(1))
        for _ in range(2):  # once loses orthogonality, twice does not
            basis = torch.stack(seen, 1)
            moved = moved - torch.einsum("nk,nkd->nd", torch.einsum("nkd,nd->nk", basis, moved), basis)
        length = moved.norm(dim=1)
        if step < steps - 1:
            beside.append(length)
            current = moved / length.clamp_min(1e-30)[:, None]
            seen.append(current)
    matrix = torch.diag_embed(torch.stack(diagonal, 1))
    if beside:
        off = torch.diag_embed(torch.stack(beside, 1), offset=1)
        matrix = matrix + off + off.mT
    nodes, vectors = torch.linalg.eigh(matrix)
    return nodes, vectors[:, 0].square()
