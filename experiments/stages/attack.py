"""Fit an attack with what its kind of adversary may know, and let it answer for the target photos."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from splitleak.attacks.base import Attack, Linkage, Reconstruction, Staged, knowledge_of
from splitleak.attacks.declared import as_declared
from splitleak.attacks.edge import Edge
from splitleak.attacks.knowledge import BlackBox, QueryFree, WhiteBox
from splitleak.experiments.planning.threat import Threat
from splitleak.experiments.stages.arrays import load_array, save_array, streamed, write_array
from splitleak.experiments.stages.data import Data
from splitleak.experiments.stages.inside import Opened
from splitleak.experiments.stages.memory import StoredMemory
from splitleak.experiments.stages.moved import MovedStage, Part
from splitleak.experiments.stages.protect import DRAWS, ProtectStage
from splitleak.experiments.stages.victim import NetworkStage
from splitleak.experiments.store.key import Stage
from splitleak.experiments.store.store import Store
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import BATCH, check_images, to_bytes, to_float

RANKED, RANKED_SEARCHES = 128, 32
"""Photos of the validation part that a reconstruction attack rebuilds too, to rank attacks by; fewer where each photo
is a search of its own. Over 32 photos two attacks that differ by 0.3 dB were often ranked the wrong way round."""
SHUFFLED = 16
"""Releases of other photos that an attack answers for which each photo is a search of its own."""
RESIDENT = 4
"""How many times a part's features must fit the GPU's free memory to stay there."""
PROBED = 8
"""Photos through which the gradient of a white box is looked at."""


class EdgeDevice(Edge):
    """What stands on the device, in eval mode, as far as the adversary may listen to what it sends.

    With ``sends`` above one, the release is what that many sends of the same photo tell together.
    """

    def __init__(self, stage: NetworkStage, store: Store, sends: int = 1) -> None:
        super().__init__()
        self.model = stage.load(store).to(memory_format=torch.channels_last)  # convolutions run faster so
        self.sends = sends
        self._device = store.device
        # looked up once: a learned attack asks for thousands of batches
        self._images = cache(lambda part: resident(stage.images(part, store), store.device))
        self._features = cache(lambda part: resident(stage.stored_features(part, store), store.device))

    def features(self, images: Tensor) -> Tensor:
        """The encoder's; the images themselves where noise on them is drawn anew for each send."""
        images = images.to(memory_format=torch.channels_last)
        return images if self.model.perturbs else self.model.features(images)

    def send(self, features: Tensor) -> Tensor:
        """What is intercepted of the release of what ``features`` gave."""
        sent = self._merged(self.model.edge if self.model.perturbs else self.model.channel.send, features)
        return self.model.channel.intercepted(sent)

    def send_like(self, features: Tensor, release: Tensor) -> Tensor:
        """Of what ``features`` gave, what of its photo was sent in ``release``."""
        channel, known = self.model.channel, self.model.features if self.model.perturbs else torch.nn.Identity()
        return self._merged(lambda some: channel.send_like(known(some), release), features)

    def as_received(self, encoder: nn.Module, images: Tensor) -> Tensor:
        """What the tail would be given of images if the device had this encoder, see ``QueryFree``.

        A defence with trained layers of its own on the device is unknown to who has not got its weights.
        """
        channel, perturb = self.model.channel, self.model.perturb
        if [*perturb.parameters(), *channel.parameters()]:
            received: Tensor = encoder(images)
            return received
        images = images.to(memory_format=torch.channels_last)
        if self.model.perturbs:
            return channel.receive(self._merged(lambda some: channel.send(encoder(perturb(some))), images))
        return channel.receive(self._merged(channel.send, encoder(images)))

    def _merged(self, once: Callable[[Tensor], Tensor], sent: Tensor) -> Tensor:
        """What the plan's number of sends tells together."""
        if self.sends == 1:
            return once(sent)
        return self.model.channel.merge(torch.stack([once(sent) for _ in range(self.sends)], 1))

    def resend(self, part: Part, rows: Tensor) -> Tensor:
        """Release of stored photos with fresh draws of the channel, from stored features where they hold."""
        stored = self._features(part)
        if stored is None:
            return self.forward(to_float(self._images(part)[rows].to(self._device)))
        return self.send(stored[rows].to(self._device, torch.float32))


