"""Between edge and cloud: passes everything on, looks at what passes, and alters it where it is told to."""

import asyncio
from collections.abc import Callable
from typing import Literal

from splitleak.experiments.tools.live.frames import CHUNK, RELEASE, Frame, Passing
from splitleak.experiments.tools.live.link import Place, closed
from splitleak.experiments.tools.live.server import Say, Server

Alter = Literal["flip", "forge"]
"""What is done to each release: a bit of its last byte is flipped, the checksum left as it was or made anew."""


class Interceptor(Server):
    """A transparent proxy. ``saw`` is told of each frame that passes, and of the size of what cannot be read."""

    def __init__(
        self, cloud: Place, saw: Callable[[Frame | int], None], say: Say, alter: Alter | None = None
    ) -> None:
        super().__init__(say)
        self.cloud, self.saw, self.alter = cloud, saw, alter

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection to the cloud for each that arrives; where either end goes, the other one goes too."""
        try:
            onward, further = await asyncio.open_connection(self.cloud.host, self.cloud.port)
        except OSError as error:
            self.say(f"the cloud at {self.cloud} cannot be reached: {error.strerror or error}")
            return
        await asyncio.gather(self._pump(reader, further), self._pump(onward, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passing, told = Passing(), False
        try:
            while content := await reader.read(CHUNK):
                for piece in passing.feed(content):
                    writer.write(self._passed(piece))
                if passing.broken and not told:
                    told = True
                    self.say(f"what passes cannot be read ({passing.broken}); its sizes are all there is to see")
                await writer.drain()
        except OSError:
            pass  # said by whichever end is still there
        finally:
            writer.write(passing.rest())
            await closed(writer)

    def _passed(self, piece: Frame | bytes) -> bytes:
        if isinstance(piece, bytes):
            self.saw(len(piece))
            return self._altered(piece) if self.alter else piece
        self.saw(piece)
        if self.alter is None or piece.kind != RELEASE:
            return piece.encode()
        if self.alter == "forge":
            return Frame(piece.kind, piece.number, self._altered(piece.payload)).encode()
        return self._altered(piece.encode())

    @staticmethod
    def _altered(content: bytes) -> bytes:
        return content[:-1] + bytes([content[-1] ^ 1])
