"""What folders mean, below a folder and in a zip: classes, an authors' split, or nothing."""

import os
import stat
import unicodedata
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest
from pictures import encoded, picture, write_folder, write_zip

from splitleak.experiments.tools.request import data_setting
from splitleak.victims.data.base import Catalog
from splitleak.victims.data.layout import Folders
from splitleak.victims.data.sources.files import Folder, Index, SortedFiles, Zip
from splitleak.victims.errors import InvalidInputError

PHOTO = encoded(picture())
Kind = Literal["folder", "zip"]
KINDS: tuple[Kind, ...] = ("folder", "zip")


def source(place: Path, kind: Kind, *names: str, folders: Folders = "auto") -> SortedFiles:
    """Photos and other files of these names; one that ends in "/" is an empty folder."""
    files: Mapping[str, bytes] = dict.fromkeys(names, PHOTO)
    place.mkdir(exist_ok=True)
    if kind == "zip":
        return Zip(str(write_zip(place / "set.zip", files)), folders=folders)
    write_folder(place / "set", {name: content for name, content in files.items() if not name.endswith("/")})
    for name in names:
        if name.endswith("/"):
            (place / "set" / name).mkdir(parents=True, exist_ok=True)
    (place / "set").mkdir(exist_ok=True)
    return Folder(str(place / "set"), folders=folders)


def classes(catalog: Catalog) -> dict[str, str]:
    """Of each photo, "" where it is unknown."""
    labels = catalog.labels["class"]
    named = [labels.classes[value] if value >= 0 else "" for value in labels.values.tolist()]
    return dict(zip(catalog.names, named, strict=True))


def splits(catalog: Catalog) -> dict[str, str]:
    assert catalog.split is not None
    return dict(zip(catalog.names, catalog.split, strict=True))


def said(catalog: Catalog) -> str:
    assert all("\n" not in note for note in catalog.notes)
    return " | ".join(catalog.notes)


# the authors' split


@pytest.mark.parametrize("kind", KINDS)
def test_folders_named_like_parts_are_the_split_and_the_classes_lie_below(tmp_path: Path, kind: Kind) -> None:
    names = ["Train/cat/1.png", "Train/dog/deep/2.png", "VALID/cat/3.png", "testing/bird/4.png", "testing/5.png"]
    catalog = source(tmp_path, kind, *names).catalog()
    assert catalog.labels["class"].classes == ("bird", "cat", "dog")
    assert classes(catalog) == dict(zip(names, ["cat", "dog", "cat", "bird", ""], strict=True))
    assert splits(catalog) == dict(zip(names, ["train", "train", "validation", "target", "target"], strict=True))
    assert "folders are the authors' split: Train = train, VALID = validation, testing = target" in said(catalog)


def test_folders_that_are_likely_parts_are_the_split(tmp_path: Path) -> None:
    catalog = source(tmp_path, "folder", "train2017/cat/1.png", "images_val/dog/2.png").catalog()
    assert splits(catalog) == {"train2017/cat/1.png": "train", "images_val/dog/2.png": "validation"}
    assert catalog.labels["class"].classes == ("cat", "dog")
    catalog = source(tmp_path / "other", "folder", "bullet train/1.png", "station/2.png").catalog()
    assert catalog.labels["class"].classes == ("bullet train", "station")
    with pytest.raises(
        InvalidInputError, match="holds seg_test, seg_train, named like parts of a split, beside pred"
    ):
        source(tmp_path / "third", "folder", "seg_train/1.png", "seg_test/2.png", "pred/3.png").catalog()


@pytest.mark.parametrize("kind", KINDS)
def test_split_folders_without_class_folders_give_a_split_and_no_task(tmp_path: Path, kind: Kind) -> None:
    catalog = source(tmp_path, kind, "train/1.png", "test/2.png").catalog()
    assert catalog.labels == {}
    assert splits(catalog) == {"train/1.png": "train", "test/2.png": "target"}


