"""The C library's memory, on Linux."""

import ctypes
import sys


def keep_freed_memory() -> None:
    """Tells glibc to keep freed blocks for the next tensor instead of giving them back to the system.

    By default every tensor of some megabytes is mapped anew, and filling its pages with zeros costs a training step on the CPU more than
    its arithmetic. Does nothing where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(-4, 0)  # M_MMAP_MAX: no block is mapped by itself
    mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap's free end is kept
