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

NOISE = 0.05  # the widest spread at which a ratio is taken for a measurement


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
    """

    name: str
    over: str
    most: float | None = None
    stretch: float | None = None
    gate: bool = True


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
        """Half the distance of the quartiles, as a part of the ratio."""
        return (self.high - self.low) / (2.0 * self.ratio)

    @property
    def verdict(self) -> str:
        """ok, over, or tie where the limit lies less than the spread below the ratio; or that it cannot be said."""
        most = self.limit.most
        if most is None:
            return ""
        if self.spread > NOISE:
            return "too noisy"
        return "ok" if self.ratio <= most else "tie" if self.ratio <= most * (1.0 + self.spread) else "over"

    def record(self) -> dict[str, Any]:
        """The figure for JSON."""
        return {**asdict(self), "spread": self.spread, "verdict": self.verdict}


def measure(contenders: dict[str, Any], count: int, settings: Settings, times: dict[str, list]) -> None:
    """Run all contenders round by round, `count` steps a turn, and append the seconds per step to `times`."""
    names = list(contenders)
    end, done = time.perf_counter() + settings.seconds, 0
    while done < settings.rounds or time.perf_counter() < end:
        at = done % len(names)
        for name in names[at:] + names[:at]:
            if settings.threads > 1:
                time.sleep(0.03)  # the threads of the one before spin that long when they have nothing to do
            times.setdefault(name, []).append(contenders[name].run(count))
        done += 1


def figure(case: str, limit: Limit, seconds: dict[str, np.ndarray]) -> Figure:
    """The ratio that a limit speaks of."""
    own = seconds[limit.name]
    low, ratio, high = np.quantile(own / seconds[limit.over], [0.25, 0.5, 0.75]).tolist()
    return Figure(case, limit, ratio, low, high, float(np.median(own)) * 1e3, len(own))


def compare(suite: Any, case: str, contenders: dict[str, Any], settings: Settings) -> list[Figure]:
    """All figures of a suite's case, measured again while one with a limit is too noisy."""
    times: dict[str, list] = {}
    for _ in range(settings.tries):
        measure(contenders, suite.CASES[case].count, settings, times)
        seconds = {name: np.asarray(value) for name, value in times.items()}
        if hasattr(suite, "derived"):
            seconds.update(suite.derived(seconds))
        figures = [figure(case, limit, seconds) for limit in suite.limits(case, list(contenders))]
        if not any(f.verdict == "too noisy" for f in figures):
            break
    return figures


def table(title: str, figures: list[Figure]) -> str:
    """The figures of one case as text."""
    rows = [("", "ms", "ratio", "quartiles", "must reach", "stretch", "")]
    for f in figures:
        bounds = ["" if value is None else f"{value:.2f}" for value in (f.limit.most, f.limit.stretch)]
        spread = "" if f.limit.name == f.limit.over else f"{f.low:.3f}–{f.high:.3f}"
        rows.append((f.name, f"{f.milliseconds:#.4g}", f"{f.ratio:.3f}", spread, *bounds, f.verdict))
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))]) for row in rows]
    return "\n".join([f"{title}  ({figures[0].rounds} rounds)", *("  " + line.rstrip() for line in lines)])
