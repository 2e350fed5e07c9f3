"""Documents whose numbers come from archives."""

import json
import re
from pathlib import Path

import pytest
from tiny import HEAD, NOISE, NONE, RIDGE, run_plan

from splitleak.experiments.judge.statistics.interval import Interval
from splitleak.experiments.report.tables import matrix
from splitleak.experiments.report.tables.matched import matched_rows
from splitleak.experiments.results.archive import read_archive, write_archive
from splitleak.experiments.results.load import cell_ids, load_results
from splitleak.experiments.tools.document import Documents, main
from splitleak.victims.errors import InvalidInputError

PROJECT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documented")
    run_plan(HEAD + NONE + NOISE + RIDGE, folder, shared=True)
    return folder / "runs" / "tiny"


@pytest.fixture
def root(run: Path, tmp_path: Path) -> Path:
    write_archive([run], tmp_path / "results" / "tiny.json.xz")
    (second := tmp_path / "runs" / "pair.second").mkdir(parents=True)
    for name in ("plan.toml", "cells.json", "cells"):
        (second / name).symlink_to(run / name)
    write_archive([second], tmp_path / "results" / "pair.json.xz")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["RESULTS.md", "README.md"])
def test_the_projects_documents_say_what_its_archives_hold(name: str, tmp_path: Path) -> None:
    (tmp_path / "results").symlink_to(PROJECT / "results")
    text = (PROJECT / name).read_text()
    assert Documents(tmp_path).filled(text) == text, "make results"
    for figure in re.findall(r"\]\((docs/[^)]+)\)", text):
        assert (PROJECT / figure).is_file()


def test_a_number_that_was_edited_is_put_right(root: Path) -> None:
    mark = "<!-- results: tiny | none | ridge | psnr -->"
    in_table = mark.replace("|", r"\|")
    text = f"Ridge reaches {mark}99.9 dB<!-- end --> there, {in_table}<!-- end --> here."
    (undefended,) = [
        row for row in load_results(run_of(root), cell_ids(run_of(root))).rows if row.defence.label == "none"
    ]
    right = undefended.groups["ridge"].scores["psnr"]
    filled = Documents(root).filled(text)
    assert f"{mark}{matrix.number('psnr', right.mean)} [" in filled
    assert f"{in_table}{matrix.number('psnr', right.mean)} [" in filled
    assert filled.startswith("Ridge reaches ")
    assert filled.endswith(" here.")
    assert Documents(root).filled(filled) == filled


def test_a_number_at_equal_utility_is_that_of_the_table(root: Path) -> None:
    results = load_results(run_of(root), cell_ids(run_of(root)))
    (row,) = matched_rows(results)
    filled = Documents(root).filled("<!-- results: tiny | gaussian_noise | lost 3 | psnr --><!-- end -->")
    assert f"-->{matrix.ranged('psnr', row.leakage['psnr', 0.03])}<!--" in filled


def test_each_trainings_number_stands_alone(root: Path) -> None:
    (first,) = (run_of(root) / "cells").glob("none-ridge-*.json")
    cell = json.loads(first.read_text())
    metrics, utility = cell["metrics"]["psnr"]["mean"], cell["utility"]["mean"]
    text = "".join(
        f"<!-- results: tiny | none | ridge | {metric} by training --><!-- end -->" for metric in ("psnr", "utility")
    )
    filled = Documents(root).filled(text)
    assert f"-->{metrics:.1f} dB<!--" in filled
    assert f"-->{100 * utility:.1f} %<!--" in filled


def run_of(root: Path) -> Path:
    return (root / "runs" / "pair.second" / "cells").resolve().parent


def test_tables_figures_and_commands(root: Path) -> None:
    text = "".join(
        f"<!-- results: {asked} -->old<!-- end -->\n"
        for asked in (
            "tiny made",
            "tiny matched_utility",
            "tiny figure tradeoff_psnr",
            "pair.second made",
            "pair made",
            "pair victims",
            "tiny | gaussian_noise sigma=0.5 | ridge | bytes",
            "tiny | gaussian_noise sigma=0.5 | ridge | utility",
        )
    )
    filled = Documents(root).filled(text)
    assert "old" not in filled
    assert "`splitleak run tiny`" in filled
    assert "; faces at 32 px; attackers have 64 photos, defences 1 epoch; n = 24 photos" in filled
    assert "`splitleak run pair --only second`" in filled
    assert "`splitleak run pair`" in filled
    assert "| gaussian_noise |" in filled
    assert "| second | 72x4x4 |" in filled
    assert (root / "docs" / "results" / "tiny.tradeoff_psnr.svg").is_file()
    assert "](docs/results/tiny.tradeoff_psnr.svg)" in filled
    assert Documents(root).filled(filled) == filled


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("tyni made", "'tyni'.*tiny"),
        ("tiny matchde", "'matchde'.*matched_utility"),
        ("tiny figure trade", "tradeoff_psnr"),
        ("tiny | nobody | ridge | psnr", "'nobody'.*none"),
        ("tiny | none | rigde | psnr", "'rigde'.*ridge"),
        ("tiny | none | ridge | pnsr", "'pnsr'.*psnr"),
        ("tiny | none | ridge | pnsr by training", "'pnsr'.*psnr"),
        ("tiny | gaussian | lost 3 | psnr", "'gaussian'.*gaussian_noise"),
        ("tiny | gaussian_noise | lost 2 | psnr", "'lost 2 . psnr'.*lost 1 . psnr"),
        ("pair victmis", "victims"),
    ],
)
def test_what_no_archive_has_is_refused_with_what_there_is(asked: str, hint: str, root: Path) -> None:
    with pytest.raises(InvalidInputError, match=hint):
        Documents(root).filled(f"<!-- results: {asked} --><!-- end -->")


