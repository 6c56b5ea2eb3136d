"""The rates of the theorems, measured: 1/T, 1/T², 1/√T, and √(1 + d/M)/√T without gradients [B].

Each method runs on a problem where its theorem holds and is tight, so that the slope on log-log axes is the exponent.
Smooth and convex: ½ Σ λᵢθᵢ² from θ = 1 with the λᵢ evenly spaced in log λ over eight decades; at every T some
directions are still too flat to have moved. (Nesterov's tridiagonal function does not do: in a fixed dimension d, and
with T < d, nothing gets below 1/T on it.) Accelerated, μ must grow as t/(t + 3) [Nesterov 1983]. Convex with a kink and
noise: |θ| + ξθ, the rate η/√t, and the mean of R over the first T points [Zinkevich 2003]. Two-point random search:
‖θ‖ + ξᵀθ, M directions, the rate η/(√(1 + d/M)√t) [Duchi et al. 2015].
"""

# %%
import numpy as np
import slides
from slides import BLUE, GREEN, GREY, ORANGE, PINK, SKY

import minigrad as mg
import optim
from optim.lab.functions import quadratic

SHAPES = [(4, 4), (16, 4), (64, 4), (256, 4), (16, 1), (64, 1), (16, 16)]  # d and M of the random searches
FIRST = 100  # step from which slopes are measured
COLOURS = (SKY, BLUE, PINK, ORANGE)


# %% Smooth and convex, without noise
class Accelerated(optim.Nesterov):
    """μ = t/(t + 3): a constant μ has no 1/T² on functions that are not strongly convex."""

    def update(self, f, state):
        self.mu = state["t"] / (state["t"] + 3)
        return super().update(f, state)


def smooth(method, T):
    """R − R* (T,) at the points 0, 1, …; the Lipschitz constant of ∇R is 1."""
    f = quadratic.objective(kappa=1e8, dim=400)
    state = method.init(f.params)
    return np.array([float(method.step(f, state).loss) for _ in range(T)])


# %% Convex and noisy: the mean of R − R* over the first T points
def mean_so_far(gaps):
    return np.cumsum(gaps) / np.arange(1, len(gaps) + 1)


def kink(T, runs):
    """SGD on |θ| + ξθ: one θ of as many independent runs as there are coordinates."""
    params, rng = mg.Params(theta=np.ones(runs)), np.random.default_rng(0)
    method, gaps = optim.Scheduled(optim.SGD(0.7), "sqrt"), np.empty(T)
    state = method.init(params)
    for t in range(T):
        gaps[t] = np.abs(params["theta"]).mean()
        noisy = mg.Objective(lambda p, xi: mg.sum(mg.abs(p["theta"]) + xi * p["theta"]), params, rng.normal(size=runs))
        method.step(noisy, state)
    return mean_so_far(gaps)


def two_points(d, M, T):
    """ES on ‖θ‖ + ξᵀθ, ξ ~ N(0, I/d), from ‖θ‖ = 0.3; both signs of a direction see the same ξ."""
    params, rng = mg.Params(theta=np.full(d, 0.3 * d**-0.5)), np.random.default_rng(1)
    method = optim.Scheduled(optim.ES(0.7 / np.sqrt(1 + d / M), pairs=M, sigma=1e-4), "sqrt")
    state, gaps = method.init(params), np.empty(T)
    for t in range(T):
        gaps[t] = np.linalg.norm(params.vector)
        xi = rng.normal(size=d) / np.sqrt(d)
        method.step(mg.Objective(lambda p, xi: mg.norm(p["theta"]) + mg.sum(xi * p["theta"]), params, xi), state)
    return mean_so_far(gaps)


# %% Slopes by least squares on log-log axes
def slope(x, y):
    return np.polyfit(np.log(x), np.log(y), 1)[0]


def tail(gaps, first=FIRST):
    """T ≥ first, evenly spaced in log T, and the gaps there; gaps[k] belongs to T = k + 1."""
    T = np.unique(np.geomspace(first, len(gaps), 60).astype(int))
    return T, gaps[T - 1]


