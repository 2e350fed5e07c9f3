"""What would fail later, found before anything is computed."""

import itertools

import torch
from torch import Tensor, nn

from splitleak.defenses.base import Defense
from splitleak.experiments.cells.scenes import Scenes
from splitleak.experiments.judge.metrics.perceptual import check_lpips
from splitleak.experiments.planning.names import CACHE
from splitleak.experiments.planning.plan import Plan
from splitleak.experiments.stages.embedder import check_embedder
from splitleak.victims.cuts import Halves, split
from splitleak.victims.data.base import Catalog, Labels
from splitleak.victims.data.parts import divide
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.models import CLASSES_WITHOUT_TASK, make_network


def check_plan(plan: Plan) -> None:
    """Find out, before anything is computed, what would fail later; decodes no photo and trains nothing.

    Raises:
        InvalidInputError: missing data, unknown task, too few photos, unknown network, weights of another network,
            invalid cut, a defence that cannot train the network, an attack whose settings ask for what there is not,
            a recogniser or a backbone of the judge that cannot be had, too little to train on.
    """
    victim = plan.victim
    if plan.name == CACHE:
        raise InvalidInputError(f"plan name = '{CACHE}': that folder holds the stages' results; choose another")
    catalog = plan.source.catalog()
    parts = divide(catalog, plan.part_sizes, plan.label, plan.parts.seed)
    people = catalog.identity
    check_embedder(
        plan.judge.identity,
        None if people is None else {part: people[photos] for part, photos in parts.indices.items()},
    )
    if plan.judge.lpips:
        check_lpips(plan.judge.lpips, victim.size)
    if not plan.parts.train and (victim.task or any(entry.plugin.strength for entry in plan.defenses)):
        raise InvalidInputError("parts.train = 0: the victim's tail and the defences need photos to fit on")
    check_attacker(plan)
    classes = len(check_task(catalog, plan.label)) if plan.label else CLASSES_WITHOUT_TASK
    network = make_network(plan.model, classes, victim.size, victim.weights)
    halves = split(network, victim.model, victim.cut, victim.size)
    if plan.task:
        plan.task.check(outputs_of(halves), classes, victim.size)
        if victim.augment != "none" and plan.task.form != "class":
            raise InvalidInputError(
                f"victim.augment = '{victim.augment}': photos would move and their labels, {plan.task.name}'s, stay; "
                "leave it out where the task does not classify"
            )
    scenes = Scenes(plan)
    check_untrained(plan, scenes)
    for defense in plan.defenses:
        if not scenes.unused(defense.plugin):
            frozen = victim.freeze_encoder and defense.plugin.retrains != "network"
            defense.plugin.check(*_what_trains(halves, victim.size, frozen))
    for defense, threat, attack in itertools.product(plan.defenses, plan.threats, plan.attacks):
        if not scenes.inapplicable(defense.plugin, threat, attack.plugin):
            attack.plugin.check(scenes.of(defense.plugin, threat))


def check_attacker(plan: Plan) -> None:
    """Whether there are the photos that the attacker should have.

    Raises:
        InvalidInputError: it should have more of the victim's training photos than there are.
    """
    wanted, there = plan.attacker.auxiliary, plan.parts.train
    if "train" in plan.attacker.photos and wanted > there:
        raise InvalidInputError(
            f"attacker.photos = 'train': attacker.auxiliary = {wanted}, but the victim learns from {there} only"
        )


def check_untrained(plan: Plan, scenes: Scenes) -> None:
    """Whether each defence works without a training, where the plan allows none.

    Raises:
        InvalidInputError: one changes training, or has parameters that learn.
    """
    for plugin in (entry.plugin for entry in plan.defenses) if not plan.defender.epochs else ():
        if plugin.inapplicable(scenes.shape, plan.victim.task):
            continue
        trains = plugin.retrains == "network" or type(plugin).objective is not Defense.objective
        if trains or any(True for _ in plugin.channel(scenes.shape).parameters()):
            raise InvalidInputError(f"defender.epochs = 0: {plugin.name} has something to learn; give it 1 or more")


def _what_trains(halves: Halves, size: int, frozen: bool) -> tuple[nn.Module, Tensor]:
    """What a defence would train, and two of what that takes."""
    if frozen:
        return halves.tail, torch.rand(2, *halves.cut.shape)
    return nn.Sequential(halves.encoder, halves.tail), torch.rand(2, 3, size, size)


def check_task(catalog: Catalog, task: str) -> tuple[str, ...]:
    """The classes of a task that there is something to predict in.

    Raises:
        InvalidInputError: no such task, or all its photos are of one class.
    """
    labels = catalog.task(task)
    if isinstance(labels, Labels) and len(labels.values[labels.values >= 0].unique()) < 2:
        raise InvalidInputError(f"victim.task = '{task}': it has a single class, so there is nothing to predict")
    return labels.classes


@torch.no_grad()
def outputs_of(halves: Halves) -> tuple[int, ...]:
    """The shape of what the network says of one photo."""
    return tuple(halves.tail(torch.zeros(1, *halves.cut.shape)).shape[1:])
