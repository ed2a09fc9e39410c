"""Memory of large bodies goes back to the system when they are done."""

import ctypes
from contextlib import suppress

M_MMAP_THRESHOLD = -3
"""Number of the option in mallopt(3)."""
LARGE_BYTES = 128 * 1024
"""Size from which glibc maps a block by itself: its default at start, which it raises to 32 MB after the first large
block was freed. Then blocks of later bodies, which grow, leave holes that other threads cannot use."""


def return_large_blocks() -> None:
    """Keep the threshold at its default, where the C library is glibc: blocks grow without a copy, and none is kept."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
