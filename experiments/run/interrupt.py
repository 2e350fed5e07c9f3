"""Ctrl-C, also where a library takes it for an error of its own or drops it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_asked = threading.Event()


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block Ctrl-C is remembered, and an error that it ended as leaves the block as Ctrl-C.

    A process that ignores Ctrl-C, as a shell's background job does, goes on ignoring it.

    Raises:
        KeyboardInterrupt: there was Ctrl-C.
    """
    heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heeded:
        signal.signal(signal.SIGINT, _remember)
    try:
        yield
    except Exception:
        stop_if_interrupted()
        raise
    finally:
        if heeded:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        _asked.clear()


def stop_if_interrupted() -> None:
    """For whoever would take an error for a result.

    Python raises KeyboardInterrupt wherever it is at: what is called back from native code makes an error of another
    type of it (safetensors a ValueError, about a tensor's shape), what the garbage collector calls loses it.

    Raises:
        KeyboardInterrupt: there was Ctrl-C in ``interruptible``.
    """
    if _asked.is_set():
        raise KeyboardInterrupt


def _remember(number: int, frame: Any) -> None:
    _asked.set()
    signal.default_int_handler(number, frame)
