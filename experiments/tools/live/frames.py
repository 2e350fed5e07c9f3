"""What travels over TCP: frames, each a header of 20 bytes and a payload, in network byte order.

    magic 4 bytes "SPLK" | version 1 | kind 1 | zero 2 | number 4 | length 4 | checksum 4 | payload

``number`` ties an answer to its question; ``checksum`` is the CRC-32 of all other bytes of the frame. It notices
damage, and no attacker: whoever alters a frame can compute it anew. Against that stands TLS.
"""

import asyncio
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

MAGIC, VERSION = b"SPLK", 1
RELEASE, ANSWER, REFUSAL = 1, 2, 3
"""Kinds: a packed release as it is; JSON with what the cloud answers; one line, UTF-8, that says why it does not."""
LIMIT = 16 * 2**20
"""Bytes of a payload, at most: more is refused before any of it is read."""
PATIENCE = 30.0
"""Seconds for which nothing may arrive within a frame; a slow line takes longer than that for a whole one."""
CHUNK = 2**16
"""Bytes that are taken from a connection at a time."""

_FIELDS = struct.Struct("!4sBBHII")
_CHECKSUM = struct.Struct("!I")
HEADER = _FIELDS.size + _CHECKSUM.size


class FrameError(ValueError):
    """What arrived is no frame; the message is one line that says why. What follows it cannot be read either."""


@dataclass(frozen=True)
class Frame:
    """``number``: below 2^32."""

    kind: int
    number: int
    payload: bytes

    def encode(self) -> bytes:
        """As it travels."""
        fields = _FIELDS.pack(MAGIC, VERSION, self.kind, 0, self.number, len(self.payload))
        checksum = zlib.crc32(self.payload, zlib.crc32(fields))
        return fields + _CHECKSUM.pack(checksum) + self.payload


def payload_length(header: bytes, limit: int = LIMIT) -> int:
    """Of the frame with this header.

    Raises:
        FrameError: another protocol, another version, an unknown kind, or a payload beyond the limit.
    """
    magic, version, kind, _, _, length = _FIELDS.unpack_from(header)
    if magic != MAGIC:
        raise FrameError(f"no frame: it begins with {magic!r}, not {MAGIC!r}")
    if version != VERSION:
        raise FrameError(f"a frame of version {version}, this program speaks {VERSION}")
    if kind not in (RELEASE, ANSWER, REFUSAL):
        raise FrameError(f"a frame of the unknown kind {kind}")
    if length > limit:
        raise FrameError(f"a frame of {length:,} bytes, at most {limit:,} are taken")
    return int(length)


def decode(header: bytes, payload: bytes) -> Frame:
    """A frame whose header was read by ``payload_length``.

    Raises:
        FrameError: it is not as it was sent.
    """
    _, _, kind, _, number, _ = _FIELDS.unpack_from(header)
    (checksum,) = _CHECKSUM.unpack_from(header, _FIELDS.size)
    if checksum != zlib.crc32(payload, zlib.crc32(header[: _FIELDS.size])):
        raise FrameError(f"frame {number} fails its checksum: it was altered or damaged on the way")
    return Frame(kind, number, payload)


async def read_frame(reader: asyncio.StreamReader, limit: int = LIMIT) -> Frame | None:
    """The next frame, however long it takes to begin; None where the connection ended before it.

    Raises:
        FrameError: what arrived is none, or breaks off.
    """
    first = await reader.read(1)
    if not first:
        return None
    header = await _exactly(reader, first, HEADER)
    return decode(header, await _exactly(reader, b"", payload_length(header, limit)))


async def _exactly(reader: asyncio.StreamReader, begun: bytes, size: int) -> bytes:
    found = bytearray(begun)
    while len(found) < size:
        try:
            async with asyncio.timeout(PATIENCE):
                content = await reader.read(min(CHUNK, size - len(found)))
        except TimeoutError:
            raise FrameError(f"a frame stopped for {PATIENCE:.0f} s in its middle") from None
        if not content:
            raise FrameError("the connection ended in the middle of a frame")
        found += content
    return bytes(found)


class Passing:
    """Frames among bytes that pass in one direction, for who looks on; all bytes come out again, none is held for
    good. ``broken``: why what passes is not read any more; empty as long as it is."""

    def __init__(self) -> None:
        self.held, self.broken = b"", ""

    def feed(self, content: bytes) -> Iterator[Frame | bytes]:
        """Whole frames, or the bytes themselves once they are no frames."""
        self.held += content
        while not self.broken and len(self.held) >= HEADER:
            try:
                end = HEADER + payload_length(self.held)
                if len(self.held) < end:
                    return
                frame = decode(self.held, self.held[HEADER:end])
            except FrameError as error:
                self.broken = str(error)
            else:
                self.held = self.held[end:]
                yield frame
        if self.broken and self.held:
            yield self.rest()

    def rest(self) -> bytes:
        """What was held for a frame that did not become whole."""
        held, self.held = self.held, b""
        return held
