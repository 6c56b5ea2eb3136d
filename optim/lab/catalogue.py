"""The methods by name, and how a text like `ubp:acp` with `inner.lr=.1` becomes one.

A specification is NAME, FILE.py:CLASS for a method of one's own, or NAME:INNER for a method that goes over another
one (`ubp:acp`, `decay:adam`, `schedule:ubp:acp`); a part that ends in .py takes the next part as its class, so
`ubp:my.py:Rule` works too. Settings of the inner one are called inner.NAME.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import optim
from optim import Method

from .errors import UsageError, near, unknown
from .methods import INNER, METHODS, Entry

# ------------------------------------------------------------------------------------------------ specifications


def parts(spec: str) -> list[str]:
    """The parts of a specification: names, and FILE.py:CLASS as one."""
    found: list[str] = []
    for piece in spec.split(":"):
        if found and found[-1].endswith(".py"):
            found[-1] += f":{piece}"
        else:
            found.append(piece)
    return found


def parse(spec: str, settings: Mapping[str, Any] | None = None) -> Method:
    """The method that a specification and settings describe.

    Parameters
    ----------
    spec : str
        NAME, NAME:INNER, FILE.py:CLASS or NAME:FILE.py:CLASS.
    settings : dict, optional
        {"lr": value, "inner.lr": value}; texts are read by the type of the setting, other values taken as they are.

    Raises
    ------
    UsageError
        A name, setting or value that there is not, or a file that does not hold the class.

    Examples
    --------
    >>> parse("ubp:centred", {"mode": "mc", "inner.lr": ".3"})
    UBP(inner=Centred(lr=0.3, rest_lr=None), mode='mc')
    """
    return _build(spec, parts(spec), dict(settings or {}), METHODS)


def _build(spec: str, names: list[str], given: dict[str, Any], table: Mapping[str, Entry]) -> Method:
    kind = _find(names[0], table)
    types_ = _types(kind)
    own = {k: v for k, v in given.items() if not k.startswith("inner.")}
    below = {k.removeprefix("inner."): v for k, v in given.items() if k.startswith("inner.")}
    goes_over = "inner" in types_
    if names[1:] and not goes_over:
        raise UsageError(f"{names[0]} takes no inner rule, so {spec!r} is not a method")
    if goes_over and not names[1:]:
        if kind is not optim.UBP:
            raise UsageError(f"{names[0]} goes over another method; name it, as in {names[0]}:sgd")
        names = [*names, "gradient"]
    _check_names(spec, names, own, below, table)
    own = {k: _value(spec, k, v, types_[k]) for k, v in own.items()}
    if goes_over:
        own["inner"] = _build(spec, names[1:], below, INNER if kind is optim.UBP else METHODS)
    return _made(label_of(spec), kind, own)


def build(label: str, kind: type, given: Mapping[str, Any]) -> Any:
    """An object of a dataclass that is no method, such as a test function, from its settings.

    Raises
    ------
    UsageError
        A setting or value that there is not.
    """
    types_ = _types(kind)
    for name in given:
        if name not in types_:
            raise _no_setting(label, name, list(types_))
    return _made(label, kind, {k: _value(label, k, v, types_[k]) for k, v in given.items()})


def _made(label: str, kind: type, settings: Mapping[str, Any]) -> Any:
    try:
        return kind(**settings)
    except (ValueError, TypeError) as error:
        told = str(error).removeprefix(f"{kind.__name__}: ")
        raise UsageError(f"{label}: {told}") from error


def _no_setting(label: str, name: str, valid: list[str]) -> UsageError:
    there = f"there are {', '.join(valid)}" if valid else "it has none"
    return UsageError(f"{label} has no setting {name!r}; {there}{near(name, valid)}")


def _names(names: list[str], table: Mapping[str, Entry]) -> list[str]:
    """The settings of a chain of methods: its own, and those below as inner.NAME."""
    kind = _find(names[0], table)
    found = [name for name in _types(kind) if name != "inner"]
    if names[1:]:
        found += [f"inner.{name}" for name in _names(names[1:], INNER if kind is optim.UBP else METHODS)]
    return found


def _check_names(spec: str, names: list[str], own: Mapping, below: Mapping, table: Mapping[str, Entry]) -> None:
    valid = _names(names, table)
    for name in [*own, *(f"inner.{name}" for name in below)]:
        if name in valid:
            continue
        if f"inner.{name}" in valid:
            raise UsageError(f"{label_of(spec)} has no setting {name!r}; did you mean 'inner.{name}'?")
        raise _no_setting(label_of(spec), name, valid)


def _find(part: str, table: Mapping[str, Entry]) -> type[Method]:
    path, colon, name = part.rpartition(":")
    if path.endswith(".py") or part.endswith(".py"):
        return _load(path, name) if colon else _load(part, "")
    if part in table:
        return table[part].kind
    if table is INNER and part in METHODS:
        raise UsageError(f"{part} is no layer rule, so UBP cannot go over it; the rules are {', '.join(INNER)}")
    if part == "gradient":
        raise UsageError("'gradient' is the layer rule inside ubp; by itself the method is called 'sgd'")
    raise unknown("inner rule" if table is INNER else "method", part, table)


def _load(path: str, name: str) -> type[Method]:
    """The class `name` from a user's file."""
    if not name:
        raise UsageError(f"{path} needs the name of a class, as in {path}:Mine")
    if not Path(path).is_file():
        raise UsageError(f"{path}: there is no such file; check the path")
    module = _execute(Path(path).resolve())
    found = getattr(module, name, None)
    if found is None:
        valid = [k for k, v in vars(module).items() if inspect.isclass(v) and issubclass(v, Method)]
        raise UsageError(f"{path} has no class {name!r}{near(name, valid)}")
    if not (inspect.isclass(found) and issubclass(found, Method)):
        raise UsageError(f"{path}: {name} is not a subclass of optim.Method")
    return found


