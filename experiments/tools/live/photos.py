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
        InvalidInputError: no folder, or no photo in it, or less than none is asked for; when it comes to it, an
            unreadable photo.
    """
    if count is not None and count < 0:
        raise InvalidInputError(f"count = {count}: as many photos cannot be sent")
    return itertools.islice(_faces(size) if folder is None else _files(folder, _names(folder), size), count)


def _faces(size: int) -> Iterator[Array]:
    source = Faces(seed=SEED)
    for number in itertools.cycle(range(source.photos)):
        face: Array = source.read([number], size).images[0].numpy()
        yield face


def _names(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise InvalidInputError(f"no folder of photos at {folder.absolute()}")
    with FolderFiles(folder) as files:
        names = files.listing().photos
    if not names:
        raise InvalidInputError(f"no photos in {folder.absolute()}")
    return names


def _files(folder: Path, names: tuple[str, ...], size: int) -> Iterator[Array]:
    for name in itertools.cycle(names):
        yield read_photo(folder / name, size).transpose(2, 0, 1)
