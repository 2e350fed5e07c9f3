"""Sources in torchvision's layouts, on small files that torchvision itself accepts as whole."""

import hashlib
import os
import pickle
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from splitleak.victims.data.base import Source
from splitleak.victims.data.sources.torchvision_sets import CIFAR10, CelebA, FashionMNIST, LFWPeople
from splitleak.victims.errors import InvalidInputError


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def photo(path: Path, seed: int, size: int = 20) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=95)


ATTRIBUTES = [f"Attribute_{index}" for index in range(39)] + ["Young"]


@pytest.fixture
def celeba(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "celeba"
    names = [f"{index:06d}.jpg" for index in range(1, 7)]
    for seed, name in enumerate(names):
        photo(folder / "img_align_celeba" / name, seed)

    def table(file: str, rows: list[list[int]], header: list[str] | None = None) -> None:
        lines = [f"{name}  {' '.join(map(str, row))}" for name, row in zip(names, rows, strict=True)]
        # the published attribute list ends its header line with a blank
        top = [] if header is None else [str(len(names)), " ".join(header) + " "]
        (folder / file).write_text("\n".join([*top, *lines]) + "\n")

    signs = np.where(np.arange(6)[:, None] % 2 == np.arange(40) % 2, 1, -1)
    table("list_attr_celeba.txt", signs.tolist(), ATTRIBUTES)
    table("identity_CelebA.txt", [[7], [7], [8], [8], [9], [9]])
    table("list_eval_partition.txt", [[0], [0], [1], [1], [2], [2]])
    table("list_bbox_celeba.txt", [[1, 2, 3, 4]] * 6, ["x_1", "y_1", "width", "height"])
    table("list_landmarks_align_celeba.txt", [list(range(10))] * 6, [f"p{index}" for index in range(10)])
    listed = [
        (identifier, md5(folder / name) if name.endswith(".txt") else checksum, name)
        for identifier, checksum, name in datasets.CelebA.file_list
    ]
    monkeypatch.setattr(datasets.CelebA, "file_list", listed)
    return tmp_path


@pytest.fixture
def lfw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "lfw-py"
    people = {"Ada_L": 2, "Bob_M": 1, "Cleo_N": 1}
    for person, count in people.items():
        for number in range(1, count + 1):
            photo(folder / "lfw_funneled" / person / f"{person}_{number:04d}.jpg", number)
    (folder / "lfw-names.txt").write_text("".join(f"{name}\t{count}\n" for name, count in people.items()))
    (folder / "people.txt").write_text("2\n2\nAda_L\t2\nCleo_N\t1\n1\nBob_M\t1\n")
    (folder / "lfw-funneled.tgz").write_bytes(b"archive")
    sums = datasets.LFWPeople.checksums | {name: md5(folder / name) for name in ("people.txt", "lfw-names.txt")}
    monkeypatch.setattr(datasets.LFWPeople, "checksums", sums)
    archive = ("lfw_funneled", "lfw-funneled.tgz", md5(folder / "lfw-funneled.tgz"))
    monkeypatch.setattr(datasets.LFWPeople, "file_dict", datasets.LFWPeople.file_dict | {"funneled": archive})
    return tmp_path


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    draw = np.random.default_rng(0)

    def write(name: str, content: dict[str, Any]) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return md5(folder / name)

    def batch(name: str) -> list[str]:
        content = {"data": draw.integers(0, 256, (3, 3072), dtype=np.uint8), "labels": [1, 0, 9]}
        return [name, write(name, content)]

    monkeypatch.setattr(datasets.CIFAR10, "train_list", [batch(f"data_batch_{index}") for index in range(1, 6)])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [batch("test_batch")])
    checksum = write("batches.meta", {"label_names": [f"kind {index}" for index in range(10)]})
    monkeypatch.setattr(datasets.CIFAR10, "meta", datasets.CIFAR10.meta | {"md5": checksum})
    return tmp_path


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for half, count in (("train", 4), ("t10k", 2)):
        images = draw.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        header = struct.pack(">4i", 0x803, count, 28, 28)
        (folder / f"{half}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = bytes(range(count))
        (folder / f"{half}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, count) + labels)
    return tmp_path


def test_celeba_has_attributes_identities_and_the_official_split(celeba: Path) -> None:
    source = CelebA(str(celeba))
    catalog = source.catalog()
    assert catalog.names[0] == "000001.jpg"
    assert list(catalog.labels) == ATTRIBUTES
    assert all(labels.classes == ("no", "yes") for labels in catalog.labels.values())
    assert catalog.labels["Attribute_0"].values.tolist() == [1, 0, 1, 0, 1, 0]
    assert catalog.labels["Young"].values.tolist() == [0, 1, 0, 1, 0, 1]
    assert catalog.identity is not None
    assert catalog.identity.tolist() == [7, 7, 8, 8, 9, 9]
    assert catalog.split == ("train", "train", "validation", "validation", "target", "target")
    with Image.open(celeba / "celeba/img_align_celeba/000005.jpg") as image:
        expected = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert torch.equal(source.read([4], 20).images[0], expected)


def test_celeba_skips_a_corrupt_photo_only_when_told(celeba: Path) -> None:
    (celeba / "celeba/img_align_celeba/000002.jpg").write_bytes(b"no image")
    with pytest.raises(InvalidInputError, match=r"000002\.jpg"):
        CelebA(str(celeba)).read([0, 1], 20)
    assert CelebA(str(celeba), on_corrupt="skip").read([0, 1], 20).corrupt == (1,)


def test_celeba_without_all_photos_is_refused(celeba: Path) -> None:
    (celeba / "celeba/img_align_celeba/000003.jpg").unlink()
    with pytest.raises(InvalidInputError, match=r"lacks 1 of 6 photos, first .*000003.jpg"):
        CelebA(str(celeba)).catalog()


@pytest.mark.parametrize(("kind", "fixture"), [(CelebA, "celeba"), (LFWPeople, "lfw")])
def test_a_missing_folder_of_photos_is_refused(
    kind: type[Source], fixture: str, request: pytest.FixtureRequest
) -> None:
    root: Path = request.getfixturevalue(fixture)
    folder = next(root.glob("*/img_align_celeba"), None) or next(root.glob("*/lfw_funneled"))
    folder.rename(root / "elsewhere")
    source = kind.from_mapping({"path": str(root)})
    for attempt in (source.catalog, source.fingerprint, lambda: source.read([0], 8)):
        with pytest.raises(InvalidInputError, match=rf"needs the folder {folder}; get it from"):
            attempt()


def test_lfw_has_identities_and_no_tasks(lfw: Path) -> None:
    source = LFWPeople(str(lfw))
    catalog = source.catalog()
    people = (
        "Ada_L/Ada_L_0001.jpg",
        "Ada_L/Ada_L_0002.jpg",
        "Cleo_N/Cleo_N_0001.jpg",
        "Bob_M/Bob_M_0001.jpg",
    )
    assert catalog.names == people
    assert catalog.identity is not None
    assert catalog.identity.tolist() == [0, 0, 2, 1]
    assert catalog.labels == {}
    assert catalog.split is None
    assert source.read([3, 0], 16).images.shape == (2, 3, 16, 16)


def test_cifar_keeps_its_test_set_as_targets(cifar: Path) -> None:
    source = CIFAR10(str(cifar))
    catalog = source.catalog()
    assert len(catalog) == 18
    assert catalog.names[0] == "train/00000"
    assert catalog.names[-1] == "test/00002"
    assert catalog.labels["class"].classes[9] == "kind 9"
    assert catalog.labels["class"].values.tolist() == [1, 0, 9] * 6
    assert catalog.split == ("train",) * 15 + ("target",) * 3
    batch = pickle.loads((cifar / "cifar-10-batches-py/test_batch").read_bytes())
    expected = torch.from_numpy(batch["data"]).view(3, 3, 32, 32)
    assert torch.equal(source.read([17, 15], 32).images, expected[[2, 0]])
    assert source.read([], 32).images.shape == (0, 3, 32, 32)


def test_fashion_mnist_becomes_rgb(fashion: Path) -> None:
    source = FashionMNIST(str(fashion))
    catalog = source.catalog()
    assert catalog.split == ("train",) * 4 + ("target",) * 2
    assert catalog.labels["class"].classes[1] == "Trouser"
    assert catalog.labels["class"].values.tolist() == [0, 1, 2, 3, 0, 1]
    images = source.read([5, 0], 28).images
    raw = (fashion / "FashionMNIST/raw/t10k-images-idx3-ubyte").read_bytes()
    last = torch.frombuffer(bytearray(raw[-784:]), dtype=torch.uint8).view(28, 28)
    assert torch.equal(images[0], last.expand(3, 28, 28))


CASES = [
    (CelebA, "celeba", "celeba/list_attr_celeba.txt"),
    (LFWPeople, "lfw", "lfw-py/people.txt"),
    (CIFAR10, "cifar", "cifar-10-batches-py/data_batch_2"),
    (FashionMNIST, "fashion", "FashionMNIST/raw/t10k-labels-idx1-ubyte"),
]


@pytest.mark.parametrize(("kind", "fixture", "file"), CASES)
def test_a_missing_file_and_a_missing_root_say_how_to_get_the_data(
    kind: type[Source], fixture: str, file: str, request: pytest.FixtureRequest
) -> None:
    root: Path = request.getfixturevalue(fixture)
    source = kind.from_mapping({"path": str(root)})
    (root / file).unlink()
    for attempt in (source.catalog, source.fingerprint, lambda: source.read([0], 8)):
        with pytest.raises(InvalidInputError, match=rf"needs the file {root / file}; .*https://"):
            attempt()
    with pytest.raises(InvalidInputError, match=r"not found: looked for .*nowhere"):
        kind.from_mapping({"path": str(root / "nowhere")}).catalog()


@pytest.mark.parametrize(("kind", "fixture", "file"), CASES[:3])
def test_a_changed_file_is_refused_by_its_checksum(
    kind: type[Source], fixture: str, file: str, request: pytest.FixtureRequest
) -> None:
    root: Path = request.getfixturevalue(fixture)
    with (root / file).open("ab") as opened:
        opened.write(b"\n")
    with pytest.raises(InvalidInputError, match=f"{file} differs from the published file"):
        kind.from_mapping({"path": str(root)}).catalog()


@pytest.mark.parametrize("file", ["t10k-labels-idx1-ubyte", "train-images-idx3-ubyte"])
def test_a_cut_fashion_mnist_file_is_refused(fashion: Path, file: str) -> None:
    path = fashion / "FashionMNIST/raw" / file
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InvalidInputError, match="fashion_mnist is unreadable"):
        FashionMNIST(str(fashion)).catalog()


@pytest.mark.parametrize(("kind", "fixture", "file"), CASES)
def test_fingerprint_follows_the_content_of_the_files(
    kind: type[Source],
    fixture: str,
    file: str,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    root: Path = request.getfixturevalue(fixture)
    source = kind.from_mapping({"path": str(root)})
    before = source.fingerprint()
    for path in root.rglob("*"):
        os.utime(path, ns=(0, 1))
    assert source.fingerprint() == before
    copy = shutil.copytree(root, root.with_name(f"{root.name}_copy"))
    assert kind.from_mapping({"path": str(copy)}).fingerprint() == before
    with (root / file).open("ab") as opened:
        opened.write(b"\n")
    assert source.fingerprint() != before


@pytest.mark.parametrize(("kind", "fixture"), [(CelebA, "celeba"), (LFWPeople, "lfw")])
def test_fingerprint_follows_the_photos_and_nothing_beside(
    kind: type[Source], fixture: str, request: pytest.FixtureRequest
) -> None:
    root: Path = request.getfixturevalue(fixture)
    source = kind.from_mapping({"path": str(root)})
    before = source.fingerprint()
    one = next(root.rglob("*.jpg"))
    (one.parent / "._thumbnails.jpg").write_bytes(b"left by a file manager")
    assert source.fingerprint() == before
    one.write_bytes(one.read_bytes()[:-1] + b"?")
    assert source.fingerprint() != before


def test_names_are_torchvisions() -> None:
    kinds = (CelebA, LFWPeople, CIFAR10, FashionMNIST)
    assert [kind.name for kind in kinds] == ["celeba", "lfw_people", "cifar10", "fashion_mnist"]
