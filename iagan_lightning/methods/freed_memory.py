"""Keeping the memory that one evaluation frees for the next one, instead of handing it back to the system."""

from __future__ import annotations

import ctypes
import os
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
KEPT = 1 << 30  # bytes
APART = 1 << 28  # bytes of one block that lies outside the heap, where it tears no hole: a history at 1024 pixels


class _Usage(ctypes.Structure):
    """What glibc's mallinfo2 tells of the heap: ten sizes, of which the ninth is what is free within it, in bytes."""

    _fields_ = (("others", ctypes.c_size_t * 8), ("free", ctypes.c_size_t), ("top", ctypes.c_size_t))


@cache
def keep_freed_memory() -> bool:
    """Let glibc keep up to a GiB of freed memory in this process; return whether it does.

    Each evaluation allocates and frees the same features. Where nothing lies above them on the heap, glibc returns
    them to the system every time, which then hands out cleared pages again, a fault for each 4 KiB: up to a fifth of
    the time of an evaluation at 64 pixels. Other allocators and systems are left as they are, and so is a process with
    a setting of its own, ``MALLOC_...`` in its environment (``MALLOC_TRIM_THRESHOLD_=131072`` is glibc's).
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return False
    # A threshold of our own ends glibc's own adjusting, so both are needed.
    return bool(mallopt(MMAP_THRESHOLD, APART)) and bool(mallopt(TRIM_THRESHOLD, KEPT))


def return_surplus() -> bool:
    """Hand freed memory back to the system where it is more than a GiB; return whether any was.

    What an image of 1024 pixels frees is more than that, and lies in pieces: among them the next image no longer finds
    room for its own largest, so that half a GiB was added with each image. For smaller ones this is one question.
    """
    if not keep_freed_memory():
        return False
    glibc = ctypes.CDLL(None)
    try:
        usage = glibc.mallinfo2  # since glibc 2.33
    except AttributeError:
        return False
    usage.restype = _Usage
    return usage().free > KEPT and bool(glibc.malloc_trim(0))
