"""The look that the pictures share."""

from __future__ import annotations

import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#333333"


def style(ax: Axes) -> None:
    """No frame, a pale grid."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#888888")
    ax.tick_params(colors=INK, labelsize=9, which="both")
    ax.grid(True, which="both", color="#e6e6e6", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.margins(x=0.02)


def heading(figure: Figure, title: str, text: str) -> None:
    """A title and a paragraph above everything."""
    lines = textwrap.wrap(text, int(14 * figure.get_figwidth()))
    figure.suptitle(title + "\n" * (len(lines) + 1), x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    below = 1.0 - 0.34 / figure.get_figheight()
    figure.text(0.01, below, "\n".join(lines), ha="left", va="top", fontsize=9, color=INK, linespacing=1.25)
