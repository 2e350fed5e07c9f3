"""What an attack's answers are worth, by the kind of answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from splitleak.attacks.base import Attack, AttributeInference, Linkage, Reconstruction
from splitleak.experiments.judge.metrics.attributes import balanced_accuracy, chance_of_balanced_accuracy
from splitleak.experiments.judge.metrics.identity import (
    Comparisons,
    chance_of_rank_1,
    constant_rank_1,
    constant_true_accepts,
    person_shares,
    rank_1,
    true_accepts,
)
from splitleak.experiments.judge.metrics.information import usable_bits
from splitleak.experiments.judge.metrics.pictures import Metric, metrics_for, psnr, score
from splitleak.experiments.judge.rules import FAR, PERSONAL, RANK_1, TAR
from splitleak.experiments.judge.statistics.groups import person_means
from splitleak.victims.tasks.base import Task

BALANCED_ACCURACY = "balanced_accuracy"
SIMILARITY, TASK_ACCURACY, TASK_UTILITY = "identity_similarity", "task_accuracy", "task_utility"
EAVESDROPPING, USABLE_BITS = "eavesdropping_accuracy", "usable_bits"
"""The former of the task; of another label with its name behind an underscore."""


@dataclass(frozen=True)
class Recogniser:
    """Recognises people on images. ``photos``: its embeddings of the n true photos, (n, d); ``embed``: of others."""

    photos: Tensor
    embed: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Reading:
    """What the undefended victim reads from photos.

    ``labels``: (n, ...) as the task has them. ``utility``: (n,), of the true photos. ``predict``: uint8 images
    (n, 3, h, w) -> what it predicts, (n, ...).
    """

    task: Task
    labels: Tensor
    utility: Tensor
    predict: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Reader:
    """An independent network that tells labels. ``photos``: by label what it reads on the n true photos, int64 (n,);
    ``read``: the same of other images, uint8 (n, 3, h, w)."""

    photos: Mapping[str, Tensor]
    read: Callable[[Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Seen:
    """What is found on each reconstruction of the first n photos alone.

    ``likeness``: to the photos, by metric of pictures, float64 (n,). ``task``: what the undefended victim
    predicts, (n, ...), None where it has no task. ``labels``: by label what the independent reader reads, int64 (n,).
    """

    likeness: Mapping[str, Tensor]
    task: Tensor | None = None
    labels: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Truth:
    """What only the judge knows of the n photos that were sent.

    ``images``: uint8 (n, 3, h, w). ``attributes``: by name, int64 (n,), -1 where unknown; ``task``: the one that
    the victim predicts. ``identities``: int64 (n,), -1 where unknown, None where the data has none. ``floor``: the
    mean squared error of the answer that ignores the release, (n,).
    """

    images: Tensor
    attributes: Mapping[str, Tensor] = field(default_factory=dict)
    task: str | None = None
    identities: Tensor | None = None
    recogniser: Recogniser | None = None
    victim: Reading | None = None
    reader: Reader | None = None
    floor: Tensor | None = None


@dataclass(frozen=True)
class Scores:
    """``values``: by metric, (n,), not a number where a photo does not count; a metric that counts none is absent.

    ``references``: by metric what its mean is to be compared with: "chance", the mean of answers that tell
    nothing, "constant", that of the best answer which is the same for all photos, and "ceiling", that of the true
    photos in place of the answers; those of ``PERSONAL`` are means over people. ``pictures``: uint8 (n, 3, h, w).
    """

    values: dict[str, Tensor] = field(default_factory=dict)
    references: dict[str, dict[str, float]] = field(default_factory=dict)
    pictures: Tensor | None = None

    def __or__(self, other: "Scores") -> "Scores":
        return Scores(self.values | other.values, self.references | other.references, self.pictures)

    @classmethod
    def over_draws(cls, draws: "Sequence[Scores]") -> "Scores":
        """Of several interceptions of the same photos: the mean for each photo, the pictures of the first."""
        values = {name: torch.stack([draw.values[name] for draw in draws]).mean(0) for name in draws[0].values}
        return cls(values, draws[0].references, draws[0].pictures)


def score_answers(attack: Attack[Any], answers: Tensor, truth: Truth, seen: Seen | None = None) -> Scores:
    """Score what ``attack`` said of the first photos: images (uint8), embeddings or class scores (float32).

    Args:
        seen: see ``score_images``; of images alone.

    Raises:
        ValueError: answers that cannot be scored, such as ones that are not finite.
    """
    match attack:
        case Reconstruction():
            return score_images(answers, truth, seen) | score_ceiling(attack.darkest, truth.images[: len(answers)])
        case Linkage():
            return score_links(answers, answers, truth)
        case AttributeInference():
            return score_reading(attack, answers, truth)
        case _:
            raise TypeError(f"{attack.name} is of no kind that the judge knows")


def score_control(attack: Attack[Any], answers: Tensor, truth: Truth) -> Scores:
    """Like ``score_answers``, but pictures by PSNR alone: enough to see whether an attack needs the release."""
    if not isinstance(attack, Reconstruction):
        return score_answers(attack, answers, truth)
    values = score({"psnr": psnr}, truth.images[: len(answers)], answers)
    return Scores({name: torch.tensor(of) for name, of in values.items()})


def score_images(rebuilt: Tensor, truth: Truth, seen: Seen | None = None) -> Scores:
    """Likeness to the true photos, what the victim still reads from the rebuilt ones, who a recogniser sees there.

    Args:
        rebuilt: uint8 (n, 3, h, w), of the first n photos.
        seen: what is known of them already, of "mse" at least; else it is looked for.
    """
    images = truth.images[: len(rebuilt)]
    seen = seen or look(images, rebuilt, metrics_for(images.shape[-1]), truth.victim, truth.reader)
    scores = Scores(dict(seen.likeness), pictures=rebuilt)
    if truth.floor is not None:
        bits = usable_bits(scores.values["mse"], truth.floor[: len(rebuilt)], images[0].numel())
        scores |= Scores({USABLE_BITS: bits})
    if truth.victim and seen.task is not None:
        scores |= score_utility(seen.task, truth.victim)
    if truth.reader:
        scores |= score_eavesdropping(seen.labels, truth.reader, truth)
    return scores | score_recognised(rebuilt, truth)


def look(
    images: Tensor, rebuilt: Tensor, metrics: Mapping[str, Metric], victim: Reading | None, reader: Reader | None
) -> Seen:
    """What there is to find on reconstructions of ``images``, both uint8 (n, 3, h, w), by those who are there."""
    likeness = {name: torch.tensor(of, dtype=torch.float64) for name, of in score(metrics, images, rebuilt).items()}
    return Seen(likeness, victim.predict(rebuilt) if victim else None, reader.read(rebuilt) if reader else {})


def score_recognised(rebuilt: Tensor, truth: Truth) -> Scores:
    """Who a recogniser sees on reconstructions (n, 3, h, w), and how alike they look to it; none without one."""
    if truth.recogniser is None:
        return Scores()
    embedded, photos = truth.recogniser.embed(rebuilt), truth.recogniser.photos
    return score_similarity(embedded, photos, truth.identities) | score_links(embedded, photos, truth)


def score_identity(attack: Attack[Any], answers: Tensor, truth: Truth, first: int | None = None) -> Scores:
    """Who the first of an attack's answers show, sought among all photos; none where it tells nothing of that."""
    match attack:
        case Reconstruction():
            return score_recognised(answers[:first], truth)
        case Linkage():
            return score_links(answers[:first], answers, truth)
    return Scores()


