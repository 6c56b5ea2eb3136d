"""Method, Info and state: the protocol that every optimization method follows."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from minigrad import Objective, Params, backend


class Stopped(ArithmeticError):
    """A method that cannot go on from here; θ stays at its last good point, and the sentence says why."""


class Info:
    """What a step reports.

    Parameters
    ----------
    loss : 0-d array, or a function that gives it
        R(θ) before the step.
    """

    __slots__ = ("_loss",)

    def __init__(self, loss: Any):
        self._loss = loss

    @property
    def loss(self) -> Any:
        """R(θ) before the step, a 0-d array: computed when it is first read, and left on its device."""
        if callable(self._loss):
            self._loss = self._loss()
        return self._loss

    def __repr__(self) -> str:
        return f"Info(loss={float(self.loss):.6g})"


class Method:
    """An optimization method: settings in the object, everything that changes in `state`.

    A subclass is a dataclass whose fields are its settings; it has `start` where it keeps arrays, and `update`.
    The state is a plain dict of arrays and numbers: saved and resumed as it is, bit for bit.
    """

    full_batch = False  # whether the method is meant for the whole training set as one batch
    reads_gradient = False  # whether all that it takes from f is f.grad and f.pullback (and f.value)
    is_rule = False  # whether it decides layer by layer, so that UBP can go over it

    def init(self, params: Params, rng: Any = 0) -> dict[str, Any]:
        """The state before the first step.

        Parameters
        ----------
        rng
            Whatever `numpy.random.default_rng` accepts; kept as one integer key.
        """
        return {"t": 0, "key": backend.random_key(rng), **self.start(params)}

    def start(self, params: Params) -> dict[str, Any]:
        """What this method adds to the state."""
        return {}

    def update(self, f: Objective, state: dict[str, Any]) -> Any:
        """Δθ (d,) at the present θ; changes the state, not θ. The caller reads it and does not write to it."""
        raise TypeError(f"{type(self).__name__} has no update(f, state)")

    def step(self, f: Objective, state: dict[str, Any]) -> Info:
        """One step: the loss is read, then θ moves by `update` once, and running statistics as the batch moves them."""
        info, statistics = Info(f.value_later()), f.statistics
        delta = self.update(f, state)
        if type(delta) is not type(f.params.vector):
            backend.check_place(f"the update of {type(self).__name__}", delta, f.params.vector)
        f.params.vector += delta
        f.params.buffers.update(statistics)
        state["t"] += 1
        return info


def check_setting(
    method: Any, name: str, low: float, high: float = float("inf"), *, open_low: bool = False, whole: bool = False
) -> None:
    """Refuse a setting outside low ≤ value < high (low < value with `open_low`; integers only with `whole`).

    Raises
    ------
    ValueError
        One sentence with the method, the setting, its value and its range.
    """
    value = getattr(method, name)
    if isinstance(value, np.number):
        value = value.item()
        setattr(method, name, value)
    fits = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not (fits and (low < value if open_low else low <= value) and value < high):
        bounds = f"{'more than' if open_low else 'at least'} {low:g}"
        bounds += f" and less than {high:g}" if high != float("inf") else ""
        kind = "whole number" if whole else "number"
        raise ValueError(f"{type(method).__name__}: {name} must be a {kind} of {bounds}, not {value!r}")


def check_choice(method: Any, name: str, words: tuple) -> None:
    """Refuse a setting that is none of the words.

    Raises
    ------
    ValueError
        One sentence with the method, the setting, its value and the words.
    """
    value = getattr(method, name)
    if value not in words:
        told = ", ".join(str(word) for word in words)
        raise ValueError(f"{type(method).__name__}: {name} must be one of {told}, not {value!r}")


def settings(method: Method) -> dict[str, Any]:
    """{setting: value} of a method."""
    return {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}
