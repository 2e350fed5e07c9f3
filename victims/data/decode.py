"""How a photo file becomes an upright square of pixels, and what is refused as unreadable."""

import os
import stat
import struct
import threading
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFile, UnidentifiedImageError, features

from splitleak.victims.data.base import Pixels
from splitleak.victims.data.colours import fit_transparent_colour, to_rgb
from splitleak.victims.data.notes import shown
from splitleak.victims.errors import InvalidInputError

OnCorrupt = Literal["refuse", "skip"]

FORMATS: Mapping[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    **({"AVIF": (".avif",)} if "avif" in features.modules and features.check("avif") else {}),
}
"""What Pillow may try, with the extensions of such files; its other readers (some start other programs) stay out of
reach of a data set."""

EXTENSIONS = frozenset(extension for extensions in FORMATS.values() for extension in extensions)

MAX_PIXELS = 256 * 2**20
"""Width x height above which a photo is not decoded: its header may promise more than memory holds."""

LARGE = 64 * 2**20
"""Width x height above which photos are decoded one at a time, and those that are JPEG at a reduced scale."""

MAX_BYTES = 4 * MAX_PIXELS
"""A file larger than an uncompressed photo of MAX_PIXELS with four channels is not read."""

MAX_THREADS = 8

ORIENTATION = 0x0112
"""The tag of EXIF 2.3 that says how the camera was held."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a photo upright, by its orientation."""
ON_ITS_SIDE = frozenset(UPRIGHT[orientation] for orientation in (5, 6, 7, 8))
"""Of these the ones that swap its width and height."""

ON_WHITE = "with transparency, shown on white"
PROFILE = "with a colour profile other than sRGB, read as if they had none"
FIRST = "of several frames or pages, of which the first is read"

UNREADABLE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    RuntimeError,  # zipfile's complaint about an encrypted member, or one in an unknown compression
    Image.DecompressionBombError,
)
"""What Pillow and zipfile raise on damaged or hostile files."""

_pillow = threading.Lock()
"""Held by whoever has put Pillow's own limit aside."""


class Decoded(NamedTuple):
    """A photo, uint8 (size, size, 3), RGB, and what a viewer would not expect of it."""

    pixels: npt.NDArray[np.uint8]
    remarks: tuple[str, ...]


def square(image: Image.Image, size: int) -> npt.NDArray[np.uint8]:
    """The central square of an image at ``size`` pixels, bicubic with antialias: uint8 (size, size, 3), RGB.

    Nothing is resampled where the central square already has that size.
    """
    image, _ = to_rgb(image)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    if side != size:
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def decode(content: bytes, size: int) -> Decoded:
    """Decode one photo file as an upright RGB square.

    Raises:
        any of UNREADABLE: no photo in one of FORMATS, damaged, or more than MAX_PIXELS.
    """
    if not content:
        raise ValueError("the file is empty")
    with _without_pillows_limit():
        image = Image.open(BytesIO(content), formats=tuple(FORMATS))  # reads the header only
    with image:
        pixels = image.width * image.height
        if not pixels:
            raise ValueError(f"declares {image.width}x{image.height} pixels")
        if pixels > MAX_PIXELS:
            raise ValueError(
                f"declares {image.width}x{image.height} pixels, the limit is {MAX_PIXELS // 10**6} megapixels"
            )
        if pixels <= LARGE:
            return _upright(image, size)
        with _without_pillows_limit():
            image.draft(None, (2 * size, 2 * size))  # JPEG can be decoded at an eighth of its size, others stay
            return _upright(image, size)


@contextmanager
def _without_pillows_limit() -> Iterator[None]:
    """MAX_PIXELS takes the place of Pillow's own limit, which is one for the whole process."""
    with _pillow:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _upright(image: ImageFile.ImageFile, size: int) -> Decoded:
    remarks = [FIRST] if image.format != "MPO" and _has_frames(image) else []  # a phone's MPO adds only a preview
    fit_transparent_colour(image)
    image.load()
    turn = _turn(image)
    plain, transparent = to_rgb(image)
    remarks += [ON_WHITE] if transparent else []
    remarks += [PROFILE] if _has_profile(image) else []
    return Decoded(square(plain if turn is None else plain.transpose(turn), size), tuple(remarks))


