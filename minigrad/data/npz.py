"""A user's own data: an .npz file with the arrays x and y, and x_test and y_test if there is a test part.

Every array's header is checked against the size of its zip member before anything is reserved for it, and
nothing is ever unpickled.
"""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .dataset import MAX_BYTES, SEED, DataError, Dataset, Pair, hold_out, scaled

PLAUSIBLE_CLASSES = 1000  # above this, and above N, labels are numbers that somebody wants to predict
SAVE = "save it with numpy.savez(path, x=..., y=...)"


def npz_file(path: str | os.PathLike) -> Dataset:
    """Your own data from an .npz file.

    Parameters
    ----------
    path : str or os.PathLike
        A file written by numpy.savez or numpy.savez_compressed with the arrays

        x : uint8 (N, ...), divided by 255, or floats (N, ...), kept as they are but as float32;
        y : integers (N,), the labels 0, 1, 2, ..., or floats (N,) or (N, C), the targets;
        x_test, y_test : optional, the same for the test part.

    Returns
    -------
    Dataset
        Without a test part in the file 72 % of the examples train, 8 % validate and 20 % test; with one, 90 % of
        x and y train and 10 % validate. The choice is always the same, and made in every class alike.

    Raises
    ------
    DataError
        The file is not an .npz file, or an array is missing, damaged, pickled, or not of the kind above.
    """
    path = Path(path)
    arrays = _read(path)
    x, shape = _examples(arrays["x"], f"{path}: x")
    y = _answers(arrays["y"], x, f"{path}: y")
    rng = np.random.default_rng(SEED)
    if "x_test" in arrays:
        test = _test_part(arrays, y, path)
        rest = np.arange(len(y))
    else:
        rest, held = hold_out(_strata(y), 5, rng)
        test = x[held], y[held]
    if len(rest) < 2:
        raise DataError(f"{path}: x and y have too few examples to split ({len(y)}); save more")
    kept, held = hold_out(_strata(y[rest]), 10, rng)
    parts = ((x[part], y[part]) for part in (rest[kept], rest[held]))
    return Dataset(path.stem, _classes(y, test[1], path), shape, *parts, test)


def _strata(y: np.ndarray) -> np.ndarray:
    return y if y.dtype == np.int64 else np.zeros(len(y))


def _test_part(arrays: dict[str, np.ndarray], y: np.ndarray, path: Path) -> Pair:
    if arrays["x_test"].shape[1:] != arrays["x"].shape[1:]:
        raise DataError(
            f"{path}: an example of x_test has the shape {arrays['x_test'].shape[1:]} but one of x has "
            f"{arrays['x'].shape[1:]}; save both alike"
        )
    if (arrays["x_test"].dtype == np.uint8) != (arrays["x"].dtype == np.uint8):  # only one would be divided by 255
        raise DataError(
            f"{path}: x_test is {arrays['x_test'].dtype} but x is {arrays['x'].dtype}; save both with one dtype"
        )
    x_test, _ = _examples(arrays["x_test"], f"{path}: x_test")
    y_test = _answers(arrays["y_test"], x_test, f"{path}: y_test")
    if y_test.dtype != y.dtype or y_test.shape[1:] != y.shape[1:]:
        raise DataError(f"{path}: y_test is not of the kind of y; save labels in both, or targets of one shape in both")
    return x_test, y_test


def _classes(y: np.ndarray, y_test: np.ndarray, path: Path) -> int | None:
    if y.dtype != np.int64:
        return None
    classes = int(max(y.max(), y_test.max())) + 1
    if classes > max(len(y), PLAUSIBLE_CLASSES):
        raise DataError(
            f"{path}: y has labels up to {classes - 1} for {len(y)} examples; number the classes 0, 1, 2, ..., "
            "or save targets of a regression as floats"
        )
    return classes