def test_from_the_command_line(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    Path("good.md").write_text("<!-- results: tiny made --><!-- end -->")
    Path("bad.md").write_text("<!-- results: other made --><!-- end -->")
    assert main(["good.md"]) == 0
    assert "splitleak run tiny" in Path("good.md").read_text()
    assert main(["bad.md"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown run of the archives")
    assert Path("bad.md").read_text() == "<!-- results: other made --><!-- end -->"


def test_multi_scale_similarity_is_written_like_other_scores() -> None:
    score = Interval(0.5, 0.4, 0.6)
    assert matrix.ranged("ms_ssim", score) == "0.500 [0.400, 0.600]"
    assert matrix.plus_minus("ms_ssim_3", score) == "0.500 ± 0.100"


ASKED = re.compile(r"<!-- results: (?P<run>[\w.]+)(?P<what>[^\n]*?) -->(?P<said>.*?)<!-- end -->", re.DOTALL)
NOT_STORED = "photos counted as independent"
RESTS_ON = re.compile(
    r"`splitleak run [^`]+`, .*; "
    r"(\S+ at \d+ px; attackers have [\d,]+ photos, defences (at most )?\d+ epochs?( or )?)+; "
    r"n = [^;]* photos( of [\d,]+ people)? x \d+ seeds?"
)
"""Data, budget, photos and people, trainings."""


def test_what_a_result_rests_on_stands_beside_it() -> None:
    """Each section tells of every run whose tables and figures it shows, and each number is of a run that is told."""
    head, *sections = re.split(r"\n(?=## )", (PROJECT / "RESULTS.md").read_text())
    made = {mark["run"]: mark["said"] for mark in ASKED.finditer("\n".join(sections)) if mark["what"] == " made"}
    assert made
    for run, said in made.items():
        assert RESTS_ON.search(said), run
        stored = NOT_STORED not in said
        assert not (" people x " in said and not stored), run
        if " people x " not in said and stored:  # each of somebody else
            results = read_archive(PROJECT / "results" / f"{run.partition('.')[0]}.json.xz")[run].results
            assert results.people == max(cell.n or 0 for cell in results.finished), run
    for section in sections:
        marks = list(ASKED.finditer(section))
        told = {mark["run"] for mark in marks if mark["what"] == " made"}
        shown = {mark["run"] for mark in marks if "|" not in mark["what"]}
        assert shown == told, section.splitlines()[0]
        numbers = {mark["run"] for mark in marks if "|" in mark["what"]}
        assert all(run in made or run.partition(".")[0] in made for run in numbers), section.splitlines()[0]
    assert ASKED.search(head) is None
    assert re.search(r"had [\d,]+ to [\d,]+ photos, .* where the published .*\nhad [\d,]+\.", head)


def test_what_the_judge_of_today_supersedes_is_marked() -> None:
    """The document says on top which of its runs were stored before people were known, and so does the README."""
    results = (PROJECT / "RESULTS.md").read_text()
    head = results[: results.index("\n## ")]
    made = [mark for mark in ASKED.finditer(results) if mark["what"] == " made"]
    old = {mark["run"].partition(".")[0] for mark in made if NOT_STORED in mark["said"]}
    today = {mark["run"].partition(".")[0] for mark in made} - old
    if old:
        assert f'A run that says "{NOT_STORED}"' in head
        (said,) = re.findall(r"of those stored here (.*?) (?:is|are) such", " ".join(head.split()))
        assert set(re.findall(r"`(\w+)`", said)) == today
        assert "count photos as independent" in " ".join((PROJECT / "README.md").read_text().split())


def test_what_the_readme_claims_names_its_data_photos_and_trainings() -> None:
    """Each row of the table, and above it what the attackers and intervals of the older rows leave out."""
    text = (PROJECT / "README.md").read_text()
    found = text[text.index("## What it found") : text.index("## Write a defence")]
    about, _, table = found.partition("\n| |")
    about = " ".join(about.split())
    rows = [line.replace(r"\|", "").split("|")[1:-1] for line in table.splitlines() if re.match(r"\| \d", line)]
    old = re.search(r"attackers of rows 1 to (\d) are \*\*weaker than today's\*\*", about)
    assert old is not None
    assert f"Those of rows 1 to {old[1]} count photos as independent" in about
    assert re.search(r"attackers have [\d,]+ photos, where the seed study's have [\d,]+", about)
    for number, claim, sure in rows:
        assert re.search(r"(LFW|Masks|Drawn faces), \d+ px; \d trainings?\b.*\d+ photos", sure), number
        asked = {mark["run"] for mark in ASKED.finditer(claim)}
        assert asked, number
        assert (asked == {"quick"}) == (int(number) > int(old[1])), "the runs of today's attackers and judge"


@pytest.mark.parametrize("name", ["RESULTS.md", "README.md"])
def test_no_line_begins_with_a_numbers_mark(name: str) -> None:
    text = (PROJECT / name).read_text()
    assert re.findall(r"^\s*<!-- results: [^\n|]*\|.*", text, re.MULTILINE) == [], "the paragraph would end before it"
