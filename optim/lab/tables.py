"""What `minigrad problems` and `minigrad optimizers` print."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Iterator
from typing import Any

from optim.wrappers import Wrapper

from .functions import FUNCTIONS
from .methods import INNER, METHODS, Entry
from .problems import PROBLEMS, Problem
from .tasks import Function


def problems() -> Iterator[str]:
    """The networks, then the functions, a few lines each."""
    width = max(map(len, (*PROBLEMS, *FUNCTIONS))) + 1
    for p in PROBLEMS.values():
        yield from _indented(width, p.name, _network(p))
    for f in FUNCTIONS.values():
        yield from _indented(width, f.name, _function(f))


def _indented(width: int, name: str, lines: list[str]) -> Iterator[str]:
    for k, line in enumerate(lines):
        yield f"{'' if k else name:<{width}} {line}"
    yield ""


def _network(p: Problem) -> list[str]:
    widths = "-".join(map(str, ("D", *p.hidden, "D" if p.reconstructs else "C")))
    return [
        p.title,
        f"{widths}, {p.activation}, {p.loss.name}, batch {p.batch}",
        f"data {p.data}, {p.seconds:g} s unless a budget is given; source: {p.source}",
    ]


def _function(f: Function) -> list[str]:
    bounded = math.isfinite(f.minimum)
    least = f"minimum {f.minimum:.4g}" if bounded else f"no minimum: a run ends when R is below −{-f.floor:g}"
    batch = f", batch {f.batch}" if hasattr(f, "batch") else ""
    set_by = [f"problem.{name} = {value:g}" for name, value in f.settings.items()]
    return [
        f.title,
        f"R = {f.formula}",
        f"d = {f.size}{batch}, {least}; {f.budget[1]} {f.budget[0]} unless a budget is given",
        *([f"settings: {', '.join(set_by)}"] if set_by else []),
        f"source: {f.source}",
    ]


def optimizers() -> Iterator[str]:
    """Every method: equation and source, settings with their defaults, and where to search for better ones."""
    entries = {_shown(name, entry): entry for name, entry in METHODS.items()}
    entries |= {f"ubp:{name}": entry for name, entry in INNER.items()}
    width = max(map(len, entries)) + 1
    for name, entry in entries.items():
        prefix = "inner." if name.startswith("ubp:") else ""
        yield from _indented(
            width, name, [entry.about, f"{entry.equation}   [{entry.source}]", *_settings(entry, prefix)]
        )


def _shown(name: str, entry: Entry) -> str:
    return f"{name}:INNER" if issubclass(entry.kind, Wrapper) else name


def _settings(entry: Entry, prefix: str) -> Iterator[str]:
    if issubclass(entry.kind, Wrapper):
        yield "  settings of the method that it goes over: inner.NAME"
    if not dataclasses.is_dataclass(entry.kind):
        return
    for name, parameter in inspect.signature(entry.kind).parameters.items():
        if name != "inner":
            yield f"  {prefix}{name} = {_typed(parameter.default)}{_searched(entry, name, parameter.default)}"


def _typed(value: Any) -> str:
    """A default as one would type it after --set."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _searched(entry: Entry, name: str, default: Any) -> str:
    if name in entry.ranges:
        return f"   {entry.ranges[name]}"
    return "   true or false" if isinstance(default, bool) else ""
