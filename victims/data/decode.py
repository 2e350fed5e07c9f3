"""How a photo file becomes an upright square of pixels, and what is refused as unreadable."""

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from splitleak.victims.data.base import Pixels
from splitleak.victims.errors import InvalidInputError

OnCorrupt = Literal["refuse", "skip"]

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
"""What Pillow may try; its other readers (some start other programs) stay out of reach of a data set."""

MAX_PIXELS = 64 * 2**20
"""Width x height above which a photo is not decoded: its header may promise more than memory holds."""

MAX_BYTES = 4 * MAX_PIXELS
"""A file larger than an uncompressed photo of MAX_PIXELS with four channels is not read."""

MAX_THREADS = 8

UNREADABLE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    RuntimeError,  # zipfile's complaint about an encrypted member, or one in an unknown compression
    Image.DecompressionBombError,
)
"""What Pillow and zipfile raise on damaged or hostile files."""


def square(image: Image.Image, size: int) -> npt.NDArray[np.uint8]:
    """The central square of an image at ``size`` pixels, bicubic with antialias: uint8 (size, size, 3), RGB.

    Nothing is resampled where the central square already has that size.
    """
    if image.mode.startswith("I;16"):  # Pillow's own conversion clips 16 bits to 8 and turns most of it white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    if side != size:
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def decode(content: bytes, size: int) -> npt.NDArray[np.uint8]:
    """Decode one photo file as an upright RGB square: uint8 (size, size, 3).

    Raises:
        any of UNREADABLE: no photo in one of FORMATS, damaged, or more than MAX_PIXELS.
    """
    with Image.open(BytesIO(content), formats=FORMATS) as image:  # reads the header only
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"declares {image.width}x{image.height} pixels, the limit is {MAX_PIXELS}")
        return square(ImageOps.exif_transpose(image), size)


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
        raise InvalidInputError(f"no photo at {path.absolute()}")
    try:
        return decode(read_file(path), size)
    except UNREADABLE as error:
        raise InvalidInputError(f"photo {path} is unreadable ({_reason(error)})") from error


def _reason(error: Exception) -> object:
    """Why a photo is unreadable; Pillow's own words for a file that is none only name an object in memory."""
    return f"no {', '.join(FORMATS)} image" if isinstance(error, UnidentifiedImageError) else error


def decode_photos(names: Sequence[str], content: Callable[[str], bytes], size: int, on_corrupt: OnCorrupt) -> Pixels:
    """Decode photos in a few threads (Pillow releases the interpreter while it decodes), keeping their order.

    ``content``: a photo's name -> its file's bytes; called from several threads at once.

    Raises:
        InvalidInputError: a photo is unreadable and ``on_corrupt`` is "refuse"; names the photo.
    """
    images = torch.empty((len(names), 3, size, size), dtype=torch.uint8)
    rows = images.numpy()

    def fill(position: int) -> bool:
        try:
            photo = decode(content(names[position]), size)
        except UNREADABLE as error:
            if on_corrupt == "skip":
                return False
            raise InvalidInputError(
                f"photo '{names[position]}' is unreadable ({_reason(error)}); "
                'repair or remove it, or set on_corrupt = "skip"'
            ) from error
        rows[position] = photo.transpose(2, 0, 1)
        return True

    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        readable = torch.tensor(list(pool.map(fill, range(len(names)))), dtype=torch.bool)
    if readable.all():
        return Pixels(images)
    return Pixels(images[readable], tuple((~readable).nonzero().flatten().tolist()))
