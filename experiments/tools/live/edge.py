"""The edge: sends one photo after another, and waits where the cloud is away: no photo is lost, none drawn twice."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass

import numpy as np

from splitleak.experiments.tools.deploy.runtime import Array
from splitleak.experiments.tools.live.frames import ANSWER, LIMIT, REFUSAL, RELEASE, Frame, FrameError, read_frame
from splitleak.experiments.tools.live.link import Link, Place, closed
from splitleak.experiments.tools.live.server import Say
from splitleak.victims.errors import InvalidInputError

AT_FIRST, AT_MOST = 0.1, 2.0
"""Seconds between two attempts to reach the cloud."""
REFUSALS = 3
"""Of one photo in a row, after which the edge gives up: sending it again will not help."""
SLOWEST = 12_500
"""Bytes a second of a line on which a release is still waited for: the system takes it long before it has left."""
GONE = (OSError, FrameError, TimeoutError, asyncio.IncompleteReadError)
"""What a lost connection looks like; errors of TLS are OSErrors too."""


@dataclass(frozen=True)
class Answered:
    """A photo that was answered. ``size``: bytes of its frame; times in milliseconds, ``wire`` both ways together."""

    number: int
    photo: Array
    size: int
    answer: Array
    edge: float
    wire: float
    cloud: float
    sent: int

    @property
    def total(self) -> float:
        """From the photo to the answer."""
        return self.edge + self.wire + self.cloud


class EdgeClient:
    """``send``: a photo, uint8 (3, h, w) -> the bytes that travel.

    What was sent once is sent again as it was, not drawn anew: two releases of one photo would tell more about it.
    """

    def __init__(
        self,
        send: Callable[[Array], bytes],
        cloud: Place,
        say: Say,
        link: Link | None = None,
        tls: ssl.SSLContext | None = None,
        patience: float = 30.0,
    ) -> None:
        self.send, self.cloud, self.say, self.tls, self.patience = send, cloud, say, tls, patience
        self.link = link or Link()
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def answers(self, photos: Iterable[Array]) -> AsyncIterator[Answered]:
        """One for each photo, in order.

        Raises:
            InvalidInputError: the cloud refuses a photo again and again.
        """
        try:
            for number, photo in enumerate(photos, 1):
                began = time.perf_counter()
                payload = await asyncio.to_thread(self.send, photo)
                edge = 1000 * (time.perf_counter() - began)
                if len(payload) > LIMIT:
                    raise InvalidInputError(f"a release of {len(payload):,} bytes; at most {LIMIT:,} travel")
                frame = Frame(RELEASE, number, payload).encode()
                told, milliseconds, attempts = await self._delivered(number, frame)
                wire = milliseconds - told.cloud
                yield Answered(number, photo, len(frame), told.answer, edge, wire, told.cloud, attempts)
        finally:
            await self._close()

    async def _delivered(self, number: int, frame: bytes) -> tuple["Told", float, int]:
        """What the cloud says of a frame, the milliseconds of the round trip that worked, and how many were made."""
        away, pause, refusals, attempts = 0.0, AT_FIRST, 0, 0
        while True:
            try:
                reader, writer = await self._connected()
                if away:
                    waited = time.perf_counter() - away
                    self.say(f"{self.cloud} is back after {waited:.1f} s; photo {number} is sent again")
                    away, pause = 0.0, AT_FIRST
                began, attempts = time.perf_counter(), attempts + 1
                await self.link.send(writer, frame)
                reply = await asyncio.wait_for(read_frame(reader), self.patience + len(frame) / SLOWEST)
                milliseconds = 1000 * (time.perf_counter() - began)
                if reply is None:
                    raise ConnectionError("the connection was closed")
                if reply.kind == ANSWER and reply.number == number:
                    return Told.of(reply), milliseconds, attempts
                refusals += 1
                why = (
                    reply.payload.decode(errors="replace") if reply.kind == REFUSAL else "an answer to something else"
                )
                self.say(f"photo {number} was refused: {why}")
                await self._close()
                if refusals == REFUSALS:
                    raise InvalidInputError(f"photo {number} was refused {REFUSALS} times, the last time: {why}")
            except ssl.SSLCertVerificationError as error:
                raise InvalidInputError(
                    f"{self.cloud} shows another certificate than the trusted one: {error.verify_message}"
                ) from error
            except GONE as error:
                await self._close()
                if not away:
                    away = time.perf_counter()
                    self.say(f"no answer from {self.cloud} ({_why(error)}); photo {number} waits")
                await asyncio.sleep(pause)
                pause = min(AT_MOST, 2 * pause)

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._connection is None:
            opening = asyncio.open_connection(self.cloud.host, self.cloud.port, ssl=self.tls)
            self._connection = await asyncio.wait_for(opening, self.patience)
        return self._connection

    async def _close(self) -> None:
        if self._connection is not None:
            (_, writer), self._connection = self._connection, None
            await closed(writer)


@dataclass(frozen=True)
class Told:
    """One number for each class, and the cloud's milliseconds."""

    answer: Array
    cloud: float

    @classmethod
    def of(cls, reply: Frame) -> "Told":
        """What an answer says.

        Raises:
            FrameError: it is none.
        """
        try:
            told = json.loads(reply.payload)
            found = cls(np.array(told["answer"], np.float32), float(told["milliseconds"]))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            raise FrameError(f"the answer to {reply.number} cannot be read") from None
        if found.answer.ndim != 1 or not found.answer.size or not np.isfinite([*found.answer, found.cloud]).all():
            raise FrameError(f"the answer to {reply.number} is no list of numbers")
        return found


def _why(error: Exception) -> str:
    return str(error) or ("it took too long" if isinstance(error, TimeoutError) else type(error).__name__)
