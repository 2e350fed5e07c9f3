"""Edge, interceptor and cloud on this computer: three processes, one after the other, and their lines."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from splitleak.experiments.tools.live.link import Place, place_of
from splitleak.victims.errors import InvalidInputError

LOOPBACK = "127.0.0.1"
ANYWHERE = f"{LOOPBACK}:0"
SECONDS = 5.0
"""For a process to end before it is made to."""


def free_places(*wanted: str) -> list[str]:
    """These places, at which nobody listens; port 0 becomes a free one.

    Raises:
        InvalidInputError: somebody listens there, or it is no place.
    """
    with ExitStack() as stack:
        held = [stack.enter_context(Place.of(one).listening()) for one in wanted]
        return [str(place_of(one)) for one in held]


class Process:
    """``splitleak live NAME ...``, whose lines are said with its name in front."""

    def __init__(self, name: str, arguments: Sequence[str], say: Callable[[str], None]) -> None:
        command = [sys.executable, "-u", "-m", "splitleak.experiments", "live", name, *arguments]
        self.name, self._say, self._lines = name, say, 0
        self._ready, self._listens = threading.Event(), False
        # a group of its own: Ctrl-C is this process's, which ends the others in their order
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._say(f"{self.name}: {line.rstrip()}")
            if any(word in line for word in ("answering at", "listening at")):
                self._listens = True
                self._ready.set()
        self._ready.set()  # it has ended

    def ready(self) -> None:
        """Wait until it listens.

        Raises:
            InvalidInputError: it ended before; its last line says why.
        """
        self._ready.wait()
        if not self._listens:
            raise InvalidInputError(f"the {self.name} ended before it listened; its last line says why")

    def wait(self) -> int:
        """Until it ends; its exit code."""
        code = self._process.wait()
        self._reader.join()
        return code

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(SECONDS)
        if self._process.poll() is None:
            self._process.kill()
        self._reader.join()


@contextmanager
def running(name: str, arguments: Sequence[str], say: Callable[[str], None]) -> Iterator[Process]:
    """A process, which ends with the block."""
    process = Process(name, arguments, say)
    try:
        yield process
    finally:
        process.stop()
