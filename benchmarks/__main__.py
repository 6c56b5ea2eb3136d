"""python -m benchmarks COMMAND: the project's ratios, each group interleaved in one run.

NumPy and the BLAS read their number of threads when they are loaded, so this file loads neither before it has set
it and, if need be, started itself anew.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from .machine import machine, pin
from .peers import PEERS, installed


@click.group(help=__doc__.partition("\n")[0])
def main() -> None:
    """Collect the commands."""


def names_of(context: click.Context, option: click.Option, value: str | None) -> tuple[str, ...] | None:
    """The peers of a list like torch,jax."""
    if value is None:
        return None
    names = tuple(name for name in value.split(",") if name)
    for name in names:
        if name not in PEERS:
            raise click.BadParameter(f"{name!r} is none of {', '.join(PEERS)}")
        if name not in installed():
            raise click.BadParameter(f"{name} is not installed; pip install '.[bench]' has all of them")
    return names


def command(name: str, suites: dict[str, tuple[str, ...]], text: str) -> None:
    """Add the command that runs some cases of some suites."""
    cases = [case for found in suites.values() for case in found]

    @main.command(name, help=text)
    @click.option("--peers", callback=names_of, help=f"Of {','.join(PEERS)}. Default: those installed; none to gate.")
    @click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Of the BLAS and the peers.")
    @click.option("--clock", type=click.Choice(["cpu", "wall"]), help="Default: cpu for one thread, wall for more.")
    @click.option("--seconds", type=float, default=10.0, show_default=True, help="At least, for each case.")
    @click.option("--rounds", type=click.IntRange(3), default=30, show_default=True, help="At least, for each case.")
    @click.option("--only", type=click.Choice(cases), multiple=True, help="These cases; may be given several times.")
    @click.option("--json", "file", type=click.Path(path_type=Path), help="Write the figures to this file.")
    @click.option("--picture", type=click.Path(path_type=Path), help="Draw the figures into this PNG.")
    @click.option(
        "--gate",
        is_flag=True,
        help="Exit 1 on a ratio over its limit or worse than its record, 3 on noise.",
    )
    def run(peers, threads, clock, seconds, rounds, only, file, picture, gate):
        if gate and threads != 1:
            raise click.UsageError("the gate holds on one thread: a second one moves with what else the machine does")
        pin(threads)
        from .gate import TRIES
        from .timing import Settings

        clock = clock or ("cpu" if threads == 1 else "wall")
        settings = Settings(seconds, rounds, clock, threads, TRIES if gate else 1)
        peers = peers if peers is not None else () if gate else installed()
        record, figures = run_suites(suites, only, peers, settings)
        if file:
            file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        if picture:
            draw_record(record, picture)
        if gate:
            sys.exit(conclude(name, record, figures))


def run_suites(suites: dict[str, tuple[str, ...]], only: tuple[str, ...], peers: tuple[str, ...], settings: Any):
    """Run and print; the record, and the figures in it as objects."""
    from .running import measured

    record = machine(settings.threads, settings.clock)
    versions = ", ".join(f"{library} {version}" for library, version in record["versions"].items())
    click.echo(f"{record['cpu']}, {record['cores']} cores, threads {settings.threads}, {record['blas']}, {versions}")
    click.echo(f"{settings.clock} clock; medians of the ratios of each round\n")
    figures, tables = [], {}
    for suite, cases in suites.items():
        module = importlib.import_module(f".{suite}", __package__)
        for case in cases:
            if only and case not in only:
                continue
            if hasattr(module, "report"):
                text, tables[case] = module.report(case, settings, peers)
                click.echo(text)
            else:
                figures += measured(module, case, peers, settings)
    record["figures"] = [f.record() for f in figures]
    return record | ({"tables": tables} if tables else {}), figures


def draw_record(record: dict[str, Any], path: Path) -> None:
    """The picture of a record: growth has one of its own."""
    growth = record.get("tables", {}).get("growth")
    if growth:
        from .growth import draw

        draw(growth, path)
    elif record["figures"]:
        from .picture import draw

        draw(record, path)
    else:
        raise click.UsageError("there is nothing to draw")


def conclude(name: str, record: dict[str, Any], figures: list[Any]) -> int:
    """Say which gated ratios fail; the exit code."""
    from .gate import EXIT, committed, verdict

    known, why = committed(name, record)
    word, lines = verdict(figures, known)
    click.echo("\n".join([*([why] if why else []), *lines, f"gate: {word}"]))
    return EXIT[word]


COMMANDS = {
    "step": ({"step": ("AE", "CLS", "SMALL")}, "One training step against the products alone, NumPy and the peers."),
    "overhead": (
        {"chain": ("chain", "chain-0d"), "pieces": ("pieces",), "launches": ("launches",)},
        "A chain of additions; the parts of a small step; launches on the CPU device.",
    ),
    "ubp": ({"ubp": ("AE", "CLS")}, "UBP in every mode against SGD."),
    "methods": ({"methods": ("methods",)}, "Every white-box method's step against SGD, beside the thesis's figures."),
    "curvature": ({"curvature": ("AE", "CLS")}, "Signals and curvature against a gradient, and the peers."),
    "search": ({"search": ("ES",)}, "Evolution strategies: every kind of direction against the naive loop."),
    "memory": ({"memory": ("memory",)}, "Peak memory of a step and of every method; bytes of their states."),
    "growth": ({"growth": ("growth",)}, "Time against width, depth, batch, outputs and examples, with slopes."),
}
for _name, (_suites, _text) in COMMANDS.items():
    command(_name, _suites, _text)


@main.command("all", help="Every command with its record and picture in one folder.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.option("--seconds", type=float, default=5.0, show_default=True)
@click.option("--rounds", type=click.IntRange(3), default=12, show_default=True)
def run_all(out, seconds, rounds):
    out.mkdir(parents=True, exist_ok=True)
    for name in COMMANDS:
        call = [sys.executable, "-m", "benchmarks", name, "--seconds", str(seconds), "--rounds", str(rounds)]
        call += ["--json", str(out / f"{name}.json")]
        call += ["--picture", str(out / f"{name}.png")] if name in ("step", "growth") else []
        subprocess.run(call, check=True)


@main.command("draw", help="The picture of a record, without measuring again.")
@click.argument("record", type=click.Path(exists=True, path_type=Path))
@click.argument("picture", type=click.Path(path_type=Path))
def draw(record, picture):
    draw_record(json.loads(record.read_text(encoding="utf-8")), picture)


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


@main.command(hidden=True)
@click.argument("name")
def resident(name: str) -> None:
    """The other end of `memory.libraries`."""
    pin(1)
    from .memory import resident_growth

    click.echo(resident_growth(name))


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
