"""The rates of the theorems, measured: 1/T, 1/T², 1/√T, and √(1 + d/M)/√T without gradients [B].

Each method runs on a problem where its theorem holds and is tight. Smooth and convex: ½ Σ λᵢθᵢ² from θ = 1, the λᵢ
evenly spaced in log λ over eight decades, so that at every T some directions are too flat to have moved; Nesterov's μ
must grow as t/(t + 3) [Nesterov 1983]. Convex with a kink and noise: |θ| + ξθ, the rate η/√t, the mean of R over T
points [Zinkevich 2003]. M two-point directions: ‖θ‖ + ξᵀθ, the rate η/(√(1 + d/M)√t) [Duchi et al. 2015].
"""

# %%
import numpy as np
import slides
from slides import BLUE, GREEN, GREY, ORANGE, PINK, SKY

import minigrad as mg
import optim
from optim.lab.functions import quadratic

SHAPES = [(4, 4), (16, 4), (64, 4), (256, 4), (16, 1), (64, 1), (16, 16)]  # d and M of the random searches
COLOURS = (SKY, BLUE, PINK, ORANGE)
FIRST = 100  # step from which slopes are measured
DASHED = {"color": GREY, "ls": (0, (4, 3)), "lw": 1.5}


# %% Smooth and convex, without noise
class Accelerated(optim.Nesterov):
    """μ = t/(t + 3): with a constant μ there is no 1/T² on functions that are not strongly convex."""

    def update(self, f, state):
        self.mu = state["t"] / (state["t"] + 3)
        return super().update(f, state)


def smooth(method, T):
    """R − R* (T,) at the points 0, 1, …; the Lipschitz constant of ∇R is 1."""
    f = quadratic.objective(kappa=1e8, dim=400)
    state = method.init(f.params)
    return np.array([float(method.step(f, state).loss) for _ in range(T)])


# %% Convex and noisy: the mean of R − R* over the first T points
def noisy(method, R, start, spread, T):
    """(T,), every step on R(θ) + ξᵀθ with a fresh ξ ~ N(0, spread² I)."""
    params, rng, gaps = mg.Params(theta=start), np.random.default_rng(0), np.empty(T)
    method = optim.Scheduled(method, "sqrt")
    state = method.init(params)
    for t in range(T):
        gaps[t], xi = R(params.vector), spread * rng.standard_normal(start.size)
        method.step(mg.Objective(lambda p, xi: R(p["theta"]) + mg.matmul(xi, p["theta"]), params, xi), state)
    return np.cumsum(gaps) / np.arange(1, T + 1)


def kink(T, runs=256):
    """SGD on |θ| + ξθ: in one θ as many independent runs as it has coordinates."""
    return noisy(optim.SGD(0.7), lambda theta: mg.sum(mg.abs(theta)), np.ones(runs), 1.0, T) / runs


def two_points(d, M, T):
    """ES on ‖θ‖ + ξᵀθ, E‖ξ‖² = 1, from ‖θ‖ = 0.3; both signs of a direction see the same ξ."""
    method = optim.ES(0.7 / np.sqrt(1 + d / M), pairs=M, sigma=1e-4)
    return noisy(method, mg.norm, np.full(d, 0.3 * d**-0.5), d**-0.5, T)


# %% Slopes by least squares on log-log axes
def slope(x, y):
    return np.polyfit(np.log(x), np.log(y), 1)[0]


def tail(gaps):
    """T from FIRST on, evenly spaced in log T, and the gaps there."""
    T = np.unique(np.geomspace(FIRST, len(gaps), 60).astype(int))
    return T, gaps[T - 1]


# %% Curves, each with its measured slope and a dashed line of its theorem's
def draw(panel, gaps, colour, theorem, label, at):
    panel.loglog(np.arange(1, len(gaps) + 1), gaps, color=colour)
    T, y = tail(gaps)
    panel.loglog(T, 1.7 * y[-1] * (T / T[-1]) ** theorem, **DASHED)
    panel.text(*at, f"{label}: −{-slope(T, y):.2f}", color=colour, va="center")


def draw_directions(panel, searches):
    x, y = np.array([(1 + d / M, gaps[-1]) for (d, M), gaps in searches.items()]).T
    for M, marker, size in ((1, "^", 16), (4, "x", 8), (16, "s", 13)):
        own = [m == M for _, m in searches]
        panel.loglog(x[own], y[own], marker, ms=size, mfc="none", mew=2.2, color=GREEN, label=f"M = {M}")
    panel.loglog(np.sort(x), 1.35 * y.min() * (np.sort(x) / x.min()) ** 0.5, **DASHED)
    found = f": slope {slope(x, y):.2f}" if np.ptp(x) else ""
    panel.set(xlabel="1 + d/M", title="… times √(1 + d/M)" + found)
    panel.minorticks_off()
    panel.set_xticks(x, [f"{number:g}" for number in x])
    panel.set_yticks(ticks := [0.05, 0.1, 0.2, 0.4], ticks)
    panel.legend(loc="lower right")


@slides.slide
def main(quick, clock):
    T, few = (600, 400) if quick else (5000, 2000)
    gd, nesterov, sgd = smooth(optim.GD(1.0), T), smooth(Accelerated(1.0, form="lookahead"), T), kink(T)
    searches = {s: two_points(*s, few) for s in clock.within(SHAPES[: 5 if quick else None], "random searches")}
    found = [-slope(*tail(gaps)) for gaps in (gd, nesterov, sgd, *searches.values())]
    figure = slides.figure(
        "Four theorems, measured: slopes −{:.2f}, −{:.2f}, −{:.2f} and −{:.2f}".format(*found[:3], np.mean(found[3:])),
        f"Dashed: the theorems. Slopes by least squares from T = {FIRST} on, the last a mean of {len(found) - 3}",
    )
    panels = figure.subplots(2, 2).flat
    draw(panels[0], gd, ORANGE, -1, "gradient descent", (40, 0.8))
    draw(panels[0], nesterov, BLUE, -2, "Nesterov", (4, 4e-4))
    draw(panels[1], sgd, GREEN, -0.5, "SGD", (15, 0.065))
    for (d, M), colour in zip(searches, COLOURS):
        draw(panels[2], searches[d, M], colour, -0.5, f"d/M = {d / M:g}", (few * 1.15, searches[d, M][-1]))
    draw_directions(panels[3], searches)
    panels[0].set(title="Smooth and convex: 1/T and 1/T²", ylabel="R − R*")
    panels[1].set(title="Convex with a kink, noisy: 1/√T", ylabel="mean R − R* so far")
    panels[2].set(title="From values of R alone: 1/√T …", ylabel="mean R − R* so far", xlabel="T", xlim=(1, 20 * few))
    return figure


if __name__ == "__main__":
    main()