T = TypeVar("T", Tensor, Tensor | None)


def resident(stored: T, device: torch.device) -> T:
    """The tensor on the GPU if it takes a small part of its free memory: no batch then waits for a copy."""
    if stored is None or device.type != "cuda" or stored.nbytes * RESIDENT > torch.cuda.mem_get_info(device)[0]:
        return stored
    return stored.to(device)


@dataclass(frozen=True)
class AttackStage(Stage):
    """What an attack says about the first ``targets`` photos of the target part (None for all).

    ``moved``: copies of its photos that it may learn from; ``files``: digests of the files that it reads;
    ``acquired``: the photos that it has in the place of its own, where it has others.
    """

    label: ClassVar[str] = "attack"

    protect: ProtectStage
    attack: Attack[QueryFree]
    threat: Threat
    targets: int | None = None
    moved: MovedStage | None = None
    files: tuple[str, ...] = ()
    acquired: MovedStage | None = None

    def compute(self, folder: Path, store: Store) -> None:
        """Write the answers and the log.

        answers-DRAW.npy: uint8 images or float32, (n, ...), aligned with the target part; shuffled.npy: to the
        releases of other photos, a control; validation.npy; log.json. Of a reconstructor with stages also maps.npy
        and stages.npy, pictures of the first photo's release and of what becomes of it.
        """
        history: list[dict[str, float]] = []
        knows = self._knowledge(store, history)
        with seeded("attack", self.protect.seed, self.attack.name):
            start = time.perf_counter()
            answer = self.attack.fitted(knows)
            fitted = time.perf_counter()
            write_array(_drawn(folder, 0), self._answers(answer, knows.intercepted, store.device))
            done, logged = time.perf_counter(), len(history)
            again = self._redrawn(knows.intercepted, store)
            for draw, releases in enumerate(again, 1):
                write_array(_drawn(folder, draw), self._answers(answer, releases, store.device))
            others = self._others(len(knows.intercepted))
            write_array(folder / "shuffled.npy", self._answers(answer, knows.intercepted, store.device, others))
            if self.ranks or self.links:
                known = self.intercepted("validation", store)[: self._ranked if self.ranks else None]
                write_array(folder / "validation.npy", self._answers(answer, known, store.device))
            opened = Opened.of(knows.intercepted[:1], _stages(answer, knows.intercepted[:1]))
        if opened:
            save_array(folder / "maps.npy", opened.maps)
            save_array(folder / "stages.npy", opened.stages)
        log = {
            "queries": knows.queries if isinstance(knows, BlackBox) else None,
            "seconds": {"fit": fitted - start + knows.seconds_recalled, "reconstruct": done - fitted},
            "history": history[:logged],
            "draws": 1 + len(again),
            "random": len(again) > 0,
            "gradient": gradient_through(knows) if isinstance(knows, WhiteBox) else None,
            "inside": {"release": opened.release, "stages": opened.shapes} if opened else None,
        }
        (folder / "log.json").write_text(json.dumps(log))

    def _redrawn(self, intercepted: Tensor, store: Store) -> list[Tensor]:
        """Further interceptions of the same photos; none where the edge draws nothing."""
        again = (releases[: self.targets] for releases in self._interceptions("target", store, range(1, DRAWS)))
        first = next(again)
        return [] if torch.equal(first.cpu(), intercepted.cpu()) else [first, *again]

    def _others(self, count: int) -> Tensor:
        """For the first photos the rows of others to answer in their place: who does well there saw the photos."""
        rows = torch.arange(min(count, SHUFFLED) if self.attack.per_image else count)
        return rows.roll(len(rows) // 2)

    @property
    def ranks(self) -> bool:
        """Whether it competes for the strongest reconstruction."""
        return isinstance(self.attack, Reconstruction) and not self.attack.floor

    @property
    def links(self) -> bool:
        """Whether it tells which photos show the same person."""
        return isinstance(self.attack, Linkage)

    def expected_bytes(self) -> int:
        """Of an attack that ``ranks``: the reconstructions of all interceptions and of the control."""
        data = self.protect.victim.data
        return data.image_bytes((DRAWS + 1) * (self.targets or data.sizes.target) + self._ranked) if self.ranks else 0

    @property
    def _ranked(self) -> int:
        return RANKED_SEARCHES if self.attack.per_image else RANKED

    def load(self, store: Store, draw: int = 0) -> Tensor:
        """Images as uint8 (n, 3, h, w), or embeddings or scores as float32 (n, d), of one interception."""
        return load_array(_drawn(store.folder(self), draw))

    def load_shuffled(self, store: Store) -> Tensor:
        """Like ``load``, of the first photos, answered from the releases of others."""
        return load_array(store.folder(self) / "shuffled.npy")

    def load_validation(self, store: Store) -> Tensor:
        """Of an attack that ``ranks`` the first photos of the validation part rebuilt, uint8; of one that links the
        embeddings of all of them: on these people it is chosen which attack counts for identity."""
        return load_array(store.folder(self) / "validation.npy")

    def load_inside(self, store: Store) -> dict[str, Tensor]:
        """Pictures, uint8, where the reconstructor has stages: ``maps`` (k, r, c) and ``stages`` (k, 3, h, w)."""
        files = {name: store.folder(self) / f"{name}.npy" for name in ("maps", "stages")}
        return {name: load_array(file) for name, file in files.items() if file.exists()}

    def log(self, store: Store) -> dict[str, Any]:
        """Queries, seconds, training curve, interceptions answered, whether they differ, a white box's gradient,
        and the shapes of the release and of what the stages of a reconstructor make of it."""
        log: dict[str, Any] = json.loads((store.folder(self) / "log.json").read_text())
        return log

    def _answers(
        self, answer: Callable[[Tensor], Tensor], releases: Tensor, device: torch.device, rows: Tensor | None = None
    ) -> Iterator[Tensor]:
        """To some rows of releases, all by default, as many at a time as go through a network together."""
        for some in (torch.arange(len(releases)) if rows is None else rows).split(BATCH):
            with torch.no_grad():
                said = answer(releases[some].to(device))
            if isinstance(self.attack, Reconstruction):
                said = to_bytes(check_images(said, self.attack.name))
            yield said.cpu()

    def edge(self, store: Store) -> EdgeDevice:
        """The device that the attack is fitted to."""
        if self.threat.adaptive:
            return EdgeDevice(self.protect, store, self.threat.sends)
        return EdgeDevice(self.protect.victim, store)

    def intercepted(self, part: str, store: Store, draw: int = 0) -> Tensor:
        """Releases of a part's photos: the same draws for every attack on this protected victim."""
        return next(self._interceptions(part, store, [draw]))

    def _interceptions(self, part: str, store: Store, draws: Iterable[int]) -> Iterator[Tensor]:
        protected, count = EdgeDevice(self.protect, store, self.threat.sends), len(self.protect.images(part, store))
        receive = protected.model.channel.receive
        for draw in draws:
            with torch.no_grad(), seeded("intercept", self.protect.seed, part, draw):
                releases = (protected.resend(part, rows) for rows in torch.arange(count).split(BATCH))
                seen = streamed(releases if self.threat.adaptive else map(receive, releases), store.root)
            yield resident(seen, store.device)

    def again(self, images: Tensor, store: Store) -> Tensor:
        """Fit the attack once more, to the same, and let it answer for other photos, uint8 (n, 3, h, w).

        Each is sent and answered as if it were the only one.
        """
        refitted = self._refitted(images, store)
        return torch.cat(
            [said for answer, release in refitted for said in self._answers(answer, release, store.device)]
        )

    def opened(self, image: Tensor, store: Store) -> Opened | None:
        """Fit it once more, and look inside while it answers for a photo, uint8 (1, 3, h, w); None without stages."""
        ((answer, release),) = self._refitted(image, store)
        return Opened.of(release, _stages(answer, release))

    def refitted(self, store: Store) -> Callable[[Tensor], Tensor]:
        """Fit it once more, to the same: what is intercepted of photos, (n, ...) -> its answers."""
        with seeded("attack", self.protect.seed, self.attack.name):
            return self.attack.fitted(self._knowledge(store, []))

    def _refitted(self, images: Tensor, store: Store) -> Iterator[tuple[Callable[[Tensor], Tensor], Tensor]]:
        """The attack, fitted to the same, with what it intercepts of each photo; both draw as for the only one."""
        knows = self._knowledge(store, [])
        protected = EdgeDevice(self.protect, store, self.threat.sends)
        with seeded("attack", self.protect.seed, self.attack.name):
            answer = self.attack.fitted(knows)
            for photo in images.split(1):
                with torch.no_grad(), seeded("intercept", self.protect.seed):
                    release = protected(to_float(photo.to(store.device)))
                    release = release if self.threat.adaptive else protected.model.channel.receive(release)
                with torch.random.fork_rng(range(torch.cuda.device_count())):
                    yield answer, release

    def _knowledge(self, store: Store, history: list[dict[str, float]]) -> QueryFree:
        """Build the one object that the attack declares, and nothing beyond it."""
        victim, edge, copies = self.protect.victim, self.edge(store), self.moved
        protected = self.protect.load(store)
        data = victim.data.load(store)
        show = store.curve(f"fitting {self.attack.name}", None)

        def log(row: dict[str, float]) -> None:
            history.append(row)
            show(row)

        facts: dict[str, Any] = {
            **self._photos(data),
            "classes": data.names,
            "task": data.task,
            "intercepted": self.intercepted("target", store)[: self.targets],
            "tail": protected.tail,
            "new_encoder": lambda: self.protect.new_encoder(store).to(store.device),
            "arrived": edge.model.channel.arrived,
            "as_received": edge.as_received,
            "device": store.device,
            "log": log,
            "memory": StoredMemory(
                store,
                {
                    "images": (self.acquired or victim.data).key,
                    "edge": [self.protect.key, asdict(self.threat), copies and copies.key],
                },
                self.protect.seed,
            ),
        }
        if self.threat.adaptive:
            facts["receive"] = protected.channel.receive
        kind = knowledge_of(type(self.attack))
        if issubclass(kind, BlackBox):
            places = {"moved": copies, "auxiliary": self.acquired}
            facts |= {"send": edge, "budget": self.threat.budget}
            facts["resend"] = lambda part, rows: edge.resend(places.get(part) or part, rows)
        if issubclass(kind, BlackBox) and copies:
            facts["images"]["moved"] = copies.load(store)
        if issubclass(kind, WhiteBox):
            facts["edge"] = edge
        return as_declared(kind(**facts), self.attack)

    def _photos(self, data: Data) -> dict[str, Any]:
        """What is known of the adversary's photos, by the names of ``QueryFree``."""
        places: dict[str, tuple[str, int | None]] = {part: (part, None) for part in ("auxiliary", "validation")}
        if self.acquired:
            places["auxiliary"] = self.acquired.part, self.acquired.count
        known = {
            place: {name: of[:count] for name, of in data.attributes[part].items()}
            for place, (part, count) in places.items()
        }
        people = data.identities
        return {
            "images": {place: data.images[part][:count] for place, (part, count) in places.items()},
            "labels": known,
            "identities": people and {place: people[part][:count] for place, (part, count) in places.items()},
        }


def _drawn(folder: Path, draw: int) -> Path:
    """Where the answers to one interception of all photos lie."""
    return folder / f"answers-{draw}.npy"


@torch.no_grad()
def _stages(answer: Callable[[Tensor], Tensor], release: Tensor) -> list[Tensor]:
    return answer.stages(release) if isinstance(answer, Staged) else []


def gradient_through(knows: WhiteBox) -> float:
    """Norm of the gradient of what is sent with respect to photos: 0 where no gradient reaches them."""
    images = to_float(knows.images["validation"][:PROBED].to(knows.device)).requires_grad_()
    with torch.enable_grad(), seeded("gradient"):
        sent = knows.edge(images).square().sum()
        if not sent.requires_grad:
            return 0.0
        (gradient,) = torch.autograd.grad(sent, images, allow_unused=True)
    return 0.0 if gradient is None else float(gradient.norm())
