"""Two runs side by side: what changed is found, what is noise is not, and what cannot be compared is said."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from terminal import Terminal
from tiny import HEAD, MEAN, NONE, run_plan
from written_run import Edit, fail_one, score, write_run

from splitleak.experiments.judge.statistics.different import Change, Sample, beyond_noise, different
from splitleak.experiments.report.tables.compare import Comparison, Row, line
from splitleak.experiments.results.load import CELLS, load_results, record_file, write_listing

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")

PHOTOS = 200


def redraw(random: np.random.Generator, seeds: int, seed_std: float = 0.1, shift: float = 0.0) -> np.ndarray:
    """Differences in decibels (seeds, photos) of training anew, and a shift beyond that."""
    photos = random.normal(0, 0.3, PHOTOS)
    return shift + photos + random.normal(0, seed_std, (seeds, 1)) + random.normal(0, 0.8, (seeds, PHOTOS))


def apart(first: np.ndarray, second: np.ndarray, paired: bool = True) -> Change:
    """Of independent photos."""
    return different(Sample(first), Sample(second), paired)


def test_one_seed_in_pairs_is_the_paired_t_test() -> None:
    random = np.random.default_rng(0)
    first = random.normal(20, 3, PHOTOS)
    second = first + random.normal(0.1, 0.8, PHOTOS)
    found, known = apart(first, second), stats.ttest_rel(second, first)
    assert found.p == pytest.approx(known.pvalue, rel=1e-6)
    assert found.difference[1:] == pytest.approx(known.confidence_interval(), rel=1e-6)


def test_one_seed_without_pairs_is_nearly_welchs_test() -> None:
    random = np.random.default_rng(1)
    first, second = random.normal(20, 3, 150), random.normal(20.5, 1, 300)
    found, known = apart(first, second, paired=False), stats.ttest_ind(second, first, equal_var=False)
    assert found.p == pytest.approx(known.pvalue, rel=0.05)
    assert found.difference[1:] == pytest.approx(known.confidence_interval(), rel=0.02)


def test_the_interval_ends_at_zero_where_p_says_so() -> None:
    values = redraw(np.random.default_rng(2), 3)
    low = apart(np.zeros_like(values), values).difference.low
    assert apart(np.zeros_like(values), values - low).p == pytest.approx(0.05, rel=1e-6)


def test_seeds_that_disagree_are_noise() -> None:
    random = np.random.default_rng(3)
    photos = random.normal(0.3, 0.5, (1, PHOTOS))
    agreeing = photos + np.array([-0.01, 0, 0.01])[:, None]
    disagreeing = photos + np.array([-0.5, 0, 0.5])[:, None]
    assert apart(np.zeros_like(agreeing), agreeing).p < 0.01
    assert apart(np.zeros_like(disagreeing), disagreeing).p > 0.2


@pytest.mark.parametrize(("seeds", "seed_std"), [(1, 0.0), (2, 0.1), (3, 0.0), (3, 0.1), (3, 1.0), (5, 0.1)])
def test_noise_is_called_a_change_in_five_of_a_hundred_runs_at_most(seeds: int, seed_std: float) -> None:
    """Everything found in pure noise is false, so that the share of runs with any finding is what is controlled."""
    random = np.random.default_rng(4)
    runs, cells, alarms = 200, 40, 0
    for _ in range(runs):
        drawn = [redraw(random, seeds, seed_std) for _ in range(cells)]
        alarms += beyond_noise([apart(np.zeros_like(one), one).p for one in drawn])[1].any()
    assert alarms / runs <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)


def test_noise_of_other_photos_is_no_change_either() -> None:
    random = np.random.default_rng(7)
    runs, cells, alarms = 200, 20, 0
    for _ in range(runs):
        pairs = [[redraw(random, 3, seed_std) for seed_std in (0.02, 0.5)] for _ in range(cells)]
        alarms += beyond_noise([apart(*pair, paired=False).p for pair in pairs])[1].any()
    assert alarms / runs <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)


def test_false_discoveries_among_real_changes_stay_few() -> None:
    random = np.random.default_rng(5)
    real = np.arange(60) < 20
    shares, powers = [], []
    for _ in range(100):
        drawn = [redraw(random, 1, 0.0, 0.3 if of else 0.0) for of in real]
        found = beyond_noise([apart(np.zeros_like(one), one).p for one in drawn])[1]
        shares.append((found & ~real).sum() / max(1, found.sum()))
        powers.append(found[real].mean())
    assert np.mean(shares) <= 0.05
    assert np.mean(powers) > 0.95


def test_what_does_not_vary_is_certain_however_small() -> None:
    values = np.random.default_rng(6).normal(20, 3, (3, PHOTOS)).round(6)
    assert apart(values, values) == ((0, 0, 0), 1, 0)
    tiny = apart(values, values + 0.001)
    assert tiny.p == pytest.approx(0, abs=1e-12)
    assert tiny.difference == pytest.approx((0.001,) * 3)
    assert beyond_noise([])[0].size == 0


def test_what_tells_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="two photos"):
        apart(np.ones(1), np.zeros(1))
    with pytest.raises(ValueError, match="no pairs"):
        apart(np.zeros((2, 5)), np.zeros((3, 5)))


def known_photos(cell: dict[str, Any]) -> None:
    cell["targets"] = "one"


def written(run: Path, edit: Edit = known_photos, seeds: tuple[int, ...] = (0, 1, 2)) -> Path:
    (run / CELLS).parent.mkdir(parents=True, exist_ok=True)
    (run / CELLS).write_text(json.dumps(write_run(run, edit, seeds)))
    return run


def compared(first: Path, second: Path) -> Comparison:
    return Comparison.of(*(load_results(run, json.loads((run / CELLS).read_text())) for run in (first, second)))


@pytest.fixture(autouse=True)
def _many_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("written_run.PHOTOS", PHOTOS)


def shifted(by: float, metric: str = "psnr", attack: str = "decoder", defence: str = "none") -> Edit:
    """One setting's values moved by about so much, every other cell as it was."""

    def edit(cell: dict[str, Any]) -> None:
        known_photos(cell)
        if (cell["attack"]["name"], cell["defence"]["label"]) == (attack, defence):
            noise = np.random.default_rng(cell["seed"]).normal(0, 0.5, PHOTOS) if abs(by) > 0.01 else 0.0
            cell["metrics"][metric] = score(np.array(cell["metrics"][metric]["values"]) + by + noise)

    return edit


