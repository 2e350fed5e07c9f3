"""How the pixels of any mode that Pillow reads become eight bits of red, green and blue."""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262
"""Tags of TIFF 6.0: the depth of a sample; whether 0 is white."""

GREYS = {"L;2": 85, "L;4": 17}
"""Pillow's names of a PNG's shallow greys, and by what it multiplies them to fill eight bits."""

SIXTEEN_BIT = ("PNG", "PPM")
"""Formats whose greys of 16 bits Pillow keeps in 32."""


def fit_transparent_colour(image: ImageFile.ImageFile) -> None:
    """Bring the one transparent colour of a PNG to the depth that its pixels will have; before they are decoded.

    Raises:
        ValueError: it has 16 bits a channel, of which Pillow keeps eight: other colours would become transparent too.
    """
    colour = image.info.get("transparency")
    raw = image.tile[0].args if image.format == "PNG" and image.tile else None
    if colour is None or not isinstance(raw, str):
        return
    if raw == "RGB;16B":
        raise ValueError("has 16 bits a channel and a transparent colour; save it with an alpha channel")
    if raw in GREYS:
        image.info["transparency"] = colour * GREYS[raw]


def to_rgb(image: Image.Image) -> tuple[Image.Image, bool]:
    """The image in mode RGB, on white where it is transparent, and whether it is so anywhere.

    More than eight bits are scaled to eight, never clipped.

    Raises:
        ValueError: whole numbers with a sign or of 32 bits, or fractions outside 0 to 1: none is known to be white.
    """
    mask = None
    if image.mode.startswith("I"):
        deep = _whole_numbers(image)
        if (colour := image.info.get("transparency")) is not None:
            mask = Image.fromarray(np.where(deep == colour, 0, 255).astype(np.uint8))
        image = Image.fromarray((deep >> 8).astype(np.uint8))
    elif image.mode == "F":
        image = Image.fromarray(_fractions(image))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        mask = image.getchannel("A")
    image = image if image.mode == "RGB" else image.convert("RGB")
    if mask is None or mask.getextrema() == (255, 255):
        return image, False
    return Image.composite(image, Image.new("RGB", image.size, "white"), mask), True


def _whole_numbers(image: Image.Image) -> npt.NDArray[np.uint16]:
    """Greys from 0 to 65535."""
    if image.mode == "I" and image.format not in SIXTEEN_BIT:
        raise ValueError("holds whole numbers with a sign or of 32 bits, of which none is known to be white")
    tags = getattr(image, "tag_v2", {})
    depth: int = tags.get(BITS_PER_SAMPLE, (16,))[0]
    values = np.asarray(image).astype(np.uint16) << np.uint16(16 - depth)
    return values if tags.get(PHOTOMETRIC, 1) else ~values


def _fractions(image: Image.Image) -> npt.NDArray[np.uint8]:
    values = np.asarray(image, np.float64)
    if not (values.min() >= 0 and values.max() <= 1):  # also where one is no number
        raise ValueError(f"holds fractions from {values.min():g} to {values.max():g}; white is 1, black is 0")
    values = values if getattr(image, "tag_v2", {}).get(PHOTOMETRIC, 1) else 1 - values
    return np.rint(values * 255).astype(np.uint8)
