"""Figures as pictures: they stay as they are, are legible in a paper, and a change of what they show is seen."""

import json
import os
import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.testing.compare import compare_images
from matplotlib.text import Text
from written_run import fail_one, write_run

from splitleak.experiments.cli.report import report
from splitleak.experiments.judge.statistics.interval import Interval
from splitleak.experiments.report.figures import (
    DOUBLE,
    SCREEN,
    SINGLE,
    Style,
    cost_figure,
    save,
    tradeoff,
    training_figure,
    write_paper,
)
from splitleak.experiments.report.figures.points import UNDEFENDED_LOOK, Point, draw_curve, frame
from splitleak.experiments.report.figures.tradeoff import BEST
from splitleak.experiments.results.load import load_results
from splitleak.experiments.results.metrics import SHOWN_METRICS
from splitleak.experiments.results.results import Results

BASELINE = Path(__file__).parent / "baseline"
"""Pictures to compare with; WRITE_BASELINE=1 in the environment writes them anew."""
TOLERANCE = 0.15
"""Root mean square of the difference of 8-bit pixels: half of what the least change below brings."""
SMALL_DPI = 60

Draw = Callable[[Results], Figure | None]
FIGURES: dict[str, Draw] = {
    "tradeoff_screen": lambda results: tradeoff(results, "psnr"),
    "tradeoff_single": lambda results: tradeoff(results, "psnr", SINGLE),
    "cost_screen": lambda results: cost_figure(results, "psnr"),
    "cost_single": lambda results: cost_figure(results, "psnr", SINGLE),
    "training_double": lambda results: training_figure(results, DOUBLE),
}


def measured(cell: dict[str, Any]) -> None:
    """With costs that differ, training curves, and every shown metric."""
    strength = cell["defence"]["strength_value"] or 0
    cell["bytes"] = 43080 // (20 if cell["defence"]["name"] == "channel_subset" else 1)
    cell["edge"] = {"milliseconds": 4.0, "ratio": 1 + strength / 10}
    cell["n"] = 200  # as many as raise no flag
    losses = [0.02 + (1 + strength) / epoch / 10 for epoch in range(1, 9)]
    cell["history"] = [{"epoch": epoch, "validation_loss": loss} for epoch, loss in enumerate(losses, 1)]
    if cell["attack"]["name"] != "decoder":
        cell["history"] = []
    cell["training"] = {
        "victim": [{"epoch": epoch, "validation_loss": 1 / epoch} for epoch in range(1, 4)],
        "defence": [{"epoch": epoch, "validation_loss": (1 + strength) / epoch} for epoch in range(1, 3)],
    }
    cell["metrics"] |= dict.fromkeys(SHOWN_METRICS[2:], cell["metrics"]["ssim"])
    fail_one(cell)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    run = tmp_path_factory.mktemp("run")
    return load_results(run, write_run(run, measured))


def difference(figure: Figure | None, name: str, folder: Path) -> str | None:
    """From the baseline; None where there is none to speak of."""
    assert figure is not None
    (file,) = save(figure, folder / name, "png", dpi=SMALL_DPI)
    return compare_images(str(BASELINE / file.name), str(file), TOLERANCE)


@pytest.mark.parametrize("name", FIGURES)
def test_figures_look_as_they_did(name: str, results: Results, tmp_path: Path) -> None:
    if os.environ.get("WRITE_BASELINE"):
        figure = FIGURES[name](results)
        assert figure is not None
        save(figure, BASELINE / name, "png", dpi=SMALL_DPI)
    assert difference(FIGURES[name](results), name, tmp_path) is None


def move_a_curve(cell: dict[str, Any]) -> None:
    measured(cell)
    if cell["defence"]["name"] == "dp_sgd" and cell["status"] == "ok":
        cell["metrics"]["psnr"]["values"] = [value - 0.5 for value in cell["metrics"]["psnr"]["values"]]
        cell["edge"]["ratio"] += 0.1
        for row in cell["history"]:
            row["validation_loss"] *= 1.2


