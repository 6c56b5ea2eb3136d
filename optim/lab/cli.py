"""The `minigrad` command. Only click and the standard library are imported before a command runs."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .errors import LabError, UsageError, near

if TYPE_CHECKING:
    from .runs import Comparison
    from .session import Session

FAILURE, USAGE = 1, 2
INTERRUPTED = 128  # plus the number of the signal


class Program(click.Group):
    """A group whose errors are one sentence on stderr, with an exit code that says whose they are."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            there = self.list_commands(ctx)
            raise UsageError(f"unknown command {args[0]!r}; there are {', '.join(there)}{near(args[0], there)}")
        return super().resolve_command(ctx, args)

    def main(self, args: Any = None, **extra: Any) -> None:
        args = list(sys.argv[1:] if args is None else args)
        debug = "--debug" in args
        extra["standalone_mode"] = False
        try:
            code = super().main([a for a in args if a != "--debug"], **extra)
        except (KeyboardInterrupt, click.Abort):
            click.echo("error: interrupted", err=True)
            sys.exit(INTERRUPTED + signal.SIGINT)
        except Exception as error:
            if debug:
                raise
            sentence, code = explain(error)
            click.echo(f"error: {' '.join(sentence.split())}", err=True)
        sys.exit(code if isinstance(code, int) else 0)


def explain(error: Exception) -> tuple[str, int]:
    """One sentence about an error, and the exit code."""
    if isinstance(error, click.NoSuchOption):
        close = f"; did you mean {error.possibilities[0]!r}?" if error.possibilities else "; --help lists the options"
        return f"unknown option {error.option_name!r}{close}", USAGE
    if isinstance(error, click.ClickException):
        sentence = error.format_message().rstrip(".")
        return sentence[:1].lower() + sentence[1:], USAGE if error.exit_code == 2 else FAILURE
    if isinstance(error, UsageError):
        return str(error), USAGE
    from minigrad import LoadError, backend, data

    if isinstance(error, (LabError, LoadError, data.DataError, backend.DeviceError)):
        return str(error), FAILURE
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or error}; check the path and the free space", FAILURE
    if told := backend.explained(error):
        return told, FAILURE
    if isinstance(error, MemoryError):
        said = f": {str(error).rstrip('.')}" if str(error) else ""
        return f"the memory does not suffice{said}; take less data or a smaller network", FAILURE
    return f"{type(error).__name__}: {error}; add --debug to see where", FAILURE


@click.group(
    cls=Program,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Train small networks with optimization methods that see inside them.

    \b
    minigrad train digits -O acp --steps 200
    minigrad compare autoencoder -O sgd -O adam -O acp -O ubp:acp --seconds 20
    minigrad optimizers
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


# ------------------------------------------------------------------------------------------------ train and compare

option = click.option
PATH = click.Path(path_type=Path)
OPTIONS = (
    option("-O", "--optimizer", "specs", multiple=True, metavar="NAME[:INNER]", help="Method, or FILE.py:CLASS."),
    option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="acp.eps=.1, ubp.inner.lr=.03, problem.dim=9."),
    option("--steps", type=int, help="Train for this many updates."),
    option("--epochs", type=float, help="Train for this many passes over the examples."),
    option("--seconds", type=float, help="Train for this long; evaluations do not count."),
    option("--seed", type=int, default=0, show_default=True, help="Of θ, batches and methods."),
    option("--data", "source", metavar="DATA", help="digits, digits8, fashion, IDX folder, CIFAR-10 file, FILE.npz."),
    option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True),
    option("--dtype", type=click.Choice(["float32", "float64"]), help="Default: float32, functions float64."),
    option("--out", type=PATH, default="runs", show_default=True, help="Results go to OUT/PROBLEM-SEED."),
    option("--overwrite", is_flag=True, help="Replace a run that is there."),
    option("--resume", type=PATH, metavar="FOLDER", help="Continue a run; with a budget, up to that one."),
    option("--json", "as_json", is_flag=True, help="Print the results as JSON instead of a table."),
)
WITH_RESUME = {"resume", "steps", "epochs", "seconds", "as_json"}


def training(command: Callable) -> Callable:
    """The argument and options that train and compare share."""
    for add in reversed(OPTIONS):
        command = add(command)
    return click.argument("problem", required=False)(click.pass_context(command))


