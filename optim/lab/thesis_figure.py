"""What a thesis experiment shows: the picture by updates and by seconds, and the table beside the thesis's numbers."""

from __future__ import annotations

import math
import textwrap
from typing import Any, BinaryIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from .figures import COLOURS
from .look import heading, style
from .thesis import CONTENDERS, EVERY
from .thesis_runs import Result

ROWS = {
    "train_loss": "training loss",
    "test_loss": "test loss",
    "train_error": "training error rate",
    "test_error": "test error rate",
}
COLUMNS = {"updates": "updates", "seconds": "seconds = updates × measured cost"}
COLOUR_OF = {
    "sgd": "#000000",
    "ubp": COLOURS[1],
    "centred": COLOURS[2],
    "mean-bn": COLOURS[4],
    "bn": COLOURS[5],
    "acp": COLOURS[0],
    "acp-max": COLOURS[4],
    "prong": COLOURS[2],
    "kfac-fisher": COLOURS[1],
    "kfac-mc": COLOURS[3],
    "kfac-empirical": COLOURS[3],
}
BAND = 0.18  # opacity
TOP = 1.5  # an axis ends at this many times the first value: what exploded does not squeeze the rest


# ----------------------------------------------------------------------------------------------------- the numbers


def curve(finals: list[dict], measure: str) -> tuple[np.ndarray, ...]:
    """Updates, and the median, least and largest value over the seeds that got so far."""
    found: dict[int, list[float]] = {}
    for record in finals:
        for line in record["lines"]:
            if line.get(measure) is not None:
                found.setdefault(line["step"], []).append(line[measure])
    steps = sorted(found)
    each = np.array([(s, np.median(found[s]), min(found[s]), max(found[s])) for s in steps], dtype=float)
    return tuple(each.reshape(-1, 4).T)


def cost(result: Result, key: str) -> float:
    """Seconds of an update."""
    return result.costs["contenders"][key]["seconds"]


def lost(result: Result, key: str) -> tuple[int, int]:
    """Trials and final runs that diverged: not finite, or a training loss that ends above where it began."""
    return tuple(sum(map(_diverged, part.get(key, ()))) for part in (result.trials, result.finals))


def _diverged(record: dict) -> bool:
    first, last = record["lines"][0], record["lines"][-1]
    return bool(record["diverged"]) or last["train_loss"] > first["train_loss"]


def rows(result: Result) -> list[dict[str, Any]]:
    """What is known of every method: the lowest final training loss first, methods that lost a final run last.

    Every entry holds, as medians over the final runs that did not diverge, the losses (and errors) at the end, the
    best test loss of a run, and the training loss at the time at which the cheapest method ends.
    """
    common = min((cost(result, key) for key in result.best), default=0.0) * result.size.updates
    return sorted((_row(result, key, common) for key in result.trials), key=lambda row: rank(row, "train_loss"))


def rank(row: dict[str, Any], name: str) -> tuple[bool, float]:
    """Where a row stands by one of its numbers: what has lost a final run stands behind all that has not."""
    value = row.get(name, math.inf)
    return row["finals_diverged"] > 0, value[0] if isinstance(value, list) else value


def _row(result: Result, key: str, common: float) -> dict[str, Any]:
    row: dict[str, Any] = {"method": key, "label": CONTENDERS[key].label, "settings": result.best.get(key)}
    row["trials_diverged"], row["finals_diverged"] = lost(result, key)
    row["ratio"] = result.costs["contenders"][key]["ratio"]
    row["thesis"] = result.experiment.thesis.get(key)
    kept = [record for record in result.finals.get(key, ()) if not _diverged(record)]
    for measure in ROWS:
        steps, *values = curve(kept, measure)
        if len(steps):
            row[measure] = [float(v[-1]) for v in values]
    if kept:
        steps, median, *_ = curve(kept, "train_loss")
        row["at_equal_time"] = float(np.interp(common, steps * cost(result, key), median))
        for measure in ("test_loss", "test_error"):
            if measure in row:
                row[f"best_{measure}"] = float(np.median([_least(record, measure) for record in kept]))
    return row


def _least(record: dict, measure: str) -> float:
    return min(line[measure] for line in record["lines"] if line.get(measure) is not None)


def protocol(result: Result) -> str:
    """How it was done, in a paragraph."""
    size, n, costs = result.size, result.examples, result.costs
    measured = f", measured on {n['measured']:,} of them" if n["measured"] < n["train"] else ""
    fewer = "" if size.name == "full" else "The small version: --full has longer trials, and more updates and seeds. "
    return (
        f"{fewer}{result.data}, {n['train']:,} training examples{measured}, batch {n['batch']}, float32. Tuning, the "
        f"same for every method: {size.trials} trials of {size.trial_updates} updates (rates, dampings and the gain of "
        f"the initial weights; a Latin hypercube), the loss on the validation part decides. Final runs: {size.updates} "
        f"updates from {size.seeds} {'seeds' if size.seeds > 1 else 'seed'}: median, band from the least to the "
        "largest. Diverged: not finite, or a training loss that ends above its first; the table leaves such runs out, "
        f"and puts their method last. Statistics and inverses every {EVERY} updates, of one batch. Cost of an update: "
        f"all methods in turns, {costs['rounds']} rounds, {costs['threads']} BLAS "
        f"{'threads' if costs['threads'] > 1 else 'thread'}, {costs['processor']}; the machine's load before it "
        f"was {costs['load_before']:.2g}."
    )


# ----------------------------------------------------------------------------------------------------- the picture


