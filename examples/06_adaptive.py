"""A rate for every parameter helps along the axes only: turn the valley, and the gain is gone [B, L, P].

AdaGrad, RMSprop and Adadelta divide each component of the gradient by the size that it used to have. In a valley along
an axis that is the right preconditioner; turned by 45°, all components are of one size. The full matrix (Σ ∇∇ᵀ)^½ turns
with the valley. Adam's momentum does part of the work and does not mind. Its ε is a damping: where ε is large against
√v, the step is λ/ε times the averaged gradient, which is momentum, and the distance to it falls as 1/ε.
"""

# %%
import numpy as np
import slides
from slides import BLUE, GREEN, GREY, INK, ORANGE, PINK, YELLOW

import minigrad as mg
import optim

KAPPA, TOLERANCE, MOST = 100.0, 1e-2, 250  # the loss is to fall to 1 % within so many steps
METHODS = {  # from the rate, rates to choose from, colour
    "gradient descent": (optim.GD, np.geomspace(0.005, 0.02, 5), GREY),
    "AdaGrad": (optim.AdaGrad, np.geomspace(0.1, 3, 9), ORANGE),
    "AdaGrad, full matrix": (lambda lr: optim.AdaGrad(lr, matrix="full"), np.geomspace(0.1, 3, 9), BLUE),
    "RMSprop": (optim.RMSprop, np.geomspace(0.002, 0.2, 9), PINK),
    "Adadelta": (optim.Adadelta, np.geomspace(3, 100, 9), YELLOW),
    "Adam": (optim.Adam, np.geomspace(0.03, 1, 9), GREEN),
}


# %% A valley turned by an angle, with the start turned along, so that nothing else changes
def valley(degrees):
    """Hessian and start."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = np.array([[c, -s], [s, c]])
    return turn @ np.diag([1.0, KAPPA]) @ turn.T, turn @ np.array([-1.0, 0.5])


def walk(method, degrees, steps):
    """The points (steps + 1, 2)."""
    hessian, start = valley(degrees)
    f = mg.Objective(lambda p: p["theta"] @ hessian @ p["theta"] / 2, params := mg.Params(theta=start.copy()))
    state, path = method.init(params), [start]
    for _ in range(steps):
        method.step(f, state)
        path.append(params.vector.copy())
    return np.array(path)


def needed(make, rates, degrees):
    """(steps until the loss stays below the tolerance, the rate): the best of the rates."""
    found = []
    for lr in rates:
        path = walk(make(lr), degrees, MOST)
        loss = np.sum(path * (path @ valley(degrees)[0]), 1)
        found.append((np.flatnonzero(~(loss <= TOLERANCE * loss[0]))[-1] + 1, lr))
    return min(found)


# %% Adam's ε: λ grows with it, so that λ/ε tends to a rate η
ETA, BETA = 0.016, 0.9


def adam(eps):
    return optim.Adam(ETA * (eps + 50.0), beta1=BETA, eps=eps)  # 50: the gradient at the start


def momentum(degrees, steps):
    """θ ← θ − η m̂ with m̂ the bias-corrected average of the gradients: Adam without the division."""
    hessian, theta = valley(degrees)
    m, path = np.zeros(2), [theta]
    for t in range(1, steps + 1):
        m = BETA * m + (1 - BETA) * hessian @ theta
        path.append(theta := theta - ETA * m / (1 - BETA**t))
    return np.array(path)


def apart(eps, steps=100):
    """Largest distance between Adam's and momentum's points in the valley turned by 45°."""
    return np.linalg.norm(walk(adam(eps), 45, steps) - momentum(45, steps), axis=1).max()


# %% Walks, steps by angle, and ε
def draw_walks(panel, degrees, walks):
    x, y = (-1.8, 0.9), (-1.15, 0.65)
    grid = np.stack(np.meshgrid(np.linspace(*x, 120), np.linspace(*y, 120)), -1)
    level = np.sum(grid * (grid @ valley(degrees)[0]), -1)
    panel.contour(*np.moveaxis(grid, -1, 0), np.sqrt(level), levels=8, colors="#cccccc", linewidths=1)
    panel.plot(0, 0, "+", color=INK, ms=10)
    for path, colour in walks:
        panel.plot(*path.T, "o-", color=colour, ms=3.5, lw=1.6)
    slides.bare(panel, aspect="equal", xlim=x, ylim=y, title=f"Valley at {degrees}°, 40 steps of AdaGrad")


@slides.slide
def main(quick, clock):
    angles, thin = ((0, 15, 45), 2) if quick else ((0, 5, 10, 15, 20, 30, 45), 1)
    steps = {name: [] for name in METHODS}
    for degrees in clock.within(angles, "angles"):
        for name, (make, rates, _) in METHODS.items():
            steps[name].append(needed(make, rates[::thin], degrees))
    done = angles[: len(steps["Adam"])]
    first, last = (steps["AdaGrad"][k][0] for k in (0, -1))
    figure = slides.figure(
        f"Turn the valley, and AdaGrad needs {last} steps instead of {first}",
        f"κ = {KAPPA:g}; steps until the loss is {TOLERANCE:.0%}, every method at the best of its rates at every angle",
    )
    panels = figure.subplot_mosaic([["axis", "turned", "eps"], ["angle", "angle", "eps"]], width_ratios=(1, 1, 0.9))
    for key, k in (("axis", 0), ("turned", -1)):
        pair = [(*METHODS[name], steps[name][k][1]) for name in ("AdaGrad", "AdaGrad, full matrix")]
        draw_walks(panels[key], done[k], [(walk(make(lr), done[k], 40), colour) for make, _, colour, lr in pair])
    below, panel = 0.0, panels["angle"]
    for name in sorted(steps, key=lambda name: steps[name][-1]):
        panel.semilogy(done, [n for n, _ in steps[name]], "o-", color=METHODS[name][2])
        below = max(steps[name][-1][0], 1.35 * below)  # labels keep their distance
        panel.text(46, below, name, color=METHODS[name][2], va="center")
    panel.set(xlabel="angle of the valley in degrees", title="Steps needed", xlim=(-1, 66), xticks=range(0, 46, 15))
    panel.set_yticks([2, 5, 10, 20, 50, 100, 200], [2, 5, 10, 20, 50, 100, 200])
    sizes = 10.0 ** np.arange(-8, 7, 2 if quick else 1)
    panels["eps"].loglog(sizes, distance := [apart(eps) for eps in sizes], "o-", color=GREEN)
    slope = np.log(distance[-1] / distance[-2]) / np.log(sizes[-1] / sizes[-2])
    panels["eps"].set(
        xlabel="ε", title=f"Adam with a large ε is momentum:\ndistance, slope {slope:.2f}".replace("-", "−")
    )
    return figure


if __name__ == "__main__":
    main()
