"""Validity flags: what makes a number doubtful, found from the numbers themselves."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from splitleak.experiments.judge.rules import CUT_OFF, FEW_PHOTOS, MATERIAL
from splitleak.experiments.judge.statistics.different import Sample, different
from splitleak.experiments.judge.statistics.interval import Array


@dataclass(frozen=True)
class Evidence:
    """What is known of one defence setting met by one attack, over its seeds.

    ``leakage``, ``floor``, ``black_box``, ``shuffled``: PSNR (seeds, k) of the first k of the same photos: of the
    attack, of the mean image, of the best attack that may not differentiate, and of the attack given the releases of
    other photos; None where not measured. ``groups``: who is on each of the k photos. ``converged``,
    ``overfitted``, ``cut_short``, ``gradient``, ``cut_off``: the worst of the seeds. ``untried``: photos of a suite
    that not all of its attacks tried.
    """

    photos: int
    seeds: int = 1
    draws: int = 1
    random: bool = False
    adaptive: bool = True
    floors: bool = False
    leakage: Array | None = None
    floor: Array | None = None
    black_box: Array | None = None
    shuffled: Array | None = None
    groups: npt.ArrayLike | None = None
    untried: int = 0
    converged: bool | None = None
    overfitted: bool | None = None
    cut_short: bool | None = None
    gradient: float | None = None
    cut_off: float | None = None
    overlap: int = 0
    absent: bool = False
    frozen: bool = False
    patterns: int = 0
    unbounded: bool = False
    refuted: bool = False
    talkative: bool = False
    unmatched: bool = False


@dataclass(frozen=True)
class Flag:
    """``means``: what it says about a number. ``remedy``: what would lift it."""

    name: str
    means: str
    remedy: str
    raised: Callable[[Evidence], bool] = field(repr=False)


def flags_of(evidence: Evidence) -> tuple[str, ...]:
    """The names of the flags that the evidence raises, in the order of ``FLAGS``."""
    return tuple(flag.name for flag in FLAGS.values() if flag.raised(evidence))


def _below(evidence: Evidence, first: Array | None, second: Array | None) -> bool:
    """Whether ``first`` is lower by more than can be seen, beyond its paired interval."""
    if first is None or second is None or min(first.shape[1], second.shape[1]) < 2:
        return False
    groups = evidence.groups
    return different(Sample(second, groups), Sample(first, groups)).difference.high < -MATERIAL


def _zero_gradient(evidence: Evidence) -> bool:
    return evidence.gradient is not None and not (np.isfinite(evidence.gradient) and evidence.gradient > 0)


def _one_draw(evidence: Evidence) -> bool:
    return evidence.random and evidence.draws * evidence.seeds == 1


_LISTED = (
    Flag(
        "white-box-below-black-box",
        "An attack that may differentiate through the device rebuilds worse than one that may only ask it. More "
        "knowledge cannot hurt: this attack is too weak here, and its number is no measure of the defence.",
        "More steps, another learning rate or prior, or read the black-box attack instead.",
        lambda evidence: _below(evidence, evidence.leakage, evidence.black_box),
    ),
    Flag(
        "below-floor",
        "The attack rebuilds worse than the mean image, which anybody has without looking at the release.",
        "A better attack. The defence is at most as good as the floor, whatever this number says.",
        lambda evidence: not evidence.floors and _below(evidence, evidence.leakage, evidence.floor),
    ),
    Flag(
        "not-converged",
        "The last tenth of a training or of a search still brought more than a hundredth of all that it gained, or "
        "there was too little of it to tell. A longer one would leak more.",
        "More epochs or steps.",
        lambda evidence: evidence.converged is False,
    ),
    Flag(
        "defence-cut-short",
        "The victim, or what stands behind the defence, still improved on the validation part when its training "
        "reached its ceiling: with a longer one the defence would have cost less utility.",
        "More epochs (victim.epochs, defender.epochs).",
        lambda evidence: evidence.cut_short is True,
    ),
    Flag(
        "overfitted",
        "A network of the attack was best long before its training ended, and from then on learned its photos by "
        "heart: the weights that were kept had not settled. One that overfits less would leak more.",
        "Moved copies (attacker.copies), more auxiliary photos, or fewer epochs.",
        lambda evidence: evidence.overfitted is True,
    ),
    Flag(
        "zero-gradient",
        "No gradient reaches the photo through the defended device (or it is not a number), so a white-box attack "
        "searched blindly: what looks like protection may be a broken derivative.",
        "A defence that rounds should pass gradients straight through; or attack it without gradients.",
        _zero_gradient,
    ),
    Flag(
        "one-draw",
        "The device draws at random, and each photo's release was drawn once, under one seed: the luck of that draw "
        "is in the number and not in its interval.",
        "More seeds.",
        _one_draw,
    ),
    Flag(
        "one-training",
        "The network was trained once: what another training would have given is in no interval.",
        "More seeds; three tell how much trainings differ.",
        lambda evidence: evidence.seeds == 1,
    ),
    Flag(
        "overlap",
        "Photos that are scored are, by their content, also among those that the victim or the attacker learned "
        "from: the number tells what was memorised.",
        "Remove them; parts that are divided here never overlap.",
        lambda evidence: evidence.overlap > 0,
    ),
    Flag(
        "few-photos",
        f"Scored on fewer than {FEW_PHOTOS} photos: the interval is wide and the photos may be unusual.",
        "More target photos; a full run has 500 and three seeds.",
        lambda evidence: evidence.photos < FEW_PHOTOS,
    ),
    Flag(
        "untried-photos",
        "The suite's number mixes photos that all of its attacks tried with photos that the slow ones did not: what "
        "these would have made of the others is not in it.",
        "Run the plan again: a suite is now stated on the photos that all tried.",
        lambda evidence: evidence.untried > 0,
    ),
    Flag(
        "utility-not-matched",
        "No strength of this defence loses as little of the undefended utility as the plan allows: what it leaks "
        "cannot be compared with defences that leave the task intact.",
        "Weaker strengths, or a longer training behind the defence.",
        lambda evidence: evidence.unmatched,
    ),
    Flag(
        "unaware-attacker",
        "The attack was fitted to the undefended device: who learns of the defence does better.",
        "adaptive = [true] in the plan, which is the default.",
        lambda evidence: not evidence.adaptive,
    ),
    Flag(
        "epsilon-without-sensitivity",
        "An epsilon per query is claimed, but larger features move what is sent without limit: no sensitivity is "
        "enforced, and the epsilon means nothing.",
        "Clip before the noise is added.",
        lambda evidence: evidence.unbounded,
    ),
    Flag(
        "epsilon-refuted",
        "An adversary who only compares the releases of two inputs proves that epsilon is larger than claimed: the "
        "guarantee is false.",
        "Look for noise that is smaller than stated, drawn once for several values, or added before what it hides.",
        lambda evidence: evidence.refuted,
    ),
    Flag(
        "information-above-claim",
        "What is sent of the validation part tells more bits about its photos than the defence claims for any: these "
        "photos vary more than those that the claim rests on, or the noise is not what it should be.",
        "More train photos, like those that will be sent, and an encoder that is left as it was when the noise was "
        "shaped.",
        lambda evidence: evidence.talkative,
    ),
    Flag(
        "defence-absent",
        "What is sent is bit for bit what the undefended device sends: for what is intercepted there is no defence.",
        "None, where the strength stands at no defence or the defence protects the training only; otherwise look why "
        "it does not act when it is attacked.",
        lambda evidence: evidence.absent,
    ),
    Flag(
        "frozen-draw",
        "Noise is claimed, but two sends of one photo are the same, or all photos get the same addition: who learns "
        "that draw subtracts it.",
        "Draw afresh on each send.",
        lambda evidence: evidence.frozen,
    ),
    Flag(
        "few-patterns",
        "What is drawn at random is only which of a few fixed patterns is added: who sends one photo often finds "
        "them all, and subtracts the one that a release most likely holds.",
        "Draw each value afresh on each send.",
        lambda evidence: evidence.patterns > 0,
    ),
    Flag(
        "answers-without-release",
        "Given the releases of other photos the attack still rebuilds better than the mean image: it knows the "
        "photos from elsewhere, and its number is no leakage of the release.",
        "Find out how the photos reached the attack.",
        lambda evidence: not evidence.floors and _below(evidence, evidence.floor, evidence.shuffled),
    ),
    Flag(
        "range-cut-off",
        "The reconstructions pile up at a darkest value below which the photos still go, as those of a decoder that "
        "ends in a ReLU on signed values: the decoder cannot rebuild these photos, whatever the release holds.",
        "A decoder that ends in a sigmoid in pixel space.",
        lambda evidence: evidence.cut_off is not None and evidence.cut_off > CUT_OFF,
    ),
)

FLAGS = {flag.name: flag for flag in _LISTED}
"""By name, in the order in which they are listed."""

INHERITED = frozenset(FLAGS) - {"few-photos", "untried-photos"}
"""What doubts of an attack make doubtful a suite that rests on it: not how many photos the attack was tried on."""
