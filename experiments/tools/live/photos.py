"""What the camera sees: photos of a folder, or the built-in faces."""

import itertools
from collections.abc import Iterator
from pathlib import Path

from splitleak.experiments.tools.deploy.runtime import Array
from splitleak.victims.data.containers import FolderFiles
from splitleak.victims.data.decode import read_photo
from splitleak.victims.data.sources.faces import Faces
from splitleak.victims.errors import InvalidInputError

SEED = 20_011
"""Of the faces: other people than those of a run, whose seed is 0 unless it says otherwise."""


def photos_of(folder: Path | None, size: int, count: int | None) -> Iterator[Array]:
    """Uint8 (3, size, size), ``count`` of them (None: without end); a folder with fewer begins anew.

    Raises:
        InvalidInputError: no folder, no photo in it, or an unreadable one.
    """
    endless = _faces(size) if folder is None else _files(folder, size)
    return itertools.islice(endless, count)


def _faces(size: int) -> Iterator[Array]:
    source = Faces(seed=SEED)
    for number in itertools.cycle(range(source.photos)):
        face: Array = source.read([number], size).images[0].numpy()
        yield face


def _files(folder: Path, size: int) -> Iterator[Array]:
    if not folder.is_dir():
        raise InvalidInputError(f"no folder of photos at {folder.absolute()}")
    with FolderFiles(folder) as files:
        names = files.listing().photos
    if not names:
        raise InvalidInputError(f"no photos in {folder.absolute()}")
    for name in itertools.cycle(names):
        yield read_photo(folder / name, size).transpose(2, 0, 1)
