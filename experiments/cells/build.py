"""From a plan to its cells."""

from collections.abc import Iterator

from splitleak.defenses.base import Defense
from splitleak.defenses.fitting import Budget, Manner
from splitleak.defenses.none import NoDefense
from splitleak.experiments.cells.attack import AttackCell
from splitleak.experiments.cells.cell import Cell
from splitleak.experiments.cells.fingerprints import model_fingerprint, weights_fingerprint
from splitleak.experiments.cells.scenes import Scenes
from splitleak.experiments.cells.suite import StrongestCell
from splitleak.experiments.planning.plan import Plan
from splitleak.experiments.stages.data import DataStage
from splitleak.experiments.stages.embedder import embedder_stage
from splitleak.experiments.stages.match import MatchStage
from splitleak.experiments.stages.protect import ProtectStage
from splitleak.experiments.stages.victim import VictimStage
from splitleak.victims.tasks.classification import CLASSIFICATION

TUNING_RATE = 1e-3
"""Of what stands behind a defence, where a plan does not say."""


def cells_of(plan: Plan, device: str = "cpu") -> Iterator[Cell]:
    """All cells of a plan, those of one protected victim together; networks run on a device of this type."""
    data = _data(plan)
    embedder = embedder_stage(plan.judge.identity, plan.judge.identity_crop, data, device)
    scenes = Scenes(plan)
    for seed in plan.seeds:
        network = _victim(plan, data, seed, device)
        for defense in plan.defenses:
            protect = ProtectStage(network, defense.plugin, _budget(plan, defense.plugin))
            unfound = defense.found.reason if defense.found else None
            for threat in plan.threats:
                reasons = [
                    scenes.inapplicable(defense.plugin, threat, attack.plugin) or unfound for attack in plan.attacks
                ]
                cells = [
                    AttackCell(plan, defense, threat, protect, embedder, attack, reason)
                    for attack, reason in zip(plan.attacks, reasons, strict=True)
                ]
                yield from cells
                competing = tuple(cell for cell in cells if cell.stage.ranks and not cell.inapplicable)
                if len(competing) > 1:
                    linkers = tuple(cell for cell in cells if cell.stage.links and not cell.inapplicable)
                    yield StrongestCell(plan, defense, threat, protect, embedder, competing, linkers)


def searches_of(plan: Plan, device: str = "cpu") -> dict[str, MatchStage]:
    """By the label of each defence whose strength is not known yet: what finds it, behind the first seed's victim."""
    if not any(entry.match and entry.found is None for entry in plan.defenses):
        return {}
    scenes = Scenes(plan)
    network = _victim(plan, _data(plan), plan.seeds[0], device)
    undefended = ProtectStage(network, NoDefense(), _budget(plan, NoDefense()))
    return {
        entry.label: MatchStage(
            undefended, entry.plugin, _budget(plan, entry.plugin), entry.match, plan.defender.match_trainings
        )
        for entry in plan.defenses
        if entry.match is not None and entry.found is None and not scenes.unused(entry.plugin)
    }


def _data(plan: Plan) -> DataStage:
    victim = plan.victim
    return DataStage(plan.source, plan.part_sizes, victim.size, plan.label, plan.parts.seed, plan.attacker.mirror)


def _victim(plan: Plan, data: DataStage, seed: int, device: str) -> VictimStage:
    victim = plan.victim
    return VictimStage(
        data=data,
        model=plan.model,
        model_fingerprint=model_fingerprint(plan.model, victim.size),
        cut=victim.cut,
        weights=victim.weights,
        weights_fingerprint=weights_fingerprint(victim.weights),
        freeze_encoder=victim.freeze_encoder,
        budget=Budget(victim.epochs, victim.batch_size, victim.learning_rate, victim.patience, _manner(plan)),
        seed=seed,
        device=device,
        task=plan.task or CLASSIFICATION,
    )


def _manner(plan: Plan) -> Manner:
    victim = plan.victim
    return Manner(victim.optimizer, victim.weight_decay, victim.augment, victim.precision == "bfloat16")


def _budget(plan: Plan, defense: Defense) -> Budget:
    if defense.retrains == "anew":
        # what is private has steps of its own, of which none may depend on how training goes
        return Budget(plan.defender.anew_epochs, plan.defender.batch_size, TUNING_RATE)
    # a network that learns little at a high rate forgets at one, too
    learning_rate = plan.defender.learning_rate or min(TUNING_RATE, plan.victim.learning_rate)
    defender = plan.defender
    return Budget(defender.epochs, defender.batch_size, learning_rate, defender.patience, _manner(plan))
