"""How a photo file becomes a square of pixels."""

import numpy as np
import pytest
from pictures import bomb, encoded, picture
from PIL import Image

from splitleak.victims.data import decode as decoding
from splitleak.victims.data.decode import decode, square


def test_a_photo_of_the_right_size_is_not_touched() -> None:
    image = picture(1)
    assert np.array_equal(decode(encoded(image), 24).pixels, np.asarray(image))


def test_crop_is_central_and_resizing_smooths() -> None:
    wide = picture(2, width=31, height=24)
    assert np.array_equal(square(wide, 24), np.asarray(wide)[:, 3:27])
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (64, 32)))
    small = square(stripes, 16)
    assert small.shape == (16, 16, 3)
    assert np.abs(small.astype(int) - 127).max() <= 25  # without antialias: all black or all white


def test_exif_orientation_is_applied() -> None:
    image = picture(3)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    assert np.array_equal(decode(encoded(image, exif=exif), 24).pixels, np.rot90(np.asarray(image), -1))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((24, 24), 0x80FF, np.uint16))
    else:
        image = Image.new("L", (24, 24), 0x80).convert(mode)
    decoded = decode(encoded(image, "JPEG" if mode == "CMYK" else "PNG"), 24).pixels
    assert decoded.shape == (24, 24, 3)
    if mode != "1":
        assert np.abs(decoded.astype(int) - 0x80).max() <= 1


def test_a_declared_size_is_bounded_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(decoding, "_upright", never)
    with pytest.raises(ValueError, match="30000x30000 pixels, the limit is 268 megapixels"):
        decode(bomb(), 24)
