"""A cell tells which of its photos show the same person, by numbers that name nobody."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import HEAD, MEAN, NONE, RIDGE, run_plan

from splitleak.experiments.cells.cell import summaries
from splitleak.experiments.judge.scores import Scores
from splitleak.experiments.judge.statistics.interval import interval
from splitleak.experiments.results.load import load_results
from splitleak.experiments.stages.data import differences, groups_in
from splitleak.victims.data.loading import LoadedParts
from splitleak.victims.seeding import seeded

GROUPS = (0, 0, 1, 1, 2, 3)


def _groups(people: list[int] | None, hashes: list[str], first: int = 0) -> dict[str, tuple[int, ...]]:
    """Of two parts, the first photos in the one and the others in the other; no two photos look the same."""
    rows = {"target": slice(first), "test": slice(first, None)} if first else {"target": slice(None)}
    manifest = {"parts": {part: {"hashes": hashes[of]} for part, of in rows.items()}, "notes": []}
    with seeded("photos"):
        photos = torch.randint(256, (len(hashes), 3, 32, 32), dtype=torch.uint8)
    images = {part: photos[of] for part, of in rows.items()}
    identities = None if people is None else {part: torch.tensor(people[of]) for part, of in rows.items()}
    return groups_in(LoadedParts(images, {}, identities, {}, manifest))


def test_people_are_groups_and_who_is_unknown_is_somebody_else() -> None:
    assert _groups([9, 4, 9, -1, -1], list("abcde")) == {"target": (0, 1, 0, 2, 3)}
    assert _groups(None, list("abca")) == {"target": (0, 1, 2, 0)}
    assert _groups([9, -1, 4], ["a", "a", "b"]) == {"target": (0, 0, 1)}


def test_people_of_the_test_part_are_others_than_those_of_the_targets() -> None:
    assert _groups([9, 4, 9, 5, 6, 5], list("abcdef"), 3) == {"target": (0, 1, 0), "test": (2, 3, 2)}
    assert _groups(None, list("abca"), 2) == {"target": (0, 1), "test": (2, 0)}


def test_photos_of_nobody_that_look_the_same_are_one_group() -> None:
    with seeded("faces"):
        photo = torch.nn.functional.interpolate(torch.rand(2, 3, 6, 6), 64, mode="bicubic").clamp(0.1, 0.9)
    small = torch.nn.functional.interpolate(photo, 40, mode="area")
    again = torch.nn.functional.interpolate(small, 64, mode="bilinear") * 0.9 + 0.05
    images = (255 * torch.cat([photo, again, torch.full((2, 3, 64, 64), 0.5)])).to(torch.uint8)
    apart = differences(images)[:4, None] ^ differences(images)[None, :4]
    assert (apart.sum(2) <= 3).tolist() == [[row % 2 == column % 2 for column in range(4)] for row in range(4)]
    manifest = {"parts": {"target": {"hashes": list("abcdef")}}}
    for people, expected in (([-1] * 6, (0, 1, 0, 1, 2, 3)), ([-1, 7, 8, -1, -1, -1], (0, 1, 2, 3, 4, 5))):
        parts = LoadedParts({"target": images}, {}, {"target": torch.tensor(people)}, {}, manifest)
        assert groups_in(parts)["target"] == expected


def test_scores_that_count_some_photos_keep_which() -> None:
    values = torch.tensor([1.0, 2.0, float("nan"), 4.0, float("nan"), 6.0]).double()
    found = summaries(Scores({"rank1": values, "psnr": torch.arange(6.0)}), GROUPS)
    assert found["rank1"]["counted"] == [0, 1, 3, 5]
    assert "counted" not in found["psnr"]
    expected = interval([1.5, 4, 6])  # each person once: two photos of the first
    assert tuple(found["rank1"][name] for name in ("mean", "low", "high")) == pytest.approx(tuple(expected))
    assert found["rank1"]["values"] == [1, 2, 4, 6]
    assert found["psnr"]["high"] == pytest.approx(interval(np.arange(6), GROUPS).high)


def test_a_run_counts_people(tmp_path: Path) -> None:
    head = HEAD.replace("photos = 400", "photos = 400, photos_per_identity = 4")
    assert head != HEAD
    results, _, _ = run_plan(head + NONE + MEAN + RIDGE, tmp_path, report=True)
    groups = results[0]["groups"]
    assert len(groups) == 24
    assert len(set(groups)) < 24
    assert groups == sorted(groups) or list(dict.fromkeys(groups)) == list(range(len(set(groups))))
    run = tmp_path / "runs" / "tiny"
    loaded = load_results(run)
    utility = results[0]["utility"]
    assert utility["part"] == "test"
    assert not {*utility["groups"]} & {*groups}
    assert len(utility["values"]) == len(utility["groups"]) > 24
    measured = f"accuracy on {len(utility['groups'])} photos of {len(set(utility['groups']))} people"
    assert loaded.sample == f"n = 24 photos of {len(set(groups))} people x 1 seed; {measured} that no attack met"
    ridge = next(cell for cell in loaded.cells if cell.attack.name == "ridge").metrics["psnr"]
    assert (ridge.low, ridge.high) == pytest.approx(interval(ridge.values, groups)[1:], abs=1e-4)
    for file in (run / "matrix.md", run / "index.html", run / "tables" / "attacks.md"):
        assert loaded.sample in file.read_text()
