"""THE schema of a cell: what cells write, and what reports, exports, comparisons and archives read."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from splitleak.experiments.judge.metrics.seen import Probe
from splitleak.experiments.judge.proved import Bounds
from splitleak.experiments.planning.found import Found
from splitleak.experiments.planning.threat import Photos, Threat
from splitleak.experiments.store.provenance import Made

SCHEMA = 2
"""Of a record; what an earlier version wrote is read through ``migrate``."""


class _Part(BaseModel):
    """What is written is what is read: no unknown key, no value of another kind, nothing changed afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Victim(_Part):
    """What is attacked; ``task`` is None where the network has none."""

    model: str
    cut: str
    data: str
    size: int
    task: str | None = None


class DefenceSetting(_Part):
    """A defence with its hyper-parameters; ``strength`` names the one that a tradeoff curve sweeps.

    ``match``: how that was searched, where it was.
    """

    name: str
    label: str
    settings: dict[str, Any] = {}
    strength: str | None = None
    strength_value: Any = None
    match: Found | None = None

    @property
    def strength_text(self) -> str:
        """Such as ``0.5``; empty where there is none."""
        value = self.strength_value
        if self.strength is None or value is None:
            return ""
        return f"{value:g}" if isinstance(value, int | float) else str(value)

    @property
    def fixed(self) -> dict[str, Any]:
        """The settings apart from the strength: what the points of one curve share."""
        return {name: value for name, value in self.settings.items() if name != self.strength}


class AttackSetting(_Part):
    """An attack with its hyper-parameters. ``needs``: what it declares to require, beside photos and releases.

    ``floor``: it ignores the release, shows what is known anyway. ``effort``: how the plan named its budget, if it
    did.
    """

    name: str
    label: str
    settings: dict[str, Any] = {}
    knowledge: str = ""
    floor: bool = False
    needs: tuple[str, ...] = ()
    effort: str | None = None


class Score(_Part):
    """A metric of one cell: its mean and 95 % interval over the images, and the value of each image.

    ``counted``: the positions of the images that count, None where all do.
    """

    mean: float
    low: float
    high: float
    values: tuple[float, ...]
    counted: tuple[int, ...] | None = None


class Utility(Score):
    """What the cloud still gets: a share in [0, 1], ``chance`` is that of guessing.

    ``metric``: how the task calls it. ``also``: what is known of all photos together, such as an mAP.

    ``part``: the photos on which it was measured; ``photos``: a digest of them; ``groups``: of each an anonymous
    number, which photos of one person share, with those of the targets. None: not stored, or those of the targets.
    """

    metric: str = "accuracy"
    chance: float | None = None
    part: str = "target"
    photos: str | None = None
    groups: tuple[int, ...] | None = None
    also: dict[str, float] = {}


class EdgeTime(_Part):
    """Of one image on the edge; ``ratio`` is to the undefended network."""

    milliseconds: float
    ratio: float


class GuaranteeStatement(_Part):
    """What is proved of the training photos or of one query; an ``epsilon`` of None is infinite.

    ``information``: nats that one release tells about its photo at most.
    """

    protects: Literal["training", "query"]
    epsilon: float | None = None
    delta: float = 0.0
    noise_std: float | None = None
    information: float | None = None


class Allowance(_Part):
    """What both sides may spend: the attacker's ``queries`` (None for no limit) and photos, the defence's epochs.

    With a ``patience`` these are a ceiling.
    """

    queries: int | None = None
    photos: int | None = None
    epochs: int | None = None
    patience: int | None = None


class Seconds(_Part):
    """How long the attack took."""

    fit: float
    reconstruct: float


class Inside(_Part):
    """The shapes of a release and of what each stage of a decoder makes of it, the image last; without the batch."""

    release: tuple[int, ...]
    stages: tuple[tuple[int, ...], ...]


History = tuple[dict[str, float], ...]
"""The rows that a training or a search logged, in order."""

State = Literal["ok", "failed", "does not apply"]
"""Measured; ended in an error; or there is nothing to measure, which is an answer."""


