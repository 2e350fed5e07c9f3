"""Memory, of a process that trains on a CPU: what is kept, and when it is given back."""

import atexit
import ctypes
import gc
import sys
from collections.abc import Callable

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST_BLOCK, LARGEST_REST = 1 << 30, (1 << 31) - 1


def tune_memory() -> bool:
    """For the start of a process: it keeps the memory that tensors free, for the next ones; returns whether it can.

    Each step of a training allocates and frees the same large blocks. glibc gives these back to the system at
    once and has them zeroed page by page when they are needed again, which takes a fifth of the step.

    What is imported by now the garbage collector leaves alone until the end: a quarter of a second each time.
    """
    gc.freeze()
    atexit.register(gc.unfreeze)  # at exit some libraries count what was never freed, and complain
    mallopt = _of_glibc("mallopt")
    return mallopt is not None and bool(
        mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK) and mallopt(M_TRIM_THRESHOLD, LARGEST_REST)
    )


def give_back_freed_memory() -> bool:
    """Give the system what is kept, of all threads; returns whether anything was given.

    For the end of a stage: the next one has blocks of other sizes, which would come on top. Networks that were
    traced hold themselves: the collector finds them, but would not look before many more small objects are there.
    """
    gc.collect()
    trim = _of_glibc("malloc_trim")
    return trim is not None and bool(trim(0))


def _of_glibc(name: str) -> Callable[..., int] | None:
    """A function of the C library; None where that is not glibc."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
    return found
