"""A recorder of what happens in every layer, around any method: Recorded(ACP(), every=5).

Quantities of a layer at a step, before θ moves by it:

    h       √(mean over the examples of ‖h‖²), what the layer reads
    da      √(mean over the examples of ‖∂ℓ/∂a‖²), plain backprop's, also under UBP, which edits its own
    W, dW   ‖W‖ and ‖ΔW‖ (Frobenius)
    bad     how many numbers of h, da and ΔW are NaN or infinite
    cond    largest ÷ smallest eigenvalue of cov(h) that is not zero to rounding, and
    rank    how many of those there are; both every `dear_every` steps
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minigrad import Objective, backend
from minigrad.archive import replacing
from optim.base import check_setting
from optim.wrappers import Wrapper

from .errors import LabError, UsageError

CHEAP = ("h", "da", "W", "dW", "bad")
DEAR = ("cond", "rank")
QUANTITIES = (*CHEAP, *DEAR)
FILE, PICTURE = "layers.jsonl", "layers.png"
PENDING = 100  # recorded steps that stay on the device before they are fetched together


@dataclass
class Recorded(Wrapper):
    """A method whose layers are recorded; its steps and its state are those of the method inside.

    Parameters
    ----------
    inner : Method
    every : int
        Steps between two records of the cheap quantities. One costs a backward sweep without gradients.
    dear_every : int
        Steps between two records of the eigenvalues; they are recorded at steps that are recorded anyway.

    Attributes
    ----------
    path : Path or None
        Set it, and the lines go to the end of this file instead of into memory.
    label : str
        The method's name in the lines.

    Notes
    -----
    Waits on the device: one in 100 recorded steps, when their numbers are fetched together, and two a layer where
    eigenvalues are due.

    Examples
    --------
    >>> import optim
    >>> from optim.lab.runs import Budget, compare
    >>> recorded = Recorded(optim.Adam(1e-3), every=10)
    >>> _ = compare("digits", {"adam": recorded}, Budget("steps", 20))
    >>> [(line["step"], line["layer"]) for line in recorded.lines()][:4]
    [(0, '0'), (0, '1'), (0, '2'), (10, '0')]
    """

    every: int = 1
    dear_every: int = 100

    def __post_init__(self):
        super().__post_init__()
        check_setting(self, "every", 1, whole=True)
        check_setting(self, "dear_every", 1, whole=True)
        self.path: Path | None = None
        self.label = type(self.inner).__name__
        self._pending: list[tuple] = []
        self._lines: list[dict] = []

    def start(self, params):
        self._pending, self._lines = [], []
        return super().start(params)

    def update(self, f, state):
        delta = self.inner.update(f, state)
        t = state["t"]
        if t % self.every == 0:
            self._record(f, delta, t)
        return delta

    def _record(self, f: Objective, delta: Any, t: int) -> None:
        steps, names, found, dear = f.params.windows(delta), [], [], {}
        for site in f.sweep():
            name = site.name if site.name not in names else f"{site.name}@{names.count(site.name) + 1}"
            names.append(name)
            dW = steps[f"{site.name}.W"]
            found += [_norm(site.h, f.n), _norm(site.da, f.n), _norm(site.W), _norm(dW)]
            found.append(sum(_bad(values) for values in (site.h, site.da, dW)))
            if t % self.dear_every < self.every:
                dear[name] = spread(site.h)
        module = backend.xp(delta)
        numbers = module.stack([module.asarray(value, dtype="float64") for value in found])
        self._pending.append((t, names, numbers, dear))
        if len(self._pending) == PENDING:
            self.flush()

    def flush(self) -> None:
        """Fetch what is on the device, into the file if there is one."""
        if not self._pending:
            return
        numbers = backend.to_host(backend.xp(self._pending[0][2]).concatenate([each[2] for each in self._pending]))
        lines, at = [], 0
        for t, names, values, dear in self._pending:
            table = numbers[at : at + len(values)].reshape(len(names), len(CHEAP))
            at += len(values)
            for name, row in zip(reversed(names), table[::-1]):  # in the order of the forward pass
                line = {"method": self.label, "step": t, "layer": name, **dict(zip(CHEAP, map(_number, row)))}
                line["bad"] = int(line["bad"])
                lines.append({**line, **dict(zip(DEAR, map(_number, dear[name])))} if name in dear else line)
        self._pending = []
        if self.path is None:
            self._lines += lines
        else:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.writelines(json.dumps(line, allow_nan=False) + "\n" for line in lines)

    def lines(self) -> list[dict]:
        """{"method", "step", "layer", quantities} of every recorded step and layer; None for what is not finite."""
        self.flush()
        return latest(self._lines) if self.path is None else read(self.path)


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def _norm(values: Any, n: int = 1) -> Any:
    """√(Σ v² / n), a 0-d array."""
    flat = values.reshape(-1)
    return backend.xp(values).sqrt(flat.dot(flat) * (1.0 / n))


def _bad(values: Any) -> Any:
    """How many numbers are not finite, a 0-d array."""
    return (~backend.xp(values).isfinite(values)).sum()


def spread(h: Any) -> tuple[float, float]:
    """(condition, rank) of cov(h) over the rows of h (N, …, in); NaN where it holds NaN or does not vary.

    The eigenvalues come from the smaller of cov(h) and the centred rows' products, which share all that are not zero.
    An eigenvalue counts when it is above width · ε · the largest. Two waits.
    """
    rows = h.reshape(-1, h.shape[-1])
    centred = rows - rows.mean(0)
    small = centred.T.dot(centred) if len(rows) > rows.shape[1] else centred.dot(centred.T)
    try:
        values = backend.to_host(backend.eigh(small)[0]).astype(float)
    except backend.FactorisationError:
        return math.nan, math.nan
    kept = values[values > max(rows.shape) * float(np.finfo(h.dtype).eps) * values[-1]]
    return (values[-1] / kept[0], float(len(kept))) if len(kept) and values[-1] > 0 else (math.nan, 0.0)


# ------------------------------------------------------------------------------------------------------- the file


def read(path: Path) -> list[dict]:
    """The lines of a file; see `latest`.

    Raises
    ------
    LabError
        The file is missing, or a line before the last cannot be read.
    """
    if not path.is_file():
        raise LabError(f"{path}: there is no such file; record a run first")
    found = []
    for number, text in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1], 1):
        try:
            line = json.loads(text)
            line["method"], line["step"], line["layer"]
        except (ValueError, KeyError, TypeError) as error:
            raise LabError(f"{path} is damaged in line {number}; remove that line") from error
        found.append(line)
    return latest(found)


def latest(lines: Iterable[dict]) -> list[dict]:
    """One line for each method, step and layer: of several the last, for a resumed run repeats steps."""
    return list({(line["method"], line["step"], line["layer"]): line for line in lines}.values())


def history(lines: Iterable[dict], quantity: str) -> tuple[list[str], list[int], np.ndarray]:
    """One quantity as a table.

    Returns
    -------
    layers : list of str
        In the order of the forward pass.
    steps : list of int
        Where it was recorded.
    values : (layers, steps) float64
        NaN where it was not finite.
    """
    cells = {(line["layer"], line["step"]): line[quantity] for line in lines if quantity in line}
    layers = list(dict.fromkeys(layer for layer, _ in cells))
    steps = sorted({step for _, step in cells})
    table = [[cells.get((layer, step)) for step in steps] for layer in layers]
    return layers, steps, np.array(table, dtype=float).reshape(len(layers), len(steps))


# ------------------------------------------------------------------------------------------- a run of the command


def check(comparison: Any) -> None:
    """Refuse a comparison without layers.

    Raises
    ------
    UsageError
    """
    run = comparison.runs[0]
    f = run.objectives.at(0)
    if f.loss is None or not f.graph().sites:
        raise UsageError(f"{run.task.problem.name} has no dense layers to record; leave --record out")


def attach(comparison: Any, folder: Path) -> None:
    """Record every method of a comparison from its next step on, into layers.jsonl."""
    for run in comparison.runs:
        run.method = Recorded(run.method)
        run.method.path, run.method.label = folder / FILE, run.record.method


def finish(comparison: Any, folder: Path, title: str) -> None:
    """Write what is still on the device, and draw layers.png of the first method."""
    from .layers_figure import draw  # matplotlib is slow to import

    for run in comparison.runs:
        run.method.flush()
    if not (folder / FILE).is_file():
        return  # stopped before the first step
    label = comparison.runs[0].method.label
    lines = [line for line in read(folder / FILE) if line["method"] == label]
    with replacing(folder / PICTURE) as stream:
        draw(lines, f"{title}, {label}", stream)
