"""The plan that an audit writes, and finds again when the same is asked for once more."""

import json
import math
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Gt

from splitleak.experiments.planning.names import FLOOR, UNDEFENDED
from splitleak.experiments.planning.plan import Plan, folder_name, parse_plan, parse_source
from splitleak.experiments.planning.tables import CutName, Model, Size, Weights
from splitleak.experiments.run.check import check_plan
from splitleak.experiments.store.integrity import replace_if_other
from splitleak.experiments.tools.audit.offer import SEARCH_DRAWS, SHARE, STRENGTHS, TAIL_EPOCHS, Offer, offers
from splitleak.experiments.tools.audit.speed import Speed
from splitleak.experiments.tools.decoder import DECODER_BATCH, decoder_width
from splitleak.experiments.tools.request import UNTRAINED, Data, data_name, data_setting, is_untrained, plan_text
from splitleak.victims.cuts import split
from splitleak.victims.data.base import Catalog, Labels, Source
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.models import CLASSES_WITHOUT_TASK, SCRATCH, Network, make_network
from splitleak.victims.seeding import seeded
from splitleak.victims.settings import Settings, doc

WITHOUT_TASK = "none"
TAIL_BATCH = 32
LEARNING_RATES = {True: 1e-3, False: 3e-4}
"""Of tails: with a new classifier, and with one that was trained already."""


@dataclass(frozen=True)
class AuditRequest(Settings):
    """What to audit, and how long it may take."""

    name: ClassVar[str] = "audit"

    model: Model
    cut: CutName
    data: Data
    weights: Weights = SCRATCH
    task: Annotated[str | None, doc("the label that the network predicts, or none; default: the only one")] = None
    size: Size = 160
    budget: Annotated[float, Gt(0), doc("minutes")] = 15.0

    @cached_property
    def folder(self) -> str:
        """Name of the plan and its run: other networks, weights, cuts, data and sizes have others."""
        return folder_name(
            "audit", self.model, Path(self.weights).stem, self.cut, data_name(self.data), str(self.size)
        )


@dataclass(frozen=True)
class Audit:
    """A plan that keeps to a budget, and what is to be said of it."""

    plan: Plan
    lines: tuple[str, ...]

    @classmethod
    def of(cls, request: AuditRequest, out: Path, device: torch.device, progress: Callable[[str], None]) -> "Audit":
        """The plan of an earlier call for the same request, else one made for this machine as fast as it is now.

        Raises:
            InvalidInputError: unknown network, cut, data set or task, missing file, too few photos, a budget that is
                too small.
        """
        text = _stored(request, out, device)
        if text is None:
            progress("calibrating: how fast is this machine?")
            text = _planned(request, device)
        plan = parse_plan(tomllib.loads(text), text, Path.cwd(), request.folder)
        check_plan(plan)
        return cls(plan, tuple(_comments(text)[1:]))

    def write(self, out: Path) -> Path:
        """Store the plan in its run's folder; returns its path."""
        path = out / self.plan.name / "plan.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_if_other(path, self.plan.text.encode())
        return path


def _stored(request: AuditRequest, out: Path, device: torch.device) -> str | None:
    """The plan that was made for this request before."""
    path = out / request.folder / "plan.toml"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return text if _comments(text)[:1] == [_asked(request, device)] else None


def _comments(text: str) -> list[str]:
    """The lines on top of a plan, without their sign."""
    return [line.removeprefix("# ") for line in takewhile(lambda line: line.startswith("#"), text.splitlines())]


def _asked(request: AuditRequest, device: torch.device) -> str:
    """The request as the plan's first line keeps it."""
    return f"splitleak audit on {device.type}: {json.dumps(request.to_mapping(), ensure_ascii=False)}"


