"""The page of a report: what it embeds, and what its script makes of it."""

import json
import re
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from written_run import ATTACKS, DEFENCES, fail_one, relisted, write_run

from splitleak.experiments.planning.names import STRONGEST
from splitleak.experiments.report import gallery, write_report
from splitleak.experiments.report.figures import save, tradeoff, vertical_scale
from splitleak.experiments.report.gallery import glance
from splitleak.experiments.report.page import _hits
from splitleak.experiments.results.load import load_results

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    run = tmp_path_factory.mktemp("run")
    return write_report(relisted(run, write_run(run))).read_text()


def opened(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="cells">(.*?)</script>', page, re.DOTALL)
    assert found
    cells: dict[str, Any] = json.loads(found[1])
    return cells


def test_every_cell_can_be_opened_and_tells_what_it_rests_on(page: str) -> None:
    cells = opened(page)
    assert len(cells) == len(DEFENCES) * len(ATTACKS)
    assert set(cells) == set(re.findall(r'data-opens="(\d+-\d+)"', page))
    one = next(cell for cell in cells.values() if cell["title"] == "decoder on gaussian_noise sigma=0.5")
    facts = dict(one["facts"])
    assert facts["photos x seeds"] == "12 x 2"
    assert facts["queries"] == "3,000"
    assert re.fullmatch(r"\d+\.\d \[\d+\.\d, \d+\.\d\]", facts["PSNR (dB)"])
    assert [name for name, _ in one["flags"]] == ["few-photos"]
    failed = next(cell for cell in cells.values() if cell["title"] == "ridge on gaussian_noise sigma=2.0")
    assert failed["facts"] == [["failed", "ValueError: it broke"]] * 2


def test_what_is_known_of_all_photos_together_stands_beside_the_utility(tmp_path: Path) -> None:
    def detecting(cell: dict[str, Any]) -> None:
        if cell.get("utility"):
            cell["utility"]["also"] = {"mAP": 0.25 + 0.5 * cell["seed"]}

    run = tmp_path
    page = write_report(relisted(run, write_run(run, detecting)))
    cell = next(one for one in opened(page.read_text()).values() if one["title"] == "decoder on none")
    assert dict(cell["facts"])["mAP"] == "50.0 %"  # the mean of two seeds
    assert "utility_mAP" in (run / "results.csv").read_text()


def test_two_that_write_one_report_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(*arguments: Any) -> list[Path]:
        files = save(*arguments)
        time.sleep(0.05)
        return files

    monkeypatch.setattr("splitleak.experiments.report.page.save", slowly)
    relisted(tmp_path, write_run(tmp_path)[:12])
    with ThreadPoolExecutor(3) as pool:
        pages = []
        for _ in range(3):
            pages.append(pool.submit(write_report, tmp_path))
            time.sleep(0.3)
    assert {page.result() for page in pages} == {tmp_path / "index.html"}


def test_the_suites_choice_stands_first(tmp_path: Path) -> None:
    def last_is_suite(cell: dict[str, Any]) -> None:
        if cell["attack"]["name"] == "decoder":
            cell["attack"] |= {"name": STRONGEST, "label": STRONGEST}

    results = load_results(tmp_path, write_run(tmp_path, last_is_suite))
    assert results.columns == (STRONGEST, "mean_image", "ridge")


def test_a_gallery_has_a_row_for_each_setting_and_a_column_for_each_attack(tmp_path: Path) -> None:
    results = load_results(tmp_path, write_run(tmp_path))
    shown = gallery.gallery(tmp_path, results)
    assert shown
    assert shown.columns == ("mean_image", "ridge", "decoder")
    missing = [
        (row.defence.label, column)
        for row, pictures in shown.rows
        for column, picture in zip(shown.columns, pictures, strict=True)
        if picture is None
    ]
    assert missing == [("gaussian_noise sigma=2.0", "ridge")]


def test_pictures_are_made_smaller_until_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    (large,) = gallery._fitting([tmp_path / "noise.png"])
    monkeypatch.setattr(gallery, "PICTURE_BYTES", len(large) - 1)
    (small,) = gallery._fitting([tmp_path / "noise.png"])
    assert len(small) < len(large)


def test_at_a_glance_the_photo_and_what_becomes_of_it(tmp_path: Path) -> None:
    def alike(cell: dict[str, Any]) -> None:
        cell["utility"]["values"] = [1.0] * 12

    results = load_results(tmp_path, write_run(tmp_path, alike))
    assert results.best
    best = results.best.row
    assert best
    assert best.defence.name == "gaussian_noise"  # the one that takes most off the leakage
    assert [picture.name for picture in glance(tmp_path, results)] == [
        "the photos",
        "worst: undefended",
        f"best: {best.defence.label}",
        "knowing nothing",
    ]


def test_points_answer_where_they_are_drawn(tmp_path: Path) -> None:
    results = load_results(tmp_path, write_run(tmp_path, fail_one))
    figure = tradeoff(results, "psnr")
    assert figure
    figure.savefig(tmp_path / "figure.svg")
    width, height = figure.get_size_inches() * 72
    axes, scale = figure.axes[0], vertical_scale(results)
    hits = _hits(figure, results, "psnr")
    assert len(hits) == len(results.rows)
    for row, hit in zip(results.rows, hits, strict=True):
        x, y = (float(value) for value in re.findall(r'c[xy]="([\d.]+)"', hit))
        point = scale.point(results, row, "psnr")
        assert point
        assert f"<title>{row.defence.label}\n" in hit
        shown = axes.transData.inverted().transform(np.array([x, height - y]) * figure.dpi / 72)
        assert shown == pytest.approx(point.place, abs=0.1)
        assert x < width


class Outline(HTMLParser):
    """What somebody who does not see the page is told of it."""

    def __init__(self) -> None:
        super().__init__()
        self.levels: list[int] = []
        self.bare: list[str] = []
        self.labels = 0
        self.inside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = dict(attrs)
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if tag == "img" and not has.get("alt"):
            self.bare.append("img")
        if tag == "th" and not has.get("scope"):
            self.bare.append("th")
        if has.get("role") in ("img", "region") and not has.get("aria-label"):
            self.bare.append(tag)
        if tag == "select" and "label" not in self.inside:
            self.bare.append("select")
        if tag == "label":
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "label":
            self.inside.pop()


def test_headings_pictures_and_tables_are_told_to_those_who_do_not_see_them(page: str) -> None:
    outline = Outline()
    outline.feed(page)
    assert outline.bare == []
    assert outline.levels[0] == 1
    assert outline.levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(outline.levels))


