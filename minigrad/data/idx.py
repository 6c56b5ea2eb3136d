"""The IDX format of MNIST and its relatives: one array in a file, plain or gzipped.

The layout is two zero bytes, a type code, the number of axes, the axes as big-endian 32-bit integers, and the
values in C order, big-endian (http://yann.lecun.com/exdb/mnist/). A header is a claim by a file that may be
damaged or hostile: nothing is reserved or unpacked on its word beyond what the file can hold.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .dataset import MAX_BYTES, DataError

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_AXES = 8
DEFLATE_RATIO = 1032  # 258 bytes from 2 bits: deflate cannot expand further
CHUNK = 1 << 20
AGAIN = "download the file again"


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """Read one array from an IDX file; gzip is recognised by its first bytes, whatever the file is called.

    Parameters
    ----------
    path : str or os.PathLike
        The file.

    Returns
    -------
    numpy.ndarray
        The axes and the type that the file names (uint8, int8, int16, int32, float32 or float64), native byte order.

    Raises
    ------
    DataError
        The file is missing, is not IDX, is truncated or damaged, has bytes left over, or claims an absurd size.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; check the path")
    try:
        with path.open("rb") as raw:
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            stream = gzip.GzipFile(fileobj=raw, mode="rb") if packed else raw
            dtype, shape = _read_header(stream, path)
            promised = math.prod(shape) * dtype.itemsize
            _check_claim(promised, path.stat().st_size * (DEFLATE_RATIO if packed else 1), path)
            # one byte more than promised shows what is left over, and makes gzip check its sum at the end
            values = _read_at_most(stream, promised + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: it cannot be read ({error}); {AGAIN}") from error
    _check_length(len(values), promised, path)
    array = np.frombuffer(values, dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def _read_header(stream: BinaryIO, path: Path) -> tuple[np.dtype, tuple[int, ...]]:
    magic = stream.read(4)
    if not magic:
        raise DataError(f"{path}: it is empty; {AGAIN}")
    if len(magic) < 4:
        raise DataError(f"{path}: it is truncated inside its header; {AGAIN}")
    code, axes = magic[2:]
    if magic[:2] != b"\0\0" or code not in TYPES:
        raise DataError(f"{path}: it is not an IDX file (its magic number is {magic.hex(' ')}); check the path")
    if not 1 <= axes <= MAX_AXES:
        raise DataError(f"{path}: its header claims {axes} axes where 1 to {MAX_AXES} are possible; {AGAIN}")
    lengths = stream.read(4 * axes)
    if len(lengths) < 4 * axes:
        raise DataError(f"{path}: it is truncated inside its header; {AGAIN}")
    shape = struct.unpack(f">{axes}I", lengths)
    if 0 in shape:
        raise DataError(f"{path}: its header claims an array of shape {shape} without any value; {AGAIN}")
    return np.dtype(TYPES[code]), shape


def _check_claim(promised: int, possible: int, path: Path) -> None:
    """Refuse a header before anything is reserved for it; Python's integers do not overflow in its product."""
    if promised > possible:
        raise DataError(
            f"{path}: it is truncated or damaged (its header promises {promised:,} bytes of values, more than a file "
            f"of this size can hold); {AGAIN}"
        )
    if promised > MAX_BYTES:
        raise DataError(f"{path}: it holds {promised:,} bytes where at most {MAX_BYTES:,} are read; split the file")


def _read_at_most(stream: BinaryIO, count: int) -> bytearray:
    """Up to `count` bytes, in pieces, so that memory grows with what is there and not with what was claimed."""
    data = bytearray()
    while piece := stream.read(min(CHUNK, count - len(data))):
        data += piece
    return data


def _check_length(found: int, promised: int, path: Path) -> None:
    if found < promised:
        raise DataError(f"{path}: it is truncated ({found:,} bytes of values, {promised:,} promised); {AGAIN}")
    if found > promised:
        raise DataError(f"{path}: bytes are left over after the {promised:,} promised by its header; {AGAIN}")
