"""The C library's memory allocator, tuned for training on a CPU."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST_BLOCK, LARGEST_REST = 1 << 30, (1 << 31) - 1


def keep_freed_memory() -> bool:
    """Have the process keep the memory that tensors free, for the next ones; returns whether that could be done.

    Each step of a training allocates and frees the same large blocks. glibc gives these back to the system at
    once and has them zeroed page by page when they are needed again, which takes a fifth of the step.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # a C library that is not glibc
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK) and mallopt(M_TRIM_THRESHOLD, LARGEST_REST))