def identity_merit(attack: Attack[Any], answers: Tensor, truth: Truth) -> float | None:
    """The rank-1 that an attack reaches, with each person counted once; None where that is unknown.

    Of the validation part's photos it tells, before any target is looked at, which attack counts for identity.
    """
    values = score_identity(attack, answers, truth).values.get(RANK_1)
    if values is None or truth.identities is None:
        return None
    return float(person_means(values, truth.identities[: len(values)]).mean())


def score_ceiling(darkest: tuple[float, float, float], images: Tensor) -> Scores:
    """What the best answers that hold nothing darker would reach on images (n, 3, h, w), where that is a limit."""
    if not any(darkest):
        return Scores()
    least = torch.tensor(darkest)[:, None, None]
    reached = score({"psnr": lambda photos, _: psnr(photos, photos.maximum(least))}, images, images)["psnr"]
    return Scores(references={"psnr": {"ceiling": sum(reached) / len(reached)}})


def score_utility(read: Tensor, victim: Reading) -> Scores:
    """What it is worth that the undefended victim reads (n, ...) on reconstructions: what is left of the task."""
    labels = victim.labels[: len(read)]
    ceiling = float(victim.utility[: len(read)].mean())
    metric = TASK_ACCURACY if victim.task.form == "class" else TASK_UTILITY
    references = {metric: {"chance": victim.task.chance(labels), "ceiling": ceiling}}
    return Scores({metric: victim.task.utility(read, labels)}, references)


