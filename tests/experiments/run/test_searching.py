"""A plan that asks for a loss: strengths are searched first, once, and its cells are those of what was found."""

from pathlib import Path

import pytest
import torch
from terminal import Terminal
from tiny import HEAD, MEAN, NONE, RIDGE, run_plan

from splitleak.experiments.planning.names import CACHE
from splitleak.experiments.planning.plan import read_plan
from splitleak.experiments.results.load import load_results
from splitleak.experiments.run.execute import RunWorkshop, run_cells, work_of
from splitleak.experiments.run.run import Run
from splitleak.experiments.run.schedule import Serial
from splitleak.experiments.stages import match
from splitleak.experiments.stages.protect import ProtectStage
from splitleak.experiments.store.store import Store

NOISE = '[[defenses]]\nname = "gaussian_noise"\n'
ENOUGH = HEAD.replace("validation = 32", "validation = 200").replace("photos = 400", "photos = 600")
PLAN = ENOUGH + NONE + NOISE + "match = 0.03\n" + MEAN + RIDGE
FOUND = "gaussian_noise match=0.03 sigma=0.341"


@pytest.fixture(autouse=True)
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float]]:
    """Seed and sigma of what a search trained; a point of accuracy goes with each tenth of sigma."""
    seen: list[tuple[int, float]] = []

    def accuracy(stage: ProtectStage, store: Store) -> float:
        store.folder(stage)
        sigma = getattr(stage.defense, "sigma", 0.0)
        if stage.defense.strength:
            seen.append((stage.seed, sigma))
        return 0.95 - 0.1 * min(sigma, 4.0)

    monkeypatch.setattr(match, "accuracy", accuracy)
    return seen


