"""Data sets, readers of data files, and shuffled batches; on NumPy and the standard library alone."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from .batching import Batches, batches
from .cifar import cifar10, is_cifar10
from .dataset import DataError, Dataset
from .idx import read_idx
from .npz import npz_file
from .sets import digits, digits8, fashion, idx_folder

__all__ = [
    "Batches",
    "DataError",
    "Dataset",
    "batches",
    "cifar10",
    "digits",
    "digits8",
    "fashion",
    "idx_folder",
    "load",
    "npz_file",
    "read_idx",
]

NAMED = {"digits": digits, "digits8": digits8, "fashion": fashion}


def load(source: str | os.PathLike) -> Dataset:
    """A data set by name, from a folder in the layout of MNIST, from CIFAR-10's archive, or from an .npz file.

    Parameters
    ----------
    source : str or os.PathLike
        "digits", "digits8", "fashion", a folder (see `idx_folder`), cifar-10-binary.tar.gz or its folder (see
        `cifar10`) or another file (see `npz_file`); a name wins over a folder of the same name, which ./name reaches.

    Returns
    -------
    Dataset
        The data set.

    Raises
    ------
    DataError
        The name or path is unknown, or what it leads to cannot be read.

    Examples
    --------
    >>> load("digits8")
    <Dataset digits8: 10 classes, 8x8, 3600 train, 400 valid, 1000 test>
    """
    if source in NAMED:
        return NAMED[source]()
    path = Path(source).expanduser()
    if is_cifar10(path):
        return cifar10(path)
    if path.is_dir():
        return idx_folder(path)
    if path.is_file() or path.suffix == ".npz":
        return npz_file(path)
    close = difflib.get_close_matches(str(source).lower(), NAMED, n=1)
    advice = f"did you mean {close[0]!r}?" if close else f"use {', '.join(NAMED)}, a folder or an .npz file"
    raise DataError(f"{str(source)!r} is neither the name of a data set nor a folder or file; {advice}")