@main.command()
@option("--record", is_flag=True, help="Record every layer: layers.jsonl, layers.png; takes time.")
@training
def train(ctx: click.Context, specs: tuple[str, ...], **asked: Any) -> int:
    """Train PROBLEM with one method.

    \b
    minigrad train digits -O adam --steps 200
    minigrad train classifier -O acp --set lr=.03,eps=1 --data fashion --epochs 2
    minigrad train digits -O mine.py:Mine --steps 100
    minigrad train rosenbrock -O nesterov --set lr=1e-3,problem.dim=10 --steps 500
    minigrad train --resume runs/digits-0 --steps 400

    Writes run.json, metrics.jsonl, figure.png and a checkpoint into OUT/PROBLEM-SEED. The exit code is 1 if the
    method diverged. A method that says that it cannot go on has not diverged: its run ends there.

    A test function (`minigrad problems`) starts at its own point for --seed 0 and at a random one for every other.
    Its settings are called problem.NAME.
    """
    if len(specs) > 1:
        raise UsageError(f"train takes one -O, not {len(specs)}; use compare for several")
    return run(ctx, specs=specs, **asked)


@main.command()
@training
def compare(ctx: click.Context, **asked: Any) -> int:
    """Train PROBLEM with several methods.

    \b
    minigrad compare autoencoder -O sgd -O adam -O acp -O ubp:acp --seconds 20
    minigrad compare digits -O acp -O ubp:acp --set acp.eps=.1 --set ubp.mode=mc,ubp.inner.lr=.1
    minigrad compare digits -O sgd -O sgd --set sgd-2.lr=1 --json
    minigrad compare quadratic -O gd -O nesterov --set problem.kappa=1e4 --steps 1000
    minigrad compare --resume runs/autoencoder-0

    All methods start from one θ and see the same batches. Each has settings that suit the problem unless --set changes
    them. They take turns, and the training clock counts their updates alone. The exit code is 1 if a method diverged.
    """
    return run(ctx, **asked)


def run(ctx: click.Context, **asked: Any) -> int:
    """A new run or a resumed one; the exit code."""
    from .session import Session

    if asked["resume"] is None:
        session = Session.begin(**asked)
    else:
        given = [p for p in ctx.params if ctx.get_parameter_source(p).name == "COMMANDLINE" and p not in WITH_RESUME]
        if given:
            raise UsageError(f"--resume takes {_told(given[0])} from the folder; give only a budget and --json with it")
        session = Session.reopen(asked["resume"], asked)
    with caught() as signals:
        finished = follow(session.comparison, lambda: bool(signals))
        session.picture()
    if not finished:
        again = f"minigrad {ctx.info_name} --resume {shlex.quote(str(session.folder.path))}"
        click.echo(f"stopped and saved; continue with: {again}", err=True)
        return INTERRUPTED + signals[0]
    return finish(session, asked["as_json"])


def _told(name: str) -> str:
    words = {"specs": "the methods", "pairs": "the settings", "source": "the data"}
    return words.get(name, f"the {name}")


@contextmanager
def caught() -> Iterator[list[int]]:
    """The signals that asked to stop, in a list; a second one ends the program as it would without this."""
    signals: list[int] = []
    before = {}

    def note(number: int, frame: Any) -> None:
        signals.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, note)
    try:
        yield signals
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def follow(comparison: Comparison, stopped: Callable[[], bool]) -> bool:
    """Train with the progress on stderr; whether it came to the end."""
    from .report import Progress

    progress = Progress(comparison, sys.stderr)
    try:
        return comparison.train(stopped, progress.tick, progress.logged)
    finally:
        progress.close()


