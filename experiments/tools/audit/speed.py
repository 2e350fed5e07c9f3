"""What this machine takes for the steps of an audit, measured on a few photos."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from splitleak.attacks.decoder import Decoder
from splitleak.attacks.edge import PlainEdge
from splitleak.attacks.knowledge import WhiteBox
from splitleak.attacks.ridge import Ridge
from splitleak.experiments.judge.metrics.bounds import principal
from splitleak.experiments.judge.scores import Truth, score_images
from splitleak.experiments.tools.decoder import DECODER_BATCH, decoder_width
from splitleak.victims.cuts import Halves
from splitleak.victims.data.base import Source
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.tensors import to_float

CALIBRATED_ON, LEARNED_ON, REPEATS = 16, 32, 4
"""Photos that the calibration encodes, those that it fits attacks to, and how often it does each."""


@dataclass(frozen=True)
class Speed:
    """What this machine takes, in seconds for one photo.

    ``decode``: read from its file; ``encode``: the encoder; ``search``: the encoder and back to the photo; ``read``:
    the tail and back; ``learn``: a step of the decoder; ``linear``: of the linear attack, ``solve`` once; ``score``:
    the judge; ``prior``: the bound behind noise, times the square of the attacker's photos.
    """

    decode: float
    encode: float
    search: float
    read: float
    learn: float
    linear: float
    solve: float
    score: float
    prior: float

    @classmethod
    def measured(cls, halves: Halves, source: Source, count: int, size: int, device: torch.device) -> "Speed":
        """Time each on a few of the source's ``count`` photos.

        Raises:
            InvalidInputError: none of them can be read.
        """
        encoder, tail = halves.encoder.to(device), halves.tail.to(device)
        rows = torch.linspace(0, count - 1, CALIBRATED_ON).long().tolist()
        photos, decode = _timed(lambda: source.read(rows, size).images, device, warm=False)
        if not len(photos):
            raise InvalidInputError(f"none of {len(rows)} photos could be read; name other photos")
        stored = photos.repeat(1 + LEARNED_ON // len(photos), 1, 1, 1)[:LEARNED_ON]
        images = to_float(stored[:CALIBRATED_ON].to(device))
        with torch.no_grad():
            features, encode = _timed(lambda: encoder(images), device)
        knows = _adversary(encoder, tail, stored, device)
        decoder = Decoder(width=decoder_width(halves.cut.shape, size), epochs=1, batch_size=DECODER_BATCH)
        _, learn = _timed(lambda: decoder.fit(knows), device)
        _, few = _timed(lambda: Ridge().fit(_adversary(encoder, tail, stored[:DECODER_BATCH], device)), device)
        _, many = _timed(lambda: Ridge().fit(knows), device)
        linear = max(0.0, many - few) / (LEARNED_ON - DECODER_BATCH)
        _, score = _timed(lambda: score_images(stored, Truth(stored)), device)
        _, prior = _timed(lambda: principal(to_float(stored)), device)
        return cls(
            decode=decode / len(rows),
            encode=encode / len(images),
            search=_back(encoder, images, device) / len(images),
            read=_back(tail, features, device) / len(images),
            learn=learn / LEARNED_ON,
            linear=linear,
            solve=many,
            score=score / LEARNED_ON,
            prior=prior / LEARNED_ON**2,
        )


def _adversary(encoder: torch.nn.Module, tail: torch.nn.Module, photos: Tensor, device: torch.device) -> WhiteBox:
    """Who holds these photos, uint8 (n, 3, h, w), and their features."""
    with torch.no_grad():
        features = torch.cat([encoder(to_float(chunk.to(device))) for chunk in photos.split(CALIBRATED_ON)])
    return WhiteBox(
        images={"auxiliary": photos, "validation": photos[:DECODER_BATCH]},
        intercepted=features,
        tail=tail,
        new_encoder=lambda: encoder,
        device=device,
        send=encoder,
        resend=lambda part, rows: features[rows.to(device)],
        edge=PlainEdge(encoder),
    )


def _timed(action: Callable[[], Any], device: torch.device, warm: bool = True) -> tuple[Any, float]:
    """What it returns and its seconds; ``warm``: the best of several times counts, and not the first one."""
    seconds = []
    for _ in range(REPEATS if warm else 1):
        start = time.perf_counter()
        result = action()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return result, min(seconds[1:] or seconds)


def _back(network: torch.nn.Module, inputs: Tensor, device: torch.device) -> float:
    """Seconds of a forward and a backward pass down to the inputs."""

    def both_ways() -> None:
        leaf = inputs.detach().clone().requires_grad_()
        torch.autograd.grad(network(leaf).square().sum(), leaf)

    return _timed(both_ways, device)[1]
