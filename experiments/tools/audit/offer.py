"""What a time budget buys: how large an audit is, how long it takes, and the largest that fits."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from splitleak.attacks.optimise import TRIED
from splitleak.attacks.refine import WEIGHTS
from splitleak.experiments.judge.metrics.bounds import PROBES
from splitleak.experiments.stages import bounds
from splitleak.experiments.stages.attack import RANKED, SHUFFLED
from splitleak.experiments.stages.protect import DRAWS, TIMED_REPEATS, WARM_UPS
from splitleak.experiments.stages.strongest import DRAWS as COMPARED
from splitleak.experiments.tools.audit.speed import Speed
from splitleak.experiments.tools.decoder import DECODER_BATCH, decoder_epochs
from splitleak.victims.data.base import Catalog
from splitleak.victims.data.parts import PRECEDENCE, TEST, PartSizes, divide
from splitleak.victims.errors import InvalidInputError

SHARE = 0.75
"""Of the budget that the estimate may take: machines are shared, and estimates are rough."""
SECONDS_PER_CELL, SECONDS_PER_RUN = 1.0, 10.0
"""What no calibration sees: reading networks and photos again, storing, the report."""
TAIL_EPOCHS, SEARCH_DRAWS = 2, 2
"""Passes over the photos that train a tail; draws of a random edge in each step of the white-box search."""
MOST_EPOCHS = 100
"""Of the decoder: where photos are few, more passes over the same teach it these alone."""
SHARES = PartSizes(train=20, auxiliary=50, validation=10, target=20)
"""Per cent of the photos, where these are fewer than the budget would buy."""
LEAST = PartSizes(train=8, auxiliary=16, validation=4, target=4)
READABLE = 0.9
"""Of what the other parts leave, at most, has the one that measures utility: the rest takes the places of photos that
cannot be read."""
SHRINKING = (1.0, 0.85, 0.7, 0.5, 0.3)
"""Tried in turn: people who stay together and an authors' split may leave fewer photos than there are."""

STRENGTHS: Mapping[str, tuple[str, tuple[tuple[float, ...], ...]]] = {
    "channel_subset": ("keep", ((), (0.25,), (0.5, 0.1), (0.5, 0.25, 0.1))),
    "quantisation": ("bits", ((), (2,), (4, 1), (4, 2, 1))),
    "gaussian_noise": ("sigma", ((), (1.0,), (0.5, 2.0), (0.5, 2.0, 8.0))),
}
"""The defences of an audit: of each the field that is swept, and its values where no, one, two or three are bought.

They leave the encoder as it is and train nothing of their own."""


@dataclass(frozen=True)
class Scale:
    """How large an audit is: photos by part, steps of the decoder, photos of the white-box search and its steps, and
    how many strengths of each defence."""

    target: int
    validation: int
    auxiliary: int
    train: int
    decoder_steps: int
    searched: int
    search_steps: int
    strengths: int


SCALES = (
    Scale(24, 16, 100, 48, 100, 0, 0, 0),
    Scale(32, 16, 150, 48, 150, 8, 10, 0),
    Scale(40, 16, 200, 64, 300, 8, 20, 0),
    Scale(32, 16, 150, 48, 150, 8, 10, 1),
    Scale(40, 16, 200, 64, 200, 8, 15, 1),
    Scale(48, 16, 300, 96, 300, 8, 20, 1),
    Scale(48, 16, 300, 96, 300, 8, 20, 2),
    Scale(64, 16, 400, 128, 400, 8, 20, 2),
    Scale(64, 32, 500, 160, 600, 12, 30, 2),
    Scale(80, 32, 700, 200, 800, 16, 30, 3),
    Scale(100, 50, 1000, 300, 1200, 16, 40, 3),
    Scale(150, 75, 1500, 500, 2000, 24, 50, 3),
    Scale(200, 100, 2500, 800, 4000, 32, 80, 3),
    Scale(300, 150, 4000, 1500, 8000, 48, 120, 3),
    Scale(500, 200, 8000, 3000, 20000, 64, 200, 3),
)
"""From the least that tells anything to all that an audit can be: the floor, the linear attack and a decoder first,
then the white box, then defences, then more of everything."""


