"""What the examples share: their command line, the look of a slide, and the clock of a budget.

An example is a script with `@slides.slide` above `main(quick, clock)`, which returns a Figure. The picture is saved
as the script's name with .png; the same computer gives the same bytes each time. An example that trains on a GPU too
has `main(quick, clock, device)`: arrays are uploaded once, and come back with `backend.to_host` where they are drawn.
"""

import inspect
import time
from pathlib import Path

import click
import matplotlib
from matplotlib.figure import Figure

from minigrad import backend

BLUE, ORANGE, GREEN, PINK, YELLOW, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
INK, GREY = "#222222", "#777777"  # with the six of Okabe & Ito 2008, told apart by colour-blind readers too
TITLE = {"x": 0.015, "ha": "left", "fontsize": 20, "fontweight": "bold"}
LOOK = {"font.size": 13, "axes.titlesize": 14, "axes.labelsize": 13, "xtick.labelsize": 11.5, "ytick.labelsize": 11.5}
LOOK |= {"legend.fontsize": 12, "legend.frameon": False, "lines.linewidth": 2.2, "axes.axisbelow": True}
LOOK |= {"axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY, "text.color": INK}
LOOK |= {"axes.grid": True, "grid.color": "#e6e6e6", "axes.titlelocation": "left", "mathtext.default": "regular"}


class Clock:
    """Seconds that an example may take from now on."""

    def __init__(self, seconds):
        self.seconds, self.start = seconds, time.monotonic()

    def within(self, items, what):
        """The items while the budget lasts, the first in any case; what is left out is said."""
        items = list(items)
        for k, item in enumerate(items):
            if k and time.monotonic() - self.start > self.seconds:
                click.echo(f"budget of {self.seconds:g} s spent: {k} of {len(items)} {what}")
                return
            yield item


def figure(title, subtitle="", size=(12.8, 7.2)):
    """A slide with its finding as the title; more lines of the subtitle take room of the panels."""
    slide = Figure(figsize=size, layout="constrained")
    lines = subtitle.count("\n") + 1 if subtitle else 0
    slide.suptitle(title + "\n" * lines, **TITLE)
    slide.text(0.015, 0.985 - 0.39 / size[1], subtitle, ha="left", va="top", fontsize=13, color=GREY)
    return slide


def bare(panel, **settings):
    """A panel without ticks and grid, for pictures and level lines."""
    panel.set(xticks=[], yticks=[], **settings)
    panel.grid(False)
    return panel


def usable(context, parameter, device):
    """The device that was asked for, or the reason why it cannot be used."""
    try:
        backend.module(device)
    except backend.DeviceError as error:
        raise click.ClickException(str(error)) from error
    return device


def slide(main):
    """main(quick, clock) → Figure as a command with --out, --quick and --budget; its help is the script's docstring.

    With main(quick, clock, device) it has --device too.
    """
    script = main.__globals__

    @click.command(help=script["__doc__"])
    @click.option("--out", type=click.Path(path_type=Path), default=Path("."), help="Folder for the picture.")
    @click.option("--quick", is_flag=True, help="Less of everything, in a few seconds.")
    @click.option("--budget", type=click.FloatRange(min=0), default=25.0, show_default=True, help="Seconds, about.")
    def command(out, quick, budget, **where):
        with matplotlib.rc_context(LOOK):
            drawn = main(quick, Clock(budget), **where)
            out.mkdir(parents=True, exist_ok=True)
            drawn.savefig(out / f"{Path(script['__file__']).stem}.png", dpi=150, metadata={"Software": None})

    if "device" in inspect.signature(main).parameters:
        choice = click.Choice(backend.DEVICES)
        click.option("--device", type=choice, default="cpu", show_default=True, callback=usable)(command)
    return command
