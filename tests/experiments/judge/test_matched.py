"""Leakage at equal utility: between two strengths, resampled in pairs, never better than what is affordable."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written_run import DEFENCES, score, write_run

from splitleak.experiments.judge.statistics.matched import Setting, leakage_at
from splitleak.experiments.report import write_report
from splitleak.experiments.report.figures import tradeoff
from splitleak.experiments.report.figures.style import GREY
from splitleak.experiments.report.tables.matched import matched_rows
from splitleak.experiments.report.tables.matrix import PARETO
from splitleak.experiments.results.load import load_results
from splitleak.experiments.results.results import Results


def _constant(utility: float, leakage: float, photos: int = 10) -> Setting:
    return Setting(np.full((1, photos), utility), np.full((1, photos), leakage))


def test_a_utility_between_two_strengths_is_reached_between_them() -> None:
    reference = _constant(0.9, 24.0)
    curve = [_constant(0.9, 22.0), _constant(0.8, 12.0)]
    assert leakage_at(0.01, reference, curve).mean == pytest.approx(21.0)
    assert leakage_at(0.05, reference, curve).mean == pytest.approx(17.0)
    assert leakage_at(0.2, reference, curve).mean == pytest.approx(12.0)  # all of it is affordable


def test_what_cannot_be_afforded_is_not_used() -> None:
    reference = _constant(0.9, 24.0)
    assert leakage_at(0.01, reference, [_constant(0.7, 10.0)]).mean == 24.0
    assert leakage_at(0.01, reference, [_constant(0.895, 30.0)]).mean == 24.0  # nor what leaks more than nothing


def test_what_loses_exactly_as_much_is_affordable() -> None:
    assert 149 / 300 < 152 / 300 - 0.01, "by less than a float can tell"
    reference, other = ((np.arange(300) < right)[None].astype(float) for right in (152, 149))
    cheaper = Setting(other, np.full((1, 300), 15.0))
    assert leakage_at(0.01, Setting(reference, np.full((1, 300), 20.0)), [cheaper]).mean == 15.0


def test_settings_without_an_order_are_points() -> None:
    reference = _constant(0.9, 24.0)
    one, other = _constant(0.95, 20.0), _constant(0.5, 10.0)
    assert leakage_at(0.01, reference, [one]).mean == 20.0
    assert leakage_at(0.01, reference, [one, other]).mean < 20.0  # joined, they would be a curve


def slow_least(utility: list[float], leakage: list[float], lost: float) -> float:
    """By walking along the curve in small steps."""
    needed = utility[0] - lost - 1e-9
    found = [leak for use, leak in zip(utility, leakage, strict=True) if use >= needed]
    for left in range(1, len(utility) - 1):
        for share in np.linspace(0, 1, 2001):
            use = utility[left] + share * (utility[left + 1] - utility[left])
            if use >= needed:
                found.append(leakage[left] + share * (leakage[left + 1] - leakage[left]))
    return min(found)


@settings(deadline=None, max_examples=60)
@given(
    points=st.lists(st.tuples(st.floats(0, 1), st.floats(5, 40)), min_size=2, max_size=6),
    lost=st.floats(0, 0.2),
)
def test_least_is_the_slow_one(points: list[tuple[float, float]], lost: float) -> None:
    first, *curve = [_constant(*point) for point in points]
    slow = slow_least([point[0] for point in points], [point[1] for point in points], lost)
    assert leakage_at(lost, first, curve, resamples=5).mean == pytest.approx(slow, abs=0.05)


def test_what_photos_share_cancels() -> None:
    random = np.random.default_rng(1)
    easy = random.normal(0, 5, (1, 400))
    reference = Setting(np.ones((1, 400)), 25 + easy)
    same = Setting(np.ones((1, 400)), 20 + easy)
    score = leakage_at(0.0, reference, [same])
    assert score.high - score.low == pytest.approx(4 * 5 / 20, rel=0.2)  # of the mean itself
    hard = Setting((easy < 0).astype(float), 25 + easy)  # utility and leakage hang together within a photo
    paired = leakage_at(1.0, reference, [Setting(hard.utility, hard.leakage - 25 - easy + 20)])
    assert paired.high - paired.low < 1e-9  # constant leakage, whatever is drawn


def test_slow_attacks_count_on_their_own_photos() -> None:
    random = np.random.default_rng(2)
    few = random.normal(20, 1, (2, 16))
    reference = Setting(np.ones((2, 200)), random.normal(25, 1, (2, 16)))
    score = leakage_at(0.0, reference, [Setting(np.ones((2, 200)), few)])
    assert score.mean == pytest.approx(few.mean())
    assert score.low < few.mean() < score.high


def test_other_photos_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="same photos"):
        leakage_at(0.0, _constant(0.9, 20, photos=5), [_constant(0.9, 20, photos=6)])


def test_the_report_ranks_defences_at_equal_utility(tmp_path: Path) -> None:
    write_run(tmp_path)
    results = load_results(tmp_path)
    rows = matched_rows(results)
    at_three = [row.leakage["psnr", 0.03].mean for row in rows]
    assert len(rows) == 4  # two families of channel_subset, noise, dp_sgd
    assert at_three == sorted(at_three)
    assert all(row.leakage["psnr", 0.03].mean <= row.leakage["psnr", 0.01].mean for row in rows)
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
    assert names == [*best, "none (undefended)", "3 others, with a higher PSNR at equal utility", PARETO]
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
