"""``match`` in a plan: what is searched, for which loss, and what cannot be."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitleak.defenses.channel_subset import ChannelSubset
from splitleak.defenses.gaussian_noise import GaussianNoise
from splitleak.experiments.planning.found import Found, Tried, tolerance_on
from splitleak.experiments.planning.match import asked_of
from splitleak.experiments.planning.plan import Plan, parse_plan
from splitleak.experiments.planning.study import read_study
from splitleak.victims.errors import InvalidInputError

TASK = '[victim]\ntask = "mask"\n'
RIDGE = '[[attacks]]\nname = "ridge"\n'
NOISE = '[[defenses]]\nname = "gaussian_noise"\n'
FOUND = Found(
    asked=0.03,
    strength="sigma",
    value=1.37,
    undefended=0.95,
    tried=(Tried(strength=2.0, accuracy=0.9), Tried(strength=1.37, accuracy=0.921)),
    photos=400,
)


def parse(defenses: str, head: str = "", rest: str = TASK) -> Plan:
    text = head + defenses + RIDGE + rest
    return parse_plan(tomllib.loads(text), text, Path(), "plan")


def refusal(defenses: str, head: str = "", rest: str = TASK) -> str:
    with pytest.raises(InvalidInputError) as caught:
        parse(defenses, head, rest)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def labels(plan: Plan) -> list[str]:
    return [entry.label for entry in plan.defenses if entry.label != "none"]


def test_each_loss_that_is_asked_for_is_a_setting_of_its_own() -> None:
    plan = parse(NOISE + "match = [0.01, 0.03]\n")
    assert labels(plan) == ["gaussian_noise match=0.01", "gaussian_noise match=0.03"]
    assert [entry.match for entry in plan.defenses] == [None, 0.01, 0.03]
    assert [entry.found for entry in plan.defenses] == [None, None, None]


def test_a_plan_asks_for_all_but_the_undefended_and_a_table_for_itself() -> None:
    subset = '[[defenses]]\nname = "channel_subset"\nselection = ["saliency", "leakage"]\nmatch = 0.01\n'
    plan = parse('[[defenses]]\nname = "none"\n' + NOISE + subset, "match = 0.03\n")
    assert labels(plan) == [
        "gaussian_noise match=0.03",
        "channel_subset selection=saliency match=0.01",
        "channel_subset selection=leakage match=0.01",
    ]
    assert plan.defenses[0].match is None


def test_it_runs_in_step_with_others() -> None:
    lists = 'match = [0.01, 0.03], selection = ["saliency", "leakage"]'
    paired = f'[[defenses]]\nname = "channel_subset"\npaired = {{ {lists} }}\n'
    expected = ["channel_subset match=0.01 selection=saliency", "channel_subset match=0.03 selection=leakage"]
    assert labels(parse(paired)) == expected
    assert labels(parse(paired, "match = 0.2\n")) == expected


def test_it_is_searched_for_each_victim_of_a_study(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(
        "match = 0.03\n" + NOISE + RIDGE + TASK + '[[victims]]\ncut = ["C4", "features.5.block.0"]\n'
    )
    assert all(
        labels(plan) == ["gaussian_noise match=0.03"] for plan in read_study(tmp_path / "plan.toml").plans.values()
    )


@pytest.mark.parametrize("value", ["0", "0.0", "1", "1.0", "-0.03", "3.0", "true", '"0.03"', "nan"])
def test_what_is_no_share_is_refused(value: str) -> None:
    for said in (refusal(NOISE + f"match = {value}\n"), refusal(NOISE, f"match = {value}\n")):
        assert said.startswith("gaussian_noise.match = ")
        assert "above 0 and below 1, such as 0.03" in said


def test_a_strength_beside_it_is_refused() -> None:
    expected = "gaussian_noise: 'match' finds 'sigma', which is given too; leave one of both out"
    assert refusal(NOISE + "match = 0.03\nsigma = 0.5\n") == expected
    assert refusal(NOISE + "sigma = [0.5, 2.0]\n", "match = 0.03\n") == expected
    assert refusal(NOISE + "paired = { match = [0.03], sigma = [0.5] }\n") == expected


def test_the_undefended_loses_nothing() -> None:
    assert "loses nothing" in refusal('[[defenses]]\nname = "none"\nmatch = 0.03\n')


def test_there_must_be_a_task_to_lose_from() -> None:
    assert "set victim.task" in refusal(NOISE + "match = 0.03\n", rest="")


def test_an_empty_list_asks_for_nothing() -> None:
    assert refusal(NOISE + "match = []\n") == "gaussian_noise.match = []: a sweep needs at least one value"


def test_a_part_of_a_chain_has_none() -> None:
    said = refusal('[[defenses]]\nname = "chain"\nparts = [{ name = "gaussian_noise", match = 0.03 }]\n')
    assert said.startswith("parts: 'match' stands in a part")


def test_an_attack_has_none() -> None:
    with pytest.raises(InvalidInputError, match="unknown setting of ridge: 'match'"):
        parse_plan(tomllib.loads(NOISE + RIDGE + "match = 0.03\n" + TASK), "", Path(), "plan")


def test_what_has_no_strength_says_so_at_once() -> None:
    plan = parse('[[defenses]]\nname = "keyed_mixing"\n', "match = 0.03\n")
    found = plan.defenses[1].found
    assert found is not None
    assert found.text == "no strength that loses 3 points: keyed_mixing has no strength"


def test_a_strength_that_is_no_number_is_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ChannelSubset, "strength", "selection")
    monkeypatch.setattr(ChannelSubset, "strengths", ("variance", "leakage"))
    found = asked_of(ChannelSubset, {"match": 0.03}).found
    assert found is not None
    assert found.reason == "its strength, selection, is no number"


def test_what_was_found_is_in_the_label_and_the_plugin() -> None:
    plan = parse(NOISE + "match = 0.03\n")
    entry = plan.settled({"gaussian_noise match=0.03": FOUND}).defenses[1]
    assert (entry.label, entry.plugin) == ("gaussian_noise match=0.03 sigma=1.37", GaussianNoise(1.37))
    assert FOUND.text == "found by bisection: sigma 1.37 at 2.9 points lost on validation (2 trainings, 400 photos)"
    assert plan.settled({}) == plan


def test_what_was_not_found_keeps_its_label() -> None:
    lacking = FOUND.model_copy(update={"value": None, "reason": "even the weakest loses more"})
    entry = parse(NOISE + "match = 0.03\n").settled({"gaussian_noise match=0.03": lacking}).defenses[1]
    assert entry.label == "gaussian_noise match=0.03"
    assert lacking.text == "no strength that loses 3 points: even the weakest loses more (2 trainings)"


def test_few_validation_photos_are_told_beforehand() -> None:
    asks = NOISE + "match = 0.03\n"
    assert parse(asks, rest=TASK + "[parts]\nvalidation = 200\n").notes == ()
    (note,) = parse(asks, rest=TASK + "[parts]\nvalidation = 50\n").notes
    assert "50 validation photos tell losses no finer than 2.0 points" in note
    assert parse(NOISE, rest=TASK + "[parts]\nvalidation = 50\n").notes == ()
    assert "within 2.0 points" in FOUND.model_copy(update={"tolerance": 0.02}).text


@given(st.integers(1, 10_000), st.floats(0.001, 0.999))
def test_some_number_of_photos_is_always_near_enough(photos: int, asked: float) -> None:
    assert abs(round(asked * photos) / photos - asked) <= tolerance_on(photos)


def test_a_record_of_infinite_strengths_is_read_as_written() -> None:
    found = FOUND.model_copy(update={"tried": (Tried(strength=float("inf"), accuracy=0.9),)})
    assert Found.model_validate_json(found.model_dump_json()) == found
