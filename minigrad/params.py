"""θ as one vector, and named windows into it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from . import backend
from .tensor import Tensor


class Windows(Mapping):
    """Names for parts of a flat vector: `windows["0.W"]` is a view, made when it is asked for.

    Parameters
    ----------
    layout : dict
        {name: (start, stop, shape)}.
    vector : (d,) array
    """

    __slots__ = ("layout", "flat", "_views")

    def __init__(self, layout: dict[str, tuple], vector: Any):
        self.layout = layout
        self.flat = vector
        self._views: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        view = self._views.get(name)
        if view is None:
            if name not in self.layout:
                raise KeyError(f"no parameter is called {name!r}; there are {', '.join(self.layout)}")
            start, stop, shape = self.layout[name]
            view = self._views[name] = self.flat[start:stop].reshape(shape)
        return view

    def all(self) -> dict[str, Any]:
        """Every window by its name."""
        views, flat = self._views, self.flat
        if len(views) < len(self.layout):
            for name, (start, stop, shape) in self.layout.items():
                if name not in views:
                    views[name] = flat[start:stop] if len(shape) == 1 else flat[start:stop].reshape(shape)
        return views

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout)

    def __len__(self) -> int:
        return len(self.layout)

    def __contains__(self, name: object) -> bool:
        return name in self.layout


class Params(Windows):
    """The parameters of a model: one vector θ, windows into it by name, and buffers that are not in θ.

    θ moves in place. `params.vector += step` and `params["0.W"] += step` count as moves (they raise `version`),
    and so does assignment; writing through a window kept in a variable is not seen.

    Parameters
    ----------
    arrays : dict, optional
        {name: array or number}, for names that are not identifiers.
    \\*\\*named : array or number
        All of one floating dtype and on one device; Python numbers become float64.

    Attributes
    ----------
    version : int
        Raised by every move.
    buffers : dict
        Running statistics of layers: saved with the parameters, never differentiated.

    Examples
    --------
    >>> import minigrad as mg
    >>> p = mg.Params(x=-1.0, y=2.0)
    >>> p.vector += 1
    >>> float(p["y"]), p.version
    (3.0, 1)
    """

    __slots__ = ("version", "buffers", "_tracked")

    def __init__(self, arrays: Mapping[str, Any] | None = None, /, **named: Any):
        arrays = {**(arrays or {}), **named}
        if not arrays:
            raise ValueError("Params needs at least one named array")
        arrays = {name: _floating(name, a) for name, a in arrays.items()}
        kinds = {(backend.device_of(a), str(a.dtype)) for a in arrays.values()}
        if len(kinds) > 1:
            found = ", ".join(f"{dtype} on {device}" for device, dtype in sorted(kinds))
            raise ValueError(f"the parameters of one model share a dtype and a device, not {found}; convert them first")
        layout, at = {}, 0
        for name, a in arrays.items():
            size = math.prod(a.shape)
            layout[name] = (at, at + size, tuple(a.shape))
            at += size
        module = backend.xp(next(iter(arrays.values())))
        super().__init__(layout, module.concatenate([a.reshape(a.size) for a in arrays.values()]))
        self.version = 0
        self.buffers: dict[str, Any] = {}
        self._tracked: Tracked | None = None

    @property
    def vector(self) -> Any:
        """θ (d,), the array itself: the windows see what is added to it."""
        return self.flat

    @vector.setter
    def vector(self, value: Any) -> None:
        self._move(self.flat, value, "vector")

    def __setitem__(self, name: str, value: Any) -> None:
        self._move(self[name], value, f"parameter {name!r}")

    def _move(self, place: Any, value: Any, what: str) -> None:
        if value is not place:  # `+=` hands back the view that it has already changed
            value = backend.xp(place).asarray(value) if isinstance(value, (list, tuple)) else value
            backend.check_place(f"the new {what}", value, place)
            if tuple(getattr(value, "shape", ())) not in (tuple(place.shape), ()):
                raise ValueError(f"{what} has shape {tuple(place.shape)}, not {tuple(value.shape)}")
            place[...] = value
        self.version += 1

    @property
    def dtype(self) -> np.dtype:
        return self.flat.dtype

    @property
    def device(self) -> str:
        return backend.device_of(self.flat)

    @property
    def size(self) -> int:
        """d, the number of parameters."""
        return self.flat.size

    def at(self, vector: Any) -> Params:
        """The same names over another vector, which is not copied; the buffers are shared."""
        if vector is self.flat:
            return self
        if tuple(vector.shape) != tuple(self.flat.shape) or vector.dtype != self.flat.dtype:
            raise ValueError(
                f"the vector is {vector.dtype}{tuple(vector.shape)}, but θ is {self.flat.dtype}{tuple(self.flat.shape)}"
            )
        other = object.__new__(Params)
        Windows.__init__(other, self.layout, vector)
        other.version, other.buffers, other._tracked = 0, self.buffers, None
        return other

    def copy(self) -> Params:
        """Parameters and buffers of their own, with the same values."""
        other = self.at(self.flat.copy())
        other.buffers = {name: b.copy() for name, b in self.buffers.items()}
        return other

    def to(self, device: str) -> Params:
        """A copy on another device ("cpu" or "cuda")."""
        other = self.at(self.flat.copy())
        other.flat = backend.asarray(self.flat, device).copy()
        other.buffers = {name: backend.asarray(b, device).copy() for name, b in self.buffers.items()}
        return other

    def windows(self, vector: Any) -> Windows:
        """The same names over a vector of θ's shape: a gradient, a step."""
        return Windows(self.layout, vector)

    def track(self) -> Tracked:
        """The windows as leaf Tensors: a network called with them records its graph. They see θ move."""
        if self._tracked is None:
            self._tracked = Tracked(self)
        self._tracked.buffers, self._tracked.moved = self.buffers, {}
        return self._tracked

    def __reduce__(self) -> tuple:
        return _rebuilt, (dict(self.all()), self.buffers)  # copies and pickles make windows of their own

    def __repr__(self) -> str:
        return f"Params({len(self)} windows, {self.size:,} numbers, {self.dtype} on {self.device})"


