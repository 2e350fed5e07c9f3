"""Files are known by content, and each is read once."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from splitleak.victims import contents
from splitleak.victims.contents import contents_of
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.files import content_of


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write(folder: Path, **files: bytes) -> list[str]:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return list(files)


def with_old_time(path: Path, change: Callable[[], object]) -> None:
    """Make a change of which neither size nor modification time tells."""
    before = path.stat()
    change()
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # the file system's clock has steps
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the index will be; files need not be old to be recognised."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "CLOCK_STEP", 0)
    return tmp_path / "cache" / "splitleak" / "contents.json"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gets the name of each file that is read."""
    names: list[str] = []
    digest = hashlib.file_digest

    def counting(file: BinaryIO, algorithm: str) -> object:
        names.append(Path(file.name).name)
        return digest(file, algorithm)

    monkeypatch.setattr(hashlib, "file_digest", counting)
    return names


def forget() -> None:
    """As a new process does."""
    contents._index_at.cache_clear()


def test_content_is_that_of_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = write(tmp_path, a=b"one", b=b"two", c=b"one")
    assert contents_of(tmp_path, names) == [sha256(b"one"), sha256(b"two"), sha256(b"one")]
    assert contents_of(tmp_path, []) == []
    monkeypatch.chdir(tmp_path)
    assert contents_of(Path(), ["b"]) == [sha256(b"two")]
    assert content_of(Path("b")) == sha256(b"two")


def test_what_cannot_be_read_has_no_content(tmp_path: Path) -> None:
    write(tmp_path, a=b"one")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    assert contents_of(tmp_path, ["pipe", "a", "link", "folder", "gone"]) == [None, sha256(b"one"), None, None, None]
    with pytest.raises(InvalidInputError, match="gone is no file that can be read"):
        content_of(tmp_path / "gone")


def test_an_unchanged_file_is_read_once(tmp_path: Path, read: list[str]) -> None:
    names = write(tmp_path, a=b"one", b=b"two")
    found = contents_of(tmp_path, names)
    assert contents_of(tmp_path, names) == found
    forget()
    assert contents_of(tmp_path, names) == found
    assert content_of(tmp_path / "b") == found[1]
    assert read == ["a", "b"]


def test_only_what_is_touched_is_read_again(tmp_path: Path, read: list[str]) -> None:
    names = write(tmp_path, a=b"one", b=b"two")
    found = contents_of(tmp_path, names)
    os.utime(tmp_path / "b", ns=(0, 1))
    assert contents_of(tmp_path, names) == found
    assert contents_of(tmp_path, names) == found
    assert read == ["a", "b", "b"]


@pytest.mark.parametrize("moved", [False, True])
def test_a_change_is_noticed_that_keeps_size_and_time(tmp_path: Path, moved: bool) -> None:
    path = tmp_path / "a"
    write(tmp_path, a=b"one")
    assert contents_of(tmp_path, ["a"]) == [sha256(b"one")]

    def change() -> None:
        if moved:
            (tmp_path / "b").write_bytes(b"two")
            (tmp_path / "b").replace(path)
        else:
            path.write_bytes(b"two")

    with_old_time(path, change)
    assert contents_of(tmp_path, ["a"]) == [sha256(b"two")]


def test_a_link_that_leads_elsewhere_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, a=b"one", b=b"two")
    link = tmp_path / "link"
    for name, content in (("a", b"one"), ("b", b"two")):
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        assert contents_of(tmp_path, ["link"]) == [sha256(content)]


def test_a_file_that_changed_just_now_is_not_yet_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: Path
) -> None:
    monkeypatch.setattr(contents, "CLOCK_STEP", 3600 * 10**9)
    for content in (b"one", b"two", b"six"):
        write(tmp_path, a=content)
        assert contents_of(tmp_path, ["a"]) == [sha256(content)]
    assert not index.exists()


