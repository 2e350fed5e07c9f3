"""Data sets in the layouts of torchvision.datasets, read by its own code; nothing is ever downloaded."""

import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import MinLen
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from splitleak.victims.contents import digest
from splitleak.victims.data.base import Catalog, Labels, Pixels, Source
from splitleak.victims.data.containers import FolderFiles
from splitleak.victims.data.decode import OnCorrupt, decode_photos, square
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.files import DATA_VARIABLE, find_file
from splitleak.victims.settings import doc

FileList = list[tuple[str, str | None]]
"""Files below the root, each with its published MD5, or None where torchvision knows none."""


@dataclass(frozen=True)
class TorchvisionSet(Source):
    """A data set that torchvision.datasets reads."""

    places: ClassVar[frozenset[str]] = frozenset({"path"})

    path: Annotated[str, MinLen(1), doc("torchvision's root folder; also looked for below SPLITLEAK_DATA")]

    how_to_get: ClassVar[str]
    """A page or a command; ends the error when the data set is missing."""

    @abstractmethod
    def _files(self) -> FileList:
        """The files that torchvision opens."""

    @abstractmethod
    def _load(self, root: Path) -> Any:
        """torchvision's data set; raises what torchvision raises where a file is missing or damaged."""

    def _root(self) -> Path:
        return find_file(self.path, f"root folder of {self.name} ({self.how_to_get})", DATA_VARIABLE)

    def _content(self) -> str:
        """A digest of the names and bytes of the files that torchvision opens."""
        root = self._root()
        names = [name for name, _ in self._files()]
        for name in names:
            if not (root / name).is_file():
                raise InvalidInputError(f"{self.name} needs the file {root / name}; {self.how_to_get}")
        return FolderFiles(root).fingerprint(names)

    def _data(self) -> Any:
        return _loaded(self, self._root(), self._content())

    def _checked(self, root: Path) -> Any:
        try:
            return self._load(root)
        except (RuntimeError, ValueError, IndexError, KeyError, AssertionError, EOFError, OSError) as error:
            # torchvision says that something is wrong, not with which file
            damaged = [str(root / name) for name, md5 in self._files() if not check_integrity(root / name, md5)]
            what = f"{damaged[0]} differs from the published file" if damaged else str(error)
            raise InvalidInputError(f"{self.name} is unreadable: {what}; {self.how_to_get}") from error

    def fingerprint(self) -> str:
        """A digest of the settings and of the files' names and bytes."""
        return digest(self.name, self.choices(), self._content())


@lru_cache(maxsize=1)  # a catalogue and the reads of four parts share one pass over the files
def _loaded(source: TorchvisionSet, root: Path, content: str) -> Any:
    return source._checked(root)


@dataclass(frozen=True)
class PhotosOfTorchvision(TorchvisionSet):
    """One whose photos are separate files below a folder."""

    on_corrupt: Annotated[
        OnCorrupt, doc("an unreadable photo is an error (refuse), or left out and counted (skip)")
    ] = "refuse"

    @abstractmethod
    def _folder(self) -> Path:
        """The photos' folder."""

    @abstractmethod
    def _names(self) -> tuple[str, ...]:
        """The photos' paths below their folder, in torchvision's order."""

    def _photos(self) -> FolderFiles:
        folder = self._folder()
        if not folder.is_dir():
            raise InvalidInputError(f"{self.name} needs the folder {folder}; {self.how_to_get}")
        return FolderFiles(folder)

    def _complete(self) -> tuple[str, ...]:
        """The names, once all photos are known to be there."""
        names, photos = self._names(), self._photos()
        present = set(photos.listing().files)
        missing = [name for name in names if name not in present]
        if missing:
            first = photos.place / missing[0]
            raise InvalidInputError(
                f"{self.name} lacks {len(missing)} of {len(names)} photos, first {first}; {self.how_to_get}"
            )
        return names

    def fingerprint(self) -> str:
        """A digest of the settings and of the names and bytes of all photos and lists."""
        photos = self._photos()
        return digest(self.name, self.choices(), self._content(), photos.fingerprint(photos.listing().photos))

    def read(self, chosen: Sequence[int], size: int) -> Pixels:
        """Decode the chosen photos: upright, central square, bicubic with antialias to ``size``."""
        names = self._names()
        return decode_photos([names[index] for index in chosen], self._photos().content, size, self.on_corrupt)


@dataclass(frozen=True)
class CelebA(PhotosOfTorchvision):
    """CelebFaces Attributes: Liu, Luo, Wang, Tang, ICCV 2015. 202,599 photos of 10,177 people.

    Forty yes/no tasks, identities, and the authors' split, which no person crosses.
    """

    name: ClassVar[str] = "celeba"
    summary: ClassVar[str] = "CelebA: 202,599 aligned faces, 40 attributes, identities, official split"
    how_to_get: ClassVar[str] = (
        "get it from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html or with "
        "torchvision.datasets.CelebA(root, download=True)"
    )

    def _files(self) -> FileList:
        listed = [(name, md5) for _, md5, name in datasets.CelebA.file_list if name.endswith(".txt")]
        return [(f"{datasets.CelebA.base_folder}/{name}", md5) for name, md5 in listed]

    def _load(self, root: Path) -> Any:
        self._photos()  # torchvision's own complaint would not name the folder
        return datasets.CelebA(root, split="all")

    def _folder(self) -> Path:
        return self._root() / str(datasets.CelebA.base_folder) / "img_align_celeba"

    def _names(self) -> tuple[str, ...]:
        return tuple(self._data().filename)

    def catalog(self) -> Catalog:
        """Photos in the official order; one task per attribute with classes "no" and "yes"."""
        names = self._complete()
        data = self._data()
        # torchvision keeps the split only as a selection of photos, not as a list
        partition = (self._root() / datasets.CelebA.base_folder / "list_eval_partition.txt").read_text()
        parts = ("train", "validation", "target")
        split = dict(line.split() for line in partition.splitlines() if line.strip())
        # the attributes' header line ends in a blank, so torchvision has one name too many
        attributes = zip(data.attr_names, data.attr.unbind(1), strict=False)
        return Catalog(
            names,
            {attribute: Labels(values.clone(), ("no", "yes")) for attribute, values in attributes},
            data.identity.flatten(),
            tuple(parts[int(split[name])] for name in names),
        )


