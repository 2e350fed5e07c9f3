"""A network of its own for the tests of the wire: the edge halves, the cloud doubles."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

from splitleak.experiments.tools.deploy import runtime
from splitleak.experiments.tools.live.cloud import CloudServer
from splitleak.experiments.tools.live.frames import RELEASE, Frame, read_frame
from splitleak.experiments.tools.live.link import Place, place_of

LOOPBACK = Place("127.0.0.1", 0)
WIRE = runtime.Wire({"shape": [3], "coding": {"kind": "dense"}})


def photo(number: int) -> runtime.Array:
    return np.full(3, number % 251, np.uint8)


def send(one: runtime.Array) -> bytes:
    return WIRE.pack(one.astype(np.float32) / 2)


def answer(packed: bytes) -> runtime.Array:
    return 2 * WIRE.unpack(packed)


class Wired:
    """A cloud and its lines; ``started`` again at the same place after a ``stop``."""

    def __init__(self, **settings: Any) -> None:
        self.said: list[str] = []
        self.settings, self.place = settings, LOOPBACK

    async def start(self, **settings: Any) -> "Wired":
        listening = self.place.listening()
        self.place = place_of(listening)
        self.cloud = CloudServer(answer, self.said.append, **self.settings)
        self.open = self.cloud.at(listening, **settings)
        await self.open.__aenter__()
        return self

    async def stop(self) -> None:
        await self.open.__aexit__(None, None, None)

    async def talk(self, content: bytes) -> list[Frame]:
        """What it replies to bytes, until it closes the connection or we do."""
        reader, writer = await asyncio.open_connection(self.place.host, self.place.port)
        writer.write(content)
        writer.write_eof()
        replies = []
        while (frame := await read_frame(reader)) is not None:
            replies.append(frame)
        writer.close()
        return replies


def run(program: Callable[[], Awaitable[None]], seconds: float = 60) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(program(), seconds)

    asyncio.run(bounded())


GOOD = Frame(RELEASE, 7, send(photo(9))).encode()
"""A whole frame."""
