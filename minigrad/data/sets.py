"""The data sets known by name, and folders in the layout of MNIST."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from .dataset import SEED, DataError, Dataset, hold_out, scaled
from .idx import read_idx

DIGITS = Path(__file__).with_name("digits.npz")
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
MNIST_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def digits() -> Dataset:
    """5,000 real handwritten digits of MNIST, shipped with this package.

    Returns
    -------
    Dataset
        Images 28x28 (D = 784), 10 classes, 3600 train, 400 valid and 1000 test examples, all classes alike.
    """
    pixels, labels, ends = _embedded()
    return _digits("digits", pixels, labels, ends)


def digits8() -> Dataset:
    """The digits of `digits` at 8x8: padded to 32x32 with zeros, then averaged over blocks of 4x4.

    Returns
    -------
    Dataset
        Images 8x8 (D = 64), 10 classes, and the same examples in the same parts and order as `digits`.
    """
    pixels, labels, ends = _embedded()
    padded = np.pad(pixels, ((0, 0), (2, 2), (2, 2)))
    sums = padded.reshape(-1, 8, 4, 8, 4).sum(axis=(2, 4), dtype=np.float32)  # at most 4080: exact
    return _digits("digits8", sums / 16, labels, ends)


def _embedded() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The shipped pixels uint8 (5000, 28, 28), labels int64 (5000,), and where train and valid end."""
    with np.load(DIGITS, allow_pickle=False) as stored:
        return stored["x"].reshape(-1, 28, 28), stored["y"].astype(np.int64), np.cumsum(stored["counts"])[:2]


def _digits(name: str, pixels: np.ndarray, labels: np.ndarray, ends: np.ndarray) -> Dataset:
    parts = zip(np.split(scaled(pixels), ends), np.split(labels, ends))
    return Dataset(name, 10, pixels.shape[1:], *parts)


def fashion() -> Dataset:
    """Fashion-MNIST, from the folder of Debian's package or from this program's cache folder.

    The folders looked at are that of the Debian package dataset-fashion-mnist, and minigrad/fashion in
    $XDG_CACHE_HOME (~/.cache where that is not set).

    Returns
    -------
    Dataset
        Images 28x28 (D = 784), 10 classes, 54000 train, 6000 valid and 10000 test examples.

    Raises
    ------
    DataError
        Neither folder is there, or the one found cannot be read.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "minigrad", "fashion")
    for folder in (DEBIAN_FASHION, cache):
        if folder.is_dir():
            return replace(idx_folder(folder), name="fashion")
    raise DataError(
        f"Fashion-MNIST is neither in {DEBIAN_FASHION} nor in {cache}; "
        "run apt-get install dataset-fashion-mnist, or name a folder that holds it with --data DIR"
    )


def idx_folder(folder: str | os.PathLike) -> Dataset:
    """A folder with the four files of MNIST, Fashion-MNIST or anything in their layout.

    The files are train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
    t10k-labels-idx1-ubyte, with or without .gz, or with a dot as in train-images.idx3-ubyte. One in ten of the
    training examples of each class, always the same ones, becomes the validation part.

    Parameters
    ----------
    folder : str or os.PathLike
        The folder, whose name becomes the name of the data set.

    Returns
    -------
    Dataset
        x is float32 (N, rows·columns) in [0, 1], y is int64 (N,).

    Raises
    ------
    DataError
        A file is missing or cannot be read, or the files do not belong together.
    """
    folder = Path(folder)
    train_images, train_labels, test_images, test_labels = _mnist_files(folder)
    x, y = _read_pair(train_images, train_labels)
    x_test, y_test = _read_pair(test_images, test_labels)
    if x.shape[1:] != x_test.shape[1:]:
        raise DataError(
            f"{test_images}: its images are {_size(x_test)} but those of {train_images.name} are {_size(x)}; "
            "use the files of one data set"
        )
    if len(x) < 2:
        raise DataError(f"{train_images}: one image cannot be split in two; use at least 2 for training")
    kept, held = hold_out(y, 10, np.random.default_rng(SEED))
    classes = int(max(y.max(), y_test.max())) + 1
    parts = ((scaled(x[part]), y[part]) for part in (kept, held))
    return Dataset(folder.resolve().name, classes, x.shape[1:], *parts, (scaled(x_test), y_test))


def _mnist_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; check the path")
    found = [_find(folder, name) for name in MNIST_FILES]
    missing = [name for name, path in zip(MNIST_FILES, found) if path is None]
    if missing:
        raise DataError(f"{folder}: {', '.join(missing)} missing (with or without .gz); put them into this folder")
    return found


def _find(folder: Path, name: str) -> Path | None:
    dotted = name.replace("-idx", ".idx")
    candidates = (folder / (stem + ending) for stem in (name, dotted) for ending in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)


def _read_pair(images_path: Path, labels_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (N, rows, columns) and labels int64 (N,) of one part."""
    images = _read_bytes(images_path, "images", 3)
    labels = _read_bytes(labels_path, "labels", 1)
    if len(images) != len(labels):
        raise DataError(
            f"{labels_path}: it holds {len(labels)} labels for the {len(images)} images of {images_path.name}; "
            "use the files of one data set"
        )
    return images, labels.astype(np.int64)


def _read_bytes(path: Path, kind: str, axes: int) -> np.ndarray:
    array = read_idx(path)
    if array.ndim != axes or array.dtype != np.uint8:
        holds = {1: "labels", 3: "images"}.get(array.ndim, "something else")
        raise DataError(
            f"{path}: {kind} (uint8, axes: {axes}) are expected but it holds {holds} ({array.dtype}, axes: "
            f"{array.ndim}); put the right file in its place"
        )
    return array


def _size(images: np.ndarray) -> str:
    return "x".join(str(n) for n in images.shape[1:])
