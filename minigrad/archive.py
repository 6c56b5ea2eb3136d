"""Plain dictionaries of arrays and numbers as .npz files, which come back bit for bit.

The file is an uncompressed .npz that `numpy.load` reads too. One more member, `__index__`, is a JSON text with the
format's version, the order of the keys, and what is no array: numbers, strings, booleans. A file is written beside
its place and moved there when it is complete, so that a reader never meets half of one. Nothing in a file is ever
unpickled, and no more memory is taken than the file has bytes.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from . import backend

VERSION = 1
INDEX = "__index__"
KINDS = "biufcSU"  # kinds of dtype that come back as they were; others hold pointers, or lose their meaning
AGAIN = "save it again, or take an older copy"


class LoadError(ValueError):
    """A file that cannot be loaded; the sentence names the file, the problem and the remedy."""


def write_npz(path: str | os.PathLike, arrays: Mapping[str, Any]) -> None:
    """Write a flat dictionary so that `read_npz` gives it back bit for bit, in its order and with its types.

    Parameters
    ----------
    path : str or os.PathLike
    arrays : dict
        {key: array of either device, NumPy scalar, int, float, bool, str or None}.

    Raises
    ------
    TypeError
        A value of another type, or an array of objects or records.
    ValueError
        A key that cannot name a member of the file.
    """
    for key in arrays:
        if not isinstance(key, str) or key in ("", INDEX) or not key.isprintable() or "\\" in key:
            raise ValueError(f"{key!r} cannot name an entry of a file; use a printable string without backslashes")
    entries = {key: _entry(key, value) for key, value in arrays.items()}
    index = json.dumps({"version": VERSION, "entries": entries})
    with replacing(path) as stream, zipfile.ZipFile(stream, "w") as archive:
        _write_member(archive, INDEX, np.array(index.encode("ascii")))
        for key, entry in entries.items():
            if isinstance(entry, str):
                _write_member(archive, key, np.asarray(backend.to_host(arrays[key])))


def _entry(key: str, value: Any) -> Any:
    """What the index says of a value: "array" or "scalar" for a member of the file, otherwise the value itself."""
    if type(value) in (int, float, bool, str, type(None)):
        return {"value": value}
    host = type(value) in (np.ndarray, np.memmap) or isinstance(value, np.generic)
    if not host and backend.xp(value) is np:
        raise TypeError(f"{key!r} is a {type(value).__name__}; a file takes arrays, numbers, strings and booleans")
    if value.dtype.kind not in KINDS:
        raise TypeError(f"{key!r} is an array of {value.dtype}; a file takes arrays of numbers, booleans or strings")
    return "scalar" if isinstance(value, np.generic) else "array"


def _write_member(archive: zipfile.ZipFile, key: str, array: np.ndarray) -> None:
    with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


def read_npz(path: str | os.PathLike) -> dict[str, Any]:
    """Read a dictionary written by `write_npz`; arrays come back on the host.

    Raises
    ------
    LoadError
        The file is missing, damaged, or was not written by `write_npz`.
    """
    path = Path(path)
    if not path.is_file():
        raise LoadError(f"{path}: there is no such file; check the path")
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_entries(archive, path)
    except LoadError:
        raise
    except Exception as error:  # zipfile and NumPy's header parser raise a dozen types on damaged input
        with path.open("rb") as stream:
            is_zip = stream.read(4) == b"PK\x03\x04"
        problem = f"it is damaged or cut short ({reason(error)}); {AGAIN}"
        raise LoadError(f"{path}: {problem if is_zip else 'it is not an .npz file; check the path'}") from error


def _read_entries(archive: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    members = {info.filename: info for info in archive.infolist()}
    if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
        raise LoadError(f"{path}: it is compressed, which minigrad never does; {AGAIN}")
    if sum(info.file_size for info in members.values()) > path.stat().st_size:
        raise LoadError(f"{path}: its members promise more bytes than the file has; {AGAIN}")
    if f"{INDEX}.npy" not in members:
        raise LoadError(f"{path}: it was not written by minigrad; read it with numpy.load")
    index = json.loads(_read_member(archive, members, INDEX, path).item())
    if index["version"] != VERSION:
        raise LoadError(
            f"{path}: it has format version {short(index['version'])}, but this minigrad reads version {VERSION}; "
            "use the minigrad that wrote it"
        )
    return {key: _read_value(archive, members, key, entry, path) for key, entry in index["entries"].items()}


def _read_value(archive: zipfile.ZipFile, members: dict, key: str, entry: Any, path: Path) -> Any:
    if entry not in ("array", "scalar"):
        value = entry["value"]
        if type(value) not in (int, float, bool, str, type(None)):
            raise ValueError(f"{short(key)} is neither a number nor a string")
        return value
    array = _read_member(archive, members, key, path)
    return array if entry == "array" else array[()]


def _read_member(archive: zipfile.ZipFile, members: dict, key: str, path: Path) -> np.ndarray:
    """One array; its header is checked against the bytes that are there before memory is taken for it."""
    info = members.get(f"{key}.npy")
    if info is None:
        raise LoadError(f"{path}: it has no {short(key)}, which its index names; {AGAIN}")
    with archive.open(info) as stream:
        reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = reader[np.lib.format.read_magic(stream)](stream)
        size = info.file_size - stream.tell()
    if dtype.hasobject:
        raise LoadError(f"{path}: {short(key)} holds pickled objects, which are never loaded; save numbers instead")
    if dtype.kind not in KINDS or min(shape, default=0) < 0 or math.prod(shape) * max(dtype.itemsize, 1) != size:
        raise LoadError(f"{path}: {short(key)} is not the array that its header promises; {AGAIN}")
    with archive.open(info) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def reason(error: BaseException) -> str:
    """The first line of an error, without a full stop."""
    return next(iter(str(error).splitlines()), "").rstrip(".") or type(error).__name__


def short(value: Any) -> str:
    """Something that a file says, fit for a sentence."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A binary stream whose content takes the place of `path` when the block ends well, and vanishes otherwise.

    The temporary file lies in the same folder, for a move within a file system is atomic, and starts with a dot.
    """
    target = Path(os.path.realpath(path))  # a link stays a link
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{path}: its folder does not exist; create it first")
    part = target.with_name(f".{target.name}.{os.urandom(4).hex()}")
    try:
        with open(part, "xb") as stream:  # not tempfile, which would take the file's readers away
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
