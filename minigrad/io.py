"""A network with its parameters in one file.

The file is a dictionary as `archive` writes it: θ, the names and shapes of its windows, the buffers, and a description
of the network in JSON: class, settings and children of every layer. Only classes of `minigrad.nn` are rebuilt from
it; nothing that a file names is ever imported.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from . import nn
from .archive import AGAIN, LoadError, read_npz, reason, short, write_npz
from .params import Params

__all__ = ["LoadError", "load", "read_npz", "save", "write_npz"]

MAX_LAYERS = 100_000  # a short description of shared layers can unfold to any number of them


def save(path: str | os.PathLike, net: Callable, params: Params) -> None:
    """Write a network and its parameters to one .npz file.

    Parameters
    ----------
    path : str or os.PathLike
        Written as it is named (no suffix is added); an older file stays whole until the new one is complete.
    net : nn.Layer or callable
        Layers of `minigrad.nn` are described by their settings, shared ones as shared, so that `load` can rebuild
        them. Of other classes and of functions only the name is kept: `load` then needs them as `net=`.
    params : Params
        θ, its windows and its buffers, on either device.

    Raises
    ------
    TypeError
        `params` is not a Params, or `net` cannot be called.
    ValueError
        The layers' windows are not those of `params`.

    Examples
    --------
    >>> import minigrad as mg, os, tempfile
    >>> net = mg.nn.mlp([2, 3, 1])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mg.save(os.path.join(folder, "net.npz"), net, net.init(rng=0))
    ...     mg.load(os.path.join(folder, "net.npz"))[1]
    Params(4 windows, 13 numbers, float32 on cpu)
    """
    if not isinstance(params, Params) or not callable(net):
        raise TypeError(f"save takes (path, net, params), not a {type(net).__name__} and a {type(params).__name__}")
    windows = {name: shape for name, (_, _, shape) in params.layout.items()}
    trouble = _disagreement(net, windows)
    if trouble:
        raise ValueError(f"{trouble}; save the parameters that this network made with init")
    entries = {
        "theta": params.vector,
        "windows": json.dumps(windows),
        "network": json.dumps(_describe(net, {}), default=_plain_number),
    }
    write_npz(path, {**entries, **{f"buffers/{name}": value for name, value in params.buffers.items()}})


def load(path: str | os.PathLike, net: Callable | None = None, device: str = "cpu") -> tuple[Callable, Params]:
    """Read a network and its parameters from a file written by `save`.

    Parameters
    ----------
    path : str or os.PathLike
    net : nn.Layer or callable, optional
        Used instead of the description in the file. The names and shapes of its windows must be those in the file
        (a function has none to compare); its activations are not compared.
    device : {"cpu", "cuda"}

    Returns
    -------
    net, params : callable, Params
        θ with the dtype and the bits that it had.

    Raises
    ------
    LoadError
        The file is missing, damaged, of another kind or version, or does not fit `net`; or it was saved with classes
        that are not in `minigrad.nn`, and `net` is not given.
    DeviceError
        The device cannot be used.
    """
    entries = read_npz(path)
    theta, windows, description = _network_entries(entries, path)
    if net is None:
        net = _rebuild(description, path)
    trouble = _disagreement(net, windows)
    if trouble:
        raise LoadError(f"{path}: {trouble}; pass as net= the network that was saved")
    ends = np.cumsum([math.prod(shape) for shape in windows.values()])
    parts = np.split(theta, ends[:-1])
    params = Params({name: part.reshape(shape) for part, (name, shape) in zip(parts, windows.items())})
    params.buffers = {k.removeprefix("buffers/"): v for k, v in entries.items() if k.startswith("buffers/")}
    return net, params if device == "cpu" else params.to(device)


def _network_entries(entries: dict, path: Any) -> tuple[np.ndarray, dict[str, tuple[int, ...]], Any]:
    """θ, {window: shape} and the description of the network, checked against each other."""
    missing = [key for key in ("theta", "windows", "network") if key not in entries]
    if missing:
        raise LoadError(f"{path}: it has no {' and no '.join(missing)}; give a file written by minigrad.save")
    try:
        theta, description = entries["theta"], json.loads(entries["network"])
        windows = {name: tuple(shape) for name, shape in json.loads(entries["windows"]).items()}
        lengths = [n for shape in windows.values() for n in shape]
        sound = theta.ndim == 1 and theta.dtype.kind == "f" and all(type(n) is int and n >= 0 for n in lengths)
    except (AttributeError, TypeError, ValueError, RecursionError):
        sound = False
    if not sound:
        raise LoadError(f"{path}: its theta, windows or network are not what minigrad.save writes; {AGAIN}")
    promised = sum(map(math.prod, windows.values()))
    if promised != theta.size or not windows:
        raise LoadError(f"{path}: its windows take {promised:,} numbers but theta has {theta.size:,}; {AGAIN}")
    return theta, windows, description


def _disagreement(net: Any, windows: dict[str, tuple[int, ...]]) -> str | None:
    """How the windows of a network differ from those given, in words; None if they do not, or if it has none."""
    if not isinstance(net, nn.Layer):
        return None
    layers = dict.fromkeys(net.leaves())
    own = {f"{layer.name}.{w}": tuple(s) for layer in layers for w, s in layer.shapes().items()}
    if not own:
        return None
    for name in [*own, *windows]:
        if name not in windows:
            return f"the network has {name!r} {own[name]}, which is not among the parameters"
        if name not in own:
            return f"the parameters have {short(name)} {windows[name]}, which is not in the network"
        if own[name] != windows[name]:
            return f"{name!r} is {own[name]} in the network but {windows[name]} in the parameters"
    return None


# ------------------------------------------------------------------------------------ a network in words


def _known() -> dict[str, type]:
    """The layer classes that a file may ask for, by name."""
    exported = {name: getattr(nn, name) for name in nn.__all__}
    return {n: kind for n, kind in exported.items() if isinstance(kind, type) and issubclass(kind, nn.Layer)}


def _describe(net: Any, seen: dict[int, int]) -> dict[str, Any]:
    """Class, settings and children of a layer; {"same": k} where it is the k-th layer that was described."""
    if id(net) in seen:
        return {"same": seen[id(net)]}
    seen[id(net)] = len(seen)
    kind = type(net)
    if _known().get(kind.__name__) is not kind:
        return {"class": getattr(net, "__name__", kind.__name__), "own": True}
    children = [_describe(child, seen) for child in net.children]
    return {"class": kind.__name__, "name": net.name, "settings": net.settings(), "children": children}


def _plain_number(value: Any) -> Any:
    """A NumPy number among the settings of a layer as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"settings() of a layer holds {value!r}; it takes numbers, strings and tuples of them")