def _execute(path: Path) -> types.ModuleType:
    name = f"minigrad_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by its name
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's file raises
        raise UsageError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    return module


# ------------------------------------------------------------------------------------------------------ settings


def _types(kind: type[Method]) -> dict[str, Any]:
    """{setting: type} of a class; a class that is no dataclass has no settings."""
    if not dataclasses.is_dataclass(kind):
        return {}
    try:
        hints = typing.get_type_hints(kind)
    except Exception:  # a user's annotations may name anything
        hints = {}
    return {f.name: hints.get(f.name, type(f.default)) for f in dataclasses.fields(kind) if f.init}


def _value(spec: str, name: str, given: Any, wanted: Any) -> Any:
    """A text as the first of the setting's types that can read it."""
    if not isinstance(given, str):
        return given
    kinds = typing.get_args(wanted) or (wanted,)
    for kind in sorted(kinds, key=lambda k: k is str):  # any text is a str: last
        reader = READERS.get(kind, str)
        try:
            return reader(given)
        except (ValueError, KeyError):
            continue
    words = " or ".join(WORDS.get(kind, str(kind)) for kind in kinds)
    raise UsageError(f"{label_of(spec)}: {name}={given} is not {words}")


READERS = {
    bool: lambda text: {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()],
    int: int,
    float: float,
    types.NoneType: lambda text: {"none": None}[text.lower()],
}
WORDS = {bool: "true or false", int: "a whole number", float: "a number", types.NoneType: "none", str: "a word"}


def settings_of(method: Method) -> dict[str, Any]:
    """All settings, those of an inner rule as "inner.NAME": what `parse` takes to build the method again."""
    if not dataclasses.is_dataclass(method):
        return {}
    found: dict[str, Any] = {}
    for f in dataclasses.fields(method):
        value = getattr(method, f.name)
        if isinstance(value, Method):
            found.update({f"{f.name}.{k}": v for k, v in settings_of(value).items()})
        elif f.init:
            found[f.name] = value
    return found


# -------------------------------------------------------------------------------------- several methods in a call


def label_of(spec: str) -> str:
    """A specification with files shortened to their names."""
    return ":".join(part.rpartition("/")[2] for part in parts(spec))


def labels(specs: Iterable[str]) -> list[str]:
    """A label for each specification; equal ones get -2, -3, …"""
    seen: dict[str, int] = {}
    out = []
    for spec in specs:
        label = label_of(spec)
        seen[label] = seen.get(label, 0) + 1
        out.append(label if seen[label] == 1 else f"{label}-{seen[label]}")
    return out


def assign(names: list[str], texts: Iterable[str]) -> dict[str, dict[str, str]]:
    """Give every KEY=VALUE to its method.

    Parameters
    ----------
    names : list of str
        The labels of the methods of a call.
    texts : iterable of str
        "LABEL.SETTING=VALUE", several in a text separated by commas. The label may be left out where there is one
        method, and shortened to its first part where that is clear.

    Returns
    -------
    dict
        {label: {setting: value as text}}.
    """
    given: dict[str, dict[str, str]] = {name: {} for name in names}
    for pair in (p.strip() for text in texts for p in text.split(",") if p.strip()):
        key, equals, value = pair.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise UsageError(f"--set {pair}: write it as setting=value")
        label, setting = _owner(names, key.strip())
        given[label][setting] = value.strip()
    return given


def _owner(names: list[str], key: str) -> tuple[str, str]:
    """(label, setting) of a key."""
    for label in names:
        if key.startswith(label + "."):
            return label, key[len(label) + 1 :]
    for short in _short_forms(names):
        owners = [label for label in names if short in _short_forms([label])]
        if key.startswith(short + "."):
            if len(owners) > 1:
                raise UsageError(f"--set {key}: {' and '.join(owners)} both start with {short!r}; write the whole name")
            return owners[0], key[len(short) + 1 :]
    if len(names) == 1:
        return names[0], key
    prefix, dot, _ = key.rpartition(".")
    if not dot:
        raise UsageError(f"--set {key}: say whose setting it is, as in {names[0]}.{key}")
    raise UsageError(f"--set {key}: no -O of this call is called {prefix!r}{near(prefix, names)}")


def _short_forms(names: list[str]) -> list[str]:
    """The first part of `ubp:acp`, the class of `my.py:Mine`."""
    found = []
    for label in names:
        head = parts(label)[0]
        found.append(head.rpartition(":")[2])
    return list(dict.fromkeys(found))
