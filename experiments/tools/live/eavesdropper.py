"""What stands between edge and cloud as a whole: the proxy, the attack that rebuilds what passes, and the page."""

import asyncio
import socket
from collections.abc import Callable

from splitleak.experiments.tools.deploy.runtime import WireError
from splitleak.experiments.tools.live.adversary import Adversary
from splitleak.experiments.tools.live.frames import HEADER, RELEASE, Frame
from splitleak.experiments.tools.live.interceptor import Alter, Interceptor
from splitleak.experiments.tools.live.link import Place, place_of
from splitleak.experiments.tools.live.page import Page, serve

BEHIND = 4
"""Releases that may wait to be rebuilt; while so many wait, further ones pass without."""


class Eavesdropper:
    """Rebuilds in a thread of its own, so that nothing that passes waits for it."""

    def __init__(self, adversary: Adversary, say: Callable[[str], None]) -> None:
        self.adversary = adversary
        self.page = Page(adversary.cell.defense.label, adversary.name)
        self._to_terminal = say
        self._waiting: asyncio.Queue[Frame] = asyncio.Queue(BEHIND)

    def say(self, line: str) -> None:
        """On the terminal and on the page."""
        self._to_terminal(line)
        self.page.say(line)

    def saw(self, passed: Frame | int) -> None:
        """A frame, or so many bytes that could not be read."""
        if isinstance(passed, int):
            self.page.count(unread=passed)
            self.page.sized()
        elif passed.kind == RELEASE:
            self.page.passed(passed.number, HEADER + len(passed.payload))
            if self._waiting.full():
                self.page.count(skipped=1)
            else:
                self._waiting.put_nowait(passed)

    async def rebuild(self) -> None:
        """What passes, one after another, until the task is cancelled."""
        while True:
            frame = await self._waiting.get()
            try:
                release = self.adversary.read(frame.payload)
                rebuilt = await asyncio.to_thread(self.adversary.rebuilt, release)
                pictures = {"wire": self.adversary.maps(release), "rebuilt": rebuilt}
            except WireError as error:
                self.say(f"frame {frame.number} passed and is no release: {error}")
            except Exception as error:  # whatever an attack makes of values that no edge would send
                self.say(f"frame {frame.number} passed and cannot be rebuilt: {' '.join(str(error).split())}")
            else:
                self.page.count(rebuilt=1)
                self.page.show(frame.number, pictures)

    async def run(self, wire: socket.socket, page: socket.socket, cloud: Place, alter: Alter | None = None) -> None:
        """Until the task is cancelled. ``wire`` and ``page``: sockets that listen."""
        interceptor = Interceptor(cloud, self.saw, self.say, alter)
        async with interceptor.at(wire), asyncio.TaskGroup() as tasks:
            tasks.create_task(serve(self.page, page))
            tasks.create_task(self.rebuild())
            self.say(f"listening at {place_of(wire)}, passing on to {cloud}; page: http://{place_of(page)}/")
