"""The leakage profile: cheap attacks at one cut of a network after the other, to choose where to split."""

import dataclasses
import shutil
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Gt
from filelock import FileLock, Timeout
from torch import nn

from splitleak.experiments.cells.attack import AttackCell
from splitleak.experiments.planning.names import FLOOR, UNDEFENDED
from splitleak.experiments.planning.plan import Plan, folder_name, parse_plan
from splitleak.experiments.planning.tables import Model, Size, Weights
from splitleak.experiments.report.profile import MeasuredProfile, ProfiledCut
from splitleak.experiments.results.load import load_results
from splitleak.experiments.run.audience import Audience
from splitleak.experiments.run.check import check_plan
from splitleak.experiments.run.execute import run_cells, work_of
from splitleak.experiments.run.run import Run
from splitleak.experiments.run.schedule import Serial
from splitleak.experiments.stages.data import DataStage
from splitleak.experiments.store.key import Stage
from splitleak.experiments.store.store import Store
from splitleak.experiments.tools.decoder import DECODER_BATCH, decoder_epochs, decoder_width
from splitleak.experiments.tools.request import UNTRAINED, Data, data_name, data_setting, is_untrained, plan_text
from splitleak.victims.cuts import ALIASES, Cut, find_cuts, split
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.models import CLASSES_WITHOUT_TASK, SCRATCH, Network, make_network
from splitleak.victims.settings import Settings, doc

DECODER_STEPS, LEARNING_RATE = 375, 5e-3
"""Of the decoder at every cut: steps of its training, their peak rate."""
VALIDATION_SHARE, LEAST_VALIDATION = 0.1, 8
"""Of the auxiliary photos, so many further ones select the decoder's epoch and the linear attack's penalty."""

CUTS_FOLDER, SCRATCH_FOLDER, LOCK = "cuts", "scratch", "scratch.lock"
"""In a profile's folder the runs of its cuts; in each of these what its stages leave, and the lock of that."""


@dataclass(frozen=True)
class ProfileRequest(Settings):
    """What to profile."""

    name: ClassVar[str] = "profile"

    model: Model
    weights: Weights = SCRATCH
    data: Data = "faces"
    size: Size = 160
    auxiliary: Annotated[int, Ge(DECODER_BATCH), doc("photos that the attacks are fitted to")] = 1000
    target: Annotated[int, Gt(0), doc("photos that are attacked and scored")] = 200
    cuts: Annotated[list[str], doc("only these; none: the end of each block, and cuts with an alias")] = field(
        default_factory=list
    )
    every: Annotated[bool, doc("every valid cut instead")] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every and self.cuts:
            raise InvalidInputError("--every measures every cut; leave --cuts out")

    @cached_property
    def folder(self) -> str:
        """Name of the profile's folder: other networks, weights, data and sizes have others."""
        return folder_name("profile", self.model, Path(self.weights).stem, data_name(self.data), str(self.size))

    def plan(self, cut: Cut) -> Plan:
        """The plan that attacks this cut; its text is one that ``splitleak run`` takes.

        Raises:
            InvalidInputError: unknown data set, or data that is not there.
        """
        validation = max(LEAST_VALIDATION, round(VALIDATION_SHARE * self.auxiliary))
        tables = {
            "name": cut.name,
            "victim": {
                "model": self.model,
                "weights": self.weights,
                "cut": cut.name,
                "data": data_setting(self.data),
                "size": self.size,
            },
            "parts": {"train": 0, "validation": validation, "target": self.target},
            # moved copies gain little in so few passes
            "attacker": {"auxiliary": self.auxiliary, "copies": 0},
        }
        decoder = {
            "name": "decoder",
            "width": decoder_width(cut.shape, self.size),
            "epochs": decoder_epochs(DECODER_STEPS, self.auxiliary),
            "batch_size": DECODER_BATCH,
            "learning_rate": LEARNING_RATE,
        }
        attacks: list[dict[str, Any]] = [{"name": FLOOR}, {"name": "ridge"}, decoder]
        text = plan_text(["One cut of a leakage profile."], tables, [{"name": UNDEFENDED}], attacks)
        return parse_plan(tomllib.loads(text), text, Path.cwd(), cut.name)


