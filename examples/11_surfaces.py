"""Every method on four surfaces: no method wins on all of them [B, L, P].

A narrow valley (convex, smooth), a saddle (no minimum: who leaves it first?), Beale's function (not convex: steep walls
around a flat basin) and |x| + 10|y| (convex, not smooth: no curvature anywhere, and a gradient that does not shrink).
Every method has the same number of trials on every surface: the rates (σ for random search, the first trial of a line
search) from 0.001 to 10. Of them the one with the fewest steps to the goal is drawn, or the one that ended lowest.
"""

# %%
import numpy as np
import slides
from slides import BLUE, GREEN, GREY, INK, ORANGE, PINK, SKY, YELLOW

import minigrad as mg
import optim
from optim.lab.functions import Function, Valley, beale, saddle

RATES = np.geomspace(1e-3, 10, 9)
METHODS = {  # method of a rate, colour, dashes
    "gradient descent": (optim.GD, GREY, "-"),
    "momentum": (optim.Momentum, INK, "-"),
    "Nesterov": (optim.Nesterov, INK, ":"),
    "AdaGrad": (optim.AdaGrad, YELLOW, "-"),
    "RMSprop": (optim.RMSprop, PINK, "-"),
    "Adadelta": (optim.Adadelta, PINK, ":"),
    "Adam": (optim.Adam, ORANGE, "-"),
    "Newton, |H|": (lambda lr: optim.Newton(lr, indefinite="abs"), GREEN, "-"),
    "BFGS": (optim.BFGS, BLUE, "-"),
    "random search": (optim.RandomSearch, SKY, "-"),
}


class Kink(Function):
    """|x| + 10|y|."""

    formula = "|x| + 10|y|"
    minimisers = (np.zeros(2),)

    def __call__(self, p):
        return mg.abs(p["x"]) + 10.0 * mg.abs(p["y"])


SURFACES = {  # function, start, goal for R, box
    "Valley, κ = 50": (Valley(angle=30.0), (-3.5, -0.6), 1e-3, (-4.2, 1.2, -3, 1.2)),
    "Saddle, x² − y²": (saddle, (1.0, 1e-3), -1.0, (-1.2, 1.4, -0.4, 1.6)),
    "Beale": (beale, (1.0, 1.5), 1e-3, (-0.5, 4.0, -1.2, 1.8)),
    "|x| + 10|y|": (Kink(), (-3.0, 1.2), 0.1, (-3.6, 1.0, -1.6, 1.6)),
}


# %% Runs
def walk(function, method, start, goal, steps):
    """The points (n, 2) until R is at most the goal, the method stops, or the steps are used up."""
    f = function.objective(start)
    state, path = method.init(f.params), [np.array(start)]
    with np.errstate(all="ignore"):  # a rate that is too large overflows
        while len(path) <= steps and goal < float(f.value) < 1e9:
            try:
                method.step(f, state)
            except optim.Stopped:  # no lower R along its direction
                break
            path.append(f.params.vector.copy())
    return np.array(path)


def best(function, make, start, goal, steps):
    """The path with the fewest steps to the goal among all rates, or else the one that ends lowest; and the steps."""
    paths = [walk(function, make(lr), start, goal, steps) for lr in RATES]
    ends = [float(function.at(path[-1])) for path in paths]
    needed = [len(path) - 1 if end <= goal else np.inf for path, end in zip(paths, ends)]
    k = min(range(len(paths)), key=lambda k: (needed[k], np.nan_to_num(ends[k], nan=np.inf)))
    return paths[k], needed[k]


def race(function, start, goal, steps):
    """{method: (path, steps)}."""
    return {name: best(function, make, start, goal, steps) for name, (make, *_) in METHODS.items()}


# %% Four races, and the table that is the legend
def draw(panel, title, function, box, start, paths):
    x, y = np.linspace(*box[:2], 161), np.linspace(*box[2:], 121)
    R = function.at(np.array(np.meshgrid(x, y)))
    levels = np.quantile(R, np.linspace(0.02, 0.98, 13))
    panel.contour(x, y, R, levels=levels, colors="#cccccc", linewidths=1, linestyles="-")
    for name, (path, _) in paths.items():
        _, colour, dash = METHODS[name]
        panel.plot(*path.T, dash, color=colour, lw=1.7, marker="o", ms=2.8)
    for minimiser in function.minimisers:
        panel.plot(*minimiser, "*", color=INK, ms=14, mec="white", zorder=5)
    panel.plot(*start, "o", color=INK, ms=8, zorder=5)
    slides.bare(panel, title=title, xlim=box[:2], ylim=box[2:])


def draw_table(panel, races):
    panel.axis("off")
    columns = [("", list(METHODS))] + [(t.split(",")[0].split(" ")[0], [races[t][m][1] for m in METHODS]) for t in races]
    for x, (head, cells) in zip((0.0, 0.53, 0.69, 0.85, 1.02), columns):
        panel.text(x, 1, head, color=GREY, va="top", ha="right" if x else "left")
        for k, (cell, (_, colour, _)) in enumerate(zip(cells, METHODS.values())):
            weight = "bold" if x and cell == min(cells) else "normal"
            text = cell if not x else "–" if cell == np.inf else f"{cell}"
            panel.text(x, 0.92 - 0.08 * k, text, color=colour, weight=weight, va="top", ha="right" if x else "left")


@slides.slide
def main(quick, clock):
    races = {name: race(*surface[:3], 40 if quick else 200) for name, surface in SURFACES.items()}
    figure = slides.figure("x", "y")
    left, right = figure.subfigures(1, 2, width_ratios=(1.6, 1))
    for panel, (name, paths) in zip(left.subplots(2, 2).flat, races.items()):
        function, start, _, box = SURFACES[name]
        draw(panel, name, function, box, start, paths)
    draw_table(right.subplots(), races)
    return figure


if __name__ == "__main__":
    main()
