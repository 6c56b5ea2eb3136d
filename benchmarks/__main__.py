"""python -m benchmarks COMMAND: the project's ratios, each group interleaved in one run.

NumPy and the BLAS read their number of threads when they are loaded, so this file loads neither before it has set
it and, if need be, started itself anew.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

import click

THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
LIBRARIES = ("numpy", "scipy", "torch", "autograd")


def pin(threads: int) -> None:
    """Give the BLAS and torch this many threads, and one thread one core."""
    wanted = dict.fromkeys(THREAD_VARIABLES, str(threads))
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks", *sys.argv[1:]], {**os.environ, **wanted})
    if threads == 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    found = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(found, platform.processor() or platform.machine())


def machine(threads: int, clock: str) -> dict[str, Any]:
    """What the figures depend on, and nothing else of the machine."""
    import numpy as np

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "cpu": cpu_model(), "cores": os.cpu_count(), "threads": threads, "clock": clock,
        "blas": f"{blas['name']} {blas['version']}", "versions": versions,
    }  # fmt: skip


def measured(suite: Any, case: str, settings: Any) -> list[Any]:
    """Check the contenders of one case, run them, and print the table."""
    from . import timing

    suite.check(case)
    with contextlib.ExitStack() as stack:
        chosen, told = start(suite, case, settings, stack)
        figures = timing.compare(suite, case, chosen, settings)
    click.echo(timing.table(suite.CASES[case].title, figures) + told + "\n")
    return figures


def start(suite: Any, case: str, settings: Any, stack: contextlib.ExitStack) -> tuple[dict[str, Any], str]:
    """A worker for each contender, the fastest where it has variants; and what to say about those."""
    from .workers import TUNED, Worker

    chosen, told = {}, ""
    for name, variants in suite.contenders(case).items():
        tuned = TUNED if name.endswith(TUNED) else ""
        trial = {}
        for variant in variants:
            own = Worker(suite.__name__.rpartition(".")[2], case, variant + tuned, settings.threads, settings.clock)
            trial[variant] = stack.enter_context(own)
        best = fastest(trial, suite.CASES[case].count)
        chosen[name] = trial[best]
        told += f"\n  {name}: {best}" if len(variants) > 1 else ""
    return chosen, told


def fastest(trial: dict[str, Any], count: int) -> str:
    """The name with the least median time over a few rounds."""
    if len(trial) == 1:
        return next(iter(trial))
    times = {name: [] for name in trial}
    for _ in range(15):
        for name, own in trial.items():
            times[name].append(own.run(count))
    return min(times, key=lambda name: statistics.median(times[name]))


def command(name: str, suites: dict[str, tuple[str, ...]], text: str) -> None:
    """Add the command that runs some cases of some suites."""
    names = [case for cases in suites.values() for case in cases]

    @main.command(name, help=text)
    @click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Of the BLAS and of torch.")
    @click.option("--clock", type=click.Choice(["cpu", "wall"]), help="Default: cpu for one thread, wall for more.")
    @click.option("--seconds", type=float, default=10.0, show_default=True, help="At least, for each case.")
    @click.option("--rounds", type=click.IntRange(3), default=30, show_default=True, help="At least, for each case.")
    @click.option("--only", type=click.Choice(names), multiple=True, help="These cases; may be given several times.")
    @click.option("--json", "file", type=click.File("w"), help="Write the figures to this file.")
    @click.option("--gate", is_flag=True, help="Exit 1 where a ratio is over its limit (not those to a framework).")
    def run(threads, clock, seconds, rounds, only, file, gate):
        pin(threads)
        from . import timing

        clock = clock or ("cpu" if threads == 1 else "wall")
        settings = timing.Settings(seconds, rounds, clock, threads, 3 if gate else 1)
        about = machine(threads, clock)
        versions = ", ".join(f"{library} {version}" for library, version in about["versions"].items())
        click.echo(f"{about['cpu']}, {about['cores']} cores, threads {threads}, {about['blas']}, {versions}")
        click.echo(f"{clock} clock; medians of the ratios of each round\n")
        figures = []
        for suite, cases in suites.items():
            module = importlib.import_module(f".{suite}", __package__)
            for case in cases:
                figures += measured(module, case, settings) if not only or case in only else []
        if file:
            file.write(json.dumps({**about, "figures": [f.record() for f in figures]}, indent=1) + "\n")
        if gate:
            sys.exit(verdict(figures))


def verdict(figures: list[Any]) -> int:
    """Say which gated ratios are over or too noisy; the exit code."""
    words = set()
    for f in figures:
        if f.limit.gate and f.verdict in ("over", "too noisy"):
            words.add(f.verdict)
            click.echo(f"{f.verdict}: {f.case}, {f.name} = {f.ratio:.3f} ± {f.spread:.1%}, limit {f.limit.most}")
    click.echo(f"gate: {'over' if 'over' in words else 'too noisy' if words else 'ok'}")
    return int("over" in words)


@click.group(help=__doc__.partition("\n")[0])
def main() -> None:
    """Collect the commands."""


STEPS = {"step": ("AE", "CLS", "SMALL"), "chain": ("chain", "chain-0d")}
command("step", STEPS, "One training step, and a chain of additions.")
command("ubp", {"ubp": ("AE", "CLS")}, "UBP in every mode, and the other white-box methods, against SGD.")
command("curvature", {"curvature": ("AE", "CLS")}, "Signals and curvature products against a gradient.")
command("search", {"search": ("ES",)}, "Evolution strategies: every kind of direction against the naive loop.")


@main.command(hidden=True)
@click.argument("suite")
@click.argument("case")
@click.argument("name")
@click.option("--threads", type=int, required=True)
@click.option("--clock", required=True)
def worker(suite: str, case: str, name: str, threads: int, clock: str) -> None:
    """The other end of `workers.Worker`."""
    pin(threads)
    from .workers import serve

    serve(importlib.import_module(f".{suite}", __package__).make(case, name), clock)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
