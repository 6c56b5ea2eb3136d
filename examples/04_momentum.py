"""Momentum turns κ into √κ: the best β in a valley is ((√κ − 1)/(√κ + 1))² [P, L, B].

Gradient descent zig-zags in a valley. Momentum adds a share β of the last step: too little still zig-zags, too much
runs past the minimum and orbits it. On a quadratic each eigendirection is a damped oscillator with known roots, and
the largest root predicts the number of steps: with the best rate for each β, η = 2(1 + β)/(λ_max + λ_min), it is
smallest at β* = ((√κ − 1)/(√κ + 1))². Nesterov's gradient, with η = 1/λ_max, is damped more and wants a larger β.
"""

# %%
import numpy as np
import slides
from slides import BLUE, GREEN, GREY, INK, ORANGE

import minigrad as mg
import optim

EIGENVALUES = np.array([1.0, 50.0])
KAPPA = EIGENVALUES[1] / EIGENVALUES[0]
START = np.array([-10.0, 0.6])
TOLERANCE = 1e-6  # of ‖θ‖ at the start
ROOT = np.sqrt(KAPPA)
BEST_MOMENTUM, BEST_NESTEROV = ((ROOT - 1) / (ROOT + 1)) ** 2, (ROOT - 1) / (ROOT + 1)


# %% The two methods with their rates, and what theory says of them
def momentum(beta):
    return optim.Momentum(2 * (1 + beta) / EIGENVALUES.sum(), mu=beta)


def nesterov(beta):
    return optim.Nesterov(1 / EIGENVALUES.max(), mu=beta)


def predicted(method):
    """Steps to the tolerance by the largest root of each eigendirection's recurrence."""
    slopes = 1 - method.lr * EIGENVALUES
    if isinstance(method, optim.Nesterov):
        recurrences = [(1, -(1 + method.mu) * r, method.mu * r) for r in slopes]
    else:
        recurrences = [(1, -(r + method.mu), method.mu) for r in slopes]
    return np.log(TOLERANCE) / np.log(max(np.abs(np.roots(p)).max() for p in recurrences))


# %% Walks in the valley
def walk(method, steps):
    """The points (steps + 1, 2)."""
    params = mg.Params(theta=START.copy())
    f = mg.Objective(lambda p: mg.sum(EIGENVALUES * p["theta"] ** 2) / 2, params)
    state, path = method.init(params), [START]
    for _ in range(steps):
        method.step(f, state)
        path.append(params.vector.copy())
    return np.array(path)


def needed(method):
    """Steps after which ‖θ‖ stays below the tolerance."""
    steps = int(3 * predicted(method)) + 20
    far = np.linalg.norm(walk(method, steps), axis=1) > TOLERANCE * np.linalg.norm(START)
    return np.flatnonzero(far)[-1] + 1


# %% The sweep over β, and four walks
def draw_walk(panel, title, method, colour):
    u, v = np.meshgrid(np.linspace(-11.5, 6, 140), np.linspace(-2.0, 2.0, 90))
    panel.contour(u, v, u**2 + 50 * v**2, levels=np.linspace(0.5, 16, 9) ** 2, colors="#cccccc", linewidths=1)
    panel.plot(*walk(method, 50).T, "o-", color=colour, ms=3.5, lw=1.4)
    panel.plot(0, 0, "+", color=INK, ms=11, mew=2)
    slides.bare(panel, xlim=(-11.5, 6), ylim=(-2.0, 2.0))
    panel.set_title(f"{title}: {needed(method)} steps", color=colour, fontsize=13)


@slides.slide
def main(quick, clock):
    betas = np.linspace(0, 0.96, 13 if quick else 49)
    sweeps = {"momentum": (momentum, BEST_MOMENTUM, BLUE), "Nesterov": (nesterov, BEST_NESTEROV, GREEN)}
    gain = needed(momentum(0.0)) / needed(momentum(BEST_MOMENTUM))
    figure = slides.figure(
        f"The right momentum is {gain:.1f} times as fast as gradient descent: κ becomes √κ",
        f"Quadratic valley, κ = {KAPPA:g}, √κ = {ROOT:.1f}; steps to 10⁻⁶ of the distance at the start",
    )
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.15))
    walks = left.subplots(4, 1)
    draw_walk(walks[0], "Gradient descent, β = 0", momentum(0.0), GREY)
    draw_walk(walks[1], f"Momentum, β* = {BEST_MOMENTUM:.2f}", momentum(BEST_MOMENTUM), BLUE)
    draw_walk(walks[2], "Too much, β = 0.9", momentum(0.9), ORANGE)
    draw_walk(walks[3], f"Nesterov, β* = {BEST_NESTEROV:.2f}", nesterov(BEST_NESTEROV), GREEN)
    panel = right.subplots()
    for name, (make, best, colour) in sweeps.items():
        found = [(beta, needed(make(beta))) for beta in clock.within(betas, f"{name} values")]
        panel.semilogy(*zip(*found), "o", color=colour, ms=5)
        panel.semilogy(betas, [predicted(make(beta)) for beta in betas], color=colour, lw=1.6)
        panel.axvline(best, color=colour, ls=(0, (4, 3)), lw=1.4)
        panel.text(best - 0.01, 850, f"{name}\nβ* = {best:.2f}", color=colour, ha="right", va="top")
    panel.set(
        xlabel="β", title="Steps needed: measured (dots), by the largest root (lines)", xlim=(-0.01, 1), ylim=(30, 900)
    )
    panel.set_yticks([30, 50, 100, 200, 500], [30, 50, 100, 200, 500])
    panel.minorticks_off()
    return figure


if __name__ == "__main__":
    main()