def run_of(folder: Path, text: str = PLAN) -> tuple[Run, Store]:
    (folder / "plan.toml").write_text(text)
    store = Store(folder / "runs" / CACHE, torch.device("cpu"))
    return Run.of(read_plan(folder / "plan.toml"), folder / "runs"), store


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two seeds."""
    folder = tmp_path_factory.mktemp("searched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(match, "accuracy", lambda stage, store: 0.95 - 0.1 * min(getattr(stage.defense, "sigma", 0), 4))
        run_plan(PLAN.replace("seeds = [0]", "seeds = [0, 1]"), folder, report=True)
    return folder


def test_cells_of_all_seeds_have_the_strength_that_was_found_for_the_first(done: Path) -> None:
    results = load_results(done / "runs" / "tiny")
    cells = [cell for cell in results.cells if cell.defence.name != "none"]
    assert [(cell.defence.label, cell.defence.strength_value, cell.status) for cell in cells] == [
        (FOUND, 0.341, "ok")
    ] * 4
    assert {cell.seed for cell in cells} == {0, 1}
    found = cells[0].defence.match
    assert found is not None
    assert (found.asked, found.value, found.seed, found.photos) == (0.03, 0.341, 0, 200)
    assert found.lost == pytest.approx(0.0341)
    assert [strength for strength, _ in found.ordered] == [0.01, 0.0752, 0.206, 0.341, 0.566]


def test_the_report_tells_what_the_search_saw(done: Path) -> None:
    text = (done / "runs" / "tiny" / "tables" / "found.md").read_text()
    assert f"| {FOUND} | 3 | sigma = 0.341 | 3.4 |" in text
    assert "| 5 | 0.01: 0.1, 0.0752: 0.8, 0.206: 2.1, 0.341: 3.4, 0.566: 5.7 |" in text
    assert "validation part (200 photos) and the victim of seed 0 alone" in text
    page = (done / "runs" / "tiny" / "index.html").read_text()
    assert "Strengths that were searched" in page
    assert "0.566: 5.7" in page


def test_again_nothing_is_computed(done: Path, trained: list[tuple[int, float]]) -> None:
    _, fresh, store = run_plan(PLAN.replace("seeds = [0]", "seeds = [0, 1]"), done)
    assert not any(fresh)
    assert (store.computed, trained) == ([], [])


def test_what_was_found_is_the_plain_setting_to_all_that_follows(done: Path) -> None:
    plain = ENOUGH + NONE + NOISE + "sigma = 0.341\n" + MEAN + RIDGE
    run, store = run_of(done, plain)
    assert all(store.has(cell.protect) for cell in run.cells), "what a search trains is no stage of its own kind"


def test_a_search_does_not_depend_on_who_came_first(tmp_path: Path) -> None:
    both = ENOUGH + NONE + NOISE + "match = [0.01, 0.03]\n" + MEAN
    keys = [
        {label: stage.key for label, stage in run_of(tmp_path, text)[0].searches.items()} for text in (PLAN, both)
    ]
    assert keys[0].items() <= keys[1].items()
    assert len(set(keys[1].values())) == 2


def test_an_interrupted_search_trains_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = match.accuracy

    def interrupted(stage: ProtectStage, store: Store) -> float:
        value = whole(stage, store)
        if getattr(stage.defense, "sigma", 0) == 0.01:  # the second
            raise KeyboardInterrupt
        return value

    monkeypatch.setattr(match, "accuracy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_plan(PLAN, tmp_path)
    monkeypatch.setattr(match, "accuracy", whole)
    results, _, store = run_plan(PLAN, tmp_path)
    assert {result["defence"]["label"] for result in results} == {"none", FOUND}
    assert store.computed.count("protect") == 3, "none and two strengths had been trained before"


def test_what_cannot_be_found_does_not_apply_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stepped(stage: ProtectStage, store: Store) -> float:
        sigma = getattr(stage.defense, "sigma", 0.0)
        return 1.0 - (0.4 if sigma > 1 else 0.057 if sigma else 0.0)

    monkeypatch.setattr(match, "accuracy", stepped)
    run, store = run_of(
        tmp_path,
        PLAN.replace("match = 0.03", "match = 0.2").replace(
            "patience = 0\n[att", "patience = 0\nmatch_trainings = 2\n[att"
        ),
    )
    told: list[str] = []
    run_cells(run, store, Serial(work_of(run, store)), False, lambda *of: None, on_loaded=told.extend)
    cells = load_results(run.folder).cells
    reasons = {(cell.status, cell.reason) for cell in cells if cell.defence.name != "none"}
    reason = "not found in 2 trainings: sigma = 0.566 loses 5.7 points and sigma = 32 loses 40.0 points"
    assert reasons == {("does not apply", reason)}
    assert [cell.status for cell in cells if cell.defence.name == "none"] == ["ok", "ok"]
    assert f"gaussian_noise match=0.2: no strength that loses 20 points: {reason} (2 trainings)" in told


def test_where_there_is_not_so_much_to_lose_nothing_is_trained(
    tmp_path: Path, trained: list[tuple[int, float]]
) -> None:
    results, _, _ = run_plan(PLAN.replace("match = 0.03", "match = 0.5"), tmp_path)
    (reason,) = {result["reason"] for result in results if result["defence"]["name"] != "none"}
    assert reason.startswith("there is not so much to lose: undefended 95.0%, and")
    assert trained == []


def test_a_search_that_fails_fails_its_cells_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = match.accuracy

    def broken(stage: ProtectStage, store: Store) -> float:
        if stage.defense.strength:
            raise RuntimeError("it diverged")
        return whole(stage, store)

    monkeypatch.setattr(match, "accuracy", broken)
    for fresh_expected in (True, False):
        results, fresh, _ = run_plan(PLAN, tmp_path)
        assert [result["status"] for result in results] == ["ok", "ok", "failed", "failed"]
        assert "it diverged" in results[-1]["traceback"]
        assert set(fresh) == {fresh_expected}
    monkeypatch.setattr(match, "accuracy", whole)
    results, fresh, _ = run_plan(PLAN, tmp_path, retry=True)
    assert [result["status"] for result in results] == ["ok"] * 4
    assert fresh == [False, False, True, True]


def test_time_that_is_up_leaves_the_rest_for_later(tmp_path: Path) -> None:
    run, store = run_of(tmp_path)
    told: list[object] = []
    run_cells(run, store, Serial(work_of(run, store)), False, lambda *of: told.append(of), time_is_up=lambda: True)
    assert told == []
    assert run.again().searches


def test_a_worker_from_before_the_search_knows_the_cells_that_came_of_it(tmp_path: Path) -> None:
    run, store = run_of(tmp_path)
    work = RunWorkshop.of(run, store).open(0, lambda text: None)
    statuses: list[str] = []
    found: list[Run] = []
    executor = Serial(work)
    run_cells(
        run, store, executor, False, lambda cell, record, fresh: statuses.append(record.status), on_found=found.append
    )
    assert statuses == ["ok"] * 4
    assert [cell.defense.label for cell in found[0].cells] == ["none", "none", FOUND, FOUND]


def test_a_dry_run_says_how_much_will_be_trained(tmp_path: Path, terminal: Terminal) -> None:
    (tmp_path / "plan.toml").write_text(PLAN.replace("match = 0.03", "match = [0.01, 0.03]"))
    code, out, _ = terminal("run", str(tmp_path / "plan.toml"), "--out", str(tmp_path / "runs"), "--dry-run")
    assert code == 0
    said = " ".join(out.split())
    assert (
        "2 strengths to search first, on 200 validation photos and seed 0: at most 7 trainings each, 14 together"
        in said
    )
    assert "2 match" in said
    assert not (tmp_path / "runs" / CACHE / "protect").exists(), "something was trained"
