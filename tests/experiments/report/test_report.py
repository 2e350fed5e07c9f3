"""The report on small synthetic runs: the table, the matrix, the figures and the page."""

import csv
import io
import re
from html import unescape
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from matplotlib.text import Text
from rich.console import Console
from written_run import DEFENCES, PHOTOS, fail, fail_one, relisted, score, write_run

from splitleak.experiments.judge.flags import FLAGS
from splitleak.experiments.judge.statistics.interval import interval
from splitleak.experiments.report import write_report
from splitleak.experiments.report.figures import PAPER, grids, tradeoff
from splitleak.experiments.report.tables.heat import Brief
from splitleak.experiments.report.tables.matrix import matrix_rows, table
from splitleak.experiments.report.verdict import sentences, verdict
from splitleak.experiments.results.load import load_results
from splitleak.experiments.results.results import Results


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    run = tmp_path_factory.mktemp("run")
    write_run(run)
    assert write_report(run) == run / "index.html"
    return run, load_results(run)


class WellFormed(HTMLParser):
    """Checks that every element is closed in order, and collects what the page says and refers to."""

    VOID = frozenset({"meta", "img", "br", "link", "hr", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.note(attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.note(attrs)

    def note(self, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.references += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href"}]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parse(page: Path) -> WellFormed:
    parser = WellFormed()
    parser.feed(page.read_text())
    parser.close()
    assert not parser.open
    assert len(set(parser.ids)) == len(parser.ids)
    return parser


def test_csv_holds_every_cell_exactly(reported: tuple[Path, Results]) -> None:
    run, results = reported
    with (run / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [cell.id for cell in results.cells]
    for row, cell in zip(rows, results.cells, strict=True):
        assert (row["status"], row["defence_label"]) == (cell.status, cell.defence.label)
        assert int(row["seed"]) == cell.seed
        for name, metric in cell.metrics.items():
            assert float(row[f"{name}_mean"]) == metric.mean
            assert (float(row[f"{name}_low"]), float(row[f"{name}_high"])) == (metric.low, metric.high)
        if cell.ok:
            assert cell.utility
            assert float(row["utility_mean"]) == cell.utility.mean
            assert (int(row["n"]), row["version_torch"]) == (PHOTOS, "2.11")
            assert float(row["training_epsilon"]) == (7.996 if cell.defence.name == "dp_sgd" else np.inf)
            assert float(row["query_epsilon"]) == np.inf
            assert float(row["edge_milliseconds"]) == 4.125
        else:
            assert (row["psnr_mean"], row["error"]) == ("", "ValueError: it broke")


def test_strongest_is_the_highest_mean_and_never_the_floor(reported: tuple[Path, Results]) -> None:
    _, results = reported
    for row in results.rows:
        for metric in ("psnr", "ssim"):
            strongest = row.strongest(metric)
            assert strongest
            assert strongest.column == "decoder"


def test_floor_is_no_attack_even_where_it_wins(tmp_path: Path) -> None:
    def only_floor_works(cell: dict[str, Any]) -> None:
        if cell["attack"]["floor"]:
            cell["metrics"]["psnr"]["values"] = [50.0] * PHOTOS

    results = load_results(tmp_path, write_run(tmp_path, only_floor_works))
    floor = results.floor("psnr")
    assert floor
    assert floor.mean == pytest.approx(50)
    strongest = results.rows[0].strongest("psnr")
    assert strongest
    assert strongest.column == "decoder"


def test_intervals_pool_images_and_seeds(reported: tuple[Path, Results]) -> None:
    _, results = reported
    group = results.rows[0].groups["decoder"]
    values = [cell.metrics["psnr"].values for cell in group.cells]
    assert len(values) == 2
    assert group.scores["psnr"] == interval(values)
    # The seeds are a whole decibel apart: one seed alone would have missed the other's mean.
    assert group.scores["psnr"].low < group.cells[0].metrics["psnr"].high
    assert group.scores["psnr"].high > group.cells[1].metrics["psnr"].low
    assert results.rows[0].utility == interval([cell.utility.values for cell in group.cells if cell.utility])


def test_seeds_with_other_photos_are_not_pooled(tmp_path: Path) -> None:
    def drop_a_photo(cell: dict[str, Any]) -> None:
        if cell["seed"] == 1:
            cell["metrics"]["psnr"]["values"].pop()

    results = load_results(tmp_path, write_run(tmp_path, drop_a_photo))
    with pytest.raises(ValueError, match="different numbers of images"):
        results.rows[0].strongest("psnr")


def test_curves_are_sorted_by_strength_and_named_by_what_differs(reported: tuple[Path, Results]) -> None:
    _, results = reported
    curves = {family.label: [row.defence.strength_value for row in family.rows] for family in results.families}
    assert curves == {
        "gaussian_noise": [0.5, 2.0],
        "channel_subset selection=saliency": [0.5],
        "channel_subset selection=random": [0.5],
        "dp_sgd": [8.0],
    }


def test_matrix_shows_failures_and_the_order_of_the_plan(reported: tuple[Path, Results]) -> None:
    run, results = reported
    lines = (run / "matrix.md").read_text().splitlines()
    costs = "accuracy | points against none | bytes | edge time ratio | Pareto set"
    assert lines[0] == f"| defence | mean_image | ridge | decoder | {costs} |"
    assert [line.split(" | ")[0] for line in lines[2:8]] == [f"| {defence['label']}" for defence in DEFENCES]
    failed = next(line for line in lines if "sigma=2.0" in line)
    assert failed.split(" | ")[2] == "failed"
    assert "**PSNR" in failed.split(" | ")[3]
    assert any(line.startswith(f"n = {PHOTOS} photos x 2 seeds") for line in lines)
    assert all(entry.heat is None or 0 <= entry.heat <= 1 for row in matrix_rows(results) for entry in row.entries)


def test_a_group_that_lost_a_seed_says_so(tmp_path: Path) -> None:
    def fail_second_seed(cell: dict[str, Any]) -> None:
        if cell["seed"] == 1 and cell["attack"]["name"] == "ridge":
            fail(cell)

    results = load_results(tmp_path, write_run(tmp_path, fail_second_seed))
    assert "1 of 2 seeds" in table(results).markdown().splitlines()[2]


def test_unaware_attackers_have_their_own_column(tmp_path: Path) -> None:
    def unaware(cell: dict[str, Any]) -> None:
        cell["adaptive"] = cell["attack"]["name"] != "ridge"

    results = load_results(tmp_path, write_run(tmp_path, unaware))
    assert results.columns == ("mean_image", "ridge (unaware)", "decoder")


def test_terminal_table_prints_labels_literally(tmp_path: Path) -> None:
    def bracket(cell: dict[str, Any]) -> None:
        if cell["defence"]["name"] == "dp_sgd":
            cell["defence"]["label"] = "dp_sgd [bold]"
        fail_one(cell)

    console = Console(width=200, file=io.StringIO())
    console.print(Brief(load_results(tmp_path, write_run(tmp_path, bracket))))
    printed = cast(io.StringIO, console.file).getvalue()
    assert "dp_sgd [bold]" in printed
    assert "failed" in printed


def test_verdict_has_the_numbers(reported: tuple[Path, Results]) -> None:
    _, results = reported
    sentence = verdict(results)
    leak = results.rows[0].groups["decoder"].scores["psnr"]
    assert f"decoder, rebuilds the photo at {leak.mean:.1f} dB [{leak.low:.1f}, {leak.high:.1f}]" in sentence
    assert re.search(r"\(13\.\d dB knowing nothing\)", sentence)
    assert "Of the 5 defence settings" in sentence


def test_verdict_needs_a_clear_difference(tmp_path: Path) -> None:
    def equal(cell: dict[str, Any]) -> None:
        cell["metrics"]["psnr"]["values"] = [20.0] * PHOTOS

    results = load_results(tmp_path, write_run(tmp_path, equal))
    assert "None of the 5 defence settings leaks clearly less" in verdict(results)


def test_page_is_well_formed_and_self_contained(reported: tuple[Path, Results]) -> None:
    run, results = reported
    page = parse(run / "index.html")
    assert all(reference.startswith(("data:", "#")) for reference in page.references)
    source = (run / "index.html").read_text()
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r"data:[^\"]*", "", source))
    for wanted in (
        *sentences(results),
        "training epsilon = 8.0 (delta 1e-5)",
        "per query: infinite",
        "ValueError: it broke",
        'name = "small"  # a <plan>',
        "splitleak run plan.toml",
        "torch 2.11",
        f"n = {PHOTOS} photos x 2 seeds",
    ):
        assert wanted in page.text
    assert "stale" not in source
    targets = {identifier for identifier in page.references if identifier.startswith("#")}
    assert targets <= {f"#{identifier}" for identifier in page.ids}


def test_labels_are_escaped(tmp_path: Path) -> None:
    attack = "<script>alert(1)</script>--><b>$x"

    def inject(cell: dict[str, Any]) -> None:
        cell["defence"]["label"] += attack
        cell["attack"]["label"] += attack
        cell["plan"] = attack
        cell["traceback"] = attack
        if cell["defence"]["name"] != "none":
            cell["defence"]["name"] += attack
            cell["defence"]["strength_value"] = attack
        if cell["attack"]["name"] == "ridge":
            fail(cell)
            cell["traceback"] = attack

    write_report(relisted(tmp_path, write_run(tmp_path, inject)[:12]))
    assert "<script>alert" not in (tmp_path / "index.html").read_text()
    assert "<script" not in (tmp_path / "matrix.md").read_text()
    assert attack in parse(tmp_path / "index.html").text


def test_figures_are_written_and_old_ones_removed(tmp_path: Path) -> None:
    ids = write_run(tmp_path)
    write_report(relisted(tmp_path, ids[:18]))
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        *(
            f"{name}.{kind}"
            for name in ("tradeoff_psnr", "tradeoff_ssim", "cost_psnr", "cost_ssim", "training")
            for kind in ("png", "svg")
        ),
        "grid_undefended.png",
        "grid_01_gaussian_noise.png",
    }
    write_report(relisted(tmp_path, ids[:6]))
    assert sorted(path.name for path in (tmp_path / "figures").glob("grid*")) == ["grid_undefended.png"]


def test_grids_name_strength_attack_and_score(reported: tuple[Path, Results]) -> None:
    run, results = reported
    undefended, noise, *_ = grids(run, results)
    assert [strip.label.split(":")[0] for strip in undefended.strips] == ["mean_image", "ridge", "decoder"]
    assert [strip.label.split(":")[0] for strip in noise.strips] == [
        "sigma = 0.5, decoder",
        "sigma = 2, decoder",
    ]
    assert all(" dB" in strip.label for strip in noise.strips)


def test_labels_of_the_figure_do_not_overlap(reported: tuple[Path, Results]) -> None:
    _, results = reported
    figure = tradeoff(results, "psnr")
    assert figure
    figure.draw_without_rendering()
    (axes,) = figure.axes
    labels: list[Text] = list(axes.texts)
    assert {"0.5", "2", "8", "chance 25 %"} <= {label.get_text() for label in labels}
    for one, other in combinations(labels, 2):
        assert not one.get_window_extent().overlaps(other.get_window_extent())


def test_without_a_task_bytes_stand_in_for_utility(tmp_path: Path) -> None:
    def no_task(cell: dict[str, Any]) -> None:
        cell["victim"]["task"] = cell["utility"] = None
        cell["bytes"] = 43080 // (1 if cell["defence"]["name"] == "none" else 20)

    write_run(tmp_path, no_task)
    page = parse(write_report(tmp_path))
    assert "Bytes sent" in page.text
    assert "Of the 5 defence settings, gaussian_noise sigma=2.0 leaks least" in page.text
    figure = tradeoff(load_results(tmp_path), "psnr")
    assert figure
    assert figure.axes[0].get_ylabel() == "bytes sent per photo"
    assert figure.axes[0].get_yscale() == "log"


def test_single_seed(tmp_path: Path) -> None:
    page = parse(write_report(relisted(tmp_path, write_run(tmp_path, seeds=(3,))[:6])))
    assert f"n = {PHOTOS} photos x 1 seed." in page.text


def test_all_failed(tmp_path: Path) -> None:
    page = parse(write_report(relisted(tmp_path, write_run(tmp_path, fail))))
    assert "No cell finished" in page.text
    assert page.text.count("ValueError: it broke") >= 36


def test_nothing_run_yet(tmp_path: Path) -> None:
    page = parse(write_report(relisted(tmp_path, ["first", "second"])))
    assert "2 not run yet" in page.text


def test_without_the_undefended_reference(tmp_path: Path) -> None:
    ids = write_run(tmp_path)
    assert "gaussian_noise sigma=2.0 leaks least" in verdict(load_results(tmp_path, ids[6:]))


def test_a_broken_cell_is_named(tmp_path: Path) -> None:
    ids = write_run(tmp_path)
    (tmp_path / "cells" / f"{ids[3]}.json").write_text("{}")
    with pytest.raises(ValueError, match=rf"{ids[3]}\.json is not a cell"):
        load_results(tmp_path)


def test_cells_of_several_victims_are_refused(tmp_path: Path) -> None:
    def other(cell: dict[str, Any]) -> None:
        cell["victim"]["cut"] = cell["attack"]["name"]

    with pytest.raises(ValueError, match="one victim"):
        load_results(tmp_path, write_run(tmp_path, other))


def test_a_flagged_cell_is_greyed_wherever_it_shows(tmp_path: Path) -> None:
    def doubt_one(cell: dict[str, Any]) -> None:
        cell["n"] = 200
        if cell["defence"]["name"] == "dp_sgd" and cell["attack"]["name"] == "decoder":
            cell["converged"] = False
        if cell["defence"]["name"] == "none" and cell["attack"]["name"] == "ridge":
            cell["converged"] = False

    write_run(tmp_path, doubt_one)
    page = write_report(tmp_path).read_text()
    results = load_results(tmp_path)
    places = {("dp_sgd epsilon=8.0", "decoder"), ("none", "ridge")}
    assert {place for place, flags in results.flags.items() if "not-converged" in flags} == places
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["defence_label"], row["attack"]) for row in rows if "not-converged" in row["flags"]} == places
    assert "⚑ not-converged" in (tmp_path / "matrix.md").read_text()
    assert page.count('class="strongest flagged"') == 2  # by PSNR, and by SSIM
    assert '<tr class="flagged"><th scope="row">ridge</th>' in page  # among the attacks, one by one
    assert "What is doubtful" in page
    assert FLAGS["not-converged"].means in unescape(page)
    labels = [strip.label for grid in grids(tmp_path, results) for strip in grid.strips]
    assert sum("⚑ not-converged" in label for label in labels) == 2
    styled = {cell.style for row in Brief(results).sheet(3).rows for cell in row}
    assert {"dim", "bold dim"} <= styled
    (hollow,) = [
        line
        for line in tradeoff(results, "psnr").axes[0].lines  # type: ignore[union-attr]
        if line.get_markerfacecolor() == PAPER and len(line.get_xdata())
    ]
    assert len(hollow.get_xdata()) == 1