def test_the_same_run_twice_has_not_changed(tmp_path: Path) -> None:
    run = written(tmp_path)
    comparison = compared(run, run)
    assert {row.verdict for row in comparison.rows} == {"identical"}
    # 6 defences x 3 attacks x 2 metrics, and the utility of each defence once
    assert comparison.summary == ["42 comparisons: 0 changed, 42 identical"]


@pytest.mark.parametrize("by", [0.3, -0.3])
def test_a_planted_change_is_found_with_its_sign(by: float, tmp_path: Path) -> None:
    (row,) = compared(written(tmp_path / "a"), written(tmp_path / "b", shifted(by))).changed
    scored = row.scored
    assert (scored.defence, scored.attack, scored.metric, scored.pairing) == ("none", "decoder", "psnr", "paired")
    assert row.change is not None
    assert row.change.difference.low < by < row.change.difference.high
    assert np.sign(row.change.difference.mean) == np.sign(by)
    assert row.size == pytest.approx(0.3, abs=0.1)


def test_trainings_that_disagree_are_no_change(tmp_path: Path) -> None:
    """Of three one is a decibel better, one a decibel worse: each alone would be a change."""

    def retrained(cell: dict[str, Any]) -> None:
        known_photos(cell)
        if (cell["attack"]["name"], cell["defence"]["label"]) == ("decoder", "none"):
            cell["metrics"]["psnr"] = score(np.array(cell["metrics"]["psnr"]["values"]) + (1, -1, 0)[cell["seed"]])

    assert not compared(written(tmp_path / "a"), written(tmp_path / "b", retrained)).changed
    alone = (
        written(tmp_path / f"{name} alone", edit, (0,)) for name, edit in (("a", known_photos), ("b", retrained))
    )
    assert len(compared(*alone).changed) == 1


