"""Buffers that are used again: large host arrays, handed out once nobody holds them."""

from __future__ import annotations

import sys

import numpy as np


class Pool:
    """Large host arrays that are handed out again once nobody holds them.

    A fresh large array makes the C library fetch and fault new pages at every step. Here a buffer is free when
    the interpreter's own reference count shows that only this pool holds it; a view holds its base, so whatever
    a user, a memo or a branch keeps is never handed out twice, and nothing is released by hand.

    Parameters
    ----------
    limit : int
        Bytes of idle buffers above which a request for a new shape first drops the idle ones.
    """

    def __init__(self, limit: int = 1 << 28):
        self.limit = limit
        self.buffers: dict[tuple, list[np.ndarray]] = {}
        self.free = self._calibrate()

    def _calibrate(self) -> int:
        """The reference count, seen from inside the loop of `take`, of an array that only the pool holds."""
        if getattr(sys, "_is_gil_enabled", lambda: True)() is False:
            return -1  # counts are not exact without the interpreter lock: always allocate
        for buffer in [np.empty(0)]:
            return sys.getrefcount(buffer)
        raise AssertionError

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An uninitialised array of this shape and dtype that nobody else holds."""
        held = self.buffers.get((shape, dtype))
        if held is None:
            held = self.buffers[shape, dtype] = []
        for buffer in held:
            if sys.getrefcount(buffer) == self.free:
                return buffer
        self._trim()
        buffer = np.empty(shape, dtype)
        if self.free > 0:
            self.buffers.setdefault((shape, dtype), held).append(buffer)
        return buffer

    def idle(self) -> int:
        """Bytes held by the pool that nobody uses."""
        total = 0
        for held in list(self.buffers.values()):
            for buffer in held:
                if sys.getrefcount(buffer) == self.free:
                    total += buffer.nbytes
        return total

    def size(self) -> int:
        """Bytes held by the pool, in use or idle."""
        return sum(buffer.nbytes for held in list(self.buffers.values()) for buffer in list(held))

    def _trim(self) -> None:
        if self.idle() <= self.limit:
            return
        for key, held in list(self.buffers.items()):
            busy = []
            for buffer in held:
                if sys.getrefcount(buffer) != self.free:
                    busy.append(buffer)
            if busy:
                held[:] = busy
            else:
                del self.buffers[key]
