"""Colours: what transparency hides stays hidden, deep samples are scaled, and what has no known white is refused."""

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from pictures import encoded, picture, write_folder
from PIL import Image, ImageCms, features

from splitleak.victims.data import decode as decoding
from splitleak.victims.data.decode import EXTENSIONS, FIRST, FORMATS, ON_WHITE, PROFILE, decode
from splitleak.victims.data.sources.files import Folder
from splitleak.victims.errors import InvalidInputError

Bytes = npt.NDArray[np.uint8]


def pixels(content: bytes) -> Bytes:
    return decode(content, 8).pixels


def grey(values: object) -> Bytes:
    return np.repeat(np.asarray(values, np.uint8)[..., None], 3, axis=2)


def png(depth: int, kind: int, samples: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """An 8 x 8 PNG with these packed samples, by the specification; Pillow writes no such depths."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    row = len(samples) // 8
    lines = b"".join(b"\0" + samples[row * line : row * (line + 1)] for line in range(8))
    header = chunk(b"IHDR", struct.pack(">2I5B", 8, 8, depth, kind, 0, 0, 0))
    body = b"".join(chunk(name, data) for name, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def tiff(samples: bytes, order: str = "<", **tags: int) -> bytes:
    """An 8 x 8 TIFF in one strip; ``tags``: bits, kind (1 whole, 2 signed, 3 fraction), white (0: 0 is white)."""
    entries = [(256, 8), (257, 8), (258, tags["bits"]), (259, 1), (262, tags.get("white", 1)), (273, 8)]
    entries += [(277, 1), (278, 8), (279, len(samples)), (339, tags.get("kind", 1))]
    table = struct.pack(f"{order}H", len(entries))
    for tag, value in entries:
        table += struct.pack(f"{order}HHI", tag, 4, 1) + struct.pack(f"{order}I", value)
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(f"{order}HI", 42, 8 + len(samples)) + samples + table + bytes(4)


# transparency


HIDDEN, SEEN = (255, 0, 255), (10, 200, 30)
LEFT = np.arange(8)[None, :] < np.full((8, 1), 4)
"""Where a photo shows something."""


def rgba() -> Image.Image:
    colours = np.where(LEFT[..., None], SEEN, HIDDEN).astype(np.uint8)
    return Image.fromarray(np.dstack([colours, 255 * LEFT.astype(np.uint8)]))


def palette(transparency: bytes | int) -> bytes:
    image = Image.fromarray(np.where(LEFT, 0, 1).astype(np.uint8)).convert("L")
    indexed = Image.frombytes("P", (8, 8), image.tobytes())
    indexed.putpalette([*SEEN, *HIDDEN])
    return encoded(indexed, transparency=transparency)


def one_colour() -> bytes:
    return encoded(rgba().convert("RGB"), transparency=HIDDEN)


@pytest.mark.parametrize(
    "content",
    [
        encoded(rgba()),
        palette(b"\xff\x00"),
        palette(1),
        one_colour(),
        encoded(rgba(), "WEBP", lossless=True, exact=True),
        encoded(rgba(), "TIFF"),
    ],
    ids=["RGBA", "palette with alphas", "palette with one colour", "RGB with one colour", "WebP", "TIFF"],
)
def test_what_is_transparent_is_white(content: bytes) -> None:
    decoded = decode(content, 8)
    assert np.array_equal(decoded.pixels, np.where(LEFT[..., None], SEEN, (255, 255, 255)))
    assert decoded.remarks == (ON_WHITE,)


def test_grey_with_alpha_is_mixed_with_white() -> None:
    level, alpha = np.full((8, 8), 100), np.arange(64).reshape(8, 8) * 4
    image = Image.fromarray(np.dstack([level, alpha]).astype(np.uint8), "LA")
    expected = np.rint((level * alpha + 255 * (255 - alpha)) / 255)
    assert np.abs(pixels(encoded(image)).astype(int) - grey(expected)).max() <= 1


def test_a_grey_that_is_transparent_in_a_shallow_png_is_found() -> None:
    # two bits: 0 black to 3 white; 1 is transparent
    row = bytes([0b00_01_10_11, 0b11_10_01_00])
    decoded = decode(png(2, 0, row * 8, (b"tRNS", b"\0\1")), 8)
    assert decoded.pixels[0, :, 0].tolist() == [0, 255, 170, 255, 255, 170, 255, 0]
    assert decoded.remarks == (ON_WHITE,)


def test_a_transparent_colour_of_sixteen_bits() -> None:
    values = np.full((8, 8), 0x4001, ">u2")
    values[:, 4:] = 0x4000  # the same as the others in eight bits
    decoded = decode(png(16, 0, values.tobytes(), (b"tRNS", b"\x40\x00")), 8)
    assert np.array_equal(decoded.pixels, grey(np.where(LEFT, 0x40, 255)))
    with pytest.raises(ValueError, match="16 bits a channel and a transparent colour"):
        decode(png(16, 2, bytes(8 * 8 * 6), (b"tRNS", bytes(6))), 8)


def test_an_opaque_alpha_channel_is_no_news() -> None:
    image = picture(1, 8, 8)
    opaque = image.copy()
    opaque.putalpha(255)
    decoded = decode(encoded(opaque), 8)
    assert np.array_equal(decoded.pixels, np.asarray(image))
    assert decoded.remarks == ()


def test_the_count_of_transparent_photos_is_told(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.png": encoded(rgba()), "b.png": encoded(picture(1, 8, 8)), "c.png": one_colour()})
    assert Folder(str(tmp_path)).read([0, 1, 2], 8).remarks == {ON_WHITE: 2}


# depth


RAMP = np.arange(64).reshape(8, 8) * 1040 + 7
"""16 bits, beyond 8 from the first row on."""


@pytest.mark.parametrize(
    "content",
    [
        png(16, 0, RAMP.astype(">u2").tobytes()),
        tiff(RAMP.astype("<u2").tobytes(), bits=16),
        tiff(RAMP.astype(">u2").tobytes(), ">", bits=16),
        tiff((65535 - RAMP).astype("<u2").tobytes(), bits=16, white=0),
        b"P5 8 8 65535\n" + RAMP.astype(">u2").tobytes(),
        *([encoded(Image.fromarray(RAMP.astype(np.uint16)), "JPEG2000")] if "JPEG2000" in FORMATS else []),
    ],
    ids=["PNG", "TIFF", "TIFF of the other order", "TIFF whose 0 is white", "PGM", "JPEG 2000"],
)
def test_sixteen_bits_of_grey_are_scaled(content: bytes) -> None:
    assert np.abs(pixels(content).astype(int) - grey(RAMP / 257)).max() <= 1


def test_other_depths_of_grey_are_scaled() -> None:
    twelve = RAMP >> 4
    pairs = twelve.reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1)
    for content in (
        tiff(packed.astype(np.uint8).tobytes(), bits=12),
        b"P5 8 8 4095\n" + twelve.astype(">u2").tobytes(),
    ):
        assert np.abs(pixels(content).astype(int) - grey(RAMP / 257)).max() <= 1


def test_sixteen_bits_of_colour_are_scaled() -> None:
    colours = np.stack([RAMP, 65535 - RAMP, RAMP // 2], axis=2)
    expected = colours / 257
    assert np.abs(pixels(png(16, 2, colours.astype(">u2").tobytes())) - expected).max() <= 1
    assert np.abs(pixels(b"P6 8 8 65535\n" + colours.astype(">u2").tobytes()) - expected).max() <= 1


def test_fractions_from_0_to_1_are_scaled() -> None:
    ramp = np.arange(64, dtype=np.float32).reshape(8, 8) / 63
    assert np.array_equal(pixels(encoded(Image.fromarray(ramp), "TIFF")), grey(np.rint(ramp * 255)))
    inverted = tiff((1 - ramp).astype("<f4").tobytes(), bits=32, kind=3, white=0)
    assert np.abs(pixels(inverted).astype(int) - grey(np.rint(ramp * 255))).max() <= 1


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (encoded(Image.fromarray(np.full((8, 8), 80, np.float32)), "TIFF"), "fractions from 80 to 80; white is 1"),
        (encoded(Image.fromarray(np.full((8, 8), np.nan, np.float32)), "TIFF"), "fractions from nan"),
        (encoded(Image.fromarray(np.full((8, 8), -0.1, np.float32)), "TIFF"), "fractions from -0.1"),
        (encoded(Image.fromarray(np.full((8, 8), 200, np.int32)), "TIFF"), "none is known to be white"),
        (tiff(np.full(64, 200, "<i2").tobytes(), bits=16, kind=2), "none is known to be white"),
    ],
)
def test_samples_without_a_known_white_are_refused_by_name(tmp_path: Path, content: bytes, complaint: str) -> None:
    write_folder(tmp_path, {"deep.tif": content})
    with pytest.raises(InvalidInputError, match=rf"photo 'deep\.tif' is unreadable .*{complaint}"):
        Folder(str(tmp_path)).read([0], 8)


def test_print_colours_are_seen_as_a_screen_shows_them() -> None:
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert pixels(encoded(red, "TIFF"))[0, 0].tolist() == [255, 0, 0]
    lab = Image.new("LAB", (8, 8), (255, 128, 128))  # L* = 100, a* = b* = 0
    assert np.abs(pixels(encoded(lab, "TIFF")).astype(int) - 255).max() <= 2


def test_a_colour_profile_that_is_not_applied_is_told() -> None:
    image = picture(1, 8, 8)
    screen = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    other = screen.replace("sRGB".encode("utf-16-be"), "Wide".encode("utf-16-be")).replace(b"sRGB", b"Wide")
    for profile, remarks in ((screen, ()), (other, (PROFILE,))):
        decoded = decode(encoded(image, icc_profile=profile), 8)
        assert decoded.remarks == remarks
        assert np.array_equal(decoded.pixels, np.asarray(image))


# upright


def app1(image: Image.Image, exif: bytes) -> bytes:
    """A JPEG with this EXIF."""
    content, segment = encoded(image, "JPEG", quality=100, subsampling=0), b"Exif\0\0" + exif
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + content[2:]


def exif(*entries: tuple[int, int, int, bytes], data: bytes = b"") -> bytes:
    """By the specification: tag, type, count and value or where it lies."""
    rows = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3].ljust(4, b"\0") for entry in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + rows + bytes(4) + data


TURNED = (0x112, 3, 1, b"\6\0")
ODD = {
    "a rational without denominator": exif(TURNED, (0x11A, 10, 1, b"\x26\0\0\0"), data=struct.pack("<ii", -1, 0)),
    "text for a number": exif(TURNED, (0x128, 2, 4, b"abc\0")),
    "a value beyond the end": exif(TURNED, (0x10F, 2, 400, b"\xff\xff\0\0")),
    "an unknown type": exif(TURNED, (0x9999, 77, 1, b"")),
    "a directory that is none": exif(TURNED, (0x8769, 4, 1, b"\xff\xff\xff\x7f")),
    "the orientation in bytes": exif((0x112, 1, 1, b"\6")),
    "two orientations": exif((0x112, 3, 2, b"\6\0\6\0")),
    "the orientation as text": exif((0x112, 2, 2, b"6\0")),
}


@pytest.mark.parametrize("odd", ODD)
def test_a_photo_with_odd_tags_is_turned_upright(odd: str) -> None:
    image = picture(3, 8, 8)
    plain = pixels(encoded(image, "JPEG", quality=100, subsampling=0))
    assert np.array_equal(pixels(app1(image, ODD[odd])), np.rot90(plain, -1))


@pytest.mark.parametrize("broken", [b"", b"II", b"no header at all", exif((0x112, 3, 1, b"\x09\0"))])
def test_a_photo_whose_tags_say_nothing_stays_as_it_is(broken: bytes) -> None:
    image = picture(3, 8, 8)
    assert np.array_equal(pixels(app1(image, broken)), pixels(encoded(image, "JPEG", quality=100, subsampling=0)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_all_eight_ways_to_hold_a_camera(orientation: int, kind: str) -> None:
    ways: list[Callable[[Bytes], Bytes]] = [  # the EXIF specification's table: where row 0 and column 0 are seen
        lambda seen: seen,
        lambda seen: seen[:, ::-1],
        lambda seen: seen[::-1, ::-1],
        lambda seen: seen[::-1],
        lambda seen: seen.transpose(1, 0, 2),
        lambda seen: seen.transpose(1, 0, 2)[:, ::-1],
        lambda seen: seen[::-1, ::-1].transpose(1, 0, 2),
        lambda seen: seen.transpose(1, 0, 2)[::-1],
    ]
    image, tags = picture(5, 8, 8), Image.Exif()
    tags[0x112] = orientation
    assert np.array_equal(pixels(encoded(image, kind, exif=tags)), ways[orientation - 1](np.asarray(image)))


# formats


@pytest.mark.parametrize(
    ("kind", "extension", "exact"),
    [
        ("JPEG", "jfif", False),
        ("TIFF", "tif", True),
        ("GIF", "gif", False),
        ("BMP", "bmp", True),
        ("PPM", "ppm", True),
        ("WEBP", "webp", False),
        ("JPEG2000", "jp2", True),
        ("AVIF", "avif", False),
    ],
)
def test_what_pillow_reads_well_is_read(kind: str, extension: str, exact: bool) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    assert f".{extension}" in EXTENSIONS
    smooth = Image.fromarray(np.add.outer(np.arange(8) * 9, [[30, 60, 90]]).astype(np.uint8).repeat(8, 1))
    error = np.abs(pixels(encoded(smooth, kind)).astype(int) - np.asarray(smooth)).max()
    assert error == 0 if exact else error <= 12


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
def test_of_several_frames_the_first_is_read_and_told(kind: str) -> None:
    first, second = Image.new("RGB", (8, 8), (0, 0, 255)), Image.new("RGB", (8, 8), (255, 0, 0))
    options = {"lossless": True} if kind == "WEBP" else {}
    decoded = decode(encoded(first, kind, save_all=True, append_images=[second], **options), 8)
    assert decoded.pixels[4, 4].tolist() == [0, 0, 255]
    assert decoded.remarks == (FIRST,)


def test_the_preview_of_a_phones_photo_is_no_news() -> None:
    image, preview = picture(1, 8, 8), Image.new("RGB", (8, 8))
    content = encoded(image, "MPO", save_all=True, append_images=[preview], quality=100)
    assert decode(content, 8).remarks == ()


@pytest.mark.parametrize("kind", [name for name in FORMATS if name not in ("DIB",)])
def test_a_truncated_file_is_unreadable(tmp_path: Path, kind: str) -> None:
    content = encoded(picture(1, 64, 64), kind)
    write_folder(tmp_path, {"cut.png": content[: len(content) // 2]})
    with pytest.raises(InvalidInputError, match=r"^photo 'cut\.png' is unreadable \(.+\)") as caught:
        Folder(str(tmp_path)).read([0], 8)
    assert "\n" not in str(caught.value)


def test_an_empty_file_and_one_without_pixels_say_so() -> None:
    with pytest.raises(ValueError, match="the file is empty"):
        decode(b"", 8)
    with pytest.raises(decoding.UNREADABLE):
        decode(b"P6 0 8 255\n", 8)


# size


def test_a_very_large_photo_is_read_at_a_reduced_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow alone would refuse more than 2000
    monkeypatch.setattr(decoding, "LARGE", 2500)
    loaded: list[tuple[int, int]] = []
    real = decoding.to_rgb
    monkeypatch.setattr(decoding, "to_rgb", lambda image: (loaded.append(image.size), real(image))[1])
    smooth = np.add.outer(np.arange(64) * 2, np.arange(64) * 2)[..., None].repeat(3, 2).astype(np.uint8)
    image = Image.fromarray(smooth)
    for kind, size in (("JPEG", (16, 16)), ("PNG", (64, 64))):
        loaded.clear()
        read = pixels(encoded(image, kind, quality=98))
        assert loaded[0] == size
        assert np.abs(read.astype(int) - smooth.reshape(8, 8, 8, 8, 3).mean((1, 3))).max() < 8
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_beyond_the_limit_the_size_and_the_limit_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 3 * 10**6)
    buffer = BytesIO()
    Image.new("1", (2000, 2000)).save(buffer, "PNG")
    write_folder(tmp_path, {"a.png": buffer.getvalue()})
    with pytest.raises(InvalidInputError, match="declares 2000x2000 pixels, the limit is 3 megapixels"):
        Folder(str(tmp_path)).read([0], 8)
