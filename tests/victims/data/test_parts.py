"""The four parts: exact, disjoint, person by person, stratified, and guarded against every kind of leak."""

import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from torch import Tensor

from splitleak.victims.data.base import Catalog, Labels, Pixels, Source
from splitleak.victims.data.loading import load_parts
from splitleak.victims.data.parts import (
    PHOTOS_PER_PERSON,
    PRECEDENCE,
    TEST,
    Distinct,
    OverlapError,
    Parts,
    PartSizes,
    content_hashes,
    divide,
    refuse_overlap,
)
from splitleak.victims.data.sources.files import Index
from splitleak.victims.errors import InvalidInputError


def catalog_of(
    labels: Sequence[int] | None = None,
    identity: Sequence[int] | None = None,
    split: Sequence[str] | None = None,
    count: int = 0,
) -> Catalog:
    count = next((len(column) for column in (labels, identity, split) if column is not None), count)
    classes = tuple(f"class {index}" for index in range(max(labels, default=-1) + 1)) if labels else ()
    return Catalog(
        tuple(f"photo {index}" for index in range(count)),
        {} if labels is None else {"kind": Labels(torch.tensor(labels, dtype=torch.int64), classes)},
        None if identity is None else torch.tensor(identity, dtype=torch.int64),
        None if split is None else tuple(split),
    )


def sizes_of(parts: Parts) -> dict[str, int]:
    return {part: len(indices) for part, indices in parts.indices.items()}


@st.composite
def catalogs(draw: st.DrawFn) -> Catalog:
    count = draw(st.integers(0, 80))

    def column(values: st.SearchStrategy[Any]) -> Any:
        return draw(st.none() | st.lists(values, min_size=count, max_size=count))

    splits = st.sampled_from(["train", "validation", "target", ""])
    labels = draw(st.lists(st.integers(-1, 2), min_size=count, max_size=count))
    return catalog_of(labels, column(st.integers(-1, 12)), column(splits), count)


sizes_strategy = st.builds(
    PartSizes,
    train=st.integers(0, 8),
    auxiliary=st.integers(1, 8),
    validation=st.integers(1, 8),
    target=st.integers(1, 8),
    test=st.none() | st.integers(0, 8),
    photos_per_person=st.integers(0, 4),
)


def asked(sizes: PartSizes) -> dict[str, int]:
    """By part, without the test part."""
    return {part: getattr(sizes, part) for part in PRECEDENCE}


