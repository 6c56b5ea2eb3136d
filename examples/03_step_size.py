"""The largest eigenvalue of the Hessian sets the step: 1/λ_max is safe, 2/λ_max is the cliff [P, T-2.1.1, T-3.1.2].

On the deck's quadratic f = (5θ₁² + 2θ₂²)/2 each step of gradient descent multiplies θ₁ by 1 − 5η and θ₂ by 1 − 2η,
so that the loss along an eigenvector falls by (1 − ηλ)². A small η creeps along the flat direction, η = 1/λ_max ends
the steep one in a step, η near 2/λ_max throws it from wall to wall, and beyond that it grows.
"""

# %%
import numpy as np
import slides
from slides import BLUE, GREEN, GREY, INK, ORANGE, PINK, YELLOW

import minigrad as mg
import optim

EIGENVALUES = np.array([5.0, 2.0])  # [P], κ = 2.5
START = np.array([0.9, 0.9])
STEPS = 20
RATES = {
    "too small": (0.01, GREY),
    "1/$λ_{max}$": (1 / 5, GREEN),
    "2/($λ_{max}$ + $λ_{min}$): best": (2 / 7, BLUE),
    "just below 2/$λ_{max}$": (0.97 * 2 / 5, YELLOW),
    "beyond 2/$λ_{max}$": (1.04 * 2 / 5, ORANGE),
}


# %% Gradient descent, with optim's method on any function
def quadratic(p):
    return mg.sum(EIGENVALUES * p["theta"] ** 2) / 2


def descend(lr, steps):
    """The points (steps + 1, 2) that gradient descent visits."""
    params = mg.Params(theta=START.copy())
    f, method = mg.Objective(quadratic, params), optim.GD(lr)
    state, path = method.init(params), [START]
    for _ in range(steps):
        method.step(f, state)
        path.append(params.vector.copy())
    return np.array(path)


def losses(path):
    """(steps + 1, 2): what each eigendirection adds to the loss."""
    return EIGENVALUES * path**2 / 2


# %% The factor by which a step multiplies each part of the loss, measured
def factors(rates):
    """(rates, 2), to compare with (1 − ηλ)²."""
    parts = np.array([losses(descend(lr, 1)) for lr in rates])
    return parts[:, 1] / parts[:, 0]


# %% Five walks, their losses, and the factors
def draw_walk(panel, name, lr, colour):
    grid = np.linspace(-1.15, 1.15, 120)
    level = (5 * grid[None] ** 2 + 2 * grid[:, None] ** 2) / 2
    panel.contour(grid, grid, level, levels=np.linspace(0.02, 2.0, 9) ** 2, colors="#cccccc", linewidths=1)
    path = descend(lr, STEPS)
    panel.plot(*path.T, "o-", color=colour, ms=4.5, lw=1.6)
    panel.plot(0, 0, "+", color=INK, ms=10)
    slides.bare(panel, aspect="equal", xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), xlabel=f"η = {lr:.3f}")
    panel.set_title(name, color=colour, loc="center", fontsize=13)


@slides.slide
def main(quick, clock):
    figure = slides.figure(
        "1/$λ_{max}$ is safe, 2/$λ_{max}$ is the cliff",
        f"Gradient descent on f = (5θ₁² + 2θ₂²)/2, {STEPS} steps of size η;  $λ_{{max}}$ = 5, $λ_{{min}}$ = 2",
    )
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.15))
    curves, measured = below.subplots(1, 2)
    for panel, (name, (lr, colour)) in zip(above.subplots(1, len(RATES)), RATES.items()):
        draw_walk(panel, name, lr, colour)
        total = losses(descend(lr, STEPS)).sum(1)
        curves.semilogy(total, "o-", ms=3.5, color=colour)
        seen = np.flatnonzero(total > 1e-8)[-1]
        curves.text(seen + 0.3, total[seen], f"η = {lr:.3g}", color=colour, va="top" if "below" in name else "bottom")
    curves.set(xlabel="steps", title="Loss", ylim=(1e-8, 1e3), xlim=(0, STEPS * 1.18), xticks=range(0, STEPS + 1, 5))
    rates = np.linspace(0.02, 0.44, 8 if quick else 22)
    fine = np.linspace(0.0, 0.44, 200)
    found = factors(rates)
    for k, colour in enumerate((PINK, INK)):
        measured.plot(fine, (1 - fine * EIGENVALUES[k]) ** 2, color=colour, lw=1.6)
        measured.plot(rates, found[:, k], "o", color=colour, ms=6)
    measured.axhspan(1, 1.6, color=ORANGE, alpha=0.15, lw=0)
    measured.text(0.02, 1.16, "the loss grows", color=ORANGE)
    measured.text(0.345, 0.62, "along θ₁, λ = 5", color=PINK, ha="right")
    measured.text(0.08, 0.8, "along θ₂, λ = 2", color=INK, ha="left")
    off = np.abs(found - (1 - rates[:, None] * EIGENVALUES) ** 2).max()
    measured.set(
        xlabel="step size η", title=f"Loss factor of a step; lines: (1 − ηλ)², deviation {off:.0e}", ylim=(0, 1.5)
    )
    return figure


if __name__ == "__main__":
    main()