def test_sentences_heat_map_figure_and_flags_name_one_winner(page: str, tmp_path: Path) -> None:
    results = load_results(tmp_path, write_run(tmp_path))
    assert results.best is not None
    assert results.best.row is not None
    label = results.best.row.defence.label
    heat = page[page.index('<figure class="map" data-metric="psnr">') :].partition("</figure>")[0]
    (marked,) = re.findall(r'<tr class="(?:alone)? best"><th scope="row">(.*?) <b>', heat)
    assert label.endswith(marked.replace(" = ", "="))
    assert re.search(rf'<div class="verdict">.*{re.escape(label)}.*?</div>', page, re.DOTALL)


def test_a_heat_map_has_one_number_a_cell(page: str) -> None:
    for metric in ("psnr", "ssim"):
        heat = page[page.index(f'<figure class="map" data-metric="{metric}">') :].partition("</figure>")[0]
        cells = re.findall(r"<td[^>]*data-opens[^>]*>([^<]*)", heat)
        assert len(cells) == len(DEFENCES) * len(ATTACKS)
        assert all(re.fullmatch(r"\d+\.\d+|failed", cell) for cell in cells)
        heats = [float(value) for value in re.findall(r"--heat:([\d.]+)", heat)]
        assert min(heats) == 0
        assert max(heats) == 1


def test_a_caption_has_two_lines_at_most(page: str) -> None:
    notes = re.findall(r'<p class="note">(.*?)</p>', page, re.DOTALL)
    assert notes
    assert [note for note in notes if len(re.sub(r"<.*?>", "", note)) > 2 * 110] == []


@pytest.mark.skipif(CHROMIUM is None, reason="no browser here")
def test_the_script_runs_in_a_browser(page: str, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(page)
    assert CHROMIUM
    shown = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            (tmp_path / "index.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    assert shown.count('<button type="button">') > len(DEFENCES) * len(ATTACKS)  # cells and headings
    assert re.search(r'<label class="choice">', shown)  # no longer hidden
    assert len(re.findall(r"<figure[^>]* data-metric=", shown)) == 6  # curves, heat maps, costs
    assert len(re.findall(r'<figure[^>]* data-metric="ssim"[^>]* hidden', shown)) == 3
