"""`minigrad thesis`: run an experiment, write its picture and its summary, and say what came out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from minigrad.archive import replacing

from . import thesis_signals
from .errors import unknown
from .problems import problem
from .thesis import EXPERIMENTS, SIZES
from .thesis_runs import Interrupted, conduct, write

SIGNALS = "signals"  # the one figure that trains nothing to the end [T-5.5]


def repeat(
    figure: str,
    out: Path,
    *,
    full: bool = False,
    source: str | None = None,
    seeds: int | None = None,
    processes: int = 1,
    stopped: Callable[[], bool] = lambda: False,
    told: Callable[[str], None] = lambda line: None,
) -> str | None:
    """Repeat a figure of the thesis; the text to print, or None where a stop was asked for.

    Parameters
    ----------
    figure : str
        A key of EXPERIMENTS, or "signals".
    out : Path
        Of the records, the picture and the summary.
    full : bool
        The whole protocol instead of the small version.
    source : str, optional
        What `data.load` takes.
    seeds : int, optional
        Final runs of every method.
    processes : int
    stopped, told : callable
    """
    if figure not in (*EXPERIMENTS, SIGNALS):
        raise unknown("figure", figure, [*EXPERIMENTS, SIGNALS])
    if figure == SIGNALS:
        return _signals(out, source)
    size = SIZES["full" if full else "small"]
    size = replace(size, seeds=seeds or size.seeds)
    try:
        result = conduct(figure, size, out, source=source, processes=processes, stopped=stopped, told=told)
    except Interrupted:
        return None
    from . import thesis_figure  # matplotlib is slow to import

    write(out / f"{result.stem}.json", {"protocol": thesis_figure.protocol(result), "rows": thesis_figure.rows(result)})
    with replacing(out / f"{result.stem}.png") as stream:
        thesis_figure.draw(result, stream)
    return f"{thesis_figure.table(result)}\n\nfigure: {out / f'{result.stem}.png'}"


def _signals(out: Path, source: str | None) -> str:
    found = thesis_signals.measure("autoencoder", source or problem("autoencoder").data)
    stem = out / f"{SIGNALS}-{found['data']}"
    write(stem.with_suffix(".json"), found)
    with replacing(stem.with_suffix(".png")) as stream:
        thesis_signals.draw(found, stream)
    return "\n".join([*thesis_signals.table(found), "", f"figure: {stem.with_suffix('.png')}"])
