"""``effort`` in a plan: settings of the attack's card, under those that are given."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from test_cards import ATTACK, MINIMAL
from tiny import HEAD, NOISE, run_plan

from splitleak.attacks.decoder import Decoder
from splitleak.attacks.ridge import Ridge
from splitleak.attacks.rmle import Rmle
from splitleak.experiments.cells.build import cells_of
from splitleak.experiments.cli.describe import listing
from splitleak.experiments.planning import plugins
from splitleak.experiments.planning.names import PLANS
from splitleak.experiments.planning.plan import Entry, Plan, parse_plan
from splitleak.experiments.results.load import load_results
from splitleak.victims.errors import InvalidInputError


def parse(text: str, folder: Path = Path()) -> Plan:
    text = f'[[defenses]]\nname = "none"\n{text}'
    return parse_plan(tomllib.loads(text), text, folder, "file")


def only(text: str, folder: Path = Path()) -> Entry[Any]:
    return parse(f"[[attacks]]\n{text}", folder).attacks[-1]


def refusal(text: str, folder: Path = Path()) -> str:
    with pytest.raises(InvalidInputError) as caught:
        only(text, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_effort_stands_for_the_settings_of_the_card() -> None:
    entry = only('name = "rmle"\neffort = "published"')
    assert entry.plugin == Rmle(steps=5000, learning_rate=1e-2)
    assert (entry.label, entry.effort) == ("rmle effort=published", "published")


def test_what_is_given_wins() -> None:
    entry = only('name = "rmle"\nsteps = 7\neffort = "published"\nbeta = 2.0')
    assert entry.plugin == Rmle(steps=7, learning_rate=1e-2, beta=2.0)
    assert entry.label == "rmle steps=7 effort=published beta=2.0"


def test_no_effort_and_the_standard_one_are_the_defaults() -> None:
    assert only('name = "rmle"') == Entry(Rmle(), "rmle")
    assert only('name = "rmle"\neffort = "standard"') == Entry(Rmle(), "rmle effort=standard", "standard")


def test_efforts_sweep_like_any_setting() -> None:
    plan = parse('[[attacks]]\nname = "rmle"\neffort = ["quick", "published"]')
    assert [entry.effort for entry in plan.attacks[1:]] == ["quick", "published"]
    assert len({entry.plugin for entry in plan.attacks[1:]}) == 2


@pytest.mark.parametrize(("photos", "epochs"), [(1000, 1015), (36364, 25), (100, 7100)])
def test_published_steps_become_passes_over_the_photos_that_there_are(photos: int, epochs: int) -> None:
    entry = parse(
        f'[attacker]\nauxiliary = {photos}\n[[attacks]]\nname = "decoder"\narchitecture = "upsample"\n'
        'effort = "published"'
    ).attacks[-1]
    assert entry.plugin == Decoder("upsample", epochs=epochs, batch_size=128, learning_rate=2.5e-4)


def test_mirrored_photos_and_a_batch_of_ones_own_count() -> None:
    text = 'name = "decoder"\narchitecture = "upsample"\neffort = "published"\nbatch_size = 100'
    plan = parse(f"[attacker]\nauxiliary = 500\nmirror = true\n[[attacks]]\n{text}")
    assert plan.attacks[-1].plugin.to_mapping()["epochs"] == 710
    plan = parse(f"[[attacks]]\n{text}\nepochs = 3")
    assert plan.attacks[-1].plugin.to_mapping()["epochs"] == 3


def test_an_attack_without_the_budget_says_so() -> None:
    said = refusal('name = "ridge"\neffort = "published"')
    assert said == "ridge has no published budget: it is solved in closed form and has nothing to spend"
    said = refusal('name = "decoder"\neffort = "published"')
    assert said.startswith("decoder has no published budget with architecture = residual; it is known with upsample")
    assert "did you mean quick" in refusal('name = "ridge"\neffort = "quik"')
    assert "effort of ridge" in refusal('name = "ridge"\neffort = 3')


def test_an_effort_of_all_attacks_is_for_those_that_name_none() -> None:
    plan = parse(
        '[attacker]\neffort = "published"\n[[attacks]]\nname = "ridge"\n[[attacks]]\nname = "rmle"\n'
        '[[attacks]]\nname = "rmle"\neffort = "quick"\n'
    )
    found = {entry.label: entry.effort for entry in plan.attacks}
    assert found == {
        "mean_image": None,
        "ridge": None,
        "rmle effort=published": "published",
        "rmle effort=quick": "quick",
    }
    assert plan.attacks[1].plugin == Ridge()
    assert plan.notes == (
        "ridge has no published budget: it is solved in closed form and has nothing to spend: it keeps its defaults",
    )


def test_every_attack_has_a_quick_budget_and_says_about_the_published_one() -> None:
    for name in plugins.attack_classes():
        assert only(f'name = "{name}"\neffort = "quick"').effort == "quick"
        plan = parse(f'[attacker]\neffort = "published"\n[[attacks]]\nname = "{name}"')
        assert (plan.attacks[-1].effort == "published") != bool(plan.notes)


def test_a_defence_has_no_effort() -> None:
    with pytest.raises(InvalidInputError, match="unknown setting of gaussian_noise: 'effort'"):
        parse('[[defenses]]\nname = "gaussian_noise"\neffort = "quick"\n[[attacks]]\nname = "ridge"')


def test_an_attack_of_ones_own_has_the_budgets_of_the_card_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(ATTACK)
    text = 'name = "mine.py:Mine"\neffort = "quick"'
    assert refusal(text, tmp_path).startswith("mine has no quick budget: there is no card ")
    budget = {"quick": {"says": "one pass", "settings": {"epochs": 1}}}
    (tmp_path / "mine.toml").write_text(tomli_w.dumps({**MINIMAL, "effort": budget}))
    assert only(text, tmp_path).plugin.to_mapping() == {"epochs": 1}
    assert refusal(text.replace("quick", "published"), tmp_path).endswith("its card states none")


def test_a_setting_called_effort_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(ATTACK.replace("epochs:", "effort:"))
    assert "has a setting 'effort', which means a budget" in refusal('name = "mine.py:Mine"', tmp_path)


def test_a_plan_without_efforts_has_the_cells_it_had() -> None:
    plain = parse('[[attacks]]\nname = "rmle"')
    same = parse('[attacker]\neffort = "standard"\n[[attacks]]\nname = "rmle"')
    keys = [[cell.stage.key for cell in cells_of(plan)] for plan in (plain, same)]
    assert keys[0] == keys[1]


def test_the_effort_is_stored_shown_and_exported(tmp_path: Path) -> None:
    plan = f'{HEAD}effort = "quick"\n{NOISE}[[attacks]]\nname = "ridge"\n[[attacks]]\nname = "mean_image"\n'
    run_plan(plan, tmp_path, report=True, shared=True)
    run = tmp_path / "runs" / "tiny"
    stored = [json.loads(file.read_text()) for file in run.glob("cells/*.json")]
    assert {record["attack"]["effort"] for record in stored} == {"quick"}
    assert {cell.attack.effort for cell in load_results(run).cells} == {"quick"}
    header, first, *_ = (run / "results.csv").read_text().splitlines()
    assert first.split(",")[header.split(",").index("effort")] == "quick"
    page = (run / "index.html").read_text()
    assert "ridge effort=quick" in page
    assert '["effort", "quick"]' in page
    assert "effort" in (run / "tables" / "attacks.csv").read_text().splitlines()[0].split(",")


def test_cards_are_listed() -> None:
    table = listing("cards", PLANS)
    assert len(table.rows) == len(plugins.attack_classes()) + len(plugins.defense_classes())
