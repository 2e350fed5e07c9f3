"""Leakage at equal utility: of settings that were measured, compared in pairs, all together, and affordable."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from written_run import DEFENCES, score, write_run

from splitleak.experiments.judge.statistics.different import Sample, behind, different
from splitleak.experiments.judge.statistics.matched import Place, Setting, ranking
from splitleak.experiments.planning.tables import JudgeTable
from splitleak.experiments.report import write_report
from splitleak.experiments.report.figures import tradeoff
from splitleak.experiments.report.figures.style import GREY
from splitleak.experiments.report.tables.matched import matched_rows, table
from splitleak.experiments.report.tables.matrix import bare_range
from splitleak.experiments.report.verdict import verdict
from splitleak.experiments.results.load import load_results
from splitleak.experiments.results.results import Results


def _constant(utility: float, leakage: float, photos: int = 10) -> Setting:
    return Setting(np.full((1, photos), utility), np.full((1, photos), leakage))


def _first(lost: float, reference: Setting, *families: list[Setting]) -> Place:
    return ranking(reference, families, lost)[0]


def test_only_what_was_measured_is_chosen() -> None:
    reference = _constant(0.9, 24.0)
    curve = [_constant(0.9, 22.0), _constant(0.8, 12.0)]
    at_five = _first(0.05, reference, curve)  # a line between the two would promise 17
    assert (at_five.setting, at_five.leakage) == (0, (22, 22, 22))
    everything = _first(0.2, reference, curve)
    assert (everything.setting, everything.leakage) == (1, (12, 12, 12))


def test_what_cannot_be_afforded_has_no_number_and_comes_last() -> None:
    reference = _constant(0.9, 24.0)
    places = ranking(reference, [[_constant(0.7, 10.0)], [_constant(0.895, 30.0)], [_constant(0.9, 20.0)]], 0.01)
    assert [place.family for place in places] == [2, 1, 0]
    assert places[2] == Place(0)
    assert places[1].leakage == (30, 30, 30)


def test_what_loses_exactly_as_much_is_affordable() -> None:
    assert 149 / 300 < 152 / 300 - 0.01, "by less than a float can tell"
    reference, other = ((np.arange(300) < right)[None].astype(float) for right in (152, 149))
    cheaper = Setting(other, np.full((1, 300), 15.0))
    assert _first(0.01, Setting(reference, np.full((1, 300), 20.0)), [cheaper]).setting == 0


def _noisy(leakage: float, seed: int, easy: np.ndarray) -> Setting:
    noise = np.random.default_rng(seed).normal(0, 0.3, easy.shape)
    return Setting(np.ones(easy.shape), leakage + easy + noise)


def test_what_photos_share_cancels_in_comparisons() -> None:
    easy = np.random.default_rng(1).normal(0, 5, (1, 400))
    reference, families = _noisy(25, 2, easy), [[_noisy(20, 3, easy)], [_noisy(20.5, 4, easy)], [_noisy(22, 5, easy)]]
    best, second, third = ranking(reference, families, 0.0)
    assert best.leakage is not None
    assert best.leakage.high - best.leakage.low == pytest.approx(4 * 5 / 20, rel=0.2)  # of the mean itself
    assert best.behind is None
    for place, truth in ((second, 0.5), (third, 2.0)):
        assert place.behind is not None
        assert place.behind.clear
        assert place.behind.difference.low < truth < place.behind.difference.high
        assert place.behind.difference.high - place.behind.difference.low < 0.2
    assert best.gain is not None
    assert best.gain.difference.high < 0


def test_intervals_of_many_hold_together_and_of_two_alone() -> None:
    easy = np.random.default_rng(6).normal(0, 5, (1, 200))
    many = [_noisy(20, seed, easy).leaking for seed in range(12)]
    pair, all_of_them = behind(many[:2], 0)[1], behind(many, 0)[1]
    assert pair.difference == pytest.approx(different(*many[:2]).difference, abs=0.01)
    ratio = (all_of_them.difference.high - all_of_them.difference.mean) / (
        pair.difference.high - pair.difference.mean
    )
    tukey = stats.studentized_range.ppf(0.95, 12, 199) / np.sqrt(2) / stats.t.ppf(0.975, 199)
    assert ratio == pytest.approx(tukey, rel=0.05)
    assert all_of_them.seen > pair.seen


def test_seeds_of_a_pair_that_agree_by_luck_are_no_evidence() -> None:
    """Two trainings of one pair happen to differ alike, where those of all others differ by a decibel."""
    random, easy = np.random.default_rng(7), np.zeros((2, 100))
    luck = random.normal(0, 1, (10, 2, 1))
    luck[1] = luck[0] + 0.5
    families = [Sample(_noisy(20, seed, easy).leakage + of) for seed, of in enumerate(luck)]
    assert different(families[0], families[1]).clear
    assert not behind(families, 0)[1].clear


def test_the_least_that_would_be_seen_is_seen_in_four_of_five_runs() -> None:
    random = np.random.default_rng(8)
    seen, found = [], []
    for _ in range(400):
        noise = random.normal(0, 1, (2, 1, 50))
        seen.append(different(Sample(noise[0]), Sample(noise[1])).seen)
        found.append(different(Sample(noise[0]), Sample(noise[1] + 0.566)).clear)  # 2.83 standard errors of 0.2
    assert np.mean(seen) == pytest.approx(0.566, rel=0.05)
    assert np.mean(found) == pytest.approx(0.8, abs=0.06)


def test_slow_attacks_count_on_their_own_photos() -> None:
    random = np.random.default_rng(2)
    few = random.normal(20, 1, (2, 16))
    reference = Setting(np.ones((2, 200)), random.normal(25, 1, (2, 16)))
    place = _first(0.0, reference, [Setting(np.ones((2, 200)), few)])
    assert place.leakage is not None
    assert place.leakage.mean == pytest.approx(few.mean())
    assert place.leakage.low < few.mean() < place.leakage.high


def test_what_is_lost_is_told_in_pairs() -> None:
    right = (np.arange(400) < 360)[None].astype(float)
    other = right.copy()
    other[0, :8] = 0
    place = _first(0.03, Setting(right, np.ones((1, 400))), [Setting(other, np.zeros((1, 400)))])
    assert place.lost is not None
    known = stats.ttest_rel(other[0], right[0])
    assert place.lost.difference == pytest.approx((-0.02, *known.confidence_interval()))


def test_other_seeds_cannot_be_compared() -> None:
    other = Setting(np.full((2, 10), 0.9), np.full((2, 10), 20.0))
    with pytest.raises(ValueError, match="no pairs"):
        ranking(_constant(0.9, 20), [[other]], 0.0)


def test_what_may_be_lost_is_the_plans(tmp_path: Path) -> None:
    def costly(cell: dict[str, Any]) -> None:
        right = 10 - 2 * (cell["defence"]["name"] == "gaussian_noise")
        cell["utility"] = {"metric": "accuracy", "chance": 0.25, **score((np.arange(12) < right).astype(float))}

    write_run(tmp_path, costly)
    usual = load_results(tmp_path)
    affordable = {row.family.label: row.affordable for row in matched_rows(usual)}
    assert affordable["gaussian_noise"] is None
    assert usual.may_lose == tuple(JudgeTable().may_lose) == (0.01, 0.03)
    assert usual.flag_counts["utility-not-matched"] == 6  # its two settings under three attacks
    line = _line(usual, "gaussian_noise")
    scores = [text for heading, text in line.items() if heading.endswith("lost") and "mean PSNR" not in heading]
    assert [*scores, line["setting within 3 points"]] == ["none affordable"] * 5
    (tmp_path / "plan.toml").write_text('name = "small"\n[judge]\nmay_lose = [0.05, 0.2]\n')
    results = load_results(tmp_path)
    (best, *_) = matched_rows(results)
    assert best.affordable is not None
    assert best.affordable.defence.name == "gaussian_noise"
    assert set(best.leakage) == {(metric, lost) for metric in ("psnr", "ssim") for lost in (0.05, 0.2)}
    assert "utility-not-matched" not in results.flag_counts
    # all name the plan's threshold, and one winner
    winner = best.affordable.defence.label
    assert f", {winner} leaks least within 20 points of the undefended" in verdict(results)
    assert "3 points" not in verdict(results)
    told = table(results)
    assert told is not None
    assert told.lines[0][0] == "gaussian_noise"
    assert {heading.split(", ")[1] for heading in told.headings if ", " in heading} == {
        "5 points of accuracy lost", "20 points of accuracy lost"
    }  # fmt: skip
    assert {"above the best at 20 points", "setting within 20 points"} <= set(told.headings)
    assert "where 5 or 20 points of the undefended accuracy may be lost" in told.caption
    line = _line(results, "gaussian_noise")
    assert line["PSNR (dB), 5 points of accuracy lost"] == "none affordable"
    assert line["PSNR (dB), 20 points of accuracy lost"] == bare_range("psnr", best.leakage["psnr", 0.2])
    figure = tradeoff(results, "psnr")
    assert figure is not None
    names = [text.get_text().replace("\n", " ") for text in figure.legends[0].get_texts()]
    assert f"least within 20 points: {winner}" in names


def _line(results: Results, family: str) -> dict[str, str]:
    """Of the table at equal utility, by heading."""
    told = table(results)
    assert told is not None
    (line,) = (line for line in told.lines if line[0] == family)
    return dict(zip(told.headings, line, strict=True))


def test_the_report_ranks_defences_at_equal_utility(tmp_path: Path) -> None:
    write_run(tmp_path)
    results = load_results(tmp_path)
    rows = matched_rows(results)
    known = [leakage for row in rows if (leakage := row.leakage["psnr", 0.03])]
    assert len(rows) == 4  # two families of channel_subset, noise, dp_sgd
    assert known == sorted(known)
    for row in rows:
        least, most = row.leakage["psnr", 0.03], row.leakage["psnr", 0.01]
        assert most is None or (least is not None and least.mean <= most.mean)
    assert results.best is not None
    assert results.best.family is rows[0].family
    write_report(tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert "At equal accuracy" in page
    assert all(row.family.label in page for row in rows)
    read = (*(tmp_path / "tables" / f"{name}.md" for name in ("matched_utility", "pareto")), tmp_path / "index.html")
    floor = results.floor("ssim")
    assert floor is not None
    for file in read:
        text = file.read_text()
        assert f"SSIM {floor.mean:.3f}, and less than that protects no further; chance is 25 % accuracy." in text


@pytest.fixture
def eleven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Results:
    """More families than colours; the last leaks least by SSIM and most by PSNR."""
    subset = next(defence for defence in DEFENCES if defence["name"] == "channel_subset")
    many = [
        {**subset, "label": f"channel_subset {n}", "settings": {"keep": 0.5, "selection": f"{n}"}} for n in range(11)
    ]

    def similar(cell: dict[str, Any]) -> None:
        if cell["defence"]["label"] == "channel_subset 10" and not cell["attack"]["floor"]:
            psnr = np.array(cell["metrics"]["psnr"]["values"]) + 1
            cell["metrics"] |= {"psnr": score(psnr), "ssim": score(psnr / 80)}

    monkeypatch.setattr("written_run.DEFENCES", (DEFENCES[0], *many))
    return load_results(tmp_path, write_run(tmp_path, similar))


def test_the_best_eight_curves_are_in_colour_and_the_rest_grey(eleven: Results) -> None:
    best = [row.family.label for row in matched_rows(eleven)][:8]
    figure = tradeoff(eleven, "psnr")
    assert figure is not None
    names = [text.get_text().replace("\n", " ") for text in figure.legends[0].get_texts()]
    assert eleven.best is not None
    assert eleven.best.row is not None
    least = f"least within 3 points: {eleven.best.row.defence.label}"
    assert names == [*best, "none (undefended)", "3 others, with a higher PSNR at equal utility", least]
    colours = [line.get_color() for line in figure.axes[0].get_lines() if len(line.get_xdata()) == 1]
    assert colours.count(GREY) == 3


def test_what_is_best_by_another_metric_only_is_grey_and_named_there(eleven: Results) -> None:
    label = "channel_subset 10"
    by_psnr, by_ssim = (eleven.pareto_sets[metric][label][0] for metric in ("psnr", "ssim"))
    assert by_ssim
    assert not by_psnr
    for metric, named in (("psnr", False), ("ssim", True)):
        figure = tradeoff(eleven, metric)
        assert figure is not None
        written = [text.get_text() for text in figure.axes[0].texts if text.get_color() == GREY]
        assert written == (["channel_subset 0.5"] if named else [])