def told(number):
    return f"{number:.2f}".replace("-", "−")


# %% One panel a theorem
def draw(panel, gaps, colour, theorem, above=1.7):
    """A curve, and a dashed line of the theorem's slope above it; returns the measured slope."""
    panel.loglog(np.arange(1, len(gaps) + 1), gaps, color=colour)
    x, y = tail(gaps)
    panel.loglog(x, above * y[-1] * (x / x[-1]) ** theorem, color=GREY, ls=(0, (4, 3)), lw=1.5)
    return slope(x, y)


def draw_directions(panel, searches, T):
    """R − R* after T steps against 1 + d/M; returns the measured slope."""
    x, y = np.array([(1 + d / M, gaps[-1]) for (d, M), gaps in searches.items()]).T
    for M, colour, mark in ((1, PINK, "^"), (4, BLUE, "o"), (16, ORANGE, "s")):
        chosen = [m == M for _, m in searches]
        panel.loglog(x[chosen], y[chosen], mark, color=colour, ms=9, mec="white", label=f"M = {M}")
    ends = np.array([x.min(), x.max()])
    panel.loglog(ends, 1.35 * y.min() * (ends / ends[0]) ** 0.5, color=GREY, ls=(0, (4, 3)), lw=1.5)
    panel.set(xlabel="1 + d/M", ylabel=f"mean R − R*, T = {T:,}")
    panel.set_xticks(x, [f"{number:g}" for number in x])
    panel.set_yticks([0.05, 0.1, 0.2, 0.4], [0.05, 0.1, 0.2, 0.4])
    panel.minorticks_off()
    panel.legend(loc="lower right")
    return slope(x, y)


@slides.slide
def main(quick, clock):
    T, few = (600, 400) if quick else (5000, 2000)
    gd, fast, noisy = smooth(optim.GD(1.0), T), smooth(Accelerated(1.0, form="lookahead"), T), kink(T, 64 if quick else 256)
    shapes = clock.within(SHAPES[:5] if quick else SHAPES, "random searches")
    searches = {shape: two_points(*shape, few) for shape in shapes}
    figure = slides.figure(" ", f"Dashed: the slopes of the theorems. Measured slopes: least squares from T = {FIRST} on")
    smooths, noise, random, directions = figure.subplots(2, 2).flat
    slopes = [draw(smooths, gd, ORANGE, -1), draw(smooths, fast, BLUE, -2), draw(noise, noisy, GREEN, -0.5)]
    smooths.text(40, 0.6, f"gradient descent: {told(slopes[0])}", color=ORANGE)
    smooths.text(15, 3e-4, f"Nesterov: {told(slopes[1])}", color=BLUE, ha="center")
    smooths.set(title="Smooth and convex: 1/T and 1/T²", ylabel="R − R*")
    noise.text(100, 0.06, f"SGD: {told(slopes[2])}", color=GREEN, ha="right")
    noise.set(title="Convex with a kink, noisy: 1/√T", ylabel="mean R − R* so far")
    for (d, M), colour in zip(SHAPES[:4], COLOURS):
        if (d, M) in searches:
            slopes.append(draw(random, searches[d, M], colour, -0.5))
            random.text(few * 1.15, searches[d, M][-1], f"d/M = {d / M:g}: {told(slopes[-1])}", color=colour, va="center")
    random.set(title="The same from values of R alone: 1/√T …", xlabel="T", ylabel="mean R − R* so far", xlim=(1, 20 * few))
    directions.set(title=f"… times √(1 + d/M): {told(draw_directions(directions, searches, few))}")
    figure.suptitle("Four theorems, measured: slopes " + ", ".join(map(told, slopes[:3])) + f" and {told(np.mean(slopes[3:]))}\n", **slides.TITLE)
    return figure


if __name__ == "__main__":
    main()