def draw(result: Result, stream: BinaryIO) -> None:
    """Write the picture as PNG."""
    found = rows(result)
    measures = [name for name in ROWS if any(name in row for row in found)] or ["train_loss"]
    figure = Figure(figsize=(12.5, 2.1 + 2.9 * len(measures)), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(measures), 2, squeeze=False, sharey="row", sharex="col")
    for ax_row, measure in zip(axes, measures):
        for ax, unit in zip(ax_row, COLUMNS):
            for key in result.finals:
                _curve(ax, result, key, measure, unit)
            style(ax)
        _scale(ax_row[0], result, measure)
        ax_row[0].set_ylabel(ROWS[measure])
    for ax, label in zip(axes[-1], COLUMNS.values()):
        ax.set_xlabel(label)
        ax.set_xlim(left=0)
    figure.align_ylabels()
    title = f"{result.experiment.title} [{result.experiment.source}]"
    heading(figure, title[:1].upper() + title[1:], protocol(result))
    figure.legend(
        handles=[_handle(result, row) for row in found], loc="outside right center", frameon=False, fontsize=9
    )
    figure.savefig(stream, format="png", metadata={"Software": None})


def _curve(ax: Axes, result: Result, key: str, measure: str, unit: str) -> None:
    finals = result.finals[key]
    steps, median, low, high = curve(finals, measure)
    x = steps * (cost(result, key) if unit == "seconds" else 1.0)
    ax.plot(x, median, color=COLOUR_OF[key], linewidth=1.8)
    ax.fill_between(x, low, high, color=COLOUR_OF[key], alpha=BAND, linewidth=0)
    for record in finals:
        if record["diverged"]:
            last = [line for line in record["lines"] if line.get(measure) is not None][-1]
            end = last["step"] * (cost(result, key) if unit == "seconds" else 1.0)
            ax.plot(end, last[measure], "X", color=COLOUR_OF[key], markersize=9, clip_on=False)


def _scale(ax: Axes, result: Result, measure: str) -> None:
    curves = [curve(finals, measure) for finals in result.finals.values()]
    low = min((c[2].min() for c in curves), default=0.0)
    if measure.endswith("loss") and low > 0:
        first = max((c[1][0] for c in curves), default=1.0)
        top = min(TOP * first, 1.05 * max((c[3].max() for c in curves), default=1.0))
        ax.set_yscale("log")
        ax.set_ylim(low / 1.1, top)
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if top / low > 4 else tuple(range(1, 10))))
        ax.yaxis.set_major_formatter("{x:.3g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
    elif measure.endswith("error"):
        ax.set_ylim(0, 1)
        ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")


def _handle(result: Result, row: dict) -> Line2D:
    trials, finals, label = row["trials_diverged"], row["finals_diverged"], row["label"]
    if trials or finals:
        runs = len(result.finals.get(row["method"], ()))
        label += f"\ndiverged: {trials} of {result.size.trials} trials, {finals} of {runs} runs"
    return Line2D([], [], color=COLOUR_OF[row["method"]], linewidth=3, label=label)


# ------------------------------------------------------------------------------------------------------- the table


def table(result: Result) -> str:
    """The rows as text, then the orders beside the thesis's, and how it was done."""
    found = rows(result)
    errors = any("test_error" in row for row in found)
    names = ["train loss", "at equal time", "best test"] + (["train error", "best test error"] if errors else [])
    thesis = ["T: train", "T: test", "T: step"] if result.experiment.thesis else []
    cells = [["method", *names, "step ÷ SGD", *thesis, "diverged", "settings"]]
    for row in found:
        cells.append([row["label"], *_measures(row, errors), _ratio(row["ratio"])])
        cells[-1] += [_number(value) for value in row["thesis"] or (None,) * 3] if thesis else []
        counts = f"{row['trials_diverged']}/{result.size.trials}, {row['finals_diverged']}/{result.size.seeds}"
        cells[-1] += [counts, ", ".join(f"{k} {v:g}" for k, v in (row["settings"] or {}).items()) or "–"]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:-1], widths[1:])), line[-1]])
        for line in cells
    ]
    return "\n".join([*lines, "", *orders(result), "", *textwrap.wrap(protocol(result), 100)])


def _measures(row: dict, errors: bool) -> list[str]:
    if "train_loss" not in row:
        return ["all diverged", *["–"] * (4 if errors else 2)]
    median, low, high = row["train_loss"]
    found = [f"{median:.4g} ({low:.4g}–{high:.4g})", f"{row['at_equal_time']:.4g}", f"{row['best_test_loss']:.4g}"]
    return found + ([f"{row['train_error'][0]:.2%}", f"{row['best_test_error']:.2%}"] if errors else [])


def _ratio(quartiles: list[float]) -> str:
    low, median, high = quartiles
    return f"{median:.2f} ({low:.2f}–{high:.2f})"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"


def orders(result: Result) -> list[str]:
    """The measured orders, and the thesis's."""
    found = [row for row in rows(result) if "train_loss" in row]
    told = {
        "training loss by updates": "train_loss",
        "at equal time": "at_equal_time",
        "best test loss": "best_test_loss",
    }
    lines = []
    for name, number in told.items():
        order = sorted(found, key=lambda row: rank(row, number))
        lines.append(f"{name + ':':26}{', '.join(_named(result, row) for row in order)}")
    return [*lines, f"{'thesis:':26}{result.experiment.order}"]


def _named(result: Result, row: dict) -> str:
    lost_runs = row["finals_diverged"]
    return row["label"] + (f" [{lost_runs} of {result.size.seeds} runs diverged]" if lost_runs else "")
