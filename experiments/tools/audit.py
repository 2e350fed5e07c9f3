"""The standard evaluation of one's own network and photos: a request and a time budget become a plan."""

import json
import math
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, astuple, dataclass, replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from splitleak.attacks.base import WhiteBox
from splitleak.attacks.decoder import Decoder
from splitleak.attacks.optimise import TRIED
from splitleak.attacks.refine import WEIGHTS
from splitleak.attacks.ridge import Ridge
from splitleak.experiments.judge.metrics.bounds import PROBES, principal
from splitleak.experiments.judge.scores import Truth, score_images
from splitleak.experiments.planning.plan import Plan, folder_name, parse_plan, parse_source
from splitleak.experiments.run.check import check_plan
from splitleak.experiments.stages import bounds
from splitleak.experiments.stages.attack import DRAWS, RANKED, SHUFFLED
from splitleak.experiments.stages.protect import TIMED_REPEATS, WARM_UPS
from splitleak.experiments.stages.strongest import DRAWS as COMPARED
from splitleak.experiments.store.integrity import replace_if_other
from splitleak.experiments.tools.profile import LEAST_EPOCHS, data_name, data_setting, decoder_width
from splitleak.victims.cuts import Halves, split
from splitleak.victims.data.base import Catalog, Source
from splitleak.victims.data.parts import PartSizes, divide
from splitleak.victims.errors import InvalidInputError, unknown
from splitleak.victims.models import CLASSES_WITHOUT_TASK, SCRATCH, Network, in_file, make_network
from splitleak.victims.seeding import seeded
from splitleak.victims.settings import Settings, doc
from splitleak.victims.tensors import to_float

SHARE = 0.75
"""Of the budget that the estimate may take: machines are shared, and estimates are rough."""
SECONDS_PER_CELL, SECONDS_PER_RUN = 1.0, 10.0
"""What no calibration sees: reading networks and photos again, storing, the report."""
CALIBRATED_ON, LEARNED_ON, REPEATS = 16, 32, 4
"""Photos that the calibration encodes, those that it fits attacks to, and how often it does each."""
DECODER_BATCH, TAIL_EPOCHS, TAIL_BATCH, SEARCH_DRAWS = 8, 2, 32, 2
MOST_EPOCHS = 100
"""Of the decoder: where photos are few, more passes over the same teach it these alone."""
SHARES = PartSizes(train=20, auxiliary=50, validation=10, target=20)
"""Per cent of the photos, where these are fewer than the budget would buy."""
LEAST = PartSizes(train=8, auxiliary=16, validation=4, target=4)
SHRINKING = (1.0, 0.85, 0.7, 0.5, 0.3)
"""Tried in turn: people who stay together and an authors' split may leave fewer photos than there are."""