@dataclass(frozen=True)
class Profile:
    """The cuts of one network with their runs.

    ``aliases``: of cuts, by node; ``notes``: what a reader of the numbers must know.
    """

    request: ProfileRequest
    folder: Path
    cuts: tuple[Cut, ...]
    runs: tuple[Run, ...]
    aliases: Mapping[str, str]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, request: ProfileRequest, out: Path, device: str = "cpu") -> "Profile":
        """Choose the cuts and make their plans, to run on a device of this type; computes nothing.

        Raises:
            InvalidInputError: unknown network, data set or cut, missing file, too few photos.
        """
        network = make_network(request.model, CLASSES_WITHOUT_TASK, request.size, request.weights)
        aliases = {_node(network, request, alias): alias for (model, alias) in ALIASES if model == request.model}
        every = find_cuts(network, request.size)
        cuts = chosen_cuts(every, network, request, aliases)
        if not cuts:
            raise InvalidInputError(f"{request.model} has no valid cut, so there is nothing to profile")
        plans = [request.plan(cut) for cut in cuts]
        check_plan(plans[0])  # the others differ in their cut alone, and that is valid
        folder = out / request.folder
        runs = tuple(_attacks_alone(Run.of(plan, folder / CUTS_FOLDER, device)) for plan in plans)
        notes = tuple(_notes(request, set(cuts) <= set(trained_cuts(every, network))))
        return cls(request, folder, tuple(cuts), runs, aliases, notes)

    @property
    def cell_count(self) -> int:
        """Of all cuts."""
        return sum(len(run.cells) for run in self.runs)

    def run(self, store: Store, retry_failed: bool, audience: Audience) -> None:
        """Compute what has no result yet; ``store`` keeps the photos, what belongs to one cut goes with it.

        Features of shallow cuts are large, so a profile that kept them would fill the disk. What an interrupted
        profile leaves is used when it is resumed. Where another process is at a cut, this one waits for it.
        """
        for run in self.runs:
            audience.begin(f"{run.plan.victim.cut}: ")
            with _held(run, store.progress):
                of_cut = CutStore(store, run.folder / SCRATCH_FOLDER)
                executor = Serial(work_of(run, of_cut))
                executor.watcher = audience
                told = audience.loaded if run is self.runs[0] else lambda lines: None  # all cuts load the same
                run_cells(run, of_cut, executor, retry_failed, audience.cell, on_loaded=told)
                shutil.rmtree(of_cut.root, ignore_errors=True)
        self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        """What killed profiles left of further cuts: nobody holds their locks."""
        for scratch in (self.folder / CUTS_FOLDER).glob(f"*/{SCRATCH_FOLDER}"):
            with suppress(Timeout), FileLock(scratch.with_name(LOCK)).acquire(timeout=0):
                shutil.rmtree(scratch, ignore_errors=True)

    def measured(self) -> MeasuredProfile:
        """What was found at each cut, in the order of execution."""
        request = self.request
        return MeasuredProfile(
            request.model,
            request.weights,
            request.data,
            request.size,
            request.auxiliary,
            self.notes,
            tuple(
                ProfiledCut(cut, self.aliases.get(cut.node), load_results(run.folder))
                for cut, run in zip(self.cuts, self.runs, strict=True)
            ),
        )


@contextmanager
def _held(run: Run, told: Callable[[str], None]) -> Iterator[None]:
    """Hold what a cut's stages leave, in which one process works at a time; the system lets go when it dies."""
    run.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run.folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        told(f"waiting for another process, which profiles {run.plan.victim.cut}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _attacks_alone(run: Run) -> Run:
    """Without the suite's choice, which would encode every reconstruction again."""
    return dataclasses.replace(run, cells=tuple(cell for cell in run.cells if isinstance(cell, AttackCell)))


class CutStore(Store):
    """The results of one cut's stages under a folder of their own; the photos are those of a shared store."""

    def __init__(self, shared: Store, root: Path) -> None:
        super().__init__(root, shared.device, shared.progress)
        self.shared = shared
        self._using = shared._using  # what is used of either is noted for both

    def has(self, stage: Stage) -> bool:
        """Whether the stage's result is there."""
        return self.shared.has(stage) if stage.label == DataStage.label else super().has(stage)

    def made(self, label: str, key: str, compute: Callable[[Path], None]) -> Path:
        """See ``Store.made``."""
        if label == DataStage.label:
            return self.shared.made(label, key, compute)
        return super().made(label, key, compute)


def chosen_cuts(every: list[Cut], network: Network, request: ProfileRequest, also: Collection[str]) -> list[Cut]:
    """Those of a network's cuts that are to be profiled; ``also``: nodes that end no block but are wanted.

    Raises:
        InvalidInputError: a cut that was asked for does not exist or is not valid.
    """
    if request.cuts:
        asked = {_node(network, request, name) for name in request.cuts}
        return [cut for cut in every if cut.node in asked]
    cuts = trained_cuts(every, network)
    if request.every:
        return cuts
    ends = {cut.node for cut in block_ends(network.module, cuts)}
    return [cut for cut in cuts if cut.node in ends.union(also)]


def _node(network: Network, request: ProfileRequest, name: str) -> str:
    return split(network, request.model, name, request.size).cut.node


def trained_cuts(every: list[Cut], network: Network) -> list[Cut]:
    """Those before the first layer that got no weights although the others did."""

    def has_weights(cut: Cut) -> bool:
        return not any(key.startswith(f"{cut.node}.") for key in network.untrained)

    return list(takewhile(has_weights, every))


def _notes(request: ProfileRequest, trained: bool) -> Iterator[str]:
    if is_untrained(request.model, request.weights):
        yield f"{UNTRAINED}."
    elif not trained:
        yield "The deepest cuts lie behind layers that the weights file does not hold: these are random."


def block_ends(module: nn.Module, cuts: list[Cut]) -> list[Cut]:
    """The last cut of each block.

    Cuts between which nothing is multiplied and no value dropped (batch norm, activation, reshaping) count as
    one, the last.
    """
    distinct = {(cut.edge_macs, cut.bytes): cut for cut in cuts}
    return list({_block(module, cut.node): cut for cut in distinct.values()}.values())


def _block(module: nn.Module, node: str) -> str:
    """The outermost module around a node that is a member of a list of modules, and no such list itself."""
    parts = node.split(".")
    for depth, part in enumerate(parts, 1):
        child = getattr(module, part, None)
        if not isinstance(child, nn.Module):
            break  # an operation: nodes are named after the module that they are in
        if isinstance(module, nn.Sequential | nn.ModuleList) and not _is_list_of_blocks(child):
            return ".".join(parts[:depth])
        module = child
    return node


def _is_list_of_blocks(module: nn.Module) -> bool:
    """Such as a stage of residual blocks; a convolution with its batch norm and activation is one block."""
    nested = any(next(child.children(), None) is not None for child in module.children())
    return isinstance(module, nn.Sequential | nn.ModuleList) and nested
