"""The cloud: answers the releases of any number of devices, and says in one line what it refuses."""

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from splitleak.experiments.tools.deploy.runtime import Array, WireError
from splitleak.experiments.tools.live.frames import (
    ANSWER,
    CHUNK,
    LIMIT,
    REFUSAL,
    RELEASE,
    Frame,
    FrameError,
    read_frame,
)
from splitleak.experiments.tools.live.link import Link
from splitleak.experiments.tools.live.server import Say, Server, peer_of

Answer = Callable[[bytes], Array]
LINGER = 1.0
"""Seconds for which a refused connection stays open, so that the refusal is read."""


class CloudServer(Server):
    """``answer``: a packed release -> one number for each class, or WireError. It runs in one thread, in turn.

    A bad payload is refused and the connection goes on; after a bad frame nothing on it can be read any more.
    """

    def __init__(self, answer: Answer, say: Say, link: Link | None = None, limit: int = LIMIT) -> None:
        super().__init__(say)
        self.answer, self.limit = answer, limit
        self.link = link or Link()
        self.answered = self.refused = 0
        self._worker = ThreadPoolExecutor(1)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer until it ends."""
        peer = peer_of(writer)
        try:
            while (frame := await read_frame(reader, self.limit)) is not None:
                await self.link.send(writer, (await self._reply(frame, peer)).encode())
        except FrameError as error:
            self._refuse(peer, f"{error}; connection closed")
            await self._last_word(reader, writer, str(error))
        except OSError as error:  # of TLS too
            self.say(f"{peer} is gone: {error}")

    async def _reply(self, frame: Frame, peer: str) -> Frame:
        arrived = time.perf_counter()
        if frame.kind != RELEASE:
            return self._refusal(frame, peer, f"a frame of kind {frame.kind}, which is for an edge")
        try:
            logits = await asyncio.get_running_loop().run_in_executor(self._worker, self.answer, frame.payload)
        except WireError as error:
            return self._refusal(frame, peer, str(error))
        self.answered += 1
        told = {"answer": logits.tolist(), "milliseconds": 1000 * (time.perf_counter() - arrived)}
        return Frame(ANSWER, frame.number, json.dumps(told).encode())

    def _refusal(self, frame: Frame, peer: str, why: str) -> Frame:
        self._refuse(peer, f"frame {frame.number}: {why}")
        return Frame(REFUSAL, frame.number, why.encode())

    def _refuse(self, peer: str, why: str) -> None:
        self.refused += 1
        self.say(f"refused, from {peer}: {why}")

    async def _last_word(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, why: str) -> None:
        """Closed at once, with something still to be read, a connection would drop what was said last."""
        with suppress(OSError):  # a timeout is one
            await self.link.send(writer, Frame(REFUSAL, 0, why.encode()).encode())
            async with asyncio.timeout(LINGER):
                while await reader.read(CHUNK):
                    pass