@dataclass(frozen=True)
class Offer:
    """An audit at one scale with the photos that there are. ``new_head``: the classifier has no weights yet."""

    scale: Scale
    sizes: PartSizes
    task: str | None
    new_head: bool

    @property
    def epochs(self) -> int:
        """Of the decoder."""
        return min(decoder_epochs(self.scale.decoder_steps, self.sizes.auxiliary), MOST_EPOCHS)

    @property
    def strengths(self) -> dict[str, tuple[float, ...]]:
        """Of each defence that is tried."""
        return {name: values[self.scale.strengths] for name, (_, values) in STRENGTHS.items() if self.scale.strengths}

    def seconds(self, speed: Speed) -> float:
        """About how long it takes."""
        noisy = len(self.strengths.get("gaussian_noise", ()))
        quiet = 1 + sum(len(values) for values in self.strengths.values()) - noisy
        trained = TAIL_EPOCHS * self._pass(speed) if self.new_head else 0.0
        settings = quiet * self._setting(speed, random=False) + noisy * self._setting(speed, random=True)
        return SECONDS_PER_RUN + self.sizes.total * (speed.decode + speed.encode) + trained + settings

    def _pass(self, speed: Speed) -> float:
        """The tail's training, once over the photos."""
        return speed.read * (self.sizes.train + self.sizes.validation / 3) if self.task else 0.0

    def _setting(self, speed: Speed, random: bool) -> float:
        """One defence setting with all its attacks; the edge that draws at random is met several times."""
        sizes, scale, draws = self.sizes, self.scale, DRAWS if random else 1
        ranked = min(RANKED, sizes.validation)
        attacks = 4 if scale.searched else 3
        judged = draws * sizes.target * (speed.score + (speed.encode + speed.read / 3 if self.task else 0.0))
        protecting = TAIL_EPOCHS * self._pass(speed) + 2 * speed.encode * (TIMED_REPEATS + WARM_UPS + sizes.target)
        protecting += (sizes.test or 0) * (speed.encode + draws * speed.read / 3)
        bounding = speed.search * PROBES * bounds.PHOTOS + speed.prior * min(bounds.PRIOR, sizes.auxiliary) ** 2
        linear = speed.solve + speed.linear * sizes.auxiliary
        answering = (draws + 1) * sizes.target + ranked
        learning = self.epochs * (sizes.auxiliary + sizes.validation / 3) + answering / 3
        tried = min(TRIED, sizes.validation) * len(WEIGHTS)
        moved = scale.search_steps * (tried + draws * scale.searched + min(SHUFFLED, scale.searched) + ranked)
        searching = moved * (SEARCH_DRAWS if random else 1) * (speed.search + speed.learn) if scale.searched else 0.0
        choosing = attacks * COMPARED * draws * (sizes.target + ranked) * speed.encode
        cells = (attacks + 1) * (judged + SECONDS_PER_CELL)
        return protecting + random * bounding + linear + learning * speed.learn + searching + choosing + cells

    def lines(self, count: int) -> Iterator[str]:
        """What it is, for people; ``count``: photos that there are."""
        sizes, scale, most = self.sizes, self.scale, SCALES[-1]
        yield (
            f"photos: {sizes.target} attacked, {sizes.auxiliary} the attacker's, {sizes.train} that fit defences and "
            f"tails, {sizes.validation} for selection{self._measured}; {count} there"
        )
        white = f", refine (white box: {scale.search_steps} steps on {scale.searched} photos)"
        yield (
            "attacks: mean_image (the floor), ridge, "
            f"decoder ({self.epochs * sizes.auxiliary // DECODER_BATCH} steps){white if scale.searched else ''}"
        )
        yield f"defences: {', '.join(['none', *_settings(self.strengths)])}"
        yield f"task: {self.task or 'none, so the report has no accuracy'}"
        left = [] if scale.searched else ["the white-box attack"]
        missing = {
            name: tuple(value for value in values[-1] if value not in self.strengths.get(name, ()))
            for name, (_, values) in STRENGTHS.items()
        }
        left += _settings({name: values for name, values in missing.items() if values})
        left += [f"{unused} photos"] if (unused := count - sizes.total) > 0 and scale != most else []
        left += ["longer training and search"] if scale != most else []
        yield f"left out for the budget: {', '.join(left) or 'nothing'}"
        yield "in no audit: further seeds and attacks, defences that train the network; add them to the plan"

    @property
    def _measured(self) -> str:
        """On which photos accuracy is measured."""
        if not self.task:
            return ""
        return (
            f", {self.sizes.test} for accuracy"
            if self.sizes.test
            else "; accuracy on those attacked, for want of more"
        )


def _settings(strengths: Mapping[str, tuple[float, ...]]) -> list[str]:
    """Such as ``quantisation bits = 4, 2``."""
    return [f"{name} {STRENGTHS[name][0]} = {', '.join(map(str, of))}" for name, of in strengths.items()]


def part_sizes(scale: Scale, catalog: Catalog, task: str | None, count: int) -> PartSizes:
    """What a scale asks for, or as much as ``count`` photos give to four disjoint parts.

    With a task, utility is measured on a part of its own where the others leave as many photos as are attacked: on
    as many as the attacker has, at most, for margins of three points need narrow intervals.

    Raises:
        InvalidInputError: these are too few.
    """
    for share in SHRINKING:
        sizes = {
            part: min(getattr(scale, part), int(share * count * getattr(SHARES, part) / 100)) for part in PRECEDENCE
        }
        short = [part for part, size in sizes.items() if size < getattr(LEAST, part)]
        if short:
            break
        try:
            parts = divide(catalog, PartSizes(**sizes, test=None), task, seed=0)
        except InvalidInputError:
            continue
        tested = min(int(READABLE * len(parts.indices.get(TEST, ()))), sizes["auxiliary"])
        return PartSizes(**sizes, test=tested if tested >= sizes["target"] else 0)
    needed = max(math.ceil(100 * getattr(LEAST, part) / getattr(SHARES, part)) for part in PRECEDENCE)
    people = "" if catalog.identity is None else ", people in one part each"
    raise InvalidInputError(
        f"too few photos: {count} can be used, an audit divides at least {needed} into four disjoint parts{people}"
    )


def offers(catalog: Catalog, task: str | None, count: int, new_head: bool) -> list[Offer]:
    """An audit at every scale, the least first; raises as ``part_sizes`` does."""
    return [Offer(scale, part_sizes(scale, catalog, task, count), task, new_head) for scale in SCALES]
