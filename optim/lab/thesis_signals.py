"""How large the signal of UBP gets on its way down, against plain backprop's [T-5.5].

The bracket of UBP multiplies by the curvature of every layer that it passes, so that its signal may grow like the
gradient of a recurrent network. What is shown is the root mean square over the examples of ‖da‖ at every layer, at
several rates, before training and after a while of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import optim
from minigrad import Objective, backend

from . import thesis
from .figures import COLOURS
from .look import heading, style
from .thesis import CONTENDERS

RATES = (0.01, 0.03, 0.1, 0.3)
MODES = ("none", "mc", "gn", "hessian")
TRAINED, RATE, GAIN = 300, 0.03, 32.0  # updates and rate of the SGD in between, and α of the initial weights
COLOUR_OF = dict(zip(("plain", *MODES), ("#000000", COLOURS[5], COLOURS[4], COLOURS[1], COLOURS[0])))


@dataclass
class Watched(optim.Gradient):
    """The plain gradient as a layer rule, which notes the signal that it sees."""

    seen: dict[str, Any] = field(default_factory=dict, repr=False)

    def rule(self, site, memory, t):
        self.seen[site.name] = rms(site.da)
        return super().rule(site, memory, t)


def rms(da: Any) -> Any:
    """√(mean over the examples of ‖da‖²), a 0-d array."""
    flat = da.reshape(-1)
    return backend.xp(da).sqrt(flat.dot(flat) * (1.0 / len(da)))


def norms(f: Objective, lr: float, modes: Sequence[str] = MODES) -> dict[str, dict[str, float]]:
    """{"plain" or mode: {layer: rms of ‖da‖}} of one step of UBP, layers from the output down.

    Where the norm is not finite there is None.

    Parameters
    ----------
    f : Objective
        Its parameters are not moved.
    lr : float
        λ of the plain gradient inside.
    modes : sequence of str
    """
    found = {"plain": {site.name: rms(site.da) for site in f.sweep()}}
    for mode in modes:
        rule = Watched(lr=lr)
        method = optim.UBP(rule, mode=mode)
        method.update(f, method.init(f.params))
        found[mode] = rule.seen
    return {mode: {name: _number(value) for name, value in seen.items()} for mode, seen in found.items()}


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def measure(problem: str, source: str, updates: int = TRAINED, rates: Sequence[float] = RATES) -> dict[str, Any]:
    """The norms before and after some updates of SGD.

    Returns
    -------
    dict
        {"data", "batch", "updates", "rates", "norms": [{"update", "lr", "norms"}]}.
    """
    task = thesis.task(problem, source, CONTENDERS["sgd"], GAIN, "valid")
    params = task.initial(0)
    objectives, method = task.objectives(params, False, 0), optim.SGD(RATE)
    state, found = method.init(params), []
    with np.errstate(all="ignore"):
        for update in (0, updates):
            while state["t"] < update:
                method.step(objectives.at(state["t"]), state)
            f = objectives.at(update)
            found += [{"update": update, "lr": lr, "norms": norms(f, lr)} for lr in rates]
    return {"data": task.dataset.name, "batch": task.batch, "updates": updates, "rates": list(rates), "norms": found}


def table(found: dict[str, Any]) -> Iterator[str]:
    """How much larger than plain backprop's the signal at the lowest layer is, a line for every point and rate."""
    modes = [mode for mode in found["norms"][0]["norms"] if mode != "plain"]
    yield f"rms ‖da‖ of the lowest layer ÷ plain backprop's, {found['data']}, batch {found['batch']}"
    yield "".join(["updates       λ", *(f"{mode:>12}" for mode in modes)])
    for each in found["norms"]:
        lowest = {mode: list(seen.values())[-1] for mode, seen in each["norms"].items()}
        told = "".join(_ratio(lowest[mode], lowest["plain"]) for mode in modes)
        yield f"{each['update']:7d} {each['lr']:7g}{told}"


def _ratio(value: float | None, plain: float | None) -> str:
    return f"{'overflow':>12}" if value is None else f"{value / plain:12.3g}" if plain else f"{'–':>12}"


def draw(found: dict[str, Any], stream: BinaryIO) -> None:
    """Write the picture as PNG: a panel for every point and rate, the output on the left."""
    rates, points = found["rates"], sorted({each["update"] for each in found["norms"]})
    figure = Figure(figsize=(2.2 + 2.7 * len(rates), 1.9 + 2.9 * len(points)), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(points), len(rates), squeeze=False, sharex=True, sharey="row")
    for each in found["norms"]:
        ax = axes[points.index(each["update"])][rates.index(each["lr"])]
        for mode, seen in each["norms"].items():
            values = np.array(list(seen.values()), dtype=float)  # None leaves a gap
            ax.plot(list(seen), values, "o-", color=COLOUR_OF[mode], markersize=3.5, linewidth=1.6, label=mode)
        ax.set_yscale("log")
        ax.set_title(f"λ = {each['lr']:g}, after {each['update']} updates", fontsize=9.5)
        style(ax)
    for row in axes:
        row[0].set_ylabel("rms ‖da‖")
    for ax in axes[-1]:
        ax.set_xlabel("layer, from the output down")
    text = (
        f"One step of UBP over the plain gradient on the autoencoder, {found['data']}, batch {found['batch']}, gain "
        f"{GAIN:g}; plain: backprop. Root mean square over the examples; before training and after "
        f"{found['updates']} updates of SGD at λ = {RATE:g}. A line ends where float32 does."
    )
    heading(figure, "The signal that updated backpropagation sends down [T-5.5]", text)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.savefig(stream, format="png", metadata={"Software": None})
