"""Rounds, ratios and verdicts.

Milliseconds drift with what else the machine does; a ratio of two times of one round drifts little. So all
contenders run once in every round, in rotated order, and what is reported is the median over the rounds of the
ratio within a round, with its quartiles.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

NOISE = 0.05  # the widest spread at which a gated ratio is taken for a measurement
SELDOM_ROUNDS = 3  # of the contenders that a suite calls SELDOM


@dataclass
class Settings:
    """How to measure: seconds and rounds per case at least, the clock, threads, how often to try when noisy."""

    seconds: float = 10.0
    rounds: int = 30
    clock: str = "cpu"
    threads: int = 1
    tries: int = 1


@dataclass
class Limit:
    """A ratio to report, and what it must not exceed.

    Parameters
    ----------
    name, over : str
        The contenders whose times are divided.
    most, stretch : float, optional
        The limit, and what to hope for.
    gate : bool
        Whether `--gate` looks at it: not at ratios to another framework, which move with its releases.
    note : str
        What to say beside it.
    """

    name: str
    over: str
    most: float | None = None
    stretch: float | None = None
    gate: bool = True
    note: str = ""

    @property
    def gated(self) -> bool:
        return self.gate and self.most is not None


@dataclass
class Figure:
    """One measured ratio: the median over the rounds, the quartiles, the median time."""

    case: str
    limit: Limit
    ratio: float
    low: float
    high: float
    milliseconds: float
    rounds: int

    @property
    def name(self) -> str:
        return f"{self.limit.name} ÷ {self.limit.over}"

    @property
    def spread(self) -> float:
        """The distance of the quartiles, as a part of the ratio."""
        return (self.high - self.low) / self.ratio

    @property
    def noisy(self) -> bool:
        return self.spread > NOISE

    @property
    def verdict(self) -> str:
        """ok; tie where the limit lies between the lower quartile and the ratio; over; or that it cannot be said."""
        most = self.limit.most
        if most is None:
            return ""
        if self.noisy:
            return "too noisy"
        return "ok" if self.ratio <= most else "tie" if self.low <= most else "over"

    def record(self) -> dict[str, Any]:
        """The figure for JSON."""
        return {**asdict(self), "spread": self.spread, "verdict": self.verdict}


def measure(suite: Any, case: str, contenders: dict[str, Any], settings: Settings) -> dict[str, np.ndarray]:
    """Run all contenders round by round.

    Returns
    -------
    dict
        {contender: seconds per step of every round}; NaN in the rounds that one of the suite's SELDOM sat out.
    """
    names, seldom = list(contenders), getattr(suite, "SELDOM", ())
    times: dict[str, list[float]] = {name: [] for name in names}
    end, done = time.perf_counter() + settings.seconds, 0
    while done < settings.rounds or time.perf_counter() < end:
        at = done % len(names)
        for name in names[at:] + names[:at]:
            if name in seldom and done >= SELDOM_ROUNDS:
                times[name].append(np.nan)
                continue
            if settings.threads > 1:
                time.sleep(0.03)  # the threads of the one before spin that long when they have nothing to do
            count = suite.CASES[case].count
            warm = 0 if name in seldom else 1 + count // 20
            times[name].append(contenders[name].run(count, warm))
        done += 1
    return {name: np.asarray(found) for name, found in times.items()}


def figure(case: str, limit: Limit, seconds: dict[str, np.ndarray]) -> Figure:
    """The ratio that a limit speaks of."""
    own = seconds[limit.name]
    known = ~np.isnan(own)
    ratios = own[known] / seconds[limit.over][known]
    low, ratio, high = np.quantile(ratios, [0.25, 0.5, 0.75]).tolist()
    return Figure(case, limit, ratio, low, high, float(np.median(own[known])) * 1e3, len(ratios))


def compare(suite: Any, case: str, contenders: dict[str, Any], settings: Settings) -> list[Figure]:
    """All figures of a suite's case, measured anew while one that is gated is too noisy."""
    for _ in range(settings.tries):
        seconds = measure(suite, case, contenders, settings)
        if hasattr(suite, "derived"):
            seconds |= suite.derived(seconds)
        figures = [figure(case, limit, seconds) for limit in suite.limits(case, list(contenders))]
        if not any(f.limit.gated and f.noisy for f in figures):
            break
    return figures


def table(title: str, figures: list[Figure]) -> str:
    """The figures of one case as text."""
    rows = [("", "ms", "ratio", "quartiles", "must reach", "stretch", "", "")]
    for f in figures:
        bounds = ["" if value is None else f"{value:.2f}" for value in (f.limit.most, f.limit.stretch)]
        spread = "" if f.limit.name == f.limit.over else f"{f.low:.3f}–{f.high:.3f}"
        rows.append((f.name, f"{f.milliseconds:#.4g}", f"{f.ratio:.3f}", spread, *bounds, f.verdict, f.limit.note))
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))]) for row in rows]
    rounds = max(f.rounds for f in figures)
    return "\n".join([f"{title}  ({rounds} rounds)", *("  " + line.rstrip() for line in lines)])
