"""A case of a suite: its workers, its figures, its table.

A suite is a module with
    CASES                {case: something with `title` and `count`, the steps of a turn}
    contenders(case, peers)  {name in the table: variants, of which the fastest is shown}
    make(case, name)     what the worker of one variant runs
    check(case, peers)   raises where a contender computes something else
    limits(case, names)  the ratios to report, as `timing.Limit`
and may have `derived(seconds)`, further times from those of the contenders, and SELDOM, the names of those that are
too dear for every round.
"""

from __future__ import annotations

import contextlib
import statistics
from typing import Any

import click

from . import timing
from .workers import TUNED, Team, Worker

TRIAL_ROUNDS = 7


def measured(suite: Any, case: str, peers: tuple[str, ...], settings: timing.Settings) -> list[timing.Figure]:
    """Check the contenders of one case, run them, and print the table."""
    suite.check(case, peers)
    with contextlib.ExitStack() as stack:
        chosen, told = start(suite, case, peers, settings, stack)
        figures = timing.compare(suite, case, chosen, settings)
    click.echo(timing.table(suite.CASES[case].title, figures) + told + "\n")
    return figures


def start(
    suite: Any, case: str, peers: tuple[str, ...], settings: timing.Settings, stack: contextlib.ExitStack
) -> tuple[dict[str, Team], str]:
    """A worker for each contender, the fastest where it has variants; and which those were."""
    chosen, told = {}, []
    module = suite.__name__.rpartition(".")[2]
    for name, variants in suite.contenders(case, peers).items():
        tuned = TUNED if name.endswith(TUNED) else ""
        trial = {
            variant: Worker(module, case, variant + tuned, settings.threads, settings.clock) for variant in variants
        }
        best = fastest(trial, suite.CASES[case].count)
        for variant, own in trial.items():
            if variant != best:
                own.close()
        team = [trial[best]]
        for _ in range(1, getattr(suite.CASES[case], "processes", 1)):
            team.append(Worker(module, case, best + tuned, settings.threads, settings.clock))
        chosen[name] = Team([stack.enter_context(own) for own in team])
        if len(variants) > 1 and best != name:
            told.append(best if best.startswith(name) else f"{name}: {best}")
    return chosen, "\n  fastest variants: " + "; ".join(told) if told else ""


def fastest(trial: dict[str, Worker], count: int) -> str:
    """The name with the least median time over a few rounds."""
    if len(trial) == 1:
        return next(iter(trial))
    times: dict[str, list[float]] = {name: [] for name in trial}
    for _ in range(TRIAL_ROUNDS):
        for name, own in trial.items():
            times[name].append(own.run(count))
    return min(times, key=lambda name: statistics.median(times[name]))