def change_a_strength(cell: dict[str, Any]) -> None:
    measured(cell)
    if cell["defence"]["strength_value"] == 0.5:
        cell["defence"]["strength_value"] = 0.6


@pytest.mark.parametrize("name", FIGURES)
def test_a_moved_curve_is_seen(name: str, tmp_path: Path) -> None:
    moved = load_results(tmp_path, write_run(tmp_path, move_a_curve))
    assert difference(FIGURES[name](moved), name, tmp_path) is not None


@pytest.mark.parametrize("name", ["tradeoff_screen", "tradeoff_single", "cost_screen", "cost_single"])
def test_another_label_is_seen(name: str, tmp_path: Path) -> None:
    relabelled = load_results(tmp_path, write_run(tmp_path, change_a_strength))
    assert difference(FIGURES[name](relabelled), name, tmp_path) is not None


@pytest.mark.parametrize("name", FIGURES)
def test_another_marker_is_seen(name: str, results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "splitleak.experiments.report.figures.points.MARKERS", ("s", "o", "^", "D", "v", "P", "X", "<")
    )
    assert difference(FIGURES[name](results), name, tmp_path) is not None


@pytest.mark.parametrize("style", [SCREEN, SINGLE, DOUBLE], ids=lambda style: style.name)
@pytest.mark.parametrize("draw", [lambda r, s: tradeoff(r, "ssim", s), lambda r, s: cost_figure(r, "psnr", s)])
def test_no_text_is_cut_off_or_too_small(
    draw: Callable[[Results, Style], Figure | None], style: Style, results: Results
) -> None:
    figure = draw(results, style)
    assert figure is not None
    drawn = figure.get_tightbbox()
    assert min(drawn.x0, drawn.y0) >= 0
    assert drawn.x1 <= figure.get_figwidth()
    assert drawn.y1 <= figure.get_figheight()
    sizes = {text.get_fontsize() for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()}
    assert 7 <= min(sizes) <= max(sizes) <= 9


def test_every_shown_metric_has_its_figures(results: Results) -> None:
    for metric in SHOWN_METRICS:
        for figure in (tradeoff(results, metric), cost_figure(results, metric)):
            assert figure is not None


def test_shares_have_their_ticks_in_per_cent(results: Results) -> None:
    figure = tradeoff(results, "rank1")
    assert figure is not None
    axes = figure.axes[0]
    assert "(%)" in axes.get_xlabel()
    assert axes.xaxis.get_major_formatter()(0.25, 0) == "25"


def test_members_of_the_pareto_set_wear_a_ring(results: Results) -> None:
    figure = tradeoff(results, "psnr")
    assert figure is not None
    rings, frame = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "none"]
    assert results.best is not None
    assert results.best.place.leakage is not None
    assert frame.get_xdata() == pytest.approx([results.best.place.leakage.mean])
    rows = [row for row in results.rows if results.pareto[row.defence.label][0]]
    members = sorted(row.strongest("psnr").scores["psnr"].mean for row in rows)  # type: ignore[union-attr]
    assert 0 < len(members) < len(results.rows)
    assert sorted(rings.get_xdata()) == pytest.approx(members)


@pytest.mark.parametrize("metric", ["psnr", "ssim", "rank1"])
def test_every_figure_frames_the_winner_of_the_table(metric: str, results: Results) -> None:
    figure = tradeoff(results, metric)
    assert figure is not None
    assert results.best is not None
    winner = results.best.row
    assert winner is not None
    frame = next(line for line in figure.axes[0].lines if line.get_marker() == "s" and line.get_markersize() == BEST)
    assert frame.get_xdata() == pytest.approx([winner.strongest(metric).scores[metric].mean])  # type: ignore[union-attr]
    (said,) = [text.get_text() for text in figure.legends[0].get_texts() if "within" in text.get_text()]
    assert said.replace("\n", " ").endswith(winner.defence.label)


