"""What the results of a run claim: on how many people, in pairs, and with which doubts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from written_run import DEFENCES, PHOTOS, score, write_run

from splitleak.experiments.judge.statistics.interval import Interval, most_exposed
from splitleak.experiments.planning.names import STRONGEST
from splitleak.experiments.report import write_report
from splitleak.experiments.report.figures import tradeoff
from splitleak.experiments.report.figures.tradeoff import RING
from splitleak.experiments.report.tables import matched, matrix
from splitleak.experiments.report.tables.attacks import WORST, attack_table
from splitleak.experiments.report.tables.pareto import pareto_table
from splitleak.experiments.report.verdict import verdict
from splitleak.experiments.results.frame import pooled
from splitleak.experiments.results.load import load_results

PEOPLE = tuple(photo // 3 for photo in range(PHOTOS))


def _whole(cell: dict[str, Any]) -> None:
    cell["groups"] = PEOPLE


def _suite(cell: dict[str, Any]) -> None:
    """The decoder's column becomes the suite, which leaves most photos to the linear attack."""
    if cell["attack"]["name"] == "decoder":
        cell["attack"] |= {"name": STRONGEST, "label": STRONGEST}
        cell["chosen"] = {"ridge": PHOTOS}


def test_people_are_counted_and_their_photos_no_independent_evidence(tmp_path: Path) -> None:
    alone = load_results(tmp_path / "a", write_run(tmp_path / "a", lambda cell: None))
    known = load_results(tmp_path / "b", write_run(tmp_path / "b", _whole))
    assert alone.sample == f"n = {PHOTOS} photos x 2 seeds"
    assert alone.resting.endswith("photos counted as independent: who is on them was not stored")
    assert known.sample == known.resting == f"n = {PHOTOS} photos of 4 people x 2 seeds"
    group = known.rows[0].groups["decoder"]
    expected = [cell.metrics["psnr"].values for cell in group.finished]
    sample = group.sample("psnr")
    assert sample is not None
    assert sample.groups == PEOPLE
    assert np.array_equal(sample.values, expected)
    assert group.scores["psnr"] != alone.rows[0].groups["decoder"].scores["psnr"]
    write_report(tmp_path / "b")
    for name in ("matrix.md", "index.html", "tables/matched_utility.md", "tables/attacks.tex"):
        assert "of 4 people" in (tmp_path / "b" / name).read_text()


def test_a_score_of_some_photos_has_the_people_of_those(tmp_path: Path) -> None:
    def some(cell: dict[str, Any]) -> None:
        _whole(cell)
        cell["metrics"]["rank1"] = {**score(np.array([1.0, 0.0, 1.0])), "counted": [0, 4, 5]}

    sample = load_results(tmp_path, write_run(tmp_path, some)).rows[0].groups["decoder"].sample("rank1")
    assert sample is not None
    assert list(sample.groups) == [0, 1]
    assert sample.values.tolist() == [[1, 0.5]] * 2  # each person once, by seed


def test_what_accuracy_is_lost_is_told_in_pairs(tmp_path: Path) -> None:
    results = load_results(tmp_path, write_run(tmp_path, _worse_by_one_photo, seeds=(0,)))
    row = next(row for row in results.rows if row.defence.name == "dp_sgd")
    change = results.utility_lost(row)
    assert change is not None
    reference = results.undefended
    assert reference is not None
    known = stats.ttest_rel(*(one.by_seed[0].utility.values for one in (row, reference)))  # type: ignore[union-attr]
    assert change.difference[1:] == pytest.approx(known.confidence_interval())
    assert results.utility_lost(reference) is None
    text = matrix.points(change)
    assert text.startswith("-8.3 [-26.7, +10.0")
    write_report(tmp_path)
    for name in ("matrix.md", "index.html", "tables/matrix_psnr.csv", "tables/matrix_psnr.tex"):
        assert text in (tmp_path / name).read_text()
    assert pooled(results.frame)[row.defence.label, "decoder"]["utility_difference"] == change.difference


def test_people_count_in_what_is_lost(tmp_path: Path) -> None:
    """All photos that the cloud is wrong about show one person: that is one loss and not three."""

    def wrong_about_one(cell: dict[str, Any]) -> None:
        right = np.arange(PHOTOS) >= 3 * (cell["defence"]["name"] == "dp_sgd")
        cell["utility"] = {"metric": "accuracy", "chance": 0.25, **score(right.astype(float))}

    def known(cell: dict[str, Any]) -> None:
        _whole(cell)
        wrong_about_one(cell)

    widths = []
    for name, edit in (("alone", wrong_about_one), ("people", known)):
        results = load_results(tmp_path / name, write_run(tmp_path / name, edit, seeds=(0,)))
        change = results.utility_lost(results.rows[-1])
        assert change is not None
        assert change.difference.mean == -0.25
        widths.append(change.difference.high - change.difference.low)
    assert widths[1] > 1.5 * widths[0]