@settings(max_examples=300, deadline=None)
@given(catalogs(), sizes_strategy, st.sampled_from([None, "kind"]), st.integers(0, 2**32))
def test_parts_are_exact_disjoint_and_keep_to_the_split(
    catalog: Catalog, sizes: PartSizes, task: str | None, seed: int
) -> None:
    try:
        parts = divide(catalog, sizes, task, seed)
    except InvalidInputError:  # when that is right has tests of its own
        event("too few photos")
        return
    assert {part: size for part, size in sizes_of(parts).items() if part != TEST} == asked(sizes)
    used = torch.cat(list(parts.indices.values())).tolist()
    assert len(set(used)) == len(used)
    if task is not None:
        assert all(catalog.labels[task].values[used] >= 0)
    if catalog.identity is not None:
        for first, second in combinations(parts.indices.values(), 2):
            common = set(catalog.identity[first].tolist()) & set(catalog.identity[second].tolist())
            assert common <= {-1}
        for indices in parts.indices.values():
            people = catalog.identity[indices]
            if sizes.photos_per_person and len(people[people >= 0]):
                assert people[people >= 0].bincount().max() <= sizes.photos_per_person
    if catalog.split is not None:
        for part, indices in parts.indices.items():
            kind = {"auxiliary": "train", TEST: "target"}.get(part, part)
            allowed = {kind, ""}
            if kind in ("target", "validation") and kind not in catalog.split:
                allowed.add("train")
            assert {catalog.split[index] for index in indices.tolist()} <= allowed
    again = divide(catalog, sizes, task, seed)
    assert all(torch.equal(again.indices[part], parts.indices[part]) for part in PRECEDENCE)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(["train", "validation", "target", ""]), min_size=4, max_size=60),
    sizes_strategy,
    st.integers(0, 99),
)
def test_without_persons_parts_are_found_wherever_they_exist(split: list[str], sizes: PartSizes, seed: int) -> None:
    count = {kind: split.count(kind) for kind in ("train", "validation", "target", "")}
    # Hall's condition: no group of parts needs more photos than fit into any of them
    possible = True
    for length in range(1, 5):
        for chosen in combinations(PRECEDENCE, length):
            kinds = {""} | {"train" if part == "auxiliary" else part for part in chosen}
            if any(part in ("target", "validation") and not count[part] for part in chosen):
                kinds.add("train")
            needed = sum(size for part, size in asked(sizes).items() if part in chosen)
            possible &= needed <= sum(count[kind] for kind in kinds)
    if possible:
        assert sizes_of(divide(catalog_of(split=split), sizes, None, seed)) == asked(sizes)
    else:
        with pytest.raises(InvalidInputError, match="too few photos"):
            divide(catalog_of(split=split), sizes, None, seed)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=80, max_size=200),
    st.tuples(*[st.integers(1, 20)] * 4),
    st.integers(0, 99),
)
def test_labels_are_stratified(labels: list[int], numbers: tuple[int, int, int, int], seed: int) -> None:
    parts = divide(catalog_of(labels), PartSizes(*numbers), "kind", seed)
    values = torch.tensor(labels)
    left = torch.ones(len(labels), dtype=torch.bool)
    for part in PRECEDENCE:
        indices = parts.indices[part]
        for label in range(4):
            expected = len(indices) * (values[left] == label).double().mean()
            assert abs((values[indices] == label).sum() - expected) <= 2
        left[indices] = False


def test_persons_are_stratified_as_well_as_they_allow() -> None:
    generator = torch.Generator().manual_seed(0)
    identity = torch.arange(300).repeat_interleave(torch.randint(1, 8, (300,), generator=generator))
    labels = (identity % 5 == 0).long()  # a fifth of the persons
    catalog = catalog_of(labels.tolist(), identity.tolist())
    parts = divide(catalog, PartSizes(400, 200, 100, 100), "kind", 3)
    share = labels.double().mean()
    for indices in parts.indices.values():
        assert abs((labels[indices] == 1).sum() - share * len(indices)) <= 8  # about a person


def test_one_large_group_does_not_fill_a_part() -> None:
    identity = [0] * 500 + list(range(1, 1001))
    for seed in range(20):
        target = divide(catalog_of(identity=identity), PartSizes(300, 100, 100, 100), None, seed).indices["target"]
        assert (target >= 500).sum() > 50


def test_a_person_in_the_official_target_part_is_dropped_elsewhere() -> None:
    # persons 0..4 have an official target photo and an official train photo each
    identity = [0, 1, 2, 3, 4] * 2 + [5, 6, 7, 8]
    split = ["target"] * 5 + ["train"] * 5 + ["train", "train", "validation", "validation"]
    catalog = catalog_of(identity=identity, split=split)
    parts = divide(catalog, PartSizes(1, 1, 2, 5), None, 0)
    assert sorted(parts.indices["target"].tolist()) == [0, 1, 2, 3, 4]
    assert sorted(parts.indices["train"].tolist() + parts.indices["auxiliary"].tolist()) == [10, 11]
    with pytest.raises(InvalidInputError, match="too few photos"):
        divide(catalog, PartSizes(2, 1, 2, 5), None, 0)


def test_a_split_without_validation_fills_it_from_train_and_never_from_target() -> None:
    split = ["train"] * 12 + ["target"] * 8
    parts = divide(catalog_of(split=split), PartSizes(4, 4, 4, 8), None, 0)
    assert all(parts.indices["target"] >= 12)
    assert all(parts.indices["validation"] < 12)
    with pytest.raises(InvalidInputError, match=r"'target' found only 8; .*target 8, free 0"):
        divide(catalog_of(split=split), PartSizes(1, 1, 1, 9), None, 0)


