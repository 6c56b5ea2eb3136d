"""A Taylor model is trusted near its point only: the second order farther than the first [P, T-2.1, T-3.1].

Gradient descent believes a line, f(θ₀) + f′(θ₀) Δ, and Newton a parabola, with ½ f″(θ₀) Δ² added. Here the point
moves along the deck's f(θ) = θ² + 10 sin θ, and a model is trusted as far as it stays within 1 of f. Halve the
distance, and the error of the line falls 4 times, that of the parabola 8 times. Where f″ < 0 the parabola opens
downwards, and a Newton step would climb.
"""

# %%
import numpy as np
import slides
from slides import BLUE, INK, ORANGE

import minigrad as mg

TOLERANCE = 1.0
COLOURS = {1: BLUE, 2: ORANGE}


# %% The function and its two models, each order one more mg.grad
def f(t):
    return t**2 + 10 * mg.sin(t)


def taylor(order, theta, at):
    """The model of order 1 or 2 of f at the point `at`, evaluated at theta."""
    model = f(at) + mg.grad(f)(at) * (theta - at)
    return model if order == 1 else model + mg.grad(mg.grad(f))(at) * (theta - at) ** 2 / 2


# %% How far can it be trusted?
def trusted(order, at, reach=6.0):
    """The ends of the interval around `at` in which the model is within TOLERANCE of f."""
    ends = []
    for side in (-1, 1):
        theta = at + side * np.linspace(0, reach, 4001)
        wrong = np.abs(taylor(order, theta, at) - f(theta)) > TOLERANCE
        ends.append(theta[max(np.argmax(wrong) - 1, 0)] if wrong.any() else theta[-1])
    return ends


def error_orders(at):
    """{order: (distances, errors, slope of the log-log line)} at one point."""
    distance = 2.0 ** -np.arange(0, 9)
    found = {}
    for order in COLOURS:
        error = np.abs(taylor(order, at + distance, at) - f(at + distance))
        found[order] = distance, error, np.log2(error[-2] / error[-1])
    return found


# %% Three points, the trusted length along the axis, and the order of the error
def draw_models(panel, at):
    grid = np.linspace(-7, 7, 400)
    panel.plot(grid, f(grid), color=INK, lw=2.6)
    for order, colour in COLOURS.items():
        ends = trusted(order, at)
        inside = np.linspace(*ends, 100)
        panel.plot(grid, taylor(order, grid, at), color=colour, lw=1.3, ls=(0, (4, 2)))
        panel.plot(inside, taylor(order, inside, at), color=colour, lw=5, alpha=0.75, solid_capstyle="butt")
        panel.plot(ends, [-15 - 4.5 * order] * 2, color=colour, lw=5, solid_capstyle="butt")
    panel.plot(at, f(at), "o", ms=9, color=INK)
    bend = mg.grad(mg.grad(f))(at)
    shape = "is a line too" if abs(bend) < 0.1 else "opens up" if bend > 0 else "opens down"
    panel.set(ylim=(-27, 64), xlim=(-7, 7), xlabel="θ")
    panel.set_title(f"θ₀ = {at:.2g}, f″ = {bend:.1f}".replace("-", "−"))
    panel.text(
        0, 61, f"the parabola {shape}", ha="center", va="top", fontsize=13, color=ORANGE, backgroundcolor="white"
    )


@slides.slide
def main(quick, clock):
    points = np.linspace(-6.5, 6.5, 27 if quick else 261)
    lengths = {order: [np.ptp(trusted(order, at)) for at in points] for order in COLOURS}
    ratio = np.divide(lengths[2], lengths[1])
    longer = np.mean(ratio < 0.999)
    figure = slides.figure(
        f"A parabola can be trusted {np.median(ratio):.1f} times as far as a line, but not where f″ ≈ 0",
        f"f(θ) = θ² + 10 sin θ;  trusted (thick) = within {TOLERANCE:g} of f;  median over {len(points)} points θ₀",
    )
    above, below = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    models = above.subplots(1, 3, sharey=True)
    for panel, at in zip(models, (-2.0, np.arcsin(0.2), 2.5)):
        draw_models(panel, np.float64(at))
    models[0].text(-6.8, 43, "f", color=INK, fontsize=15)
    models[0].text(-6.8, 20, "line", color=BLUE, fontsize=14)
    left, right = below.subplots(1, 2, width_ratios=(2, 1))
    for order, name in ((1, "line"), (2, "parabola")):
        left.plot(points, lengths[order], color=COLOURS[order])
        distance, error, slope = error_orders(np.float64(6.0))[order]
        right.loglog(distance, error, "o-", ms=4, color=COLOURS[order])
        x, y, side = (0.03, 0.1, "right") if order == 1 else (0.035, 2e-7, "left")
        right.text(x, y, f"{name}: order {slope:.2f}", color=COLOURS[order], ha=side)
        left.text(-1.57, 0.4 if order == 1 else 3.5, name, color=COLOURS[order], ha="center", fontsize=14)
    left.set(
        xlabel="the point θ₀ moves",
        title=f"Trusted length: the line's is the longer one at {longer:.0%} of the points",
        ylim=(0, 4.2),
    )
    right.set(xlabel="|θ − θ₀|", title="Error at θ₀ = 6")
    return figure


if __name__ == "__main__":
    main()
