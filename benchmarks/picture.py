"""The ratios of a record as bars, a panel for each case."""

from __future__ import annotations

import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter

from .peers import PEERS

NOT_OURS = ("floor", "NumPy", "naive", *PEERS)
OWN, OTHER, LIMIT = "#2a6f97", "#c9c9c9", "#c1121f"


def draw(record: dict[str, Any], path: str | Path) -> None:
    """Write a PNG of what a command's --json holds."""
    cases: dict[str, list[dict]] = {}
    for f in record["figures"]:
        cases.setdefault(f["case"], []).append(f)
    panels = [_bars(found) for found in cases.values()]
    heights = [len(found) + 2.5 for _, found in panels]
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(8, 0.24 * sum(heights) + 0.6), layout="constrained")
        axes = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)
        for ax, (case, (over, found)) in zip(axes[:, 0], zip(cases, panels)):
            _panel(ax, f"{case}: time ÷ {over}", found)
        figure.suptitle(_machine(record), fontsize=8, x=0.01, ha="left")
        FigureCanvasAgg(figure).print_png(str(path))


def _bars(figures: list[dict]) -> tuple[str, list[dict]]:
    """The base that most ratios of a case have, and the figures over it from the least."""
    over, _ = Counter(f["limit"]["over"] for f in figures).most_common(1)[0]
    return over, sorted((f for f in figures if f["limit"]["over"] == over), key=lambda f: f["ratio"])


def _panel(ax: Axes, title: str, figures: list[dict]) -> None:
    ratios = [f["ratio"] for f in figures]
    errors = [[f["ratio"] - f["low"] for f in figures], [f["high"] - f["ratio"] for f in figures]]
    names = [f["limit"]["name"] for f in figures]
    colours = [OTHER if any(word in name for word in NOT_OURS) else OWN for name in names]
    ax.barh(names, ratios, xerr=errors, color=colours, height=0.7, error_kw={"linewidth": 0.8, "ecolor": "#444444"})
    for k, f in enumerate(figures):
        ax.text(f["high"], k, f"  {f['ratio']:.3g}", va="center", fontsize=8)
        if f["limit"]["most"] is not None:
            ax.plot([f["limit"]["most"]] * 2, [k - 0.45, k + 0.45], color=LIMIT, linewidth=1.5)
    if max(ratios) > 30 * min(ratios):
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    ax.set_title(title, loc="left", fontsize=10)
    ax.invert_yaxis()
    ax.margins(x=0.1, y=0.02)


def _machine(record: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    about = f"{record['cpu']}, threads {record['threads']}, {record['blas']}, {versions}"
    return "\n".join([*textwrap.wrap(about, 110), "medians of the ratios of each round, quartiles; red: must reach"])