def test_a_person_counts_once_in_a_comparison(tmp_path: Path) -> None:
    """All that changed are the photos of one person, of ten: on photos that stood alone it would be beyond noise."""
    people = tuple(photo // (PHOTOS // 10) for photo in range(PHOTOS))

    def moved(by: float, known: bool) -> Edit:
        def edit(cell: dict[str, Any]) -> None:
            known_photos(cell)
            cell["groups"] = people if known else None
            if (cell["attack"]["name"], cell["defence"]["label"]) == ("decoder", "none"):
                cell["metrics"]["psnr"] = score(
                    np.array(cell["metrics"]["psnr"]["values"]) + by * (np.array(people) == 0)
                )

        return edit

    for known, changed in ((False, 1), (True, 0)):
        first, second = (written(tmp_path / f"{by} {known}", moved(by, known), (0,)) for by in (0.0, 3.0))
        assert len(compared(first, second).changed) == changed


def test_a_tiny_certain_change_is_shown_with_its_size(tmp_path: Path) -> None:
    (row,) = compared(written(tmp_path / "a"), written(tmp_path / "b", shifted(0.001))).changed
    assert line(row)[5] == "+0.0010 [+0.0010, +0.0010]"


def on_other_photos(cell: dict[str, Any]) -> None:
    cell["targets"] = "other"
    random = np.random.default_rng([cell["seed"], *cell["id"].encode()])
    for metric in cell["metrics"]:
        cell["metrics"][metric] = score(random.permutation(cell["metrics"][metric]["values"]))


def test_other_photos_are_compared_unpaired_and_labelled(tmp_path: Path) -> None:
    comparison = compared(written(tmp_path / "a"), written(tmp_path / "b", on_other_photos))
    assert {row.scored.pairing for row in comparison.rows} == {"different photos"}
    assert not comparison.changed
    assert "42 of them unpaired: different photos" in comparison.summary


def test_photos_that_a_run_does_not_tell_are_compared_unpaired_and_labelled(tmp_path: Path) -> None:
    def untold(cell: dict[str, Any]) -> None:
        shifted(2.0)(cell)
        del cell["targets"]

    (row,) = compared(written(tmp_path / "a"), written(tmp_path / "b", untold)).changed
    assert line(row)[-1] == "200 | 200 x 3 seeds, unpaired"


def test_the_first_photos_of_the_part_are_other_photos_than_all(tmp_path: Path) -> None:
    def slow(cell: dict[str, Any]) -> None:
        known_photos(cell)
        if cell["attack"]["name"] == "ridge":
            cell["n"] = 32
            for metric in cell["metrics"]:
                cell["metrics"][metric] = score(np.array(cell["metrics"][metric]["values"][:32]))

    def pairing(row: Row) -> tuple[str, str]:
        return row.scored.attack, row.scored.pairing

    rows = compared(written(tmp_path / "a"), written(tmp_path / "b", slow)).rows
    assert {pairing(row) for row in rows} == {
        ("mean_image", "paired"), ("ridge", "different photos"), ("decoder", "paired"), ("", "paired")
    }  # fmt: skip


def test_seeds_are_those_in_common_and_other_cells_are_named(tmp_path: Path) -> None:
    def failing(cell: dict[str, Any]) -> None:
        known_photos(cell)
        fail_one(cell)

    first, second = written(tmp_path / "a", failing), written(tmp_path / "b", seeds=(1, 2, 3))
    ids = json.loads((second / CELLS).read_text())
    (second / "cells" / f"{ids[0]}.json").unlink()
    comparison = compared(first, second)
    assert {row.scored.seeds for row in comparison.rows} == {(1, 2), (2,)}
    counts = {reason: len(places) for reason, places in comparison.unmatched.items()}
    assert counts == {"only in first": 19, "only in second": 18, "failed in first": 2, "failed in second": 0}
    assert "failed in first: 2 cells, such as gaussian_noise sigma=2.0 x ridge, seed 1" in comparison.summary
    assert comparison.warnings == ("not run yet in second: 1 cell",)


def test_cells_that_are_stale_or_changed_by_hand_are_left_out_and_told(tmp_path: Path) -> None:
    first, second = written(tmp_path / "a"), written(tmp_path / "b")
    keys = {name: f"key {name}" for name in json.loads((second / CELLS).read_text())}
    write_listing(first, keys | {"c000": "key of other code"})
    edited = record_file(second, "c003")
    edited.write_text(edited.read_text().replace('"seed": 0', '"seed": 1'))
    comparison = Comparison.of(load_results(first), load_results(second))
    stale, damaged = comparison.warnings
    assert stale.startswith("first: 1 cell is stale and left out")
    assert damaged.startswith("second: 1 cell is left out: changed by hand")
    assert comparison.unmatched["only in second"] == [("none", "mean_image", 0)]


def test_what_is_within_noise_has_the_change_that_would_have_been_seen(tmp_path: Path) -> None:
    first, second = written(tmp_path / "a"), written(tmp_path / "b", shifted(0.02))
    comparison = compared(first, second)
    (row,) = (row for row in comparison.rows if row.verdict == "within noise")
    assert row.change is not None
    assert f"within noise: a change of PSNR by {row.change.seen:.1f} dB would have been seen" in comparison.summary
    (flat,) = (flat for flat in comparison.csv_rows() if flat["verdict"] == "within noise")
    assert flat["could_be_seen"] == row.change.seen > 0


def test_other_victims_are_compared_loudly_and_other_tasks_not_at_all(tmp_path: Path) -> None:
    def other(cell: dict[str, Any]) -> None:
        known_photos(cell)
        cell["victim"] |= {"cut": "C5", "task": "mask"}
        cell["defence"]["settings"] = {"sigma": 9.0}

    comparison = compared(written(tmp_path / "a"), written(tmp_path / "b", other))
    assert comparison.warnings == (
        "DIFFERENT VICTIMS, first | second: cut C4 | C5, task expression | mask",
        "SAME NAME, OTHER SETTINGS: 54 cells, such as none x mean_image, seed 0",
    )
    assert "utility" not in {row.scored.metric for row in comparison.rows}


def test_the_command_prints_changes_and_writes_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = written(tmp_path / "a"), written(tmp_path / "b", shifted(0.3))
    (first / CELLS).write_text(json.dumps(json.loads((first / CELLS).read_text())[:-1]))
    code, out, error = Terminal(monkeypatch, capsys)(
        "compare", str(first), str(second), "--csv", str(tmp_path / "changes.csv")
    )
    assert (code, error) == (0, "")
    assert "42 comparisons: 1 changed, 41 identical" in out
    assert "only in second: 1 cell, such as dp_sgd epsilon=8.0 x decoder, seed 2" in out
    with (tmp_path / "changes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 42 + 1
    assert (rows[0]["attack"], rows[0]["verdict"], rows[0]["seeds"]) == ("decoder", "changed", "0 1 2")
    assert 0 < float(rows[0]["low"]) < float(rows[0]["difference"]) < float(rows[0]["high"])
    assert float(rows[0]["p_adjusted"]) < 0.05
    assert float(rows[1]["difference"]) == 0
    assert rows[-1]["verdict"] == "only in second"


def test_runs_that_share_nothing_or_are_damaged_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal(monkeypatch, capsys)
    first, second = written(tmp_path / "a", seeds=(0,)), written(tmp_path / "b", seeds=(1,))
    assert "share no defence, attack and seed" in terminal.refusal("compare", str(first), str(second))
    assert "cannot be written" in terminal.refusal("compare", str(first), str(first), "--csv", str(tmp_path))
    (first / "cells" / "c003.json").write_text("{}")
    assert "c003.json is not a cell" in terminal.refusal("compare", str(first), str(second))


def test_a_run_tells_which_photos_it_scored(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    results, _, _ = run_plan(HEAD + NONE + MEAN, tmp_path / "a", shared=True)
    again, _, _ = run_plan(
        HEAD.replace("[defender]", "seed = 5\n[defender]") + NONE + MEAN, tmp_path / "b", shared=True
    )
    assert results[0]["targets"] != again[0]["targets"]
    assert len(results[0]["targets"]) == 24  # hexadecimal digits of a digest