def score_eavesdropping(read: Mapping[str, Tensor], reader: Reader, truth: Truth) -> Scores:
    """Whether an independent network reads the photos' labels on reconstructions of the first ones, by label (n,)."""
    scores = Scores()
    for name, photos in reader.photos.items():
        labels = truth.attributes[name][: len(read[name])]
        known = labels >= 0
        if len(labels[known].unique()) < 2:
            continue
        metric = EAVESDROPPING if name == truth.task else f"{EAVESDROPPING}_{name}"
        ceiling = (photos[: len(labels)] == labels)[known].double().mean()
        references = {"chance": float(labels[known].bincount().max() / known.sum()), "ceiling": float(ceiling)}
        scores |= Scores({metric: (read[name] == labels).double().where(known, torch.nan)}, {metric: references})
    return scores


def score_similarity(embedded: Tensor, photos: Tensor, identities: Tensor | None) -> Scores:
    """Cosine of the embeddings of each reconstruction (m, d) and of its own photo; ``photos`` (n, d), m <= n.

    By chance: the mean cosine of photos of different people; of different photos where nobody knows who they show.
    """
    values = F.cosine_similarity(embedded.double(), photos[: len(embedded)].double())
    unit = F.normalize(photos.double())
    if identities is None:
        other = ~torch.eye(len(photos), dtype=torch.bool)
    else:
        known = identities[: len(photos)]
        other = (known[:, None] != known) & (known[:, None] >= 0) & (known >= 0)
    references = {SIMILARITY: {"chance": float((unit @ unit.T)[other].mean())}} if other.any() else {}
    return Scores({SIMILARITY: values}, references)


def score_links(probes: Tensor, gallery: Tensor, truth: Truth) -> Scores:
    """Rank-1 and true accepts of probes (m, d) against gallery items (n, d) of other photos of the same people.

    Values are of photos; references are means over people.
    """
    if truth.identities is None:
        return Scores()
    comparisons = Comparisons.of(probes, gallery, truth.identities[: len(gallery)])
    if not comparisons.counted.any():
        return Scores()
    shares = person_shares(comparisons, truth.identities[: len(probes)])
    told = {"chance": {RANK_1: chance_of_rank_1(comparisons), TAR: comparisons.counted.double() * FAR}}
    if truth.recogniser:
        photos = truth.recogniser.photos[: len(gallery)]
        undefended = Comparisons.of(photos[: len(probes)], photos, truth.identities[: len(gallery)])
        told["ceiling"] = {RANK_1: rank_1(undefended), TAR: true_accepts(undefended)}
    constant = {RANK_1: constant_rank_1(comparisons, shares), TAR: constant_true_accepts(comparisons, shares)}
    references = {
        metric: {name: float(shares @ values[metric].nan_to_num()) for name, values in told.items()}
        | {"constant": constant[metric]}
        for metric in PERSONAL
    }
    return Scores({RANK_1: rank_1(comparisons), TAR: true_accepts(comparisons)}, references)


def score_reading(attack: AttributeInference[Any], answers: Tensor, truth: Truth) -> Scores:
    """Balanced accuracy of class scores (n, classes) for the attribute that the attack reads."""
    attribute = attack.read(truth.task, truth.attributes)
    assert attribute is not None  # by the attack's ``check``
    labels = truth.attributes[attribute][: len(answers)]
    if len(labels[labels >= 0].unique()) < 2:
        return Scores()
    chance = chance_of_balanced_accuracy(labels)
    return Scores({BALANCED_ACCURACY: balanced_accuracy(answers, labels)}, {BALANCED_ACCURACY: {"chance": chance}})