def _rebuild(description: Any, path: Any) -> nn.Layer:
    """The network that `_describe` described."""
    named: list[tuple[nn.Layer, str]] = []
    try:
        net, _ = _build(description, {}, named, path)
    except LoadError:
        raise
    except Exception as error:  # every layer checks its settings in its own way
        raise LoadError(f"{path}: its network cannot be built ({reason(error)}); {AGAIN}, or pass net=...") from error
    for layer, name in named:  # last, for every outer network numbers its layers anew
        layer.name = name
    return net


def _build(node: dict, made: dict[int, tuple], named: list, path: Any) -> tuple[nn.Layer, int]:
    """A described layer, and how many layers without children it unfolds to."""
    if "same" in node:
        return made[node["same"]]
    kind = _known().get(node["class"])
    if kind is None or node.get("own"):
        raise LoadError(f"{path}: it was saved with a network of your own ({short(node['class'])}); pass net=...")
    number = len(made)
    made[number] = ()  # a layer inside itself cannot be unpacked
    parts = [_build(child, made, named, path) for child in node["children"]]
    count = sum(part[1] for part in parts) or 1
    if count > MAX_LAYERS:
        raise ValueError(f"more than {MAX_LAYERS:,} layers")
    settings = {name: tuple(v) if isinstance(v, list) else v for name, v in node["settings"].items()}
    made[number] = kind(*(layer for layer, _ in parts), **settings), count
    named.append((made[number][0], str(node["name"])))
    return made[number]