class Record(_Part):
    """One victim x defence setting x attack setting x seed. One without a measurement lacks what has a default.

    ``schema_version``: of this file. ``reason``: one line on why it does not apply. ``traceback``: of a failure.
    ``n``: how many photos were scored, the first of the target part; ``targets``: a digest of that whole part;
    ``groups``: of each of its photos an anonymous number, the same for photos of one person, None where not stored.
    ``history``: of fitting the attack, one row of numbers for each step or epoch; ``training``: the victim's and the
    defence's; ``cut_short``: the ceiling ended one of these two, which had not stalled. ``made``: with what its
    stages were computed. ``archived``: read from an archive, whose numbers of single photos are rounded, so that it
    counts as no result of a plan.
    """

    schema_version: int = SCHEMA
    id: str
    key: str
    status: State
    plan: str
    seed: int
    adaptive: bool
    sends: int = 1
    photos: Photos = "own"
    victim: Victim
    defence: DefenceSetting
    attack: AttackSetting
    budget: Allowance = Allowance()
    reason: str | None = None
    traceback: str | None = None
    n: int | None = None
    metrics: dict[str, Score] = {}
    references: dict[str, dict[str, float]] = {}
    controls: dict[str, dict[str, Score]] = {}
    oracle: dict[str, Score] = {}
    chosen: dict[str, int] = {}
    chosen_for: dict[str, dict[str, int]] = {}
    utility: Utility | None = None
    targets: str | None = None
    groups: tuple[int, ...] | None = None
    bytes: float | None = None
    edge: EdgeTime | None = None
    guarantees: tuple[GuaranteeStatement, ...] = ()
    queries: int | None = None
    seconds: Seconds | None = None
    history: History = ()
    training: dict[str, History] = {}
    cut_short: bool | None = None
    inside: Inside | None = None
    draws: int = 1
    random: bool = False
    converged: bool | None = None
    overfitted: bool | None = None
    gradient: float | None = None
    cut_off: float | None = None
    overlap: int = 0
    probe: Probe = Probe()
    bounds: Bounds | None = None
    made: tuple[Made, ...] = ()
    finished: str | None = None
    archived: bool = False

    @property
    def ok(self) -> bool:
        """Whether it was measured."""
        return self.status == "ok"

    @property
    def failed(self) -> bool:
        """Whether it ended in an error."""
        return self.status == "failed"

    @property
    def column(self) -> str:
        """The attack as the matrix names it."""
        return Threat(self.adaptive, self.sends, photos=self.photos).column(self.attack.label)

    def people(self, score: Score) -> tuple[int, ...] | None:
        """The group of each image that a score counts; None where groups were not stored.

        Where they were not, but some images do not count, each counted one has its position as its number: so that
        scores that count different ones are not taken for those of the same photos.
        """
        groups = score.groups if isinstance(score, Utility) and score.groups is not None else self.groups
        if score.counted is None:
            return None if groups is None else groups[: len(score.values)]
        return score.counted if groups is None else tuple(groups[photo] for photo in score.counted)

    def epsilon(self, protects: Literal["training", "query"]) -> tuple[float, float]:
        """The smallest epsilon that is proved, with its delta; infinity where none is."""
        statements = [one for one in self.guarantees if one.protects == protects]
        proved = [(one.epsilon, one.delta) for one in statements if one.epsilon is not None]
        return min(proved, default=(math.inf, 0.0))

    @property
    def refuted(self) -> bool:
        """Whether an epsilon of one query is claimed that an adversary proves to be larger."""
        least = self.probe.epsilon_at_least
        return least is not None and least > self.epsilon("query")[0]

    @property
    def talkative(self) -> bool:
        """Whether all sends of a photo tell more about it than is claimed for so many."""
        found = self.bounds.information_bits if self.bounds else None
        claimed = self.information
        return found is not None and claimed is not None and found * math.log(2) > self.sends * claimed

    @property
    def information(self) -> float | None:
        """Nats that one release tells about its photo at most, where that is proved."""
        return min((one.information for one in self.guarantees if one.information is not None), default=None)

    @property
    def noise_std(self) -> float | None:
        """Of additive Gaussian noise on the release, where there is any."""
        return next((one.noise_std for one in self.guarantees if one.noise_std is not None), None)

    @property
    def versions(self) -> dict[str, str]:
        """Of each library, all that its stages were computed with."""
        names = dict.fromkeys(name for made in self.made for name in made.versions)
        found = {
            name: dict.fromkeys(made.versions[name] for made in self.made if name in made.versions) for name in names
        }
        return {name: ", ".join(versions) for name, versions in found.items()}

    @property
    def why(self) -> str:
        """One line on a cell without a measurement; empty for one that was measured."""
        return self.reason or last_line(self.traceback) or ""


def last_line(traceback: str | None) -> str | None:
    """The line of a traceback that says what went wrong."""
    lines = (traceback or "").strip().splitlines()
    return lines[-1] if lines else None


def migrate(stored: Mapping[str, Any]) -> dict[str, Any]:
    """What any version of a record holds, as this version writes it.

    Version 1 named no version of its own, and told the libraries of the judge as everybody's.

    Raises:
        ValueError: it is of a version that is not known here.
    """
    written = stored.get("schema_version", 1)
    if written == SCHEMA:
        return dict(stored)
    if written != 1:
        raise ValueError(f"its schema_version is {written}, this splitleak reads up to {SCHEMA}")
    record = {"id": "", "key": "", "plan": "", **stored, "schema_version": SCHEMA}
    versions = record.pop("versions", None)
    if versions:
        record["made"] = [{"stages": ["judge"], "versions": versions}]
    return record
