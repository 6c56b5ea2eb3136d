"""Launches, library calls, copies and waits of a step of AE on a device, with fused formulas and without.

They are counted by the CPU device's runtime, so this runs there only:
    ../shared/cpu_device/run --with . python -m benchmarks overhead --only launches
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import Any

import optim
from minigrad import Objective, backend, fusion, losses

from .cases import AE
from .timing import Settings

METHODS = {
    "SGD": optim.SGD(),
    "Momentum": optim.Momentum(),
    "RMSprop": optim.RMSprop(),
    "Adadelta": optim.Adadelta(),
    "Adam": optim.Adam(),
    "Centred": optim.Centred(),
    "ACP": optim.ACP(),
    "PRONG": optim.PRONG(),
    "K-FAC mc": optim.KFAC(),
    "UBP gn": optim.UBP(),
    "UBP mc": optim.UBP(mode="mc"),
}
COUNTED = ("launches", "blas", "h2d", "d2h", "syncs")
EXAMPLES = 20


@contextlib.contextmanager
def unfused() -> Iterator[None]:
    """Every operation of a formula as a launch of its own."""

    def operations(self, arrays):
        found = self.formula(backend.xp(arrays[0]), *arrays)
        for place, value in zip(self.over, (found,) if self.single else found):
            arrays[place][...] = value
        return found

    launch, fusion.Fused._launch = fusion.Fused._launch, operations
    try:
        yield
    finally:
        fusion.Fused._launch = launch


def counts(method: Any) -> dict[str, int]:
    """Counters of the second step: the first makes inverses and compiles kernels."""
    import device_stats

    params = AE.net.init(rng=1, device="cuda")
    x = backend.asarray(AE.batch[0][:EXAMPLES], "cuda")
    state = method.init(params)
    for _ in range(2):
        device_stats.reset()
        method.step(Objective(AE.net, losses.squared_error, params, x, x), state)
        found = device_stats.read()
    return {name: found[name] for name in COUNTED}


def report(case: str, settings: Settings, chosen: tuple[str, ...]) -> tuple[str, list[dict[str, Any]]]:
    """The table as text and as records."""
    if importlib.util.find_spec("device_stats") is None:
        return "launches of a step: counted on the CPU device only; see benchmarks/launches.py\n", []
    found = []
    for name, method in METHODS.items():
        with unfused():
            apart = counts(method)["launches"]
        found.append({"method": name, "unfused launches": apart, **counts(method)})
    columns = list(found[0])[1:]
    lines = ["launches of a step of AE on the CPU device", "  ".join([*columns, "method"])]
    for row in found:
        lines.append("  ".join([*(str(row[name]).rjust(len(name)) for name in columns), row["method"]]))
    return "\n  ".join(lines) + "\n", found