def _worse_by_one_photo(cell: dict[str, Any]) -> None:
    right = 9 if cell["defence"]["name"] == "dp_sgd" else 10
    cell["utility"] = {"metric": "accuracy", "chance": 0.25, **score((np.arange(PHOTOS) < right).astype(float))}


def test_a_share_does_not_pass_what_is_possible() -> None:
    assert matrix.percent(Interval(0.973, 0.921, 1.025)) == "97.3 [92.1, 100.0] %"
    assert matrix.percent(Interval(0.855, 0.834, 0.876)) == "85.5 ± 2.1 %"
    assert matrix.bare_range("rank1", Interval(0.02, -0.01, 0.05)) == "2.0 [0.0, 5.0]"
    assert matrix.plus_minus("rank1", Interval(0.02, -0.01, 0.05)) == "2.0 [0.0, 5.0] %"
    assert matrix.bare_range("psnr", Interval(-0.5, -1.0, 0.0)) == "-0.5 [-1.0, 0.0]"


def test_the_worst_case_stands_beside_the_mean(tmp_path: Path) -> None:
    results = load_results(tmp_path, write_run(tmp_path, _whole))
    table = attack_table(results)
    assert table is not None
    for line in table.lines:
        group = results.rows[0].groups[line[0]]
        worst = most_exposed([cell.metrics["psnr"].values for cell in group.finished], PEOPLE)
        assert line[table.headings.index(WORST)] == matrix.bare_range("psnr", worst)
        assert worst.mean > group.scores["psnr"].mean
        assert pooled(results.frame)["none", line[0]]["psnr_most_exposed"] == worst
    assert WORST in write_report(tmp_path).read_text()


def test_a_flag_of_most_cells_tells_of_the_run_and_is_marked_at_none(tmp_path: Path) -> None:
    def doubt_one(cell: dict[str, Any]) -> None:
        if cell["defence"]["name"] == "dp_sgd" and cell["attack"]["name"] == "ridge":
            cell["converged"] = False

    results = load_results(tmp_path, write_run(tmp_path, doubt_one, seeds=(0,)))
    cells = sum(len(row.groups) for row in results.rows)
    assert results.common_flags == {"one-training": cells, "few-photos": cells}
    marked = {place for place, names in results.flags.items() if "not-converged" in names}
    assert marked == {("dp_sgd epsilon=8.0", "ridge")}
    assert not {name for names in results.flags.values() for name in names} & {"one-training", "few-photos"}
    assert results.raised(results.rows[-1].defence, "ridge") == ("not-converged",)
    assert all({"one-training", "few-photos"} <= set(names) for names in results.every_flag.values())
    text = matrix.table(results).markdown()
    assert text.count("one-training") == 1
    assert f"Of half of the cells or more, not marked: one-training {cells}, few-photos {cells}." in text
    assert verdict(results).endswith("Throughout: one-training, few-photos.")
    assert {row.flags for row in results.frame if row.attack == "decoder"} == {"one-training few-photos"}


@pytest.mark.parametrize(("doubted", "marked"), [(2, True), (3, False)])
def test_a_flag_of_half_of_the_cells_is_a_caption(doubted: int, marked: bool, tmp_path: Path) -> None:
    """Of six defences."""
    labels = [defence["label"] for defence in DEFENCES[:doubted]]

    def doubt(cell: dict[str, Any]) -> None:
        cell["n"] = 200
        cell["converged"] = False if cell["defence"]["label"] in labels else None

    results = load_results(tmp_path, write_run(tmp_path, doubt))
    assert results.flag_counts["not-converged"] == 3 * doubted
    assert (("none", "ridge") in results.flags) is marked
    assert ("Throughout: not-converged" in verdict(results)) is not marked
    caption = f"Of half of the cells or more, not marked: not-converged {3 * doubted}."
    assert (caption in matrix.caption(results)) is not marked


def test_one_overfitted_training_among_the_seeds_is_told(tmp_path: Path) -> None:
    def doubt_one(cell: dict[str, Any]) -> None:
        if cell["attack"]["name"] == "decoder":
            cell["overfitted"] = cell["defence"]["name"] == "none" and cell["seed"] == 1

    results = load_results(tmp_path, write_run(tmp_path, doubt_one, seeds=(0, 1)))
    assert {place for place, names in results.every_flag.items() if "overfitted" in names} == {("none", "decoder")}


def test_several_trainings_are_not_one(tmp_path: Path) -> None:
    assert "one-training" not in load_results(tmp_path, write_run(tmp_path)).flag_counts


def test_a_suite_has_the_doubts_of_the_attacks_that_it_rests_on(tmp_path: Path) -> None:
    def doubt(cell: dict[str, Any]) -> None:
        _suite(cell)
        cell["converged"] = False if cell["attack"]["name"] in ("ridge", "mean_image") else None

    results = load_results(tmp_path, write_run(tmp_path, doubt))
    assert "not-converged" in results.every_flag["none", STRONGEST]

    def elsewhere(cell: dict[str, Any]) -> None:
        doubt(cell)
        if "chosen" in cell:
            cell["chosen"] = {"other": PHOTOS - 1, "ridge": 1}

    rests_elsewhere = load_results(tmp_path / "b", write_run(tmp_path / "b", elsewhere))
    assert "not-converged" not in rests_elsewhere.every_flag["none", STRONGEST]


