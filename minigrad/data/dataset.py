"""What every loader returns, the one error every loader raises, and how a part is held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]

SEED = 0  # of every split made by a loader: the parts of a data set are the same for everybody
MAX_BYTES = 1 << 32  # of one array as stored; as float32 it takes up to four times this


class DataError(ValueError):
    """Data that cannot be used: one sentence with the file, what is wrong and what to do about it."""


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Three parts of one data set, each a pair (x, y).

    Parameters
    ----------
    name : str
        Name shown to people.
    classes : int or None
        Number of classes; None when y holds targets instead of labels.
    shape : tuple of int or None
        Shape of one example before it was flattened, such as (28, 28) or (3, 32, 32); None when it was flat.
    train, valid, test : tuple of numpy.ndarray
        x is float32 (N, D); y is int64 (N,) labels, or float32 (N,) or (N, C) targets.
    """

    name: str
    classes: int | None
    shape: tuple[int, ...] | None
    train: Pair
    valid: Pair
    test: Pair

    def __repr__(self) -> str:
        kind = "targets" if self.classes is None else f"{self.classes} classes"
        x = self.train[0]
        shape = "x".join(str(n) for n in self.shape or x.shape[1:])
        sizes = ", ".join(f"{len(getattr(self, part)[0])} {part}" for part in ("train", "valid", "test"))
        return f"<Dataset {self.name}: {kind}, {shape}, {sizes}>"


def scaled(pixels: np.ndarray) -> np.ndarray:
    """Pixels 0..255 of any integer dtype (N, ...) as flat float32 (N, D) in [0, 1]."""
    x = pixels.reshape(len(pixels), -1).astype(np.float32)
    x /= 255
    return x


def hold_out(strata: np.ndarray, one_in: int, rng: np.random.Generator) -> Pair:
    """Split example numbers at random so that every stratum gives one in `one_in` of its examples.

    The examples are shuffled, sorted by stratum and counted off: the held-out share of the whole and of every
    stratum is exact up to rounding.

    Parameters
    ----------
    strata : numpy.ndarray (N,)
        Class of each example; a constant for a plain random split.
    one_in : int
        Hold out N // one_in examples, and one when N is smaller than that.
    rng : numpy.random.Generator
        Source of the order.

    Returns
    -------
    kept, held : numpy.ndarray
        Example numbers, int64, each shuffled.
    """
    count = len(strata)
    order = rng.permutation(count)
    order = order[np.argsort(strata[order], kind="stable")]
    held = np.arange(count) % one_in == min(one_in, count) - 1
    return rng.permutation(order[~held]), rng.permutation(order[held])
