"""The C library's heap, where memory is bounded."""

from __future__ import annotations

import contextlib
import ctypes

M_MMAP_THRESHOLD = -3  # malloc.h of glibc
LEAST_BYTES = 1 << 20


def return_freed_memory() -> None:
    """From now on, memory of a MB or more goes back to the system as soon as it is free.

    glibc takes large blocks from the system one by one, but raises the size from which it does so,
    up to 32 MB, with each that is freed: what is smaller it keeps, in pieces. Of a profile, a
    conversion and an evaluation of a Llama of 3 B parameters 0.9 GB were left so. Other C libraries
    are left as they are.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LEAST_BYTES)
