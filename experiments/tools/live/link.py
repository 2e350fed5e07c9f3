"""Places on the network, and a connection that is as slow as it is told to be."""

import asyncio
import math
import socket
import time
from dataclasses import dataclass

from splitleak.victims.errors import InvalidInputError

BACKLOG = 128
"""Connections that may wait to be accepted."""
PACKET = 1500
"""Bytes that are let through at a time: what an Ethernet frame carries."""
CLOSING = 1.0
"""Seconds for the other end to take what was sent last."""


@dataclass(frozen=True)
class Place:
    """Where a process listens, or where it is found."""

    host: str
    port: int

    @classmethod
    def of(cls, text: str) -> "Place":
        """Such as ``127.0.0.1:7001``.

        Raises:
            InvalidInputError: it is none.
        """
        host, _, port = text.rpartition(":")
        try:
            host.encode("idna")  # as the system's resolver is asked
            found = cls(host.strip("[]"), int(port) if port.isdecimal() else -1)
        except ValueError:
            found = cls("", -1)
        if not found.host or not 0 <= found.port < 2**16:
            raise InvalidInputError(f"'{text}' is no place on a network: give host:port, such as 127.0.0.1:7001")
        return found

    def listening(self) -> socket.socket:
        """A socket that listens there; port 0 takes a free one.

        Raises:
            InvalidInputError: somebody else listens there, or this computer has no such address.
        """
        try:
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            return socket.create_server((self.host, self.port), family=family, backlog=BACKLOG)
        except OSError as error:
            raise InvalidInputError(
                f"cannot listen at {self}: {error.strerror or error}; name another place"
            ) from error

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass
class Link:
    """One direction of a connection: ``megabits`` a second (None: as fast as it is), ``delay`` milliseconds more.

    A token bucket that holds one packet and starts empty: a packet leaves when its bytes' worth of time has passed
    since the one before, so that a message arrives as late as on a line of that speed.
    """

    megabits: float | None = None
    delay: float = 0.0

    def __post_init__(self) -> None:
        if not (self.megabits is None or 0 < self.megabits < math.inf) or not 0 <= self.delay < math.inf:
            raise InvalidInputError(
                f"megabits = {self.megabits}, delay = {self.delay}: a speed is above 0, a delay at least 0"
            )
        self._free = 0.0

    async def send(self, writer: asyncio.StreamWriter, content: bytes) -> None:
        """Write all of it."""
        if self.delay:
            await asyncio.sleep(self.delay / 1000)
        if self.megabits is None:
            writer.write(content)
            await writer.drain()
            return
        self._free = max(self._free, time.perf_counter())
        for start in range(0, len(content), PACKET):
            packet = content[start : start + PACKET]
            self._free += 8 * len(packet) / (self.megabits * 1e6)
            if (wait := self._free - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            writer.write(packet)
            await writer.drain()


async def closed(writer: asyncio.StreamWriter) -> None:
    """Close a connection and hear how it ended: an end that nobody asks about asyncio reports as a failure."""
    writer.close()
    try:
        async with asyncio.timeout(CLOSING):
            await writer.wait_closed()
    except OSError:  # a timeout is one
        writer.transport.abort()


def place_of(listening: socket.socket) -> Place:
    """Where a socket listens."""
    host, port = listening.getsockname()[:2]
    return Place(host, port)