def _planned(request: AuditRequest, device: torch.device) -> str:
    source = source_of(request.data)
    catalog = source.catalog()
    task = chosen_task(request, catalog)
    known = len(catalog) if task is None else int((catalog.labels[task].values >= 0).sum())
    classes = CLASSES_WITHOUT_TASK if task is None else len(catalog.labels[task].classes)
    started = time.perf_counter()
    with seeded("calibration"):
        network = make_network(request.model, classes, request.size, request.weights)
        halves = split(network, request.model, request.cut, request.size)
        every = offers(catalog, task, known, new_head=bool(network.untrained))
        speed = Speed.measured(halves, source, len(catalog), request.size, device)
    calibrated = time.perf_counter() - started
    fitting = [offer for offer in every if calibrated + offer.seconds(speed) <= SHARE * 60 * request.budget]
    if not fitting:
        least = math.ceil((calibrated + every[0].seconds(speed)) / SHARE / 60)
        raise InvalidInputError(
            f"budget = {request.budget:g}: the least audit of {request.model} at {request.size} px takes about "
            f"{least} minutes on this machine; give more, or a smaller --size"
        )
    offer = fitting[-1]
    minutes = (calibrated + offer.seconds(speed)) / 60
    lines = [_asked(request, device), *offer.lines(known), *_notes(request, task, network, catalog)]
    lines.append(f"estimate: {minutes:.1f} of {request.budget:g} minutes")
    width = decoder_width(halves.cut.shape, request.size)
    return plan_text(lines, tables(request, offer), defenses(offer), attacks(offer, width))


def tables(request: AuditRequest, offer: Offer) -> dict[str, Any]:
    """The plan's, but for its defences and attacks."""
    sizes, training = offer.sizes, {"batch_size": TAIL_BATCH, "learning_rate": LEARNING_RATES[offer.new_head]}
    return {
        "name": request.folder,
        "victim": {
            "model": request.model,
            "weights": request.weights,
            "cut": request.cut,
            "data": data_setting(request.data),
            "size": request.size,
            **({"task": offer.task} if offer.task else {}),
            "freeze_encoder": True,
            "epochs": TAIL_EPOCHS if offer.new_head else 0,
            **training,
        },
        "parts": {part: size for part, size in asdict(sizes).items() if part != "auxiliary"},
        "defender": {"epochs": TAIL_EPOCHS, **training},
        # moved copies gain little in so few passes
        "attacker": {"auxiliary": sizes.auxiliary, "copies": 0, "slow_targets": max(1, offer.scale.searched)},
    }


def defenses(offer: Offer) -> list[dict[str, Any]]:
    """None at all, and those that the budget buys."""
    bought: list[dict[str, Any]] = [{"name": UNDEFENDED}]
    for name, values in offer.strengths.items():
        # saliency, the default, asks the task which channels it needs
        untold = {"selection": "variance"} if name == "channel_subset" and not offer.task else {}
        bought.append({"name": name, STRENGTHS[name][0]: list(values), **untold})
    return bought


def attacks(offer: Offer, width: int) -> list[dict[str, Any]]:
    """The floor, the linear attack, a decoder of this ``width``, and the white box if the budget buys it."""
    decoder = {"width": width, "epochs": offer.epochs, "batch_size": DECODER_BATCH}
    bought: list[dict[str, Any]] = [{"name": FLOOR}, {"name": "ridge"}, {"name": "decoder", **decoder}]
    if offer.scale.searched:
        bought.append({"name": "refine", **decoder, "steps": offer.scale.search_steps, "draws": SEARCH_DRAWS})
    return bought


def source_of(data: str) -> Source:
    """The data set that ``data_setting`` tells; raises as that does."""
    return parse_source(data_setting(data), Path.cwd())


def chosen_task(request: AuditRequest, catalog: Catalog) -> str | None:
    """The label that is asked for, or the only one; None where there are several, or a single class.

    Raises:
        InvalidInputError: there is no such label, or it is none that can be told from a photo.
    """
    if request.task == WITHOUT_TASK:
        return None
    if request.task is not None:
        if not isinstance(catalog.task(request.task, WITHOUT_TASK), Labels):
            raise InvalidInputError(f"task = '{request.task}': an audit takes one class for each photo; write a plan")
        return request.task
    several = [name for name, labels in catalog.labels.items() if len(labels.classes) > 1]
    return several[0] if len(several) == 1 else None


def _notes(request: AuditRequest, task: str | None, network: Network, catalog: Catalog) -> Iterator[str]:
    if is_untrained(request.model, request.weights):
        yield UNTRAINED
    yield from network.notes
    if network.untrained:
        yield "the weights hold no classifier for these classes: it is trained on the photos"
    if task is None and catalog.labels and request.task is None:
        yield f"labels that --task could name: {', '.join(catalog.labels)}"
