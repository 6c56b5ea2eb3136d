"""The picture of a comparison: losses by updates and by training seconds, as a PNG without a display."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import BinaryIO

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from .look import INK, style
from .runs import Record

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe & Ito 2008
AXES = {"step": "updates", "seconds": "training time in seconds"}
ROWS = {  # label of the axis, and the measures drawn on it
    "gap": ("R above its minimum", ("gap",)),
    "loss": ("loss", ("train_loss", "test_loss")),
    "error": ("error rate", ("train_error", "test_error")),
}
DASHES = ("-", (0, (4, 2)))  # training, test
WIDTHS = (2.0, 1.4)
EXACT = 1e-16  # a gap of less than this share of the first one is rounding
MARKERS = ("", "o", "s", "^")  # when there are more methods than colours
DECADES = 3  # from which the ticks of a logarithmic axis are powers of ten
LOG_RATIO = 5  # largest ÷ smallest value from which an axis is logarithmic


def draw(records: Sequence[Record], title: str, subtitle: str, stream: BinaryIO) -> None:
    """Write the picture as PNG; the same records give the same bytes.

    Parameters
    ----------
    records : sequence of Record
    title, subtitle : str
    stream : binary stream
    """
    known = {name for record in records for line in record.lines for name in line}
    rows = {r: label for r, (label, names) in ROWS.items() if known & set(names)}
    if "gap" in rows:
        del rows["loss"]  # the same curve, shifted
    elif "test_loss" not in known:
        rows["loss"] = "R"
    figure = Figure(figsize=(11, 1.4 + 3.3 * len(rows)), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(AXES), squeeze=False, sharey="row", sharex="col")
    for row, quantity in zip(axes, rows):
        for ax, x in zip(row, AXES):
            for k, record in enumerate(records):
                _curves(ax, record, x, quantity, k)
            style(ax)
            ax.set_xlim(left=0)
        _scale(row[0], records, quantity)
        row[0].set_ylabel(rows[quantity])
    for ax, label in zip(axes[-1], AXES.values()):
        ax.set_xlabel(label)
    figure.align_ylabels()
    figure.suptitle(f"{title}\n", x=0.01, ha="left", fontsize=14, fontweight="bold", color=INK)
    figure.text(0.01, 0.98 - 0.27 / figure.get_figheight(), subtitle, ha="left", va="top", fontsize=9.5, color=INK)
    _legend(figure, records, parts="test_loss" in known)
    figure.savefig(stream, format="png", metadata={"Software": None})


def _points(record: Record, name: str) -> list[dict]:
    found = [line for line in record.lines if line.get(name) is not None]
    if name != "gap" or not found:
        return found
    least = EXACT * max(found[0]["gap"], 1e-300)
    return [{**line, "gap": max(line["gap"], least)} for line in found]


def _curves(ax: Axes, record: Record, x: str, quantity: str, k: int) -> None:
    """Training solid, test dashed, in the method's colour; a cross where it diverged, a dot where it stopped."""
    style = {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k // len(COLOURS) % len(MARKERS)], "markersize": 3.5}
    for name, dashes, width in zip(ROWS[quantity][1], DASHES, WIDTHS):
        points = _points(record, name)
        ax.plot([e[x] for e in points], [e[name] for e in points], linestyle=dashes, linewidth=width, **style)
        if dashes == "-" and points and (record.diverged or record.stopped):
            end = {"marker": "X", "markersize": 10} if record.diverged else {"marker": "o", "markersize": 7}
            ax.plot(points[-1][x], points[-1][name], **{**style, **end}, clip_on=False)


def _scale(ax: Axes, records: Sequence[Record], quantity: str) -> None:
    """A logarithmic axis where the values ask for one; what exploded does not squeeze the rest."""
    first, *rest = ROWS[quantity][1]
    values = [e[n] for r in records for n in (first, *rest) for e in _points(r, n)]
    start = max((_points(r, first)[0][first] for r in records if r.last), default=1.0)
    top = min(max(values, default=1.0), 2 * abs(start) if start else math.inf)
    low = min(values, default=0.0)
    plain = FuncFormatter(lambda value, _: f"{100 * value:.3g} %" if quantity == "error" else f"{value:.3g}")
    if low > 0 and top / low > LOG_RATIO:
        decades = math.log10(top / low)
        ax.set_yscale("log", subs=(2, 3, 5))
        ax.set_ylim(low / 1.15, top * 1.15)
        if decades > DECADES:
            return  # powers of ten, as matplotlib writes them
    elif low >= 0 and top > 0:
        ax.set_ylim(0, 1.05 * top)
    elif low < 0:
        ax.set_yscale("symlog", linthresh=1.0)
        ax.set_ylim(1.5 * min(low, -1.0), 1.5 * max(top, 1.0))
        return
    ax.yaxis.set_major_formatter(plain)
    ax.yaxis.set_minor_formatter(plain)


def _legend(figure: Figure, records: Sequence[Record], parts: bool) -> None:
    """Methods from the highest final training loss to the lowest, as their lines end; then the strokes of the parts."""
    order = sorted(range(len(records)), key=lambda k: -records[k].last.get("train_loss", math.inf))
    handles = []
    for k in order:
        early = " (diverged)" if records[k].diverged else " (stopped)" if records[k].stopped else ""
        label = records[k].method + early
        colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k // len(COLOURS) % len(MARKERS)]
        handles.append(Line2D([], [], color=colour, marker=marker, markersize=7, linewidth=3, label=label))
    if parts:
        handles.append(Line2D([], [], linestyle="none", label=" "))
        for label, dashes, width in zip(("training", "test"), DASHES, WIDTHS):
            handles.append(Line2D([], [], color=INK, linewidth=width, linestyle=dashes, label=label))
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=10, labelcolor=INK)
