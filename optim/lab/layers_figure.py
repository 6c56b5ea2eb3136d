"""What a recorder saw, by layer and time: a heat map for every quantity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from .look import INK, heading
from .recorder import history

ROWS = {
    "h": "rms ‖h‖: what the layer reads",
    "da": "rms ‖∂ℓ/∂a‖: its signal, unedited",
    "dW": "‖ΔW‖ ÷ ‖W‖: its step",
    "cond": "condition of cov(h), where it is not singular",
}
WIDEST = 1000  # columns of a heat map
DECADES = 12  # of the colours, at most


def draw(lines: Sequence[dict], title: str, stream: BinaryIO) -> None:
    """Write the picture as PNG.

    Parameters
    ----------
    lines : sequence of dict
        Of one method, as `Recorded.lines` gives them.
    title : str
    stream : binary stream
    """
    found = {name: tables(lines, name) for name in ROWS}
    found = {name: table for name, table in found.items() if table[2].size}
    figure = Figure(figsize=(10, 1.2 + 2.1 * len(found)), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(found), 1, squeeze=False, sharex=True)[:, 0]
    for ax, (name, (layers, steps, values)) in zip(axes, found.items()):
        image = ax.pcolormesh(edges(steps), np.arange(len(layers) + 1), values, norm=_colours(values), cmap="viridis")
        ax.set_facecolor("#d62728")  # shows where a value is not finite
        ax.set_yticks(np.arange(len(layers)) + 0.5, layers)
        ax.set_title(ROWS[name], loc="left", fontsize=10, color=INK)
        ax.set_ylabel("layer")
        ax.tick_params(colors=INK, labelsize=8)
        bar = figure.colorbar(image, ax=ax, pad=0.01)
        bar.ax.tick_params(labelsize=8)
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
    axes[-1].set_xlim(0, edges(history(lines, "h")[1])[-1])
    axes[-1].set_xlabel("updates")
    heading(figure, title, told(lines))
    figure.savefig(stream, format="png", metadata={"Software": None})


def told(lines: Sequence[dict]) -> str:
    """What to know beside the colours."""
    bad = [line for line in lines if line["bad"]]
    if not bad:
        return "Layers from the input, below, to the output. All numbers are finite."
    first = min(bad, key=lambda line: line["step"])
    return (
        f"Layers from the input, below, to the output. Red: not finite. NaN or infinite for the first time at update "
        f"{first['step']}, layer {first['layer']} ({first['bad']:,} numbers)."
    )


def tables(lines: Sequence[dict], name: str) -> tuple[list[str], list[int], np.ndarray]:
    """Layers, steps and values of a row of the picture; at most WIDEST columns, of several the largest value."""
    layers, steps, values = history(lines, name)
    if name == "dW":
        with np.errstate(all="ignore"):
            values = values / history(lines, "W")[2]
    if len(steps) > WIDEST:
        starts = np.linspace(0, len(steps), WIDEST, endpoint=False).astype(int)
        values = np.maximum.reduceat(values, starts, axis=1)  # NaN wins: it is to be seen
        steps = [steps[k] for k in starts]
    return layers, steps, values


def edges(steps: Sequence[int]) -> np.ndarray:
    """Where the columns begin, and where the last one ends."""
    width = steps[-1] - steps[-2] if len(steps) > 1 else 1
    return np.array([*steps, steps[-1] + width], dtype=float)


def _colours(values: np.ndarray) -> LogNorm:
    good = values[np.isfinite(values) & (values > 0)]
    high = float(good.max()) if good.size else 1.0
    low = float(max(good.min(), high * 10.0**-DECADES)) if good.size else 0.1
    return LogNorm(low, high if high > low else 1.1 * low, clip=True)