def test_cells_are_read_between_the_controls(reported: tuple[Path, Results]) -> None:
    run, results = reported
    noise = next(row for row in results.rows if row.defence.label == "gaussian_noise sigma=0.5")
    share = results.relative(noise, noise.groups["decoder"])
    assert share is not None
    assert share.mean == pytest.approx((21 - 4 - 13) / (21 - 13), abs=0.03)
    assert f"{100 * share.mean:.0f} % of undefended" in (run / "matrix.md").read_text()
    assert results.relative(noise, noise.groups["mean_image"]) is None
    assert results.undefended
    assert results.relative(results.undefended, results.undefended.groups["decoder"]) is None


def test_the_seeds_convention_is_explained_where_it_shows(tmp_path: Path) -> None:
    def add(cell: dict[str, Any]) -> None:
        cell["metrics"]["psnr_seed_convention"] = score(np.array(cell["metrics"]["psnr"]["values"]) + 48.13)

    with_it, without = tmp_path / "with", tmp_path / "without"
    page = write_report(relisted(with_it, write_run(with_it, add))).read_text()
    assert "PSNR, seed&#39;s convention (dB)" in page
    assert "20 log10 255 = 48.13 dB" in page
    assert "48.13 dB" in (with_it / "matrix.md").read_text()
    plain = write_report(relisted(without, write_run(without, lambda cell: None))).read_text()
    assert "convention" not in plain
    assert "48.13 dB" not in plain


def test_of_several_seeds_the_worst_gradient_counts(tmp_path: Path) -> None:
    def break_one(cell: dict[str, Any]) -> None:
        cell["n"] = 200
        if cell["attack"]["name"] == "decoder":
            cell["gradient"] = float("nan") if cell["seed"] else 1.0

    results = load_results(tmp_path, write_run(tmp_path, break_one))
    assert "zero-gradient" in results.flags["none", "decoder"]
    assert "zero-gradient" not in results.flags.get(("none", "ridge"), ())


def test_a_setting_that_sweeps_nothing_is_called_as_in_the_plan(tmp_path: Path) -> None:
    def unswept(cell: dict[str, Any]) -> None:
        if cell["defence"]["name"] == "dp_sgd":
            cell["defence"] |= {"strength": None, "strength_value": None, "settings": {"parts": [{"name": "a"}]}}

    results = load_results(tmp_path, write_run(tmp_path, unswept))
    assert "dp_sgd epsilon=8.0" in [family.label for family in results.families]
