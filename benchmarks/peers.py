"""Other people's libraries: which there are, which are installed, what each is measured at.

`peers_NAME.py` has one or more of
    STEPS        {variant: class of (case, rate) with step() and theta()}, one training step
    chain        function of (x, c, length) that gives a function: forward and backward through y ← y + c
    QUANTITIES   {row of the curvature table: function of (case, v) that gives a function}
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import Any

PEERS = ("torch", "jax", "autograd", "mygrad", "backpack", "curvlinops")


def installed() -> tuple[str, ...]:
    return tuple(name for name in PEERS if importlib.util.find_spec(name))


def module(name: str) -> ModuleType:
    return importlib.import_module(f".peers_{name}", __package__)


def having(what: str, names: tuple[str, ...]) -> dict[str, Any]:
    """{peer: its STEPS, chain or QUANTITIES} of those peers that have such."""
    found = {name: getattr(module(name), what, None) for name in names}
    return {name: value for name, value in found.items() if value is not None}
