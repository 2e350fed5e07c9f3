"""Cards: what beside each plugin is stated, and that what is stated can be."""

from collections.abc import Callable
from dataclasses import fields
from math import sqrt
from pathlib import Path
from statistics import stdev

import pytest
import tomli_w
from scipy.stats import t

from splitleak.experiments.planning import plugins
from splitleak.experiments.planning.cards import Card, card_file, card_of
from splitleak.experiments.results.archive import read_archive
from splitleak.experiments.results.group import Group
from splitleak.experiments.results.record import Record
from splitleak.experiments.results.results import Results
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.settings import Settings

PROJECT = Path(__file__).parents[3]
ATTACKS, DEFENSES = plugins.attack_classes(), plugins.defense_classes()
ALL: dict[str, type[Settings]] = {**ATTACKS, **DEFENSES}
ATTACK = """
from dataclasses import dataclass
from typing import Annotated
from annotated_types import Gt
from splitleak.attacks.mean_image import MeanImage
from splitleak.victims.settings import doc

@dataclass(frozen=True)
class Mine(MeanImage):
    epochs: Annotated[int, Gt(0), doc("passes")] = 3
"""
SOURCE = {"authors": "A. Body", "title": "An Attack", "venue": "Somewhere", "year": 2026}
MINIMAL = {"threat": "none", "differs": "in nothing", "paper_unknown": "nobody measured it", "sources": [SOURCE]}


def card(name: str) -> Card:
    found = card_of(ALL[name])
    assert found is not None, f"{name} has no card: write {card_file(ALL[name])}"
    return found


@pytest.fixture
def mine(tmp_path: Path) -> type[Settings]:
    (tmp_path / "mine.py").write_text(ATTACK)
    (plugin,) = plugins.in_file(tmp_path / "mine.py", plugins.Attack)  # type: ignore[type-abstract]
    return plugin


@pytest.mark.parametrize("name", ALL)
def test_every_built_in_plugin_has_a_card_that_parses(name: str) -> None:
    assert card(name).sources


def test_no_card_lies_beside_a_plugin_that_is_gone() -> None:
    for folder, known in (("attacks", ATTACKS), ("defenses", DEFENSES)):
        assert {file.stem for file in (PROJECT / folder).glob("*.toml")} == set(known)


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_says_what_quick_and_published_mean(name: str) -> None:
    assert set(card(name).effort) == {"quick", "published"}


@pytest.mark.parametrize("name", ATTACKS)
def test_no_effort_is_what_the_defaults_are_anyway(name: str) -> None:
    defaults = {field.name: field.default for field in fields(ATTACKS[name])}
    budget = card(name).effort["quick"]
    assert not budget.settings or any(defaults[key] != value for key, value in budget.settings.items())


def stated() -> list[tuple[str, int]]:
    return [(name, position) for name in ALL for position in range(len(card(name).ours))]


@pytest.fixture(scope="module")
def archived() -> Callable[[str], Results]:
    runs: dict[str, Results] = {}

    def find(run: str) -> Results:
        if run not in runs:
            archive = read_archive(PROJECT / "results" / f"{run.partition('.')[0]}.json.xz")
            runs.update({name: one.results for name, one in archive.items()})
        return runs[run]

    return find


def measured(results: Results, defence: str, attack: str) -> tuple[Group, list[Record]]:
    (row,) = [row for row in results.rows if row.defence.label == defence]
    group = row.groups[attack]
    return group, list(group.finished)


@pytest.mark.parametrize(("name", "position"), stated())
def test_a_number_of_ours_is_that_of_an_archive(name: str, position: int, archived: Callable[[str], Results]) -> None:
    one = card(name).ours[position]
    run, defence, attack, metric = (part.strip() for part in one.stored.split("|"))
    group, cells = measured(archived(run), defence, attack)
    if metric == "utility":
        means = [cell.utility.mean * 100 for cell in cells if cell.utility]
        photos = {len(cell.utility.values) for cell in cells if cell.utility}
    else:
        means = [cell.metrics[metric].mean for cell in cells]
        photos = {len(cell.metrics[metric].values) for cell in cells}
    decimals = len(f"{one.value}".partition(".")[2])
    assert one.value == pytest.approx(sum(means) / len(means), abs=0.5001 * 10**-decimals)
    assert (photos, one.trainings) == ({one.n}, len(cells))
    assert str(one.measured) == max(cell.finished or "" for cell in cells)[:10]
    assert name in (group.cells[0].attack.name, group.cells[0].defence.name)
    assert (one.tolerance is None) == (len(means) == 1), "a tolerance rests on several trainings"
    if one.tolerance is not None:
        spread = t.ppf(0.975, len(means) - 1) * stdev(means) * sqrt(1 + 1 / len(means))
        assert 1 <= one.tolerance / max(spread, 0.005 * one.value) <= 1.1


def test_a_plugin_without_a_card_has_none(mine: type[Settings]) -> None:
    assert card_of(mine) is None


def test_a_card_beside_a_file_of_ones_own_is_read(mine: type[Settings]) -> None:
    card_file(mine).write_text(tomli_w.dumps(MINIMAL))
    found = card_of(mine)
    assert found is not None
    assert found.sources[0].text == "A. Body, An Attack, Somewhere, 2026"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"threat": 3}, "card.threat = 3: input should be a valid string"),
        ({"thread": "x"}, "card.thread = 'x': extra inputs are not permitted"),
        ({"sources": []}, r"card.sources = \[\]: list should have at least 1 item"),
        ({"paper": [{"metric": "PSNR", "value": 1.0}]}, r"either \[\[paper\]\] tables or 'paper_unknown'"),
        ({"effort": {"fast": {"says": "x"}}}, r"input should be 'quick', 'standard' or 'published'"),
        ({"effort": {"standard": {"says": "x"}}}, "'standard' means the defaults"),
        ({"effort": {"quick": {}}}, "either 'says', the budget in words, or 'none'"),
        ({"effort": {"quick": {"none": "x", "settings": {"epochs": 1}}}}, "says that there is no such budget"),
        ({"effort": {"quick": {"says": "x", "settings": {"epoch": 1}}}}, "did you mean epochs"),
        ({"effort": {"quick": {"says": "x", "where": {"epoch": [1]}}}}, "did you mean epochs"),
        ({"effort": {"quick": {"says": "x", "settings": {"epochs": 0}}}}, "mine.epochs = 0: input should be greater"),
        ({"effort": {"quick": {"says": "x", "training_steps": 9}}}, "settings.batch_size to count steps by"),
        ({"ours": [{"metric": "PSNR"}]}, r"card.ours.0.value"),
    ],
)
def test_a_bad_card_is_refused_with_one_line(mine: type[Settings], change: dict[str, object], said: str) -> None:
    card_file(mine).write_text(tomli_w.dumps({**MINIMAL, **change}))
    with pytest.raises(InvalidInputError, match=said) as caught:
        card_of(mine)
    assert "\n" not in str(caught.value)
    assert str(card_file(mine)) in str(caught.value)


def test_a_card_that_is_no_toml_is_refused(mine: type[Settings]) -> None:
    card_file(mine).write_text("threat = ")
    with pytest.raises(InvalidInputError, match=r"mine.toml is no TOML"):
        card_of(mine)