def upright_size(content: bytes) -> tuple[int, int]:
    """Width and height of a photo as it is shown; its pixels are not decoded.

    Raises:
        any of UNREADABLE: it is no photo.
    """
    with _without_pillows_limit(), Image.open(BytesIO(content)) as image:
        turn = _turn(image)
        return image.size[::-1] if turn in ON_ITS_SIDE else image.size


def _has_profile(image: Image.Image) -> bool:
    """Whether the photo's numbers mean other colours than those of a screen, by the name that its profile has."""
    profile = image.info.get("icc_profile") or b"sRGB"
    return b"sRGB" not in profile.replace(b"\0", b"")  # a name may be written in UTF-16


def _has_frames(image: ImageFile.ImageFile) -> bool:
    with suppress(*UNREADABLE):  # of a later frame
        return bool(getattr(image, "is_animated", False))
    return False


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What makes a photo upright; no tag but the orientation is looked at, so none that is odd stands in the way."""
    with suppress(*UNREADABLE):
        found: Any = image.getexif().get(ORIENTATION)
        return UPRIGHT.get(int(found[0] if isinstance(found, tuple | bytes) else found))
    return None


def check_bytes(count: int) -> None:
    """Refuse a file of so many bytes where that is more than MAX_BYTES.

    Raises:
        ValueError: it is (one of UNREADABLE).
    """
    if count > MAX_BYTES:
        raise ValueError(f"{count} bytes, the limit is {MAX_BYTES}")


def read_file(path: Path) -> bytes:
    """The bytes of a file of bounded size.

    Raises:
        any of UNREADABLE: no regular file, more than MAX_BYTES, or what the system complains of.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe would block for ever
        raise OSError("not a regular file")
    check_bytes(status.st_size)
    return path.read_bytes()


def read_photo(path: Path, size: int) -> npt.NDArray[np.uint8]:
    """One photo file as photos of a data set are read: uint8 (size, size, 3).

    Raises:
        InvalidInputError: there is no such file, or it is unreadable.
    """
    if not path.is_file():
        raise InvalidInputError(f"no photo at {shown(str(path.absolute()))}")
    try:
        with _quiet():
            return decode(read_file(path), size).pixels
    except UNREADABLE as error:
        raise InvalidInputError(f"photo {shown(str(path))} is unreadable ({_reason(error)})") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Pillow's warnings, of odd tags and sizes, are no news: what they lead to is said by this module."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _reason(error: Exception) -> str:
    """Why a photo is unreadable; Pillow's own words for a file that is none only name an object in memory."""
    if isinstance(error, UnidentifiedImageError):
        return f"no {', '.join(FORMATS)} image"
    return shown(str(error)) or type(error).__name__


def decode_photos(names: Sequence[str], content: Callable[[str], bytes], size: int, on_corrupt: OnCorrupt) -> Pixels:
    """Decode photos in a few threads (Pillow releases the interpreter while it decodes), keeping their order.

    ``content``: a photo's name -> its file's bytes; called from several threads at once.

    Raises:
        InvalidInputError: a photo is unreadable and ``on_corrupt`` is "refuse"; names the photo.
    """
    images = torch.empty((len(names), 3, size, size), dtype=torch.uint8)
    rows = images.numpy()

    def fill(position: int) -> tuple[str, ...] | None:
        try:
            photo = decode(content(names[position]), size)
        except UNREADABLE as error:
            if on_corrupt == "skip":
                return None
            raise InvalidInputError(
                f"photo '{shown(names[position])}' is unreadable ({_reason(error)}); "
                'repair or remove it, or set on_corrupt = "skip"'
            ) from error
        rows[position] = photo.pixels.transpose(2, 0, 1)
        return photo.remarks

    with _quiet(), ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        found = list(pool.map(fill, range(len(names))))
    corrupt = tuple(position for position, remarks in enumerate(found) if remarks is None)
    remarks = Counter(remark for of in found if of is not None for remark in of)
    if not corrupt:
        return Pixels(images, remarks=remarks)
    readable = torch.ones(len(names), dtype=torch.bool)
    readable[list(corrupt)] = False
    return Pixels(images[readable], corrupt, remarks)