WITHOUT_TASK = "none"

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
class Request(Settings):
    """What to audit, and how long it may take."""

    name: ClassVar[str] = "audit"

    model: Annotated[str, doc("a torchvision network, timm:NAME, or file.py:function")]
    cut: Annotated[str, doc("where the network is split")]
    data: Annotated[str, doc("a data set's name, a path, or a table as in a plan")]
    weights: Annotated[str, doc("scratch, a torchvision weights name, or a file")] = SCRATCH
    task: Annotated[str | None, doc("the label that the network predicts, or none; default: the only one")] = None
    size: Annotated[int, Ge(16), doc("side of the square images in pixels")] = 160
    budget: Annotated[float, Gt(0), doc("minutes")] = 15.0

    @cached_property
    def folder(self) -> str:
        """Name of the plan and its run: other networks, weights, cuts, data and sizes have others."""
        return folder_name(
            "audit", self.model, Path(self.weights).stem, self.cut, data_name(self.data), str(self.size)
        )


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
        """Time each on a few of the source's ``count`` photos."""
        encoder, tail = halves.encoder.to(device), halves.tail.to(device)
        rows = torch.linspace(0, count - 1, CALIBRATED_ON).long().tolist()
        photos, decode = _timed(lambda: source.read(rows, size).images, device, warm=False)
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
        edge=encoder,
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
        wanted = math.ceil(self.scale.decoder_steps * DECODER_BATCH / self.sizes.auxiliary)
        return min(max(LEAST_EPOCHS, wanted), MOST_EPOCHS)

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
        bounding = speed.search * PROBES * bounds.PHOTOS + speed.prior * min(bounds.PRIOR, sizes.auxiliary) ** 2
        linear = speed.solve + speed.linear * sizes.auxiliary
        answering = (draws + 1) * sizes.target + ranked
        learning = self.epochs * (sizes.auxiliary + sizes.validation / 3) + answering / 3
        tried = min(TRIED, sizes.validation) * len(WEIGHTS)
        moved = scale.search_steps * (tried + scale.searched + min(SHUFFLED, scale.searched) + ranked)
        searching = moved * (SEARCH_DRAWS if random else 1) * (speed.search + speed.learn) if scale.searched else 0.0
        choosing = attacks * COMPARED * draws * (sizes.target + ranked) * speed.encode
        cells = (attacks + 1) * (judged + SECONDS_PER_CELL)
        return protecting + random * bounding + linear + learning * speed.learn + searching + choosing + cells

    def text(self, request: Request, header: str, width: int) -> str:
        """The plan, one that ``splitleak run`` takes."""
        sizes, scale = self.sizes, self.scale
        decoder = f"width = {width}\nepochs = {self.epochs}\nbatch_size = {DECODER_BATCH}\n"
        tables = [
            PLAN.format(
                header=header,
                name=json.dumps(request.folder),
                model=_quoted(request.model),
                weights=_quoted(request.weights),
                cut=_quoted(request.cut),
                data=data_setting(request.data),
                task=f"task = {_quoted(self.task)}\n" if self.task else "",
                size=request.size,
                victim_epochs=TAIL_EPOCHS if self.new_head else 0,
                batch_size=TAIL_BATCH,
                tail_epochs=TAIL_EPOCHS,
                learning_rate=LEARNING_RATES[self.new_head],
                slow_targets=max(1, scale.searched),
                **asdict(sizes),
            )
        ]
        for name, values in self.strengths.items():
            swept = f"{STRENGTHS[name][0]} = {list(values)}\n"
            # saliency, the default, asks the task which channels it needs
            untold = 'selection = "variance"\n' if name == "channel_subset" and not self.task else ""
            tables.append(f'[[defenses]]\nname = "{name}"\n{swept}{untold}')
        tables += [f'[[attacks]]\nname = "{name}"\n' for name in ("mean_image", "ridge")]
        tables.append(f'[[attacks]]\nname = "decoder"\n{decoder}')
        if scale.searched:
            searched = f"steps = {scale.search_steps}\ndraws = {SEARCH_DRAWS}\n"
            tables.append(f'[[attacks]]\nname = "refine"\n{decoder}{searched}')
        return "\n".join(tables)

    def lines(self, count: int) -> Iterator[str]:
        """What it is, for people; ``count``: photos that there are."""
        sizes, scale, most = self.sizes, self.scale, SCALES[-1]
        yield (
            f"photos: {sizes.target} attacked, {sizes.auxiliary} the attacker's, {sizes.train} that fit defences and "
            f"tails, {sizes.validation} for selection; {count} there"
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


def _settings(strengths: Mapping[str, tuple[float, ...]]) -> list[str]:
    """Such as ``quantisation bits = 4, 2``."""
    return [f"{name} {STRENGTHS[name][0]} = {', '.join(map(str, of))}" for name, of in strengths.items()]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


LEARNING_RATES = {True: 1e-3, False: 3e-4}
"""Of tails: with a new classifier, and with one that was trained already."""

PLAN = """\
{header}
name = {name}

[victim]
model = {model}
weights = {weights}
cut = {cut}
data = {data}
size = {size}
{task}freeze_encoder = true
epochs = {victim_epochs}
batch_size = {batch_size}
learning_rate = {learning_rate}

[parts]
train = {train}
validation = {validation}
target = {target}

[defender]
epochs = {tail_epochs}
batch_size = {batch_size}
learning_rate = {learning_rate}

[attacker]
auxiliary = {auxiliary}
slow_targets = {slow_targets}

[[defenses]]
name = "none"
"""


@dataclass(frozen=True)
class Audit:
    """A plan that keeps to a budget, and what is to be said of it."""

    plan: Plan
    lines: tuple[str, ...]

    @classmethod
    def of(cls, request: Request, out: Path, device: torch.device, progress: Callable[[str], None]) -> "Audit":
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


def _stored(request: Request, out: Path, device: torch.device) -> str | None:
    """The plan that was made for this request before."""
    path = out / request.folder / "plan.toml"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return text if _comments(text)[:1] == [_asked(request, device)] else None


def _comments(text: str) -> list[str]:
    """The lines on top of a plan, without their sign."""
    return [line.removeprefix("# ") for line in takewhile(lambda line: line.startswith("#"), text.splitlines())]


def _asked(request: Request, device: torch.device) -> str:
    """The request as the plan's first line keeps it."""
    return f"splitleak audit on {device.type}: {json.dumps(request.to_mapping(), ensure_ascii=False)}"


def _planned(request: Request, device: torch.device) -> str:
    source = source_of(request.data)
    catalog = source.catalog()
    task = chosen_task(request, catalog)
    known = len(catalog) if task is None else int((catalog.labels[task].values >= 0).sum())
    classes = CLASSES_WITHOUT_TASK if task is None else len(catalog.labels[task].classes)
    started = time.perf_counter()
    with seeded("calibration"):
        network = make_network(request.model, classes, request.size, request.weights)
        halves = split(network, request.model, request.cut, request.size)
        smallest = Offer(SCALES[0], part_sizes(SCALES[0], catalog, task, known), task, bool(network.untrained))
        speed = Speed.measured(halves, source, len(catalog), request.size, device)
    calibrated = time.perf_counter() - started
    offers = [replace(smallest, scale=scale, sizes=part_sizes(scale, catalog, task, known)) for scale in SCALES]
    fitting = [offer for offer in offers if calibrated + offer.seconds(speed) <= SHARE * 60 * request.budget]
    if not fitting:
        least = math.ceil((calibrated + smallest.seconds(speed)) / SHARE / 60)
        raise InvalidInputError(
            f"budget = {request.budget:g}: the least audit of {request.model} at {request.size} px takes about "
            f"{least} minutes on this machine; give more, or a smaller --size"
        )
    offer = fitting[-1]
    minutes = (calibrated + offer.seconds(speed)) / 60
    lines = [_asked(request, device), *offer.lines(known), *_notes(request, task, network, catalog)]
    lines.append(f"estimate: {minutes:.1f} of {request.budget:g} minutes")
    header = "\n".join(f"# {line}" for line in lines)
    return offer.text(request, header, decoder_width(halves.cut.shape, request.size))


def source_of(data: str) -> Source:
    """The data set that ``data_setting`` tells; raises as that does."""
    return parse_source(tomllib.loads(f"data = {data_setting(data)}")["data"], Path.cwd())


def chosen_task(request: Request, catalog: Catalog) -> str | None:
    """The label that is asked for, or the only one; None where there are several, or a single class.

    Raises:
        InvalidInputError: there is no such label.
    """
    if request.task == WITHOUT_TASK:
        return None
    if request.task is not None:
        if request.task not in catalog.labels:
            raise unknown("task", request.task, [*catalog.labels, WITHOUT_TASK])
        return request.task
    several = [name for name, labels in catalog.labels.items() if len(labels.classes) > 1]
    return several[0] if len(several) == 1 else None


def part_sizes(scale: Scale, catalog: Catalog, task: str | None, count: int) -> PartSizes:
    """What a scale asks for, or as much as ``count`` photos give to four disjoint parts.

    Raises:
        InvalidInputError: these are too few.
    """
    for share in SHRINKING:
        sizes = {
            part: min(getattr(scale, part), int(share * count * percent / 100))
            for part, percent in asdict(SHARES).items()
        }
        short = [part for part, size in sizes.items() if size < getattr(LEAST, part)]
        if short:
            break
        try:
            divide(catalog, PartSizes(**sizes), task, seed=0)
        except InvalidInputError:
            continue
        return PartSizes(**sizes)
    needed = max(math.ceil(100 * least / of) for least, of in zip(astuple(LEAST), astuple(SHARES), strict=True))
    people = "" if catalog.identity is None else ", people in one part each"
    raise InvalidInputError(
        f"too few photos: {count} can be used, an audit divides at least {needed} into four disjoint parts{people}"
    )


def _notes(request: Request, task: str | None, network: Network, catalog: Catalog) -> Iterator[str]:
    if request.weights == SCRATCH and not in_file(request.model):
        yield "UNTRAINED ENCODER: its weights are random; a trained one may leak more or less"
    if network.untrained:
        yield "the weights hold no classifier for these classes: it is trained on the photos"
    if task is None and catalog.labels and request.task is None:
        yield f"labels that --task could name: {', '.join(catalog.labels)}"
