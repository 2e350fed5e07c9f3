"""Several defences, one after another, as one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Self

import torch
from annotated_types import MinLen
from torch import Tensor, nn

from splitleak.defenses.base import (
    Anew,
    Calibration,
    CalibrationBatch,
    Channel,
    Defense,
    Guarantee,
    Perturbation,
    Retrains,
)
from splitleak.victims.errors import InvalidInputError, unknown
from splitleak.victims.seeding import seeded
from splitleak.victims.settings import doc
from splitleak.victims.training import Training

ROUNDING = 1e-5
"""Share of the largest value: what a part makes of a blank and undoes again may miss it by so much."""
ORDER: tuple[Retrains, ...] = ("tail", "network", "anew")
"""From the least to the most that is trained."""


@dataclass(frozen=True)
class Chain(Defense):
    """Each part gets what the one before it sends: a subset, then noise, then quantisation, for example.

    The cloud undoes them in reverse order. What travels, and its bytes, are the last part's; objectives add up.
    Blanks of every part are told from features as long as no part behind it blurs them; noise does, and what several
    sends tell together is then their plain mean, which keeps each feature but for the factor by which it arrives. The
    epsilon of a query is the smallest that a part proves by itself: what comes after a private mechanism, and what
    comes before one, cannot void it. The nats that a release tells are the fewest in the same way, unless training
    changes what that part is given. Training that must account for every photo (``dp_sgd``) goes only with parts that
    never look at them.
    """

    paper: ClassVar[str] = "ours; the papers of its parts"

    parts: Annotated[tuple[Defense, ...], MinLen(1), doc("in the order in which the edge applies them")]

    def __post_init__(self) -> None:
        super().__post_init__()
        private = [part for part in self.parts if part.retrains == "anew"]
        open_to_photos = [part.name for part in self.parts if part.uses_photos]
        if private and open_to_photos:
            raise InvalidInputError(
                f"chain: {private[0].name} accounts for every use of a training photo, but {open_to_photos[0]} uses "
                "them beside it, in its calibration or in a loss over several photos; leave one of them out"
            )
        alone = [part.name for part in self.parts if type(part).cloud is not Defense.cloud]
        if alone:
            raise InvalidInputError(
                f"chain: {alone[0]} puts several servers in the tail's place, and in a chain each part has the tail "
                "behind it; use it by itself"
            )
        trained = max((part.retrains for part in self.parts), key=ORDER.index)
        object.__setattr__(self, "retrains", trained)
        object.__setattr__(self, "uses_photos", any(part.uses_photos for part in self.parts))
        object.__setattr__(self, "of_classes", any(part.of_classes for part in self.parts))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Parts are defences, or tables with the name of one that is loaded."""
        parts = values.get("parts", ())
        if not isinstance(parts, list | tuple):
            raise InvalidInputError(f"chain.parts = {parts!r}: should be a list of tables, each with a name")
        return super().from_mapping({**values, "parts": tuple(map(_part, parts))})

    def to_mapping(self) -> dict[str, Any]:
        """Each part as a table with its name."""
        return {"parts": [{"name": part.name, **part.to_mapping()} for part in self.parts]}

    def inapplicable(self, shape: tuple[int, ...], task: str | None) -> str | None:
        """Where a part does not, on what the parts before it send."""
        for part in self.parts:
            if reason := part.inapplicable(shape, task):
                return f"{self.name}: its part {reason}"
            shape = _sent(part.channel(shape), shape)
        return None

    def check(self, network: nn.Module, inputs: Tensor) -> None:
        """Each part by itself."""
        for part in self.parts:
            part.check(network, inputs)

    def anew(self) -> Anew:
        """As the part that trains anew does."""
        return next((part.anew() for part in self.parts if part.retrains == "anew"), Anew())

    def adapt(self, half: nn.Module) -> nn.Module:
        """One after another."""
        for part in self.parts:
            half = part.adapt(half)
        return half

    def perturb(self, image_shape: tuple[int, ...]) -> Perturbation | None:
        """One after another."""
        found = [one for part in self.parts if (one := part.perturb(image_shape)) is not None]
        return _PerturbationChain(found) if found else None

    def channel(self, shape: tuple[int, ...]) -> Channel:
        """Each for what the one before it sends."""
        channels: list[Channel] = []
        for part in self.parts:
            channels.append(part.channel(shape))
            shape = _sent(channels[-1], shape)
        return _ChannelChain(channels, trains=self.retrains != "tail")

    def objective(self, calibration: Calibration, channel: Channel) -> nn.Module | None:
        """The sum of the parts'."""
        assert isinstance(channel, _ChannelChain)
        terms = nn.ModuleDict()
        for number, (part, own) in enumerate(zip(self.parts, channel.each, strict=True)):
            before = channel.before(number)
            term = part.objective(_behind(calibration, before), own)
            if term is not None:
                terms[str(number)] = term
        return _Sum(channel, terms) if terms else None

    def prepare(self, training: Training, epochs: int) -> Training:
        """One after another."""
        for part in self.parts:
            training = part.prepare(training, epochs)
        return training