def finish(session: Session, as_json: bool) -> int:
    """Print the results and complete run.json; the exit code."""
    from . import report

    records = session.comparison.records
    session.complete(report.rows(records))
    remarks = report.remarks(records)
    if as_json:
        found = {**session.facts, "folder": str(session.folder.path), "remarks": remarks}
        click.echo(json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        click.echo("\n".join([report.table(records), *remarks]))
    click.echo(f"figure: {session.folder.path / 'figure.png'}", err=True)
    if lost := report.divergence(records):
        raise LabError(lost)
    return 0


# ------------------------------------------------------------------------------------------------------------ tables


@main.command()
def problems() -> None:
    """List the problems: networks on data, and test functions.

    \b
    minigrad problems
    """
    from . import tables

    click.echo("\n".join(tables.problems()))


@main.command()
def optimizers() -> None:
    """List the methods and their settings.

    \b
    minigrad optimizers

    For each: its equation and source, its settings with their defaults, and where to search for better ones.
    """
    from . import tables

    click.echo("\n".join(tables.optimizers()))


@main.command()
@click.argument("folder", type=PATH, default="examples")
@option("--out", type=PATH, default="gallery", show_default=True, help="Folder of index.html and the pictures.")
@option("--quick", is_flag=True, help="Less of everything, for a first look.")
@option("--budget", type=click.FloatRange(min=0, min_open=True), help="Seconds for each example; its own by default.")
def gallery(folder: Path, out: Path, quick: bool, budget: float | None) -> None:
    """Run the examples of FOLDER (./examples) and build a page of their pictures that works offline.

    \b
    minigrad gallery
    minigrad gallery --quick --out pictures
    minigrad gallery path/to/examples --budget 60

    An example that fails is named, the others go on, and the exit code is 1.
    """
    from .gallery import build

    click.echo(build(folder, out, quick, budget, lambda line: click.echo(line, err=True)))


@main.command()
@click.argument("figure")
@option("--full", is_flag=True, help="The whole protocol, run by run: hours to days.")
@option("--data", "source", metavar="DATA", help="fashion, cifar-10-binary.tar.gz, …; by default the problem's own.")
@option("--seeds", type=click.IntRange(min=1), help="Final runs of every method.")
@option("--jobs", type=click.IntRange(min=1), help="Processes of one BLAS thread each.  [default: one a core]")
@option("--out", type=PATH, default="runs/thesis", show_default=True, help="Folder of records and pictures.")
def thesis(figure: str, jobs: int | None, out: Path, **asked: Any) -> int:
    """Repeat an experiment of the thesis: FIGURE is fig5.1, fig6.1, fig6.2, fig6.3 or signals.

    \b
    minigrad thesis fig6.1
    minigrad thesis fig6.3 --data cifar-10-binary.tar.gz
    minigrad thesis fig6.2 --full --jobs 2
    minigrad thesis signals

    Every method gets the same number of trials; the loss on the validation part decides. Each run is a JSON record, and
    what is on record is not run again: the same command goes on where it was stopped.
    """
    from . import machine
    from .thesis_command import repeat

    with caught() as signals:
        told = repeat(
            figure, out, processes=jobs or machine.cores(), stopped=lambda: bool(signals),
            told=lambda line: click.echo(line, err=True), **asked,
        )  # fmt: skip
    if told is None:
        click.echo("stopped; the same command goes on where it was", err=True)
        return INTERRUPTED + signals[0]
    click.echo(told)
    return 0


@main.command()
@option("--device", type=click.Choice(["cpu", "cuda"]), help="Test this device against NumPy; takes a few minutes.")
@option("--out", type=PATH, metavar="FILE", help="Write the report of that test to FILE.")
def doctor(device: str | None, out: Path | None) -> None:
    """Show versions, devices and data sets; with --device, test a device.

    \b
    minigrad doctor
    minigrad doctor --device cuda --out report.txt

    The test runs every operation and every method on the device and compares the numbers with NumPy's in float64,
    looks for waits inside a step, and times steps on both devices. The exit code is 1 if something does not hold.
    --device cpu tries NumPy in float32.
    """
    if device is None:
        if out is not None:
            raise UsageError("--out is for the report of a test; name the --device too")
        overview()
    else:
        test_device(device, out)


def overview() -> None:
    """Versions, devices and data sets."""
    from minigrad import backend, data

    from . import machine

    click.echo("\n".join(machine.told()))
    click.echo(f"{'cpu':<11} usable")
    usable, found = backend.gpu_status()
    click.echo(f"{'cuda':<11} {'usable: ' if usable else 'not usable: '}{found}")
    for name, read in data.NAMED.items():
        try:
            told = f"found: {read()!r}"
        except data.DataError as error:
            told = f"not found: {error}"
        click.echo(f"{name:<11} {told}")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "minigrad"
    click.echo(f"{'cache':<11} {cache} ({'there' if cache.is_dir() else 'not there'})")


def test_device(device: str, out: Path | None) -> None:
    """The self-test with a bar on stderr; the report goes to stdout or to a file."""
    from minigrad.archive import replacing

    from .selftest import examine

    def bar(what: str, items: list) -> Iterator:
        with click.progressbar(items, label=f"{what:<10}", file=sys.stderr) as shown:
            yield from shown

    if out is not None and not out.parent.is_dir():
        raise LabError(f"{out}: its folder does not exist; create it first")
    report = examine(device, bar)
    if out is None:
        click.echo(report.text(), nl=False)
    else:
        with replacing(out) as stream:
            stream.write(report.text().encode())
        click.echo(f"report: {out}", err=True)
    if report.wrong:
        raise LabError(f"device {device!r}: {report.verdict()}")


if __name__ == "__main__":
    main()