@pytest.mark.parametrize("only", ["train", "test", "photos"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_folder_around_all_classes_is_neither_class_nor_split(tmp_path: Path, kind: Kind, only: str) -> None:
    catalog = source(tmp_path, kind, f"{only}/cat/1.png", f"{only}/dog/2.png", "readme.txt").catalog()
    assert catalog.labels["class"].classes == ("cat", "dog")
    assert catalog.split is None
    assert f"the folder '{only}' lies around all photos" in said(catalog)


def test_only_train_with_photos_in_it_is_no_class(tmp_path: Path) -> None:
    catalog = source(tmp_path, "folder", "train/1.png", "train/2.png").catalog()
    assert (catalog.labels, catalog.split) == ({}, None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", ["cat/2.png", "train/"])
def test_a_part_beside_other_folders_is_asked_about(tmp_path: Path, kind: Kind, other: str) -> None:
    names = ["test/cat/1.png", "dog/3.png", other]
    with pytest.raises(InvalidInputError, match='set folders = "classes" or folders = "splits"') as caught:
        source(tmp_path, kind, *names).catalog()
    assert "\n" not in str(caught.value)
    catalog = source(tmp_path, kind, *names, folders="classes").catalog()
    assert classes(catalog)["test/cat/1.png"] == "test"
    assert catalog.split is None
    catalog = source(tmp_path, kind, *names, folders="splits").catalog()
    assert splits(catalog)["test/cat/1.png"] == "target"
    assert splits(catalog)["dog/3.png"] == ""
    assert classes(catalog)["test/cat/1.png"] == "cat"
    assert "outside the folders of the split may go to any part" in said(catalog)


def test_splits_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"no folder train, val or test in .*; there: cat, dog"):
        source(tmp_path, "folder", "cat/1.png", "dog/2.png", folders="splits").catalog()


def test_photos_beside_split_folders_are_free(tmp_path: Path) -> None:
    catalog = source(tmp_path, "folder", "test/1.png", "2.png", "3.png").catalog()
    assert splits(catalog) == {"2.png": "", "3.png": "", "test/1.png": "target"}
    assert "2 photos outside the folders of the split may go to any part" in said(catalog)


def test_a_split_inside_classes_is_told(tmp_path: Path) -> None:
    catalog = source(tmp_path, "folder", "cat/train/1.png", "dog/train/2.png", "dog/test/3.png").catalog()
    assert catalog.labels["class"].classes == ("cat", "dog")
    assert "the folders test, train inside class folders are not taken for a split" in said(catalog)


def test_the_folder_of_annotations_is_no_class(tmp_path: Path) -> None:
    catalog = source(tmp_path, "folder", "train/images/1.png", "val/images/2.png", "labels/train/1.txt").catalog()
    assert splits(catalog) == {"train/images/1.png": "train", "val/images/2.png": "validation"}
    assert catalog.labels["class"].classes == ("images",)


# classes


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_class_folder_keeps_its_place(tmp_path: Path, kind: Kind) -> None:
    catalog = source(tmp_path, kind, "cat/1.png", "bird/", "dog/2.png").catalog()
    assert catalog.labels["class"].classes == ("bird", "cat", "dog")
    assert catalog.labels["class"].values.tolist() == [1, 2]
    assert "class 'bird' has no photo" in said(catalog)


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_missing_in_one_part_of_the_split_is_a_class(tmp_path: Path, kind: Kind) -> None:
    catalog = source(tmp_path, kind, "train/b/1.png", "train/a/2.png", "test/a/3.png", "test/c/").catalog()
    assert catalog.labels["class"].classes == ("a", "b", "c")
    assert "class 'c' has no photo" in said(catalog)


@pytest.mark.parametrize("kind", KINDS)
def test_classes_that_are_whole_numbers_are_in_numeric_order(tmp_path: Path, kind: Kind) -> None:
    catalog = source(tmp_path, kind, *(f"{number}/{number}.png" for number in range(12))).catalog()
    assert catalog.labels["class"].classes == tuple(map(str, range(12)))
    assert classes(catalog)["10/10.png"] == "10"
    assert "class folders: whole numbers, in numeric order: 0, 1, 2, ..., 11" in said(catalog)
    few = source(tmp_path / "few", kind, "1/1.png", "2/2.png").catalog()
    assert few.notes == ()


def test_classes_in_two_unicode_forms_are_one_and_in_capitals_two(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    catalog = source(tmp_path, "zip", f"train/{composed}/1.png", f"test/{apart}/2.png", "test/Café/3.png").catalog()
    assert catalog.labels["class"].classes == ("Café", "café")
    assert classes(catalog)[f"test/{apart}/2.png"] == "café"
    assert "names that differ in Unicode's form only are one class" in said(catalog)
    assert "Café, café differ in capitals only" in said(catalog)


def test_a_folder_for_each_photo_is_no_class(tmp_path: Path) -> None:
    found = source(tmp_path, "folder", *(f"patient {number}/scan.png" for number in range(20)))
    catalog = found.catalog()
    assert catalog.labels == {}
    assert "class folders: the task has 20 different values for 20 photos: about one photo each" in said(catalog)
    with pytest.raises(InvalidInputError, match="'class' cannot be a task: it has 20 different values for 20 photos"):
        catalog.task("class")


def test_stray_photos_are_told(tmp_path: Path) -> None:
    catalog = source(tmp_path, "folder", "cat/1.png", "dog/2.png", "3.png").catalog()
    assert classes(catalog)["3.png"] == ""
    assert "the class of 1 photo outside any class folder is unknown" in said(catalog)


# what is left out

LITTER = (
    "@eaDir/cat.png/SYNOPHOTO_THUMB_M.png",
    "cat/@eaDir/1.png",
    "__MACOSX/cat/1.png",
    "#recycle/1.png",
    "$RECYCLE.BIN/1.png",
    "System Volume Information/1.png",
    "lost+found/1.png",
    ".ipynb_checkpoints/1.png",
    ".hidden/1.png",
    "cat/._1.png",
    "cat/Thumbs.db",
    "dog/desktop.ini",
    ".DS_Store",
)


@pytest.mark.parametrize("kind", KINDS)
def test_housekeeping_is_neither_class_nor_photo(tmp_path: Path, kind: Kind) -> None:
    catalog = source(tmp_path, kind, "cat/1.png", "dog/2.png", *LITTER).catalog()
    assert catalog.names == ("cat/1.png", "dog/2.png")
    assert catalog.labels["class"].classes == ("cat", "dog")
    assert catalog.notes == ()


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_are_not_read_are_counted_and_named(tmp_path: Path, kind: Kind) -> None:
    texts = ["labels.json", "index.tsv", "cat/1.txt", "dog/1.xml", "README"]
    unread = ["cat/1.HEIC", "cat/2.heic", "dog/3.CR2", "dog/4.mp4", "dog/IMG_5", "inner.zip"]
    catalog = source(tmp_path, kind, "cat/1.png", "dog/2.png", *texts, *unread).catalog()
    expected = "left out 6 files whose extension is not read: 2 .heic, 1 .cr2, 1 .mp4, 1 .zip, 1 without any"
    assert catalog.notes == (expected,)


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_without_photos_says_what_it_holds(tmp_path: Path, kind: Kind) -> None:
    with pytest.raises(InvalidInputError, match=r"it holds 2 files whose extension is not read: 1 .heic, 1 .zip;"):
        source(tmp_path, kind, "a.heic", "cats.zip").catalog()


def test_a_class_of_unread_photos_keeps_its_place(tmp_path: Path) -> None:
    catalog = source(tmp_path, "folder", "cat/1.png", "dog/2.png", "bird/3.heic").catalog()
    assert catalog.labels["class"].classes == ("bird", "cat", "dog")
    assert "class 'bird' has no photo" in said(catalog)


def test_an_index_that_is_not_read_is_told(tmp_path: Path) -> None:
    assert "'index.csv' is not read: data 'index' does that" in said(
        source(tmp_path, "folder", "cat/1.png", "index.csv").catalog()
    )


# links


def test_links_to_folders_and_photos_are_followed(tmp_path: Path) -> None:
    write_folder(tmp_path / "elsewhere", {"1.png": PHOTO, "deep/2.png": PHOTO})
    found = source(tmp_path, "folder", "dog/3.png")
    (tmp_path / "set/cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/dog/4.png").symlink_to(tmp_path / "elsewhere/1.png")
    catalog = found.catalog()
    assert catalog.names == ("cat/1.png", "cat/deep/2.png", "dog/3.png", "dog/4.png")
    assert catalog.labels["class"].values.tolist() == [0, 0, 1, 1]
    assert len(found.read([0, 3], 8).images) == 2


def test_two_classes_may_be_links_to_one_folder(tmp_path: Path) -> None:
    write_folder(tmp_path / "elsewhere", {"1.png": PHOTO})
    found = source(tmp_path, "folder")
    for name in ("a", "b"):
        (tmp_path / "set" / name).symlink_to(tmp_path / "elsewhere")
    assert found.catalog().names == ("a/1.png", "b/1.png")
    deep = source(tmp_path / "deep", "folder", "photos/test/c/1.png")
    (tmp_path / "deep/set/photos/train").mkdir()
    for name in ("a", "b"):
        (tmp_path / "deep/set/photos/train" / name).symlink_to(tmp_path / "elsewhere")
    names = ("photos/test/c/1.png", "photos/train/a/1.png", "photos/train/b/1.png")
    assert deep.catalog().names == names


@pytest.mark.parametrize("target", [".", "..", "../..", "/", "../cat"])
def test_a_loop_is_read_once_and_told(tmp_path: Path, target: str) -> None:
    found = source(tmp_path, "folder", "cat/1.png", "dog/2.png")
    (tmp_path / "set/cat/again").symlink_to(target)
    catalog = found.catalog()
    assert catalog.names == ("cat/1.png", "dog/2.png")
    assert "left out 1 link back to folders that were read already" in said(catalog)


def test_folders_that_all_link_to_each_other_end(tmp_path: Path) -> None:
    names = [f"{number:02d}" for number in range(12)]
    found = source(tmp_path, "folder", *(f"{name}/photo.png" for name in names))
    for name in names:
        for other in names:
            (tmp_path / "set" / name / f"to {other}").symlink_to(f"../{other}")
    assert {f"{name}/photo.png" for name in names} < set(found.catalog().names)


def test_broken_links_are_counted(tmp_path: Path) -> None:
    found = source(tmp_path, "folder", "cat/1.png", "dog/2.png")
    (tmp_path / "set/cat/gone.png").symlink_to("nowhere.png")
    (tmp_path / "set/bird").symlink_to("nowhere")
    (tmp_path / "set/self").symlink_to("self")
    catalog = found.catalog()
    assert catalog.names == ("cat/1.png", "dog/2.png")
    assert "left out 3 links to files or folders that are not there" in said(catalog)


# zips


def test_names_of_all_kinds_in_a_zip(tmp_path: Path) -> None:
    place = write_zip(tmp_path / "a.zip", {"photos\\cat\\1.png": PHOTO, "./photos//dog/2.png": PHOTO})
    catalog = Zip(str(place)).catalog()
    assert catalog.names == ("photos/cat/1.png", "photos/dog/2.png")
    assert catalog.labels["class"].classes == ("cat", "dog")
    assert len(Zip(str(place)).read([0, 1], 8).images) == 2


def test_names_that_a_zip_does_not_call_utf8(tmp_path: Path) -> None:
    place = write_zip(tmp_path / "a.zip", {"café/1.png": PHOTO, "dog/2.png": PHOTO})
    content = place.read_bytes()
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # headers of members, and the directory's
        position = content.index(mark)
        flags = position + offset
        content = content[:flags] + b"\0\0" + content[flags + 2 :]
    place.write_bytes(content)
    with zipfile.ZipFile(place) as archive:
        assert archive.namelist()[0] == "caf├⌐/1.png"  # what Python takes it for
    assert Zip(str(place)).catalog().labels["class"].classes == ("café", "dog")
    assert len(Zip(str(place)).read([0], 8).images) == 1


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    place = write_zip(tmp_path / "a.zip", {"cat/1.png": PHOTO})
    content = bytearray(place.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    place.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"is encrypted; unpack it"):
        Zip(str(place)).catalog()


def test_links_in_a_zip_are_counted(tmp_path: Path) -> None:
    place = write_zip(tmp_path / "a.zip", {"cat/1.png": PHOTO, "dog/2.png": PHOTO})
    link = zipfile.ZipInfo("dog/3.png")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(place, "a") as archive:
        archive.writestr(link, "../cat/1.png")
    catalog = Zip(str(place)).catalog()
    assert catalog.names == ("cat/1.png", "dog/2.png")
    assert "left out 1 link: those in a zip are not followed" in said(catalog)


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip", b"PK\x05\x06" + bytes(17)])
def test_what_is_no_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InvalidInputError, match="is no readable zip file"):
        Zip(str(tmp_path / "a.zip")).catalog()


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_in_the_one_folder_around_everything_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    files = {"photos/x/1.png": PHOTO, "photos/index.csv": b"path,label\nx/1.png,a\n", "notes.txt": b""}
    place = write_zip(tmp_path / "set.zip", files) if kind == "zip" else write_folder(tmp_path / "set", files)
    monkeypatch.chdir(tmp_path)
    assert data_setting(place.name) == {"name": "index", "path": place.name}
    catalog = Index(str(place)).catalog()
    assert catalog.names == ("photos/x/1.png",)
    assert len(Index(str(place)).read([0], 8).images) == 1


def test_places_are_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_zip(tmp_path / "set.zip", {"photos/cat/1.png": PHOTO})
    (tmp_path / "set.zip").rename(tmp_path / "download")
    assert data_setting("download") == {"name": "zip", "path": "download"}
    write_folder(tmp_path / "set", {"cat/1.png": PHOTO, "cat/index.csv/2.png": PHOTO})
    assert data_setting("set") == {"name": "folder", "path": "set"}


# fingerprints


def test_whatever_changes_the_catalogue_changes_the_fingerprint(tmp_path: Path) -> None:
    found = source(tmp_path, "folder", "cat/1.png", "dog/2.png")
    fingerprints = [found.fingerprint()]
    (tmp_path / "set/bird").mkdir()
    fingerprints.append(found.fingerprint())
    (tmp_path / "set/cat").rename(tmp_path / "set/cow")
    fingerprints.append(found.fingerprint())
    (tmp_path / "set/cow/new.tif").write_bytes(PHOTO)
    fingerprints.append(found.fingerprint())
    (tmp_path / "set/cow/new.heic").write_bytes(PHOTO)
    fingerprints.append(found.fingerprint())
    fingerprints.append(Folder(found.path, folders="classes").fingerprint())
    assert len(set(fingerprints)) == 6
    os.utime(tmp_path / "set/bird", (1, 1))
    (tmp_path / "set").rename(tmp_path / "moved")
    assert Folder(str(tmp_path / "moved")).fingerprint() == fingerprints[4]


def test_names_that_no_terminal_shows_stay_on_their_line(tmp_path: Path) -> None:
    found = source(tmp_path, "folder", "cat/1.png")
    os.makedirs(os.fsencode(tmp_path / "set") + b"/two\nlines \xe9")
    (tmp_path / "set/cat/a\nb.png").write_bytes(b"")
    catalog = found.catalog()
    assert "class 'two\\nlines \\udce9' has no photo" in said(catalog)
    with pytest.raises(InvalidInputError, match=r"photo 'cat/a\\nb\.png' is unreadable \(the file is empty\)"):
        found.read([0, 1], 8)
