"""Sources over photo files: what they find, what they read, and what they refuse."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import as_tensor, bomb, encoded, picture, write_folder, write_zip

from splitleak.victims import contents
from splitleak.victims.data import decode
from splitleak.victims.data.base import Source
from splitleak.victims.data.sources.files import Folder, Index, PhotoFiles, Zip
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.files import DATA_VARIABLE, find_file

INDEX = (
    "path,label,gender,identity,split\n"
    "b.png,yes,female,Ada,train\n"
    "deep/a.png,no,,Ada,val\n"
    "c.png,,male,,test\n"
    "d.png,yes,male,Bob,\n"
)
INDEXED = {name: encoded(picture(seed)) for seed, name in enumerate(["b.png", "deep/a.png", "c.png", "d.png"])}


# finding


def test_a_path_is_looked_for_as_given_then_below_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    (there / "set").mkdir(parents=True)
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("SPLITLEAK_DATA", str(there))
    assert find_file("set", "photos", DATA_VARIABLE) == there / "set"
    (here / "set").mkdir()
    assert find_file("set", "photos", DATA_VARIABLE) == here / "set"
    assert find_file(str(there / "set"), "photos", DATA_VARIABLE) == there / "set"


def test_missing_data_is_one_line_that_says_what_where_and_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPLITLEAK_DATA", str(tmp_path / "data"))
    with pytest.raises(InvalidInputError) as caught:
        Folder("nowhere").catalog()
    message = str(caught.value)
    assert "folder of photos" in message
    assert str(tmp_path / "data" / "nowhere") in message
    assert str(Path.cwd() / "nowhere") in message
    assert "SPLITLEAK_DATA" in message
    assert "\n" not in message


def test_without_the_variable_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPLITLEAK_DATA", raising=False)
    with pytest.raises(InvalidInputError, match="SPLITLEAK_DATA \\(not set\\)"):
        Zip("nowhere.zip").catalog()


# catalogues


def test_folder_gives_classes_in_sorted_order(tmp_path: Path) -> None:
    content = encoded(picture())
    names = ["dog/2.PNG", "dog/deep/1.JpEg", "cat/1.webp", "cat/._1.webp", "cat/notes.txt", "stray.bmp"]
    write_folder(tmp_path, dict.fromkeys(names, content))
    catalog = Folder(str(tmp_path)).catalog()
    assert catalog.names == ("cat/1.webp", "dog/2.PNG", "dog/deep/1.JpEg", "stray.bmp")
    assert catalog.labels["class"].classes == ("cat", "dog")
    assert catalog.labels["class"].values.tolist() == [0, 1, 1, -1]
    assert catalog.identity is None
    assert catalog.split is None


def test_flat_folder_and_plain_zip_have_no_tasks(tmp_path: Path) -> None:
    content = encoded(picture())
    write_folder(tmp_path / "photos", {"2.png": content, "1.png": content})
    archive = write_zip(tmp_path / "p.zip", {"2.png": content, "1.png": content, "__MACOSX/1.png": b"", "x/": b""})
    assert Folder(str(tmp_path / "photos")).catalog().names == ("1.png", "2.png")
    assert Folder(str(tmp_path / "photos")).catalog().labels == {}
    assert Zip(str(archive)).catalog().names == ("1.png", "2.png")
    assert Zip(str(archive)).catalog().labels == {}


@pytest.mark.parametrize("kind", ["csv", "folder", "zip"])
def test_index_reads_labels_identities_and_split(tmp_path: Path, kind: str) -> None:
    members = INDEXED | {"index.csv": INDEX.encode("utf-8-sig")}
    if kind == "zip":
        path = write_zip(tmp_path / "set.zip", members)
    else:
        path = write_folder(tmp_path, members)
        path = path / "index.csv" if kind == "csv" else path
    source = Index(str(path))
    catalog = source.catalog()
    assert catalog.names == ("b.png", "deep/a.png", "c.png", "d.png")
    assert set(catalog.labels) == {"label", "gender"}
    assert catalog.labels["label"].classes == ("no", "yes")
    assert catalog.labels["label"].values.tolist() == [1, 0, -1, 1]
    assert catalog.labels["gender"].values.tolist() == [0, -1, 1, 1]
    assert catalog.identity is not None
    assert catalog.identity.tolist() == [0, 0, -1, 1]
    assert catalog.split == ("train", "validation", "target", "")
    read = source.read([3, 1], 24)
    assert torch.equal(read.images, torch.stack([as_tensor(picture(3)), as_tensor(picture(1))]))


@pytest.mark.parametrize(
    ("csv", "complaint"),
    [
        ("file,label\na.png,x\n", "needs a column 'path'"),
        ("path,split\nb.png,dev\n", "unknown split 'dev'"),
        ("path\n../a.png\n", "stay inside"),
        ("path\n..\\a.png\n", "stay inside"),
        ("path\n/etc/a.png\n", "stay inside"),
        ("path\nC:\\a.png\n", "stay inside"),
        ("path,label\n,x\n", "stay inside"),
        ("path\nb.png\n./b.png\n", "'b.png' twice"),
        ("path\nb.png\ngone.png\n", "1 photos .* first 'gone.png'"),
        ("path,label\nb.png\n", "row 1 has 1 cells, the header 2"),
        ("path,\nb.png,0\n", "a name of its own"),
        ("path,label,label\nb.png,0,1\n", "a name of its own"),
        ("path\n", "lists no photos"),
        ("", "needs a column 'path'"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_bad_index_is_refused(tmp_path: Path, csv: str, complaint: str, zipped: bool) -> None:
    members = INDEXED | {"index.csv": csv.encode()}
    make = write_zip if zipped else write_folder
    path = make(tmp_path / "set", members)
    with pytest.raises(InvalidInputError, match=complaint):
        Index(str(path)).catalog()


def test_places_of_the_wrong_kind_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, {"note.txt": b"hello", "latin.csv": b"path\n\xff\n"})
    for source, complaint in [
        (Folder(str(tmp_path)), "no photos in"),
        (Folder(str(tmp_path / "note.txt")), "is no folder"),
        (Zip(str(tmp_path / "note.txt")), "no readable zip"),
        (Index(str(tmp_path)), "no index.csv in"),
        (Index(str(tmp_path / "latin.csv")), "no CSV file in UTF-8"),
    ]:
        with pytest.raises(InvalidInputError, match=complaint):
            source.catalog()


# reading


BROKEN = {
    "text.png": b"no image at all",
    "empty.png": b"",
    "cut.png": encoded(picture())[:300],
    "bomb.png": bomb(),
    "tga.png": encoded(picture(), "TGA"),  # sound, but none of the formats that may be tried
    "page.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 24 24\n",
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_corrupt_photo_is_refused_by_name_or_skipped(tmp_path: Path, name: str, kind: str) -> None:
    members = {"a/a.png": encoded(picture(0)), f"a/{name}": BROKEN[name], "a/z.png": encoded(picture(1))}
    if kind == "folder":
        source: Source = Folder(str(write_folder(tmp_path, members)))
        skipping: Source = Folder(str(tmp_path), on_corrupt="skip")
    else:
        source = Zip(str(write_zip(tmp_path / "a.zip", members)))
        skipping = Zip(str(tmp_path / "a.zip"), on_corrupt="skip")
    with pytest.raises(InvalidInputError, match=f"photo 'a/{name}'"):
        source.read([0, 1, 2], 24)
    read = skipping.read([2, 1, 0], 24)
    assert read.corrupt == (1,)
    assert torch.equal(read.images, torch.stack([as_tensor(picture(1)), as_tensor(picture(0))]))


def test_a_damaged_zip_member_is_corrupt(tmp_path: Path) -> None:
    members = {"a.png": encoded(picture(0)), "b.png": encoded(picture(1))}
    path = write_zip(tmp_path / "a.zip", members)
    content = bytearray(path.read_bytes())
    middle = content.index(members["b.png"]) + 200
    content[middle] ^= 0xFF
    path.write_bytes(content)
    assert Zip(str(path), on_corrupt="skip").read([0, 1], 24).corrupt == (1,)


def test_zip_members_never_become_paths(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "sub.zip", {"/root.png": encoded(picture(5)), "./a.png": encoded(picture(4))})
    before = sorted(tmp_path.rglob("*"))
    assert Zip(str(path)).catalog().names == ("a.png", "root.png")
    assert torch.equal(Zip(str(path)).read([1], 24).images[0], as_tensor(picture(5)))
    assert sorted(tmp_path.rglob("*")) == before
    write_zip(path, {"a.png": encoded(picture(4)), "../../evil.png": encoded(picture(4))})
    with pytest.raises(InvalidInputError, match=r"'\.\./\.\./evil\.png', which leads out of it"):
        Zip(str(path)).catalog()


def test_a_member_that_declares_too_many_bytes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.png": encoded(picture())})
    monkeypatch.setattr(decode, "MAX_BYTES", 100)
    with pytest.raises(InvalidInputError, match="the limit is 100"):
        Zip(str(path)).read([0], 24)


def test_order_and_repeats_are_kept_and_nothing_is_nothing(tmp_path: Path) -> None:
    write_folder(tmp_path, {f"{index:02d}.png": encoded(picture(index)) for index in range(40)})
    chosen = np.random.default_rng(0).integers(0, 40, 90).tolist()
    source = Folder(str(tmp_path))
    read = source.read(chosen, 24)
    assert read.images.dtype == torch.uint8
    assert torch.equal(read.images, torch.stack([as_tensor(picture(index)) for index in chosen]))
    assert source.read([], 24).images.shape == (0, 3, 24, 24)


# fingerprints


KINDS: dict[str, tuple[type[PhotoFiles], str]] = {
    "folder": (Folder, "set"),
    "index": (Index, "set"),
    "csv": (Index, "set/index.csv"),
    "zip": (Zip, "set.zip"),
    "indexed zip": (Index, "set.zip"),
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The same photos in a folder and in a zip."""
    place = tmp_path / "place"
    write_folder(place / "set", INDEXED | {"index.csv": INDEX.encode()})
    pack(place)
    return place


