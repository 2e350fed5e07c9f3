"""What was loaded, told before anything is computed from it: whoever reads it sees what went wrong, hours early."""

from torch import Tensor

from splitleak.experiments.judge.statistics.groups import counted_photos
from splitleak.experiments.judge.statistics.interval import interval
from splitleak.experiments.run.run import Run
from splitleak.experiments.stages.data import Data
from splitleak.experiments.stages.uncut import UncutStage
from splitleak.experiments.store.store import Store
from splitleak.victims.cuts import WAYS, Cut
from splitleak.victims.data.parts import TEST
from splitleak.victims.models import CLASSES_WITHOUT_TASK, SCRATCH, Network

ORDER = ("train", "validation", "auxiliary", "target", TEST)
MOST = 12
"""Classes that are listed; of more, the first and the last."""


def loaded(run: Run, data: Data) -> list[str]:
    """Photos, people, classes in their order, network, weights and normalisation, one line each."""
    victim = run.cells[0].protect.victim
    classes = len(data.classes) or CLASSES_WITHOUT_TASK
    network, halves = victim.training.initial(classes), victim.initial(classes)
    return [
        f"photos: {_parts(data)}",
        *([f"classes of {data.task}, in the order of the outputs: {_classes(data)}"] if data.task else []),
        f"network: {_network(victim.model, halves.cut)}",
        f"weights: {_weights(network, victim.weights)}",
        f"normalisation: {_normalisation(network)}",
        *(f"note: {note}" for note in (*data.notes, *network.notes, *halves.notes)),
    ]


def utility_of_uncut(stage: UncutStage, store: Store) -> str:
    """The uncut network's utility in words, and whether it is no better than a guess."""
    facts, data = stage.load(store), stage.victim.data.load(store)
    groups = data.groups[facts["part"]]
    share, chance = interval(facts["values"], groups), facts["chance"]
    found = f"{share.mean:.1%} [{share.low:.1%}, {share.high:.1%}]"
    photos = f"{counted_photos(groups)} ({facts['part']})"
    if stage.victim.task.form == "class":
        said = f"{found} of {photos} are right; always the commonest class would be {chance:.1%}"
    else:
        also = "".join(f", {name} {value:.1%}" for name, value in facts["also"].items())
        said = f"{facts['metric']} {found} of {photos}{also}; the same answer for all photos would reach {chance:.1%}"
    text = f"uncut network, seed {stage.victim.seed}: {said}"
    doubt = "; that is no better than a guess, so no defence can cost it anything" if share.low <= chance else ""
    return text + doubt


def _parts(data: Data) -> str:
    def part(name: str, images: Tensor) -> str:
        people = "" if data.identities is None else _people(data.identities[name])
        return f"{name} {len(images):,}{people}"

    return ", ".join(part(name, data.images[name]) for name in ORDER if name in data.images)


def _people(identities: Tensor) -> str:
    known = identities[identities >= 0]
    unknown = len(identities) - len(known)
    return f" of {len(known.unique()):,} people" + (f" and {unknown:,} unknown" if unknown else "")


def _classes(data: Data) -> str:
    assert data.labels is not None
    if data.targets:
        return ", ".join(f"{index} {name}" for index, name in enumerate(data.classes))
    counts = data.labels[data.measured].bincount(minlength=len(data.classes)).tolist()
    listed = [
        f"{index} {name} ({count})" for index, (name, count) in enumerate(zip(data.classes, counts, strict=True))
    ]
    if len(listed) > MOST:
        listed = [*listed[: MOST // 2], "...", *listed[-MOST // 2 :]]
    return f"{', '.join(listed)} {data.measured} photos"


def _network(model: str, cut: Cut) -> str:
    shape = "x".join(map(str, cut.shape))
    return (
        f"{model} cut at {cut.name}, release {shape}, {cut.edge_share:.1%} of the work on the edge; {WAYS[cut.way]}"
    )


def _weights(network: Network, weights: str) -> str:
    total = len(network.module.state_dict())
    if weights == SCRATCH:
        return f"none loaded, all {total} tensors as the network's code makes them"
    fresh = f"; as the network's code makes them: {', '.join(network.untrained)}" if network.untrained else ""
    return f"{total - len(network.untrained)} of {total} tensors from {weights}{fresh}"


def _normalisation(network: Network) -> str:
    mean, deviation = (", ".join(f"{value:g}" for value in values) for values in (network.mean, network.std))
    return f"mean {mean}, standard deviation {deviation}"