def _examples(array: np.ndarray, where: str) -> tuple[np.ndarray, tuple[int, ...] | None]:
    """x as float32 (N, D), and the shape of an example that had more than one axis."""
    if array.ndim == 0 or array.size == 0:
        raise DataError(f"{where} has the shape {array.shape} and so no examples; save an array of shape (N, ...)")
    shape = array.shape[1:] if array.ndim > 2 else None
    if array.dtype == np.uint8:
        return scaled(array), shape
    if array.dtype.kind != "f":
        raise DataError(f"{where} is {array.dtype}; save it as uint8 (divided by 255 when read) or as floats")
    return _finite_float32(array.reshape(len(array), -1), where), shape


def _answers(array: np.ndarray, x: np.ndarray, where: str) -> np.ndarray:
    """y as int64 (N,) labels or float32 (N,) or (N, C) targets."""
    if array.dtype.kind not in "iuf":
        raise DataError(f"{where} is {array.dtype}; save integer labels or float targets")
    if array.ndim == 0 or len(array) != len(x):
        raise DataError(f"{where} has the shape {array.shape} but there are {len(x)} examples; save one row for each")
    if array.dtype.kind == "f":
        if array.ndim > 2 or array.size == 0:
            raise DataError(f"{where} has the shape {array.shape}; save float targets as (N,) or (N, C)")
        return _finite_float32(array, where)
    if array.ndim > 1:
        raise DataError(f"{where} has the shape {array.shape}; save labels as (N,), or float targets as (N, C)")
    if array.min() < 0:
        raise DataError(f"{where} has the negative label {array.min()}; number the classes from 0")
    if int(array.max()) > np.iinfo(np.int64).max:
        raise DataError(f"{where} has the label {array.max()}; number the classes 0, 1, 2, ...")
    return array.astype(np.int64)


def _finite_float32(array: np.ndarray, where: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # a value beyond float32 is inf afterwards, and reported as such
        array = array.astype(np.float32)
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        raise DataError(
            f"{where} has {len(bad)} values that are NaN or infinite as float32, the first in row {bad[0][0]}; "
            "remove or replace them"
        )
    return array


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; check the path")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: it is not an .npz file; {SAVE}")
    try:
        with zipfile.ZipFile(path) as archive:
            names = _wanted(archive, path)
            return {name: _read_member(archive, name, path) for name in names}
    except DataError:
        raise
    except Exception as error:  # zipfile and NumPy's header parser raise a dozen types on damaged input
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        raise DataError(f"{path}: it cannot be read ({reason}); {SAVE}") from error


def _wanted(archive: zipfile.ZipFile, path: Path) -> list[str]:
    there = {member.removesuffix(".npy") for member in archive.namelist()}
    tests = [name for name in ("x_test", "y_test") if name in there]
    missing = [name for name in ("x", "y") if name not in there]
    if missing:
        found = ", ".join(sorted(there)) or "nothing"
        raise DataError(f"{path}: it has no {' and no '.join(missing)} (it holds {found}); {SAVE}")
    if len(tests) == 1:
        raise DataError(f"{path}: {tests[0]} is there without its partner; save both x_test and y_test, or neither")
    return ["x", "y", *tests]


def _read_member(archive: zipfile.ZipFile, name: str, path: Path) -> np.ndarray:
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as stream:
        shape, dtype = _read_header(stream)
        header = stream.tell()
    if dtype.hasobject:
        raise DataError(f"{path}: {name} holds pickled objects, which are never loaded; save numbers of one dtype")
    promised = math.prod(shape) * dtype.itemsize
    if header + promised != info.file_size:
        raise DataError(
            f"{path}: {name} is damaged (its header promises {promised:,} bytes of values, "
            f"{info.file_size - header:,} are there); save the file again"
        )
    if promised > MAX_BYTES:
        raise DataError(f"{path}: {name} takes {promised:,} bytes where at most {MAX_BYTES:,} are read; save fewer")
    with archive.open(info) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _read_header(stream: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(stream)
    if version not in readers:
        raise ValueError(f"version {version} of the .npy format")
    shape, _, dtype = readers[version](stream)
    if min(shape, default=0) < 0:
        raise ValueError(f"a negative length in the shape {shape}")
    return shape, dtype
