"""Our own numbers on the built-in faces, measured again: a training must end within its card's tolerance."""

import tomllib

import pytest
import tomli_w
from tiny import run_plan

from splitleak.experiments.planning import plugins
from splitleak.experiments.planning.cards import Measured, card_of
from splitleak.experiments.planning.names import PLANS
from splitleak.experiments.planning.study import read_study
from splitleak.experiments.results.load import load_results
from splitleak.experiments.results.results import Results

PLAN = "cards"
SEED = 0
TELLING = 0.25
"""Of a value: where trainings differ by more, another one that is within the tolerance tells nothing."""


def claims() -> dict[str, Measured]:
    """Of all cards, by the plugin and the metric, what the plan measures."""
    return {
        f"{name} {one.metric}": one
        for name, plugin in {**plugins.attack_classes(), **plugins.defense_classes()}.items()
        if (card := card_of(plugin))
        for one in card.ours
        if one.stored.startswith(f"{PLAN}.")
    }


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Results]:
    folder = tmp_path_factory.mktemp("reproduced")
    for plan in read_study(PLANS / f"{PLAN}.toml").plans.values():
        run_plan(tomli_w.dumps({**tomllib.loads(plan.text), "seeds": [SEED]}), folder)
    return {run.name: load_results(run) for run in (folder / "runs").glob(f"{PLAN}.*")}


def test_the_plan_and_the_cards_name_each_other() -> None:
    plans = read_study(PLANS / f"{PLAN}.toml").plans.values()
    tried = {entry.plugin.name for plan in plans for entry in (*plan.attacks, *plan.defenses)}
    assert {name.split()[0] for name in claims()} == tried


def telling() -> list[str]:
    return [name for name, one in claims().items() if one.tolerance and one.tolerance <= TELLING * one.value]


def test_most_of_what_the_plan_measures_is_sure_enough_to_be_missed() -> None:
    assert len(telling()) > len(claims()) / 2
    assert {"ridge PSNR (dB)", "nearest_neighbor PSNR (dB)", "mean_image PSNR (dB)", "decoder PSNR (dB)"} <= {
        *telling()
    }


@pytest.mark.slow
@pytest.mark.parametrize("claim", telling())
def test_a_training_ends_within_the_tolerance(claim: str, measured: dict[str, Results]) -> None:
    one = claims()[claim]
    run, defence, attack, metric = (part.strip() for part in one.stored.split("|"))
    (row,) = [row for row in measured[run].rows if row.defence.label == defence]
    (cell,) = row.groups[attack].finished
    if metric == "utility":
        assert cell.utility is not None
        value, photos = 100 * cell.utility.mean, len(cell.utility.values)
    else:
        value, photos = cell.metrics[metric].mean, len(cell.metrics[metric].values)
    assert photos == one.n
    assert one.tolerance is not None
    assert value == pytest.approx(one.value, abs=one.tolerance)
