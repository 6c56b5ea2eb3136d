"""Every method on four surfaces: no method wins on all of them [B, L, P].

A narrow valley (convex, smooth), a saddle (no minimum: who leaves it first?), Beale's function (not convex: steep walls
around a flat basin) and |x| + 10|y| (convex, not smooth: no curvature, and a gradient that does not shrink). On each
every method has the same trials, rates from 0.001 to 1 (σ for random search, the first trial of a line search), of
which the one with the fewest steps to the goal counts. A run that leaves the picture is out, unless it is at the goal.
"""

# %%
import numpy as np
import slides
from slides import BLUE, GREEN, GREY, INK, ORANGE, PINK, SKY, YELLOW

import minigrad as mg
import optim
from optim.lab.functions import Function, Valley, beale, saddle

RATES = 10.0 ** np.arange(-3, 0.1, 0.5)
METHODS = {  # method of a rate, colour, dashes
    "gradient descent": (optim.GD, GREY, "-"),
    "momentum": (optim.Momentum, INK, "-"),
    "Nesterov": (optim.Nesterov, INK, ":"),
    "AdaGrad": (optim.AdaGrad, YELLOW, "-"),
    "RMSprop": (optim.RMSprop, PINK, "-"),
    "Adadelta": (lambda lr: optim.Adadelta(lr, eps=1e-2), PINK, ":"),
    "Adam": (optim.Adam, ORANGE, "-"),
    "Newton with |H|": (lambda lr: optim.Newton(lr, indefinite="abs"), GREEN, "-"),
    "BFGS": (optim.BFGS, BLUE, "-"),
    "random search": (optim.RandomSearch, SKY, "-"),
}


class Kink(Function):
    minimisers = (np.zeros(2),)

    def __call__(self, p):
        return mg.abs(p["x"]) + 10.0 * mg.abs(p["y"])


SURFACES = {  # function, start, goal for R, box (x, y)
    "Valley: convex, smooth": (Valley(angle=30.0), (-3.6, -0.4), 1e-3, ((-4.2, 1.4), (-3.0, 1.2))),
    "Saddle: no minimum": (saddle, (1.0, 1e-3), -2.0, ((-1.3, 1.5), (-0.3, 2.0))),
    "Beale: not convex": (beale, (1.0, 1.4), 1e-3, ((-0.5, 3.9), (-1.2, 1.7))),
    "Kinks: |x| + 10|y|, convex": (Kink(), (-3.0, 1.2), 0.1, ((-3.6, 1.2), (-1.5, 1.6))),
}


# %% Runs
def walk(function, method, start, goal, box, steps):
    """The points (n, 2) while θ is in the box, and the steps until R is at most the goal (infinity if it never is)."""
    f = function.objective(start)
    state, path = method.init(f.params), [np.array(start)]
    low, high = np.transpose(box)
    with np.errstate(all="ignore"):  # a rate that is too large overflows
        while f.value > goal and ((low <= path[-1]) & (path[-1] <= high)).all() and len(path) <= steps:
            try:
                method.step(f, state)
            except optim.Stopped:  # no lower R along its direction
                break
            path.append(f.params.vector.copy())
    return np.array(path), len(path) - 1 if f.value <= goal else np.inf


def race(function, *course):
    """{method: (path, steps)}, with the rate that needs the fewest steps, or that stays in the box and ends lowest."""
    best = {}
    for name, (make, *_) in METHODS.items():
        tried = [walk(function, make(lr), *course) for lr in RATES]
        best[name] = min(tried, key=lambda run: (run[1], -len(run[0]), function.at(run[0][-1])))
    return best


# %% Four races, and the table that is the legend
def draw(panel, title, function, start, box, paths):
    x, y = np.linspace(*box[0], 161), np.linspace(*box[1], 121)
    R = function.at(np.array(np.meshgrid(x, y)))
    panel.contour(x, y, R, np.quantile(R, np.linspace(0.02, 0.98, 13)), colors="#cccccc", linewidths=1, linestyles="-")
    for name, (path, _) in paths.items():
        panel.plot(*path.T, METHODS[name][2], color=METHODS[name][1], lw=1.7, marker="o", ms=2.8)
    for minimiser in function.minimisers:
        panel.plot(*minimiser, "*", color=INK, ms=14, mec="white", zorder=5)
    panel.plot(*start, "o", color=INK, ms=8, zorder=5)
    slides.bare(panel, title=title, xlim=box[0], ylim=box[1])


def draw_table(panel, steps):
    """steps: {surface: {method: steps}}."""
    slides.bare(panel, xlim=(0, 1), ylim=(len(METHODS), -1)).axis("off")
    for k, (name, (_, colour, dash)) in enumerate(METHODS.items()):
        panel.plot((0, 0.07), (k, k), dash, color=colour)
        panel.text(0.09, k, name, color=colour, va="center")
    for x, (surface, column) in zip((0.58, 0.72, 0.86, 1.0), steps.items()):
        panel.text(x, -1, surface.split(":")[0], color=GREY, va="center", ha="right", fontsize=12)
        for k, (name, n) in enumerate(column.items()):
            look = {"color": METHODS[name][1], "weight": "bold" if n == min(column.values()) else "normal"}
            panel.text(x, k, "–" if n == np.inf else n, va="center", ha="right", fontsize=14, **look)


@slides.slide
def main(quick, clock):
    longest = 40 if quick else 200
    races = {name: race(*surface, longest) for name, surface in SURFACES.items()}
    steps = {name: {method: n for method, (_, n) in paths.items()} for name, paths in races.items()}
    worst = {method: max(column[method] for column in steps.values()) for method in METHODS}
    wins = {method: sum(column[method] == min(column.values()) for column in steps.values()) for method in METHODS}
    most, safest = max(wins, key=wins.get), min(worst, key=worst.get)
    figure = slides.figure(
        f"Most wins: {most}, {wins[most]} of {len(races)}. Safest: {safest}, never over {worst[safest]} steps",
        f"Steps to the goal, – if not in {longest}; every method at the best of the same {len(RATES)} rates",
    )
    left, right = figure.subfigures(1, 2, width_ratios=(1.55, 1))
    for panel, (name, paths) in zip(left.subplots(2, 2).flat, races.items()):
        function, start, _, box = SURFACES[name]
        draw(panel, name, function, start, box, paths)
    draw_table(right.subplots(), steps)
    return figure


if __name__ == "__main__":
    main()