def test_seeds_differ_and_targets_do_not_depend_on_the_other_sizes() -> None:
    catalog = catalog_of([0, 1] * 100, list(range(100)) * 2)
    first = divide(catalog, PartSizes(50, 20, 20, 20), "kind", 0)
    other = divide(catalog, PartSizes(50, 20, 20, 20), "kind", 1)
    grown = divide(catalog, PartSizes(60, 30, 20, 20), "kind", 0)
    assert set(first.indices["target"].tolist()) != set(other.indices["target"].tolist())
    for part in ("target", "validation"):
        assert torch.equal(first.indices[part], grown.indices[part])
    target = first.indices["target"].tolist()
    assert target != sorted(target)


@settings(max_examples=100, deadline=None)
@given(catalogs(), sizes_strategy, st.integers(0, 99))
def test_utility_is_measured_on_all_others(catalog: Catalog, sizes: PartSizes, seed: int) -> None:
    try:
        parts = divide(catalog, dataclasses.replace(sizes, test=None), "kind", seed)
    except InvalidInputError:
        return
    used = torch.cat([parts.indices[part] for part in PRECEDENCE]).tolist()
    free = [index for index in range(len(catalog)) if catalog.labels["kind"].values[index] >= 0 and index not in used]
    if catalog.split is not None:
        kinds = {"target", ""} if "target" in catalog.split else {"train", ""}
        free = [index for index in free if catalog.split[index] in kinds]
    if catalog.identity is not None:
        people = set(catalog.identity[used].tolist()) - {-1}
        free = [index for index in free if int(catalog.identity[index]) not in people]
        by_person = Counter(int(catalog.identity[index]) for index in free)
        limit = sizes.photos_per_person or len(catalog)
        expected = sum(count if person < 0 else min(count, limit) for person, count in by_person.items())
    else:
        expected = len(free)
    found = parts.indices.get(TEST, torch.empty(0, dtype=torch.int64)).tolist()
    assert set(found) <= set(free)
    assert len(found) == (expected if expected >= sizes.target else 0)
    assert TEST not in divide(catalog, dataclasses.replace(sizes, test=0), "kind", seed).indices
    assert TEST not in divide(catalog, dataclasses.replace(sizes, test=None), None, seed).indices


def test_so_many_photos_of_a_person_are_in_a_part_and_no_more() -> None:
    identity = [0] * 500 + [person for person in range(1, 101) for _ in range(5)]
    catalog = catalog_of([0, 1] * 500, identity)
    parts = divide(catalog, PartSizes(100, 100, 50, 60, None), "kind", 0)
    counts = [torch.tensor(identity)[photos].bincount() for photos in parts.indices.values()]
    assert max(int(count.max()) for count in counts) == PHOTOS_PER_PERSON == 4
    assert sum(int(count[0]) for count in counts) <= 4
    assert set(parts.indices) == {*PRECEDENCE, TEST}
    free = divide(catalog, PartSizes(100, 100, 50, 60, photos_per_person=0), "kind", 0)
    assert max(int(torch.tensor(identity)[photos].bincount().max()) for photos in free.indices.values()) > 4


def test_a_test_part_that_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="target 1, test 7; 'test' found only 6"):
        divide(catalog_of([0] * 10), PartSizes(1, 1, 1, 1, 7), "kind", 0)


def test_unknown_task_names_the_nearest() -> None:
    with pytest.raises(InvalidInputError, match="unknown task 'knd'; did you mean kind"):
        divide(catalog_of([0] * 9), PartSizes(1, 1, 1, 1), "knd", 0)


def test_too_few_photos_is_one_line_with_what_was_needed_and_what_there_is() -> None:
    catalog = catalog_of([0, 1, -1, 0], [0, 0, 1, -1], ["train", "target", "", ""])
    with pytest.raises(InvalidInputError) as caught:
        divide(catalog, PartSizes(1, 2, 3, 4), "kind", 0)
    assert str(caught.value) == (
        "too few photos: needed train 1, auxiliary 2, validation 3, target 4; 'target' found only 2; "
        "the data has 4 photos (train 1, validation 0, target 1, free 2), 3 of them with a known 'kind', "
        "2 persons, who stay in one part"
    )


