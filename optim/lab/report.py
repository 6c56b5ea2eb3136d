"""What a person sees of a run: the progress on stderr, the final table and the sentences under it."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Sequence
from typing import TextIO

import numpy as np

from .runs import Comparison, Record, Run

COLUMNS = {
    "train_loss": "train loss",
    "gap": "above the minimum",
    "test_loss": "test loss",
    "train_error": "train error",
    "test_error": "test error",
}


class Progress:
    """One line in place on a terminal; elsewhere a line for every 10 %.

    Parameters
    ----------
    comparison : Comparison
    stream : TextIO
        Usually stderr.
    """

    def __init__(self, comparison: Comparison, stream: TextIO):
        self.comparison, self.stream = comparison, stream
        self.in_place = stream.isatty()
        self.start, self.first = time.monotonic(), comparison.share
        self.tenth = int(self.first * 10)

    def tick(self, run: Run) -> None:
        """Called a few times a second with the run in progress."""
        if self.in_place:
            text = f"{self.comparison.share:4.0%}  {run.record.method}  update {run.step}  "
            text += f"loss {_number(run.record.last.get('train_loss'))}{self._remaining()}"
            self.stream.write("\r" + text[: shutil.get_terminal_size().columns - 1] + "\x1b[K")
            self.stream.flush()

    def logged(self, run: Run) -> None:
        """Called with a run after each of its evaluations."""
        if self.in_place:
            self.tick(run)
            return
        tenth = int(self.comparison.share * 10 + 1e-9)
        if tenth > self.tenth:
            self.tenth = tenth
            losses = [f"{r.method} {_state(r)}" for r in self.comparison.records]
            self.stream.write(f"{tenth * 10:3d} %  {'  '.join(losses)}{self._remaining()}\n")
            self.stream.flush()

    def close(self) -> None:
        """Leave the terminal's line empty."""
        if self.in_place:
            self.stream.write("\r\x1b[K")
            self.stream.flush()

    def _remaining(self) -> str:
        done = self.comparison.share
        if done >= 1 or done <= self.first:
            return ""
        left = (time.monotonic() - self.start) * (1 - done) / (done - self.first)
        return f"  ETA {int(left) // 60}:{int(left) % 60:02d}"


def _state(record: Record) -> str:
    return "diverged" if record.diverged else _number(record.last.get("train_loss"))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def rows(records: Sequence[Record]) -> list[dict]:
    """The final numbers of every method, for the table and for --json."""
    found = []
    for record in records:
        end = record.lines[-1] if record.lines else {}
        numbers = {name: end.get(name) for name in ("step", "seconds", *COLUMNS) if name in end}
        early = record.diverged or record.stopped
        ended = {"diverged": record.diverged is not None, "stopped": record.stopped is not None}
        row = {"method": record.method, **numbers, **ended, **({"reason": early} if early else {})}
        found.append({**row, "settings": record.settings})
    return found


def table(records: Sequence[Record]) -> str:
    """One row a method; the best value of a column is marked with *."""
    results = rows(records)
    titles = {name: title for name, title in COLUMNS.items() if any(name in row for row in results)}
    if "test_loss" not in titles:
        titles["train_loss"] = "R"  # of a function
    if all(row.get("gap") == row["train_loss"] for row in results):
        titles.pop("gap", None)  # its minimum is 0
    names = list(titles)
    best = {name: _best(results, name) for name in names}
    cells = [["method", "updates", "seconds", *titles.values()]]
    for row in results:
        values = [_cell(row, name, best[name]) for name in names]
        cells.append([row["method"], str(row["step"]), f"{row['seconds']:.2f}", *values])
    cells[0][3:] = [title + " " for title in cells[0][3:]]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:]))]).rstrip()
        for line in cells
    )


def _best(results: list[dict], name: str) -> float | None:
    values = [row[name] for row in results if row.get(name) is not None]
    return min(values) if len(values) > 1 else None


def _cell(row: dict, name: str, best: float | None) -> str:
    value = row.get(name)
    if value is None:
        return "diverged " if name == "train_loss" else "– "
    text = f"{value:.2%}" if name.endswith("error") else f"{value:.4g}"
    return text + ("*" if value == best else " ")


def remarks(records: Sequence[Record]) -> list[str]:
    """Where a method stopped, and where UBP loses to its inner rule at equal training seconds, a sentence each."""
    stops = [f"{r.method} stopped at update {r.last['step']}: {r.stopped.rstrip('.')}." for r in records if r.stopped]
    return stops + _against_inner(records)


def _against_inner(records: Sequence[Record]) -> list[str]:
    by_label = {record.method: record for record in records}
    found = []
    for record in records:
        match = re.fullmatch(r"ubp(?::(.+?))?(?:-\d+)?", record.method)
        inner = by_label.get((match[1] or "sgd").replace("gradient", "sgd")) if match else None
        if inner is None or record.diverged or inner.diverged:
            continue
        seconds = min(record.last["seconds"], inner.last["seconds"])
        own, other = _loss_at(record, seconds), _loss_at(inner, seconds)
        if own > other:
            found.append(
                f"{record.method} loses to its inner rule {inner.method} at equal training time ({seconds:.3g} s): "
                f"training loss {own:.4g} against {other:.4g}."
            )
    return found


def _loss_at(record: Record, seconds: float) -> float:
    """Training loss at a time, between two evaluations on a straight line."""
    good = [line for line in record.lines if not line.get("diverged")]
    return float(np.interp(seconds, [e["seconds"] for e in good], [e["train_loss"] for e in good]))


def divergence(records: Sequence[Record]) -> str | None:
    """One sentence about the methods that diverged, with the remedy; None if none did."""
    lost = [record for record in records if record.diverged]
    if not lost:
        return None
    told = "; ".join(
        f"{r.method} diverged at update {r.lines[-1]['step']} ({r.diverged}) and is saved as it was at update "
        f"{r.last.get('step', 0)}"
        for r in lost
    )
    if not lost[0].last:
        return f"{told}; it was so before the first update: look at the data, or start elsewhere with another --seed"
    name, rate = next(((k, v) for k, v in lost[0].settings.items() if k.rpartition(".")[2] == "lr"), ("", None))
    if not isinstance(rate, (int, float)):
        return f"{told}; try other settings, minigrad optimizers lists them"
    owner = f"{lost[0].method}." if len(records) > 1 else ""
    return f"{told}; take a smaller rate, such as --set {owner}{name}={rate / 10:.2g}"