def _rebuilt(arrays: dict[str, Any], buffers: dict[str, Any]) -> Params:
    params = Params(arrays)
    params.buffers = buffers
    return params


class Layer(NamedTuple):
    """A dense layer by its windows: NAME, "NAME.W", and "NAME.b" or None."""

    name: str
    W: str
    b: str | None


class Tracked(dict):
    """Windows as leaf Tensors, {window: Tensor}; reads like Params.

    Attributes
    ----------
    seqs : frozenset of int
        Their places in the order of creation.
    layers : dict
        {(seq of NAME.W, seq of NAME.b or None): Layer}, for every window NAME.W with and without its bias.
    moved : dict
        {buffer: array}: layers in train mode put here what their running statistics are after this batch.
    """

    __slots__ = ("seqs", "layers", "buffers", "moved")

    def __init__(self, params: Params):
        super().__init__((name, Tensor(window)) for name, window in params.all().items())
        self.seqs = frozenset(leaf.seq for leaf in self.values())
        self.layers: dict[tuple, Layer] = {}
        for window, leaf in self.items():
            name, dot, last = window.rpartition(".")
            if dot and last == "W":
                self.layers[leaf.seq, None] = Layer(name, window, None)
                if name + ".b" in self:
                    self.layers[leaf.seq, self[name + ".b"].seq] = Layer(name, window, name + ".b")

    def __missing__(self, name: str) -> Tensor:
        raise KeyError(f"no parameter is called {name!r}; there are {', '.join(self)}")


def _floating(name: str, value: Any) -> Any:
    if isinstance(value, (int, float, list, tuple)) and not isinstance(value, bool):
        value = np.asarray(value, dtype=float)
    if not hasattr(value, "dtype") or value.dtype.kind != "f":
        kind = getattr(value, "dtype", type(value).__name__)
        raise TypeError(f"parameter {name!r} must be a floating array, not {kind}; convert it with .astype(float)")
    return value