def test_a_suite_that_mixes_in_photos_that_not_all_tried_is_flagged(tmp_path: Path) -> None:
    def slow(cell: dict[str, Any]) -> None:
        _suite(cell)
        if cell["attack"]["name"] == "ridge":
            cell["n"] = 8
            cell["metrics"] = {name: score(np.array(of["values"][:8])) for name, of in cell["metrics"].items()}

    results = load_results(tmp_path / "a", write_run(tmp_path / "a", slow))
    assert "untried-photos" in results.every_flag["none", STRONGEST]
    whole = load_results(tmp_path / "b", write_run(tmp_path / "b", _suite))
    assert "untried-photos" not in whole.flag_counts


def test_what_is_at_chance_is_no_member_of_a_pareto_set(tmp_path: Path) -> None:
    def guessing(cell: dict[str, Any]) -> None:
        if cell["defence"]["name"] == "gaussian_noise":
            cell["utility"] = {"metric": "accuracy", "chance": 0.25, **score((np.arange(PHOTOS) < 4).astype(float))}

    results = load_results(tmp_path, write_run(tmp_path, guessing))
    assert not any(label.startswith("gaussian_noise") for label in results.pareto)
    assert any(member for member, _ in results.pareto.values())
    assert all(share >= 0.5 for member, share in results.pareto.values() if member)
    figure, table = tradeoff(results, "psnr"), pareto_table(results)
    assert figure is not None
    assert table is not None
    members = [label for label, (member, _) in results.pareto.items() if member]
    assert len(members) < len(results.pareto)
    assert sorted(line[0] for line in table.lines) == sorted(members)
    (rings,) = (line for line in figure.axes[0].get_lines() if line.get_markersize() == RING)
    assert len(rings.get_xdata()) == len(members)


@pytest.mark.parametrize(("right", "chosen"), [(5, False), (9, True)])
def test_what_cannot_be_told_from_guessing_is_at_chance(right: int, chosen: bool, tmp_path: Path) -> None:
    """Five of twelve are more than the quarter that guessing gets, and no evidence of more."""

    def weak(cell: dict[str, Any]) -> None:
        if cell["defence"]["name"] == "dp_sgd":
            cell["utility"] = {
                "metric": "accuracy", "chance": 0.25, **score((np.arange(PHOTOS) < right).astype(float))
            }  # fmt: skip

    results = load_results(tmp_path, write_run(tmp_path, weak))
    assert ("dp_sgd epsilon=8.0" in results.pareto) is chosen


def test_what_cannot_be_told_apart_has_the_difference_that_could(tmp_path: Path) -> None:
    def equal(cell: dict[str, Any]) -> None:
        cell["utility"] = {"metric": "accuracy", "chance": 0.25, **score(np.ones(PHOTOS))}
        if cell["defence"]["name"] != "none" and not cell["attack"]["floor"]:
            random = np.random.default_rng([*cell["id"].encode()])
            cell["metrics"]["psnr"] = score(16 + random.normal(0, 0.3, PHOTOS))

    results = load_results(tmp_path, write_run(tmp_path, equal, seeds=(0,)))
    texts = [matched.above(place.place.behind) for place in results.ranking]
    apart = [place.place.behind for place in results.ranking if place.place.behind]
    for change, text in zip(apart, texts[1:], strict=True):
        assert change.clear == ("cannot be told apart" not in text)
        assert change.clear or f"({change.seen:.1f} would have been seen)" in text
    equal = [change for change in apart if not change.clear]
    assert equal
    seen = max(change.seen for change in equal)
    others = "1 other defence" if len(equal) == 1 else f"{len(equal)} other defences"
    assert (
        f"; {others} cannot be told apart from it (a difference of {seen:.1f} dB would have been seen)."
        in verdict(results)
    )


def test_what_cannot_be_told_from_none_has_the_difference_that_could(tmp_path: Path) -> None:
    def useless(cell: dict[str, Any]) -> None:
        random = np.random.default_rng([cell["seed"], *cell["id"].encode()])
        better = 0.5 * (cell["defence"]["name"] != "none")
        cell["metrics"]["psnr"] = score(20 - better + random.normal(0, 1, PHOTOS))
        cell["utility"] = {"metric": "accuracy", "chance": 0.25, **score(np.ones(PHOTOS))}

    results = load_results(tmp_path, write_run(tmp_path, useless, seeds=(0,)))
    assert results.best is not None
    gain = results.best.place.gain
    assert gain is not None
    assert gain.difference.low < gain.difference.mean < 0 <= gain.difference.high
    assert f"cannot be told apart from none (a gain of {gain.seen:.1f} dB would have been seen)" in verdict(results)