def pack(place: Path) -> None:
    files = sorted(path for path in (place / "set").rglob("*") if path.is_file())
    write_zip(place / "set.zip", {path.relative_to(place / "set").as_posix(): path.read_bytes() for path in files})


def source_in(place: Path, kind: str) -> PhotoFiles:
    cls, path = KINDS[kind]
    return cls(str(place / path))


@pytest.mark.parametrize("kind", KINDS)
def test_data_that_was_touched_copied_or_moved_is_the_same(place: Path, tmp_path: Path, kind: str) -> None:
    before = source_in(place, kind).fingerprint()
    assert source_in(place, kind).fingerprint() == before
    for path in (place / "set/b.png", place / "set/index.csv", place / "set", place / "set.zip"):
        os.utime(path, ns=(0, 1))
    assert source_in(place, kind).fingerprint() == before
    shutil.copytree(place, tmp_path / "copy", copy_function=shutil.copyfile)
    assert source_in(tmp_path / "copy", kind).fingerprint() == before
    place.rename(tmp_path / "elsewhere")
    assert source_in(tmp_path / "elsewhere", kind).fingerprint() == before


def test_the_place_may_be_relative_and_the_csv_file_have_any_name(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = source_in(place, "csv").fingerprint()
    monkeypatch.chdir(place)
    assert Index("set").fingerprint() == before
    monkeypatch.chdir(place.parent)
    monkeypatch.setenv(DATA_VARIABLE, str(place))
    (place / "set/index.csv").rename(place / "set/list.csv")
    assert Index("set/list.csv").fingerprint() == before


def replace(place: Path) -> None:
    """Another photo of the same size and time."""
    path = place / "set/b.png"
    before = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def rename(place: Path) -> None:
    (place / "set/b.png").rename(place / "set/e.png")
    table = place / "set/index.csv"
    table.write_text(table.read_text().replace("b.png", "e.png"))


def swap(place: Path) -> None:
    (place / "set/b.png").rename(place / "set/e.png")
    (place / "set/c.png").rename(place / "set/b.png")
    (place / "set/e.png").rename(place / "set/c.png")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", [replace, rename, swap])
def test_other_photos_are_other_data(place: Path, kind: str, change: Callable[[Path], None]) -> None:
    before = source_in(place, kind).fingerprint()
    change(place)
    pack(place)
    assert source_in(place, kind).fingerprint() != before


@pytest.mark.parametrize("kind", ["index", "csv", "indexed zip"])
def test_other_labels_are_other_data(place: Path, kind: str) -> None:
    before, folder = source_in(place, kind).fingerprint(), source_in(place, "folder").fingerprint()
    (place / "set/index.csv").write_text(INDEX.replace("Bob", "Ada"))
    pack(place)
    assert source_in(place, kind).fingerprint() != before
    assert source_in(place, "folder").fingerprint() == folder


def test_other_settings_are_other_data(place: Path) -> None:
    folder, index = source_in(place, "folder"), source_in(place, "index")
    skipping = Folder(folder.path, on_corrupt="skip")
    assert len({source.fingerprint() for source in (folder, index, skipping)}) == 3
    assert folder.choices() == {"on_corrupt": "refuse", "folders": "auto"}


def test_a_photo_that_cannot_be_read_has_a_place_in_the_fingerprint(place: Path) -> None:
    before = source_in(place, "folder").fingerprint()
    link = place / "set/link.png"
    link.symlink_to("nowhere.png")
    broken = source_in(place, "folder").fingerprint()
    link.unlink()
    link.symlink_to("b.png")
    assert len({before, broken, source_in(place, "folder").fingerprint()}) == 3


def test_another_process_does_not_read_the_photos_again(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "CLOCK_STEP", 0)
    before = source_in(place, "folder").fingerprint()
    script = """
import hashlib, sys
from splitleak.victims.data.sources.files import Folder

def never(*arguments):
    raise AssertionError("a photo was read")

hashlib.file_digest = never
print(Folder(sys.argv[1]).fingerprint())
"""
    command = [sys.executable, "-c", script, str(place / "set")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == before


def test_settings_are_checked_and_round_trip(tmp_path: Path) -> None:
    source = Index(str(tmp_path), on_corrupt="skip")
    assert Index.from_mapping(source.to_mapping()) == source
    with pytest.raises(InvalidInputError, match="on_corrupt"):
        Folder.from_mapping({"path": "x", "on_corrupt": "ignore"})
    with pytest.raises(InvalidInputError, match="path"):
        Zip("")
    assert [source.name for source in (Folder, Index, Zip)] == ["folder", "index", "zip"]