@pytest.mark.parametrize("bad", [{"train": -1}, {"target": 0}, {"auxiliary": 1.5}, {"validation": True}])
def test_impossible_sizes_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=f"part_sizes.{next(iter(bad))}"):
        PartSizes(**({"train": 1, "auxiliary": 1, "validation": 1, "target": 1} | bad))


# duplicates and the guard


def noise(seed: int, count: int = 6, size: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def test_content_hashes_are_blake2b_of_the_pixels() -> None:
    images = noise(0, 2)
    expected = hashlib.blake2b(bytes(images[1].flatten().tolist()), digest_size=16).hexdigest()
    assert content_hashes(images)[1] == expected
    assert content_hashes(images.transpose(2, 3).contiguous().transpose(2, 3))[1] == expected


def test_a_copy_is_dropped_from_the_part_of_lower_precedence() -> None:
    images = {part: noise(seed) for seed, part in enumerate(("train", "auxiliary", "validation", "target"))}
    images["train"][0] = images["target"][5]
    images["train"][1] = images["auxiliary"][1]
    images["auxiliary"][2] = images["validation"][0]
    images["validation"][3] = images["validation"][4]
    distinct = Distinct()
    for part in PRECEDENCE:
        kept = torch.cat([distinct.admit(part, chunk) for chunk in images[part].split(4)])
        assert torch.equal(kept, images[part][distinct.positions[part]])
    assert distinct.positions == {
        "train": [2, 3, 4, 5],
        "auxiliary": [0, 1, 3, 4, 5],
        "validation": [0, 1, 2, 3, 4, 5],
        "target": [0, 1, 2, 3, 4, 5],
    }
    assert distinct.dropped == {"train": 2, "auxiliary": 1, "validation": 0, "target": 0}
    assert {part: distinct.repeated(part) for part in images} == {
        "train": 0,
        "auxiliary": 0,
        "validation": 1,
        "target": 0,
    }
    for part, kept in distinct.positions.items():
        assert tuple(distinct.hashes[part]) == content_hashes(images[part][kept])


def clean() -> tuple[dict[str, Tensor], Tensor, dict[str, list[str]]]:
    indices = {part: torch.arange(3) + 3 * number for number, part in enumerate(PRECEDENCE)}
    identity = torch.arange(12)
    identity[[0, 3, 6]] = -1  # unknown persons are not the same person
    return (
        indices,
        identity,
        {part: [f"{index:032x}" for index in chosen] for part, chosen in indices.items()},
    )


def test_the_guard_lets_disjoint_parts_pass() -> None:
    indices, identity, hashes = clean()
    refuse_overlap(indices, identity, hashes)
    refuse_overlap(indices, None, hashes)


@pytest.mark.parametrize(("first", "second"), list(combinations(PRECEDENCE, 2)))
@pytest.mark.parametrize("leak", ["photos", "persons", "photos by content"])
def test_the_guard_finds_every_planted_leak(first: str, second: str, leak: str) -> None:
    indices, identity, hashes = clean()
    if leak == "photos":
        indices[second][1] = indices[first][2]
    elif leak == "persons":
        identity[indices[second][1]] = identity[indices[first][2]]
    else:
        hashes[second][1] = hashes[first][2]
    with pytest.raises(OverlapError, match=f"{first} and {second} share 1 {leak}, such as"):
        refuse_overlap(indices, identity, hashes)


# from a source to images


@dataclass(frozen=True)
class Squares(Source):
    """Sixty plain photos of twenty persons; some broken, some copies."""

    broken: tuple[int, ...] = ()
    copies: bool = False

    def fingerprint(self) -> str:
        return "squares"

    def catalog(self) -> Catalog:
        return catalog_of([index % 2 for index in range(60)], [index // 3 for index in range(60)])

    def read(self, chosen: Sequence[int], size: int) -> Pixels:
        good = [index for index in chosen if index not in self.broken]
        corrupt = [position for position, index in enumerate(chosen) if index in self.broken]
        colours = torch.tensor([0 if self.copies and index % 3 == 0 else index for index in good])
        images = colours.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, size, size).contiguous()
        return Pixels(images, tuple(corrupt))


SIZES, FEW = PartSizes(20, 10, 6, 9), PartSizes(6, 5, 4, 5)


def assert_consistent(manifest: Mapping[str, Any]) -> None:
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert manifest["sha256"] == hashlib.sha256(canonical.encode()).hexdigest()
    for part in manifest["parts"].values():
        assert part["n"] == len(part["names"]) == len(part["hashes"]) == sum(part["labels"].values())


def test_load_parts_returns_what_belongs_together() -> None:
    loaded = load_parts(Squares(), SIZES, 8, "kind", 5)
    assert loaded.classes == {"kind": ("class 0", "class 1")}
    assert loaded.identities is not None
    for part, images in loaded.images.items():
        index = images[:, 0, 0, 0].long()
        assert images.shape == (getattr(SIZES, part), 3, 8, 8)
        assert torch.equal(loaded.labels[part]["kind"], index % 2)
        assert torch.equal(loaded.identities[part], index // 3)
        described = loaded.manifest["parts"][part]
        assert described["names"] == [f"photo {number}" for number in index.tolist()]
        assert described["hashes"] == list(content_hashes(images))
        assert described["labels"] == {
            "class 0": int((index % 2 == 0).sum()),
            "class 1": int((index % 2).sum()),
        }
        assert described["identities"] == len(set((index // 3).tolist()))
    assert_consistent(json.loads(json.dumps(loaded.manifest)))
    assert load_parts(Squares(), SIZES, 8, "kind", 5).manifest == loaded.manifest
    assert load_parts(Squares(), SIZES, 8, "kind", 6).manifest["sha256"] != loaded.manifest["sha256"]


def test_load_parts_is_the_same_some_photos_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Squares(tuple(range(1, 60, 6)), copies=True)
    whole = load_parts(source, FEW, 8, "kind", 5)
    monkeypatch.setattr("splitleak.victims.data.loading.CHUNK_BYTES", 4 * 3 * 8 * 8)
    chunked = load_parts(source, FEW, 8, "kind", 5)
    assert chunked.manifest == whole.manifest
    for part, images in whole.images.items():
        assert torch.equal(chunked.images[part], images)
        assert torch.equal(chunked.labels[part]["kind"], whole.labels[part]["kind"])


def test_load_parts_without_a_task_and_without_train_photos() -> None:
    loaded = load_parts(Squares(), PartSizes(0, 10, 6, 9), 8, None, 5)
    assert loaded.images["train"].shape == (0, 3, 8, 8)
    assert loaded.manifest["parts"]["train"]["labels"] is None


def test_others_take_the_places_of_corrupt_photos_and_copies_and_it_is_said() -> None:
    broken = tuple(range(1, 60, 6))
    loaded = load_parts(Squares(broken, copies=True), FEW, 8, "kind", 5)
    assert_consistent(loaded.manifest)
    used: list[int] = []
    for part, images in loaded.images.items():
        described = loaded.manifest["parts"][part]
        index = torch.tensor([int(name.split()[1]) for name in described["names"]])
        assert len(images) == len(loaded.labels[part]["kind"]) == described["n"] == getattr(FEW, part)
        assert torch.equal(images[:, 0, 0, 0].long(), torch.where(index % 3 == 0, 0, index))
        assert torch.equal(loaded.labels[part]["kind"], index % 2)
        assert set(described["corrupt"]) <= {f"photo {number}" for number in broken}
        used += index.tolist()
    assert not set(used) & set(broken)
    counts = loaded.manifest["parts"]
    assert counts["target"]["duplicates_dropped"] == 0
    assert counts["target"]["duplicates_kept"] > 0
    dropped = {part: facts["duplicates_dropped"] for part, facts in counts.items() if facts["duplicates_dropped"]}
    assert dropped["train"] > 0
    lost = [name for facts in counts.values() for name in facts["corrupt"]]
    notes = " | ".join(loaded.manifest["notes"])
    assert f"left out {len(lost)} unreadable photo" in notes
    assert f"left out {sum(dropped.values())} photos as copies of photos in other parts: " in notes
    assert f"train {dropped['train']}" in notes


def test_the_target_part_keeps_its_photos_when_others_grow_though_some_are_broken() -> None:
    source = Squares(tuple(range(1, 60, 6)))
    small, large = (load_parts(source, PartSizes(train, 5, 4, 5), 8, "kind", 5) for train in (2, 12))
    for part in ("target", "validation", "auxiliary"):
        assert torch.equal(small.images[part], large.images[part])


def test_unreadable_photos_that_leave_a_part_too_small_are_refused() -> None:
    broken = tuple(range(1, 60, 2))
    with pytest.raises(InvalidInputError, match=r"part '\w+' needs \d+ and got \d+: \d+ photos left out as"):
        load_parts(Squares(broken), SIZES, 8, None, 5)


@dataclass(frozen=True)
class Repeated(Source):
    """Photos of which only some are different: ``colours`` tells them."""

    colours: tuple[int, ...]

    def fingerprint(self) -> str:
        return "repeated"

    def catalog(self) -> Catalog:
        return catalog_of(count=len(self.colours))

    def read(self, chosen: Sequence[int], size: int) -> Pixels:
        colours = torch.tensor([self.colours[index] for index in chosen], dtype=torch.uint8)
        return Pixels(colours.view(-1, 1, 1, 1).expand(-1, 3, size, size).contiguous())


def test_parts_that_could_only_hold_copies_are_refused_in_one_line_that_says_so() -> None:
    with pytest.raises(InvalidInputError, match="photos left out as copies of photos in other parts") as caught:
        load_parts(Repeated(tuple(index % 3 for index in range(80))), PartSizes(10, 10, 10, 10), 8, None, 0)
    assert "\n" not in str(caught.value)


def test_a_few_copies_make_a_part_smaller_where_no_other_photos_are_left() -> None:
    colours = (*range(38), 0, 1)
    for seed in range(9):
        loaded = load_parts(Repeated(colours), PartSizes(10, 10, 10, 10), 8, None, seed)
        of = {part: set(images[:, 0, 0, 0].tolist()) for part, images in loaded.images.items()}
        assert sum(map(len, of.values())) == 38
        missing = 40 - sum(len(images) for images in loaded.images.values())
        said = [note for note in loaded.manifest["notes"] if "as copies of photos in other parts" in note]
        assert bool(said) == bool(missing)


def test_load_parts_runs_the_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    def alone(catalog: Catalog) -> Any:
        return torch.arange(len(catalog)).numpy()  # a bug: photos of one person go to any part

    monkeypatch.setattr("splitleak.victims.data.parts._units", alone)
    with pytest.raises(OverlapError, match=r"target and \w+ share \d+ persons"):
        load_parts(Squares(), SIZES, 8, "kind", 5)


# real photos


@pytest.mark.skipif("SPLITLEAK_DATA" not in os.environ, reason="SPLITLEAK_DATA names no folder of real photos")
@pytest.mark.parametrize(("path", "task"), [("facemask", "label"), ("lfw.zip", "gender")])
def test_real_photos(path: str, task: str) -> None:
    source = Index(path)
    catalog = source.catalog()
    parts = divide(catalog, PartSizes(1000, 300, 150, 200), task, 0)
    assert sizes_of(parts) == {"train": 1000, "auxiliary": 300, "validation": 150, "target": 200}
    refuse_overlap(parts.indices, catalog.identity, {})
    values = catalog.labels[task].values
    shares = [float((values[indices] == 0).double().mean()) for indices in parts.indices.values()]
    assert max(shares) - min(shares) < 0.1
    assert source.read(parts.indices["target"][:50].tolist(), 160).images.shape == (50, 3, 160, 160)
    loaded = load_parts(source, PartSizes(20, 10, 10, 10), 160, task, 0)
    assert_consistent(loaded.manifest)