def test_a_file_that_changes_while_it_is_read_is_not_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: Path
) -> None:
    digest = hashlib.file_digest

    def disturbed(file: BinaryIO, algorithm: str) -> object:
        found = digest(file, algorithm)
        with_old_time(Path(file.name), lambda: Path(file.name).write_bytes(b"two"))
        return found

    write(tmp_path, a=b"one")
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", disturbed)
        assert contents_of(tmp_path, ["a"]) == [sha256(b"one")]
    assert not index.exists()
    assert contents_of(tmp_path, ["a"]) == [sha256(b"two")]


DAMAGED = [b"", b"{", b"[]", b"3", b"\xff\xfe", b"[" * 100_000, b'{"PATH": 3}', b'{"PATH": "12 34"}', b"STAMP"]


@pytest.mark.parametrize("damage", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_index_is_survived(tmp_path: Path, index: Path, read: list[str], damage: bytes) -> None:
    write(tmp_path, a=b"one")
    contents_of(tmp_path, ["a"])
    whole = index.read_bytes()
    if damage == b"STAMP":  # the content cut off
        index.write_text(json.dumps({path: one[:-1] for path, one in json.loads(whole).items()}))
    else:
        index.write_bytes(damage.replace(b"PATH", str(tmp_path / "a").encode()))
    forget()
    assert contents_of(tmp_path, ["a"]) == [sha256(b"one")]
    assert index.read_bytes() == whole
    assert read == ["a", "a"]


def test_without_a_place_for_the_index_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: list[str]
) -> None:
    write(tmp_path, a=b"one", blocked=b"")
    (tmp_path / "other" / "splitleak" / "contents.json").mkdir(parents=True)
    for caches in ("blocked", "other"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / caches))
        for _ in range(2):
            assert contents_of(tmp_path, ["a"]) == [sha256(b"one")]
    assert read == ["a", "a"]  # once for each place
    assert os.listdir(tmp_path / "other" / "splitleak") == ["contents.json"]


@pytest.mark.parametrize("variable", ["", "caches"])
def test_without_the_variable_the_index_is_in_the_users_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    write(tmp_path, a=b"one")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", variable)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    contents_of(tmp_path, ["a"])
    assert (tmp_path / "home/.cache/splitleak/contents.json").is_file()
    assert sorted(os.listdir(tmp_path)) == ["a", "home"]

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert contents_of(tmp_path, ["a"]) == [sha256(b"one")]


def test_files_that_are_gone_leave_the_index(tmp_path: Path, index: Path) -> None:
    contents_of(tmp_path, write(tmp_path, a=b"one", b=b"two"))
    (tmp_path / "a").unlink()
    contents_of(tmp_path, write(tmp_path, c=b"six"))
    assert [Path(path).name for path in json.loads(index.read_text())] == ["b", "c"]
    assert os.listdir(index.parent) == ["contents.json"]


def test_processes_add_to_what_others_have_found(tmp_path: Path, read: list[str], index: Path) -> None:
    names = write(tmp_path, a=b"one", b=b"two", c=b"six")
    first, second = contents._Index(index), contents._Index(index)
    for process, name in ((first, "a"), (second, "b"), (first, "c"), (second, "c"), (first, "b")):
        process.contents_of([str(tmp_path / name)])
    contents_of(tmp_path, names)
    assert read == ["a", "b", "c"]


def test_what_was_read_before_an_interrupt_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: list[str]
) -> None:
    names = write(tmp_path, a=b"one", b=b"two", c=b"six")
    counting = hashlib.file_digest

    def interrupted(file: BinaryIO, algorithm: str) -> object:
        if file.name.endswith("c"):
            raise KeyboardInterrupt
        return counting(file, algorithm)

    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", interrupted)
        with pytest.raises(KeyboardInterrupt):
            contents_of(tmp_path, names)
    forget()
    contents_of(tmp_path, names)
    assert read == ["a", "b", "c"]