@dataclass(frozen=True)
class LFWPeople(PhotosOfTorchvision):
    """Labeled Faces in the Wild: Huang, Ramesh, Berg, Learned-Miller, 2007. 13,233 photos of 5,749 people.

    Identities only. Its ten folds are a protocol for pairs of photos, not parts, so no split is given.
    """

    name: ClassVar[str] = "lfw_people"
    summary: ClassVar[str] = "Labeled Faces in the Wild: 13,233 faces of 5,749 people, identities"
    how_to_get: ClassVar[str] = (
        "get it from https://www.kaggle.com/datasets/jessicali9530/lfw-dataset "
        "and lay it out as torchvision.datasets.LFWPeople describes"
    )

    image_set: Annotated[Literal["original", "funneled", "deepfunneled"], doc("how the photos were aligned")] = (
        "funneled"
    )

    def _files(self) -> FileList:
        lfw = datasets.LFWPeople
        _, archive, md5 = lfw.file_dict[self.image_set]
        lists = [(name, lfw.checksums[name]) for name in ("people.txt", lfw.names)]
        return [(f"{lfw.base_folder}/{name}", md5) for name, md5 in [*lists, (archive, md5)]]

    def _load(self, root: Path) -> Any:
        return datasets.LFWPeople(str(root), split="10fold", image_set=self.image_set)

    def _folder(self) -> Path:
        photos: str = datasets.LFWPeople.file_dict[self.image_set][0]
        return self._root() / str(datasets.LFWPeople.base_folder) / photos

    def _names(self) -> tuple[str, ...]:
        return tuple(Path(path).relative_to(self._folder()).as_posix() for path in self._data().data)

    def catalog(self) -> Catalog:
        """Photos in the order of people.txt, named PERSON/PERSON_NNNN.jpg."""
        return Catalog(self._complete(), identity=torch.tensor(self._data().targets, dtype=torch.int64))


@dataclass(frozen=True)
class TrainAndTest(TorchvisionSet):
    """One that torchvision holds in memory as a train and a test half, with the task "class"."""

    def catalog(self) -> Catalog:
        """The train half (split "train"), then the test half (split "target")."""
        train, test = self._data()
        labels = torch.cat([torch.as_tensor(half.targets, dtype=torch.int64) for half in (train, test)])
        names = [f"train/{index:05d}" for index in range(len(train))]
        names += [f"test/{index:05d}" for index in range(len(test))]
        split = ("train",) * len(train) + ("target",) * len(test)
        return Catalog(tuple(names), {"class": Labels(labels, tuple(train.classes))}, split=split)

    def read(self, chosen: Sequence[int], size: int) -> Pixels:
        """The chosen images, grey ones in three equal channels, bicubic with antialias to ``size``."""
        images = torch.empty((len(chosen), 3, size, size), dtype=torch.uint8)
        rows = images.numpy()
        train, test = self._data()
        for row, index in enumerate(chosen):
            image, _ = train[index] if index < len(train) else test[index - len(train)]
            rows[row] = square(image, size).transpose(2, 0, 1)
        return Pixels(images)


@dataclass(frozen=True)
class CIFAR10(TrainAndTest):
    """CIFAR-10: Krizhevsky, 2009. 60,000 photos of ten kinds of things, 32 x 32."""

    name: ClassVar[str] = "cifar10"
    summary: ClassVar[str] = "CIFAR-10: 60,000 photos of 32 x 32, ten classes, official test set"
    how_to_get: ClassVar[str] = (
        "unpack https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz in the root folder, or use "
        "torchvision.datasets.CIFAR10(root, download=True)"
    )

    def _files(self) -> FileList:
        cifar = datasets.CIFAR10
        listed = [*cifar.train_list, *cifar.test_list, (cifar.meta["filename"], cifar.meta["md5"])]
        return [(f"{cifar.base_folder}/{name}", md5) for name, md5 in listed]

    def _load(self, root: Path) -> Any:
        return datasets.CIFAR10(root, train=True), datasets.CIFAR10(root, train=False)


@dataclass(frozen=True)
class FashionMNIST(TrainAndTest):
    """Fashion-MNIST: Xiao, Rasul, Vollgraf, 2017. 70,000 grey images of clothes, 28 x 28."""

    name: ClassVar[str] = "fashion_mnist"
    summary: ClassVar[str] = "Fashion-MNIST: 70,000 grey images of 28 x 28, ten classes, official test set"
    how_to_get: ClassVar[str] = (
        "get it from https://github.com/zalandoresearch/fashion-mnist or with "
        "torchvision.datasets.FashionMNIST(root, download=True)"
    )

    def _files(self) -> FileList:
        # torchvision publishes checksums of the compressed files only and keeps the others
        listed = [os.path.splitext(name)[0] for name, _ in datasets.FashionMNIST.resources]
        return [(f"FashionMNIST/raw/{name}", None) for name in listed]

    def _load(self, root: Path) -> Any:
        halves = datasets.FashionMNIST(root, train=True), datasets.FashionMNIST(root, train=False)
        for half in halves:
            if len(half.data) != len(half.targets):
                raise ValueError(f"{len(half.data)} images with {len(half.targets)} labels")
        return halves
