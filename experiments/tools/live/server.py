"""A process that takes connections, and lets go of all of them when it ends."""

import asyncio
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from splitleak.experiments.tools.live.link import closed

MOST = 100
"""Connections at once: an interceptor has two files open for each, and a system may let it have 256."""
Say = Callable[[str], None]


class Server(ABC):
    """Each connection is a task of its own."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Do what one connection is for; it is closed when this ends."""

    @asynccontextmanager
    async def at(self, listening: socket.socket, tls: ssl.SSLContext | None = None) -> AsyncIterator[None]:
        """Take connections within the block."""
        server = await asyncio.start_server(self._accepted, sock=listening, ssl=tls)
        try:
            yield
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A coroutine in this place would be a task that asyncio reports as a failure when it is cancelled."""
        task = asyncio.ensure_future(self._served(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _served(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if len(self._tasks) > MOST:
                self.say(f"refused, from {peer_of(writer)}: there are {MOST} connections already")
            else:
                await self.connected(reader, writer)
        finally:
            await closed(writer)


def peer_of(writer: asyncio.StreamWriter) -> str:
    """Who is at the other end."""
    return ":".join(map(str, writer.get_extra_info("peername")[:2]))
