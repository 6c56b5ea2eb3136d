"""Shuffled batches that any step number can name again."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

Batch = tuple[Any, Any]


class Batches:
    """The batches of a data set in a fresh random order every epoch.

    The order of an epoch depends on the key and the number of the epoch alone, so the batch of a step is known
    without the steps before it, and a resumed run sees what an uninterrupted one sees. It is drawn on the host,
    the same for every device, and uploaded once an epoch.

    Parameters
    ----------
    x, y : array (N, ...)
        Examples and their answers, NumPy or CuPy, both on one device.
    size : int
        Examples a batch, from 1 to N; the last batch of an epoch is shorter when N is not a multiple.
    rng : None, int, SeedSequence, BitGenerator or Generator, optional
        What `numpy.random.default_rng` accepts; a non-negative int is the key itself, a generator is drawn from once.

    Attributes
    ----------
    key : int
        The seed of every order; save it to see the same batches again.

    Raises
    ------
    ValueError
        x and y differ in length, or size is not from 1 to N.

    Examples
    --------
    >>> import numpy as np
    >>> data = Batches(np.arange(5.0), np.arange(5), size=2)
    >>> len(data), sorted(int(n) for x, y in data for n in y)
    (3, [0, 1, 2, 3, 4])
    """

    def __init__(self, x: Any, y: Any, size: int, rng: Any = 0):
        from minigrad import backend  # inside: reading data needs no backend

        if len(x) != len(y):
            raise ValueError(f"x has {len(x)} examples but y has {len(y)}; give one answer for every example")
        if not 1 <= size <= len(x):
            raise ValueError(f"the batch size is {size} but must be from 1 to the {len(x)} examples there are")
        if backend.xp(x) is not backend.xp(y):
            there = backend.device_of(x)
            told = f"x is on {there}, but y is on {backend.device_of(y)}"
            raise ValueError(f"{told}; bring it over with backend.asarray(y, {there!r})")
        self.x, self.y, self.size = x, y, operator.index(size)
        self.key = backend.random_key(rng)
        self._next_epoch = 0
        self._order: tuple[int, Any] = (-1, None)

    def __len__(self) -> int:
        """Steps an epoch."""
        return -(-len(self.x) // self.size)

    def __iter__(self) -> Iterator[Batch]:
        """The batches of one epoch: epoch 0 the first time, the next epoch every time after."""
        first = self._next_epoch * len(self)
        self._next_epoch += 1
        return (self.at(step) for step in range(first, first + len(self)))

    def at(self, step: int) -> Batch:
        """The batch of a global step, whatever was asked for before.

        Parameters
        ----------
        step : int
            Steps since the beginning of training; the epoch is step // len(self).

        Returns
        -------
        x, y : array (size, ...)
            Copies on the device of x; fewer than `size` rows at the end of an epoch.

        Raises
        ------
        ValueError
            The step is negative.
        """
        if step < 0:
            raise ValueError(f"step {step} is negative; steps count from 0")
        epoch, position = divmod(step, len(self))
        index = self._epoch_order(epoch)[position * self.size : (position + 1) * self.size]
        x = self.x[index]
        return x, x if self.y is self.x else self.y[index]  # an autoencoder's target is its input

    def _epoch_order(self, epoch: int) -> Any:
        """The permutation of an epoch on the device of x; the latest one is kept."""
        if self._order[0] != epoch:
            from minigrad import backend

            order = backend.stream(self.key, "batches", epoch).permutation(len(self.x))
            self._order = epoch, backend.like(order, self.x)
        return self._order[1]


def batches(x: Any, y: Any, size: int, rng: Any = 0) -> Batches:
    """Shuffled batches of `size` examples; see `Batches`, whose parameters these are."""
    return Batches(x, y, size, rng)