@torch.no_grad()
def _sent(channel: Channel, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the release of features of this shape."""
    return tuple(channel.send(torch.zeros(1, *shape)).shape[1:])


def _part(given: Any) -> Defense:
    if isinstance(given, Defense):
        return given
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        raise InvalidInputError(f"chain.parts: {given!r} should be a table with the name of a defence")
    known = _loaded()
    if given["name"] not in known:
        raise unknown("defence", given["name"], known)
    return known[given["name"]].from_mapping({key: value for key, value in given.items() if key != "name"})


def _loaded() -> dict[str, type[Defense]]:
    """All defences whose file was imported, by name; of two with one name the one of this package."""
    found: dict[str, type[Defense]] = {}
    pending: list[type[Defense]] = [Defense]
    while pending:
        cls = pending.pop()
        pending += cls.__subclasses__()
        if cls is not Defense and (cls.name not in found or cls.__module__.startswith(f"{__package__}.")):
            found[cls.name] = cls
    return found


def _behind(calibration: Calibration, before: "_ChannelChain") -> Calibration:
    """What a part sees: as features what the parts before it send, as tail all that follows in the cloud."""

    def batches() -> Iterator[CalibrationBatch]:
        for batch in calibration.batches():
            with torch.no_grad():  # not around ``yield``: who learns from the batches would have no gradients
                sent = before.send(batch.features)
            yield replace(batch, features=sent)

    tail = nn.Sequential(_Receiving(before), calibration.tail)
    encoder = nn.Sequential(calibration.encoder, _Sending(before))
    return replace(calibration, batches=batches, encoder=encoder, tail=tail)


class _ChannelChain(Channel):
    """``trains``: whether the encoder before it is trained behind it."""

    def __init__(self, channels: list[Channel], trains: bool = False) -> None:
        super().__init__()
        self.channels, self.trains = nn.ModuleList(channels), trains

    @property
    def each(self) -> list[Channel]:
        return [channel for channel in self.channels if isinstance(channel, Channel)]

    @property
    def last(self) -> Channel:
        return self.each[-1]

    def before(self, number: int) -> "_ChannelChain":
        """The parts before this one, the same modules."""
        return _ChannelChain(self.each[:number])

    def calibrate(self, calibration: Calibration) -> None:
        for number, channel in enumerate(self.each):
            channel.calibrate(_behind(calibration, self.before(number)))

    def send(self, features: Tensor) -> Tensor:
        for channel in self.each:
            features = channel.send(features)
        return features

    def receive(self, release: Tensor) -> Tensor:
        for channel in reversed(self.each):
            release = channel.receive(release)
        return release

    def send_like(self, features: Tensor, release: Tensor) -> Tensor:
        for channel, sent in zip(self.each, self._as_sent(release), strict=True):
            features = channel.send(features) if sent is None else channel.send_like(features, sent)
        return features

    def arrived(self, release: Tensor) -> Tensor:
        """Of the places where any part left a blank, those that a release still tells: behind noise it tells none.

        What a blank became in the parts behind is known; where features of that very value became the same, as many
        do in few bits, they are taken for blanks too.
        """
        flags: Tensor | None = None
        for channel, sent in zip(self.each, self._as_sent(release), strict=True):
            if sent is None:
                continue
            before = None if flags is None else channel.carried(flags)
            flags = channel.arrived(sent) if before is None else channel.arrived(sent) & before
        assert flags is not None, "the last part's release is what was sent"
        return flags

    def _as_sent(self, release: Tensor) -> list[Tensor | None]:
        """Each part's release, as far as the last one's tells; None where blanks are no longer told from features.

        Parts behind are undone, and what they made of blanks is blank again.
        """
        sent: list[Tensor | None] = [release]
        for channel in reversed(self.each[1:]):
            behind = sent[0]
            received = None if behind is None else channel.receive(behind)
            if received is None or channel.carried(torch.ones_like(received, dtype=torch.bool)) is None:
                return [None] * (len(self.each) - len(sent)) + sent
            with seeded("blank"):
                blank = channel(torch.zeros_like(received[:1]))
            near = (received - blank).abs() <= ROUNDING * received.abs().amax()
            sent.insert(0, received.masked_fill(near, 0))
        return sent

    def pack(self, release: Tensor) -> bytes:
        return self.last.pack(release)

    def unpack(self, packed: bytes) -> Tensor:
        return self.last.unpack(packed)

    def coding(self) -> dict[str, Any] | None:
        return self.last.coding()

    def guarantee(self) -> Guarantee | None:
        stated = [guarantee for channel in self.each if (guarantee := channel.guarantee())]
        if not stated:
            return None
        best = min(stated, key=lambda guarantee: guarantee.epsilon)
        # the noise of a part is not added to the features but to what other parts made of them
        return replace(best, noise_std=None, information=self._information())

    def _information(self) -> float | None:
        """The fewest nats that a part proves by itself: no other part can add to what it lets through.

        They are proved for what a part was given when it was calibrated, and not for what training makes of that.
        """
        proved: list[float] = []
        for number, channel in enumerate(self.each):
            trained = self.trains or any(True for _ in self.before(number).parameters())
            guarantee = channel.guarantee()
            if guarantee and guarantee.information is not None and not trained:
                proved.append(guarantee.information)
        return min(proved, default=None)


class _Sending(nn.Module):
    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self.channel = channel

    def forward(self, features: Tensor) -> Tensor:
        return self.channel.send(features)


class _Receiving(_Sending):
    def forward(self, features: Tensor) -> Tensor:
        return self.channel.receive(features)


class _PerturbationChain(Perturbation):
    def __init__(self, perturbations: list[Perturbation]) -> None:
        super().__init__()
        self.perturbations = nn.ModuleList(perturbations)

    def calibrate(self, calibration: Calibration) -> None:
        for perturbation in self.perturbations:
            assert isinstance(perturbation, Perturbation)
            perturbation.calibrate(calibration)

    def forward(self, images: Tensor) -> Tensor:
        for perturbation in self.perturbations:
            images = perturbation(images)
        return images


class _Sum(nn.Module):
    def __init__(self, channel: _ChannelChain, terms: nn.ModuleDict) -> None:
        super().__init__()
        self.channel, self.terms = channel, terms

    def forward(
        self, images: Tensor, features: Tensor, release: Tensor, logits: Tensor, labels: Tensor | None
    ) -> Tensor:
        total = logits.new_zeros(())
        for number, term in self.terms.items():
            seen = self.channel.before(int(number)).send(features)
            sent = self.channel.before(int(number) + 1).send(features)
            total = total + term(images, seen, sent, logits, labels)
        return total
