"""CIFAR-10 in its binary version: cifar-10-binary.tar.gz, or the folder that it unpacks to.

Six files of records, each one label byte and 3072 pixel bytes (https://www.cs.toronto.edu/~kriz/cifar.html). The
archive is read as a stream and never unpacked to disk, so names, links and permissions in it have no effect; nothing
is unpickled. An archive is a claim by a file that may be damaged or hostile: no more is taken from it than the
official one holds.
"""

from __future__ import annotations

import gzip
import os
import tarfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .dataset import SEED, DataError, Dataset, Pair, hold_out, scaled

TRAIN = tuple(f"data_batch_{k}.bin" for k in range(1, 6))
FILES = (*TRAIN, "test_batch.bin")
INSIDE = "cifar-10-batches-bin"  # the folder in the archive
ARCHIVES = (".tar.gz", ".tgz", ".tar")
SHAPE, CLASSES = (3, 32, 32), 10
RECORD = 1 + 3 * 32 * 32
MOST_RECORDS = 10_000  # of a file
MOST_BYTES = (len(FILES) + 1) * MOST_RECORDS * RECORD  # of an archive, unpacked: the official one and a sixth more
CHUNK = 1 << 20
AGAIN = "download cifar-10-binary.tar.gz again"


def is_cifar10(path: Path) -> bool:
    """Whether a path is to be read as CIFAR-10: by the name of an archive, or by what is in a folder."""
    if path.is_dir():
        return any((path / name).exists() for name in (*FILES, INSIDE, "data_batch_1", "cifar-10-batches-py"))
    return path.name.lower().endswith(ARCHIVES)


def cifar10(path: str | os.PathLike) -> Dataset:
    """CIFAR-10 from its official binary archive or folder.

    Parameters
    ----------
    path : str or os.PathLike
        cifar-10-binary.tar.gz, the folder cifar-10-batches-bin that it holds, or a folder in which that lies.

    Returns
    -------
    Dataset
        x is float32 (N, 3072) in [0, 1]: red, green and blue planes of 32x32; y is int64 (N,). One in ten of the
        training examples of each class, always the same ones, becomes the validation part: 45000 train, 5000 valid
        and 10000 test examples.

    Raises
    ------
    DataError
        A file is missing, damaged or truncated, or is not of this format.
    """
    path = Path(path)
    parts = _from_folder(path) if path.is_dir() else _from_archive(path)
    missing = [name for name in FILES if name not in parts]
    if missing:
        raise DataError(f"{path}: {', '.join(missing)} missing{_other_version(path)}; take cifar-10-binary.tar.gz")
    records = np.concatenate([parts.pop(name) for name in TRAIN])
    if len(records) < 2:
        raise DataError(f"{path}: one image cannot be split in two; use at least 2 for training")
    kept, held = hold_out(records[:, 0], 10, np.random.default_rng(SEED))
    test = parts.pop("test_batch.bin")
    return Dataset("cifar-10", CLASSES, SHAPE, *(_pair(r) for r in (records[kept], records[held], test)))


def _pair(records: np.ndarray) -> Pair:
    return scaled(records[:, 1:]), records[:, 0].astype(np.int64)


def _other_version(path: Path) -> str:
    found = path.is_dir() and ((path / "data_batch_1").exists() or (path / "cifar-10-batches-py").exists())
    return " (this is the Python version, whose pickles are never read)" if found else ""


def _from_folder(folder: Path) -> dict[str, np.ndarray]:
    """{file: records uint8 (N, 3073)} of the files that are there."""
    folder = folder / INSIDE if (folder / INSIDE).is_dir() else folder
    parts = {}
    for name in FILES:
        path = folder / name
        if path.is_file():
            _check_size(path.stat().st_size, path)
            parts[name] = _records(path.read_bytes(), path)
    return parts


def _from_archive(path: Path) -> dict[str, np.ndarray]:
    """{file: records uint8 (N, 3073)} of the files that are in the archive."""
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; check the path")
    try:
        with path.open("rb") as raw:
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            stream = _Bounded(gzip.GzipFile(fileobj=raw, mode="rb") if packed else raw, path)
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                parts = _members(archive, path)
            while stream.read(CHUNK):
                pass  # gzip checks its sum at the end
            return parts
    except DataError:
        raise
    except Exception as error:  # tarfile, gzip and zlib raise a dozen types on damaged input
        told = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise DataError(f"{path}: it cannot be read ({told}); {AGAIN}") from error


def _members(archive: tarfile.TarFile, path: Path) -> dict[str, np.ndarray]:
    parts: dict[str, np.ndarray] = {}
    for member in archive:
        name = member.name.rpartition("/")[2]
        if name not in FILES or not member.isreg() or member.issparse():
            continue
        where = f"{path}: {name}"
        if name in parts:
            raise DataError(f"{where} is in it twice; {AGAIN}")
        _check_size(member.size, where)
        parts[name] = _records(archive.extractfile(member).read(), where)
    return parts


class _Bounded:
    """A stream that gives no more than MOST_BYTES, so that a small archive cannot unpack without end."""

    def __init__(self, stream: BinaryIO, path: Path):
        self.stream, self.path, self.left = stream, path, MOST_BYTES

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise DataError(f"{self.path}: it holds more than {MOST_BYTES:,} bytes, which CIFAR-10 does not; {AGAIN}")
        return data


def _check_size(size: int, where: Any) -> None:
    if not 0 < size <= MOST_RECORDS * RECORD or size % RECORD:
        raise DataError(
            f"{where} has {size:,} bytes where 1 to {MOST_RECORDS:,} records of {RECORD} are expected; {AGAIN}"
        )


def _records(data: bytes, where: Any) -> np.ndarray:
    """Records uint8 (N, 3073): label, then pixels."""
    _check_size(len(data), where)
    records = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
    wrong = np.flatnonzero(records[:, 0] >= CLASSES)
    if len(wrong):
        label = records[wrong[0], 0]
        raise DataError(f"{where} has the label {label} in record {wrong[0] + 1} where 0 to 9 are possible; {AGAIN}")
    return records
