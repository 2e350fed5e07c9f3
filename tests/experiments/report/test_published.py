"""The published number beside ours: one rule for the verdict, and a table in which it stands."""

from pathlib import Path

import numpy as np
import pytest
from written_run import write_run

from splitleak.experiments.judge.statistics.interval import Interval
from splitleak.experiments.judge.statistics.reproduced import is_reproduced, reproducing
from splitleak.experiments.planning.names import PLANS
from splitleak.experiments.planning.published import plans_with_figures, published_figures
from splitleak.experiments.planning.study import read_study
from splitleak.experiments.report.tables.published import INCOMPARABLE, published_table, verdict
from splitleak.experiments.results.archive import read_runs
from splitleak.victims.errors import InvalidInputError

HEAD = """
plan = "small"
protocol = "as they had it"
budget = "much"
photos = 10
[source]
authors = "A. Author"
title = "A title"
venue = "A venue"
year = 2020
"""


def figure(attack: str, values: str, more: str = "") -> str:
    return f'[[figures]]\nattack = {{ name = "{attack}" }}\nsetting = "theirs"\nvalues = {{ {values} }}\n{more}\n'


def write(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "small.toml").write_text(text)
    return folder


def test_the_rule() -> None:
    ours = Interval(20.0, 19.5, 20.4)
    assert verdict(20.4, ours, None) == "reproduced"
    assert verdict(20.41, ours, None) == "not reproduced"
    assert verdict(19.4, ours, None) == "not reproduced"
    assert verdict(20.0, None, None) == "not measured"
    assert verdict(20.0, ours, "other data") == f"{INCOMPARABLE} other data"
    assert verdict(20.0, None, "other data") == f"{INCOMPARABLE} other data"


def test_few_published_photos_widen_the_interval_as_often_as_they_should() -> None:
    """Means of ten photos of what we measured lie within in 95 of 100 cases, and seldom within our interval alone."""
    random = np.random.default_rng(0)
    hits = alone = 0
    for _ in range(600):
        values = random.normal(20, 3, 500)
        half = 1.96 * values.std() / np.sqrt(len(values))
        ours = Interval(values.mean(), values.mean() - half, values.mean() + half)
        theirs = random.normal(20, 3, 10).mean()
        hits += is_reproduced(theirs, reproducing(ours, float(values.std()), 10))
        alone += is_reproduced(theirs, reproducing(ours, float(values.std()), None))
    assert 0.92 < hits / 600 < 0.98
    assert alone / 600 < 0.4


def test_the_table_sets_them_side_by_side(tmp_path: Path) -> None:
    write_run(tmp_path / "small")
    text = HEAD + figure("decoder", "psnr = 21.5, ssim = 0.1, utility = 0.9") + figure("nobody", "psnr = 1.0")
    text += figure("ridge", "psnr = 16.0", 'incomparable = "it is another"')
    figures = published_figures("small", write(tmp_path / "published", text))
    table = published_table(figures, read_runs(tmp_path / "small"))
    lines = [dict(zip(table.headings, line, strict=True)) for line in table.lines]
    assert [(line["metric"], line["verdict"]) for line in lines] == [
        ("PSNR (dB)", "reproduced"),
        ("SSIM", "not reproduced"),
        ("utility", "reproduced"),
        ("PSNR (dB)", "not measured"),
        ("PSNR (dB)", "not comparable, because it is another"),
    ]
    assert lines[0]["published"] == "21.5"
    assert lines[0]["ours"].startswith("21.")
    assert lines[0]["n"] == "12 x 2"
    assert lines[3]["ours"] == lines[3]["n"] == "–"  # noqa: RUF001
    assert "A. Author" in table.caption
    assert "much" in table.caption


def test_a_metric_that_is_another_one_is_held_against_none(tmp_path: Path) -> None:
    write_run(tmp_path / "small")
    head = HEAD.replace("photos = 10\n", 'photos = 10\nincomparable = { ssim = "its window differs" }\n')
    figures = published_figures(
        "small", write(tmp_path / "published", head + figure("decoder", "psnr = 21.5, ssim = 0.1"))
    )
    verdicts = [line[-1] for line in published_table(figures, read_runs(tmp_path / "small")).lines]
    assert verdicts == ["reproduced", f"{INCOMPARABLE} its window differs"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plan = ", "is no TOML"),
        (HEAD, "published.figures"),
        (HEAD.replace('"small"', '"other"') + figure("ridge", "psnr = 1.0"), "plan = 'other': should be 'small'"),
        (HEAD + figure("ridge", "psnr = 1.0", "odd = 1"), "odd"),
    ],
)
def test_a_file_that_is_wrong_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        published_figures("small", write(tmp_path / "published", text))
    assert said in str(error.value)


def test_a_plan_without_figures_is_offered_those_that_have_some() -> None:
    with pytest.raises(InvalidInputError, match="cifar_he"):
        published_figures("cifar_hee")


@pytest.mark.parametrize("name", plans_with_figures())
def test_every_figure_is_of_one_cell_that_its_plan_has(name: str) -> None:
    plans = read_study(PLANS / f"{name}.toml").plans
    for one in published_figures(name).figures:
        plan = plans[one.run or name]
        for wanted, entries in ((one.attack, plan.attacks), (one.defence, plan.defenses)):
            settings = [{**entry.plugin.to_mapping(), "name": entry.plugin.name} for entry in entries]
            found = [of for of in settings if all(of.get(key) == value for key, value in wanted.items())]
            assert len(found) == 1, (one.setting, wanted)