@pytest.mark.parametrize("style", [SCREEN, SINGLE, DOUBLE], ids=lambda style: style.name)
def test_labels_do_not_collide_and_curves_have_their_names(style: Style, results: Results) -> None:
    figure = tradeoff(results, "psnr", style)
    assert figure is not None
    figure.draw_without_rendering()
    texts = figure.axes[0].texts
    for one, other in combinations(texts, 2):
        assert not one.get_window_extent().overlaps(other.get_window_extent())
    named = {text.get_text() for text in texts} & {family.label for family in results.families}
    assert bool(named) == (not style.stacked)


def test_a_training_that_had_not_ended_has_a_hollow_end(tmp_path: Path) -> None:
    def still_falls(cell: dict[str, Any]) -> None:
        measured(cell)
        if cell["defence"]["name"] == "dp_sgd" and cell["attack"]["name"] == "decoder":
            cell["history"] = [{"epoch": epoch, "validation_loss": 9.0 - epoch} for epoch in range(1, 9)]

    figure = training_figure(load_results(tmp_path, write_run(tmp_path, still_falls)))
    assert figure is not None
    decoder = next(axes for axes in figure.axes if "decoder" in axes.get_title(loc="left"))
    hollow = [line for line in decoder.lines if line.get_marker() != "None" and line.get_fillstyle() == "none"]
    assert [line.get_ydata()[0] for line in hollow if line.get_ydata()[0] == 1.0] == [1.0]


@pytest.mark.slow
def test_a_paper_gets_every_figure_at_two_widths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = write_run(tmp_path, measured)[:12]
    (tmp_path / "cells.json").write_text(json.dumps(ids))
    assert report(tmp_path, style="paper") == 0
    files = sorted((tmp_path / "figures" / "paper").iterdir())
    printed = capsys.readouterr().out
    assert all(str(file) in printed for file in files)
    names = {file.stem.rsplit("_", 1)[0] for file in files}
    assert {"tradeoff_psnr", "tradeoff_rank1", "cost_psnr", "training", "grid_undefended"} <= names
    assert {file.name for file in files} == {
        f"{name}_{width}.{kind}" for name in names for width in ("single", "double") for kind in ("pdf", "svg", "png")
    }
    for file in files:
        if file.suffix == ".pdf":
            content = file.read_bytes()
            (width,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+)", content)
            assert float(width) / 72 == pytest.approx(3.3 if "single" in file.name else 6.9)
            assert b"/Type3" not in content
            assert b"/FontFile2" in content
    (tmp_path / "figures" / "paper" / "old.pdf").write_text("")
    write_paper(tmp_path, load_results(tmp_path, ids[:6]))
    assert not (tmp_path / "figures" / "paper" / "old.pdf").exists()


def test_results_without_curves_have_no_training_figure(tmp_path: Path) -> None:
    def untrained(cell: dict[str, Any]) -> None:
        cell["history"] = []

    assert training_figure(load_results(tmp_path, write_run(tmp_path, untrained))) is None


def test_long_bars_leave_room_for_what_they_belong_to() -> None:
    def bar(mean: float, reach: float) -> Interval:
        return Interval(mean, mean - reach, mean + reach)

    axes = Figure().add_subplot()
    axes.set_xscale("log")
    points = [Point(bar(1e2, 0), bar(20, 0.5)), Point(bar(1e4, 0), bar(24, 1e3))]
    curve = draw_curve(axes, "one", UNDEFENDED_LOOK, points)
    frame([axes], [[curve]], 0.1)
    assert axes.get_xlim() == pytest.approx((10**1.8, 10**4.2))
    assert axes.get_ylim() == pytest.approx(
        (19 - 0.6, 25 + 0.6)
    )  # a quarter of what the markers span, and the margin
    frame([axes], [[curve]], 0.1, [12])
    assert axes.get_ylim() == pytest.approx((9 - 1.8, 27 + 1.8))
