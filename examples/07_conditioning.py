"""A preconditioner makes circles of ellipses, and then one step is enough [P, T-3.1.1, B].

The eigenvectors of the Hessian are the axes of the level lines, its eigenvalues their steepness, and their ratio κ
says how slow gradient descent is. Preconditioned by P = H, the same descent sees φ = P^½ θ: in φ the level lines are
circles, −∇ points at the minimum, and the step is Newton's. The deck's numbers: f = (5θ₁² + 2θ₂²)/2 at (.5, .5) has
∇ = (2.5, 1); gradient descent with rate 1 lands at (−2, −.5), Newton at (0, 0).
"""

# %%
import numpy as np
import slides
from scipy.linalg import sqrtm
from slides import BLUE, INK, ORANGE

import minigrad as mg
import optim

DECK = np.diag([5.0, 2.0])
POINT = np.array([0.5, 0.5])


def quadratic(hessian):
    return lambda theta: theta @ hessian @ theta / 2


# %% The deck's point: gradient, Hessian and Newton's step by autodiff
def landings(hessian, point):
    """(where gradient descent with rate 1 lands, where Newton lands)."""
    g, H = mg.grad(quadratic(hessian))(point), mg.hessian(quadratic(hessian))(point)
    return point - g, point - np.linalg.solve(H, g)


# %% Valleys of rising κ, turned by 30°, and their square roots
def valley(kappa, angle=np.pi / 6):
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return turn @ np.diag([1.0, kappa]) @ turn.T


def descend(hessian, start, tolerance=1e-3, most=10000):
    """Gradient descent at the best rate, 2/(λ_max + λ_min), until ‖θ‖ is tolerance · ‖start‖: all points."""
    params = mg.Params(theta=start.copy())
    f = mg.Objective(lambda p: quadratic(hessian)(p["theta"]), params)
    method = optim.GD(2 / np.linalg.eigvalsh(hessian)[[0, -1]].sum())
    state, path = method.init(params), [start]
    while np.linalg.norm(path[-1]) > tolerance * np.linalg.norm(start) and len(path) <= most:
        method.step(f, state)
        path.append(params.vector.copy())
    return np.array(path)


# %% Frames
def level_lines(panel, hessian, x, y, title=""):
    grid = np.stack(np.meshgrid(np.linspace(*x, 150), np.linspace(*y, 150)), -1)
    level = np.einsum("...i,ij,...j->...", grid, hessian, grid)
    panel.contour(*np.moveaxis(grid, -1, 0), np.sqrt(level / level.max()), levels=8, colors="#c8c8c8", linewidths=1)
    slides.bare(panel, aspect="equal", xlim=x, ylim=y, title=title)
    panel.plot(0, 0, "+", color=INK, ms=10)


def arrow(panel, tip, start, colour, width):
    panel.annotate("", tip, start, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": width, "shrinkB": 0})


def frame(panel, hessian, start, colour):
    """Level lines, eigenvectors as long as the half axes of one of them, and the path; returns the steps."""
    reach = 1.25 * np.abs(start).max()
    level_lines(panel, hessian, (-reach, reach), (-reach, reach))
    values, vectors = np.linalg.eigh(hessian)
    for value, v in zip(values, vectors.T):
        if values[-1] > 1.01 * values[0]:  # on circles every direction is an eigenvector
            arrow(panel, -v * np.sign(v[0]) * reach * 0.9 * np.sqrt(values[0] / value), (0, 0), INK, 1.6)
    path = descend(hessian, start)
    panel.plot(*path.T, "o-", color=colour, ms=4, lw=1.6)
    return len(path) - 1


def draw_deck(panel):
    level_lines(panel, DECK, (-2.5, 1.8), (-3.1, 3.1), "f = (5θ₁² + 2θ₂²)/2")
    looks = ((ORANGE, "gradient descent, η = 1\n"), (BLUE, "Newton "))
    for end, (colour, name) in zip(landings(DECK, POINT), looks):
        arrow(panel, end, POINT, colour, 2.6)
        place = "({:.2g}, {:.2g})".format(*end + 0.0).replace("-", "−")
        panel.text(end[0] - 0.3, end[1] - 0.2, name + place, color=colour, va="top")
    panel.plot(*POINT, "o", color=INK, ms=8)
    panel.text(0.35, 0.65, "θ = ({:g}, {:g})\n∇ = ({:g}, {:g})".format(*POINT, *mg.grad(quadratic(DECK))(POINT)))


@slides.slide
def main(quick, clock):
    start = np.array([-1.0, 0.7])
    figure = slides.figure(
        "",
        "Steps of gradient descent, at its best rate, to a thousandth of the distance; arrows: eigenvectors, 1/√λ long",
    )
    left, right = figure.subfigures(1, 2, width_ratios=(1, 2))
    draw_deck(left.subplots())
    panels = right.subplots(2, 3)
    panels[0, 0].set_ylabel("in θ", fontsize=15)
    panels[1, 0].set_ylabel("in φ = $H^{½}$ θ", fontsize=15)
    for k, kappa in clock.within(enumerate((3, 10, 30)), "valleys"):
        hessian = valley(kappa)
        inverse = np.linalg.inv(half := sqrtm(hessian))
        slow = frame(panels[0, k], hessian, start, ORANGE)
        fast = frame(panels[1, k], inverse @ hessian @ inverse, half @ start, BLUE)
        panels[0, k].set_title(f"κ = {kappa}: {slow} steps", fontsize=14)
        panels[1, k].set_title(f"κ = 1: {fast} step{'s'[: fast != 1]}", fontsize=14)
    figure.suptitle(f"A preconditioner makes circles of ellipses: {slow} steps become {fast}\n", **slides.TITLE)
    return figure


if __name__ == "__main__":
    main()
