"""Files: a network with its parameters, and the plain dictionaries that training runs keep.

Everything is an uncompressed .npz that `numpy.load` reads too. One more member, `__index__`, is a JSON text that says
which format it is, in which order the keys came, and holds what is no array: numbers, strings, booleans. A file is
written beside its place and moved there when it is complete, so that a reader never meets half of one. Nothing in a
file is ever unpickled or imported, and no more memory is taken than the file has bytes.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from . import backend, nn
from .params import Params

VERSION = 1
INDEX = "__index__"
KINDS = "biufcSU"  # kinds of dtype that come back as they were; others hold pointers, or lose their meaning
MAX_LAYERS = 100_000  # a short description of shared layers can unfold to any number of them
AGAIN = "save it again, or take an older copy"


class LoadError(ValueError):
    """A file that cannot be loaded; the sentence names the file, the problem and the remedy."""


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
    backend.module(device)  # says why a device cannot be used before the file is read
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
            return f"the parameters have {_short(name)} {windows[name]}, which is not in the network"
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
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise LoadError(f"{path}: its network cannot be built ({_reason(error)}); {AGAIN}, or pass net=...") from error
    for layer, name in named:  # last, for every outer network numbers its layers anew
        layer.name = name
    return net


def _build(node: dict, made: dict[int, tuple], named: list, path: Any) -> tuple[nn.Layer, int]:
    """A described layer, and how many layers without children it unfolds to."""
    if "same" in node:
        return made[node["same"]]
    kind = _known().get(node["class"])
    if kind is None or node.get("own"):
        raise LoadError(f"{path}: it was saved with a network of your own ({_short(node['class'])}); pass net=...")
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


# ------------------------------------------------------------------------------------------ dictionaries


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
    index = json.dumps({"format": "minigrad", "version": VERSION, "entries": entries})
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
        raise TypeError(f"{key!r} is a {type(value).__name__}; a file takes arrays, numbers, strings, booleans and None")
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
        problem = f"it is damaged or cut short ({_reason(error)}); {AGAIN}"
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
            f"{path}: it has format version {_short(index['version'])}, but this minigrad reads version {VERSION}; "
            "use the minigrad that wrote it"
        )
    return {key: _read_value(archive, members, key, entry, path) for key, entry in index["entries"].items()}


def _read_value(archive: zipfile.ZipFile, members: dict, key: str, entry: Any, path: Path) -> Any:
    if entry not in ("array", "scalar"):
        value = entry["value"]
        if type(value) not in (int, float, bool, str, type(None)):
            raise ValueError(f"{_short(key)} is neither a number nor a string")
        return value
    array = _read_member(archive, members, key, path)
    return array if entry == "array" else array[()]


def _read_member(archive: zipfile.ZipFile, members: dict, key: str, path: Path) -> np.ndarray:
    """One array; its header is checked against the bytes that are there before memory is taken for it."""
    info = members.get(f"{key}.npy")
    if info is None:
        raise LoadError(f"{path}: it has no {_short(key)}, which its index names; {AGAIN}")
    with archive.open(info) as stream:
        reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = reader[np.lib.format.read_magic(stream)](stream)
        size = info.file_size - stream.tell()
    if dtype.hasobject:
        raise LoadError(f"{path}: {_short(key)} holds pickled objects, which are never loaded; save numbers instead")
    if dtype.kind not in KINDS or min(shape, default=0) < 0 or math.prod(shape) * max(dtype.itemsize, 1) != size:
        raise LoadError(f"{path}: {_short(key)} is not the array that its header promises; {AGAIN}")
    with archive.open(info) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _reason(error: BaseException) -> str:
    """The first line of an error, without a full stop."""
    return next(iter(str(error).splitlines()), "").rstrip(".") or type(error).__name__


def _short(value: Any) -> str:
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
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with open(part, "xb") as stream:  # not tempfile, which would take the file's readers away
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
