"""The natural gradient goes the same way whatever the coordinates are called; gradient descent does not [B, L, T-3.2].

A Gaussian is fitted to data. Call its parameters (μ, σ), (μ, log σ) or (μ, 1/σ²): −∇ means another direction each
time, since it takes the coordinates for a Euclidean space. −F⁻¹∇ measures length by KL divergence, which knows only
the distributions: its circles are ellipses that grow with σ, and the three paths are one (finite steps: nearly).
"""

# %%
import numpy as np
import slides
from scipy.integrate import solve_ivp
from slides import BLUE, GREEN, GREY, INK, ORANGE

import minigrad as mg

TARGET = np.array([0.0, 0.7])  # mean and standard deviation of the data
STARTS = np.array([(-2.6, 0.6), (-1.2, 2.3), (2.5, 1.1)])
COORDINATES = {  # name: (to (μ, σ), from (μ, σ), colour, dashes)
    "(μ, σ)": (lambda c: (c[0], c[1]), lambda mu, s: (mu, s), BLUE, (None, None)),
    "(μ, log σ)": (lambda c: (c[0], mg.exp(c[1])), lambda mu, s: (mu, np.log(s)), ORANGE, (6, 3)),
    "(μ, 1/σ²)": (lambda c: (c[0], c[1] ** -0.5), lambda mu, s: (mu, s**-2.0), GREEN, (1.5, 1.5)),
}


# %% KL and Fisher in any coordinates; the loss −mean log p(x) is the KL from the data, up to a constant
def kl(p, q):
    (mu, sigma), (mu2, sigma2) = p, q
    return mg.log(sigma2 / sigma) + (sigma**2 + (mu - mu2) ** 2) / (2 * sigma2**2) - 0.5


def fisher(c, name):
    gaussian = COORDINATES[name][0]
    return mg.hessian(lambda other: kl(gaussian(c), gaussian(other)))(c)


def descent(c, name, natural):
    """−∇ or −F⁻¹∇ in these coordinates."""
    g = mg.grad(lambda c: kl(TARGET, COORDINATES[name][0](c)))(c)
    return -np.linalg.solve(fisher(c, name), g) if natural else -g


# %% Paths, all told in (μ, σ)
def told(points, name):
    return np.stack(COORDINATES[name][0](np.transpose(points)), 1)


def flow(start, name, natural, tolerance=1e-8):
    """dc/dt = descent, until it has nearly arrived: points (n, 2)."""
    arrived = lambda t, c: np.linalg.norm(COORDINATES[name][0](c) - TARGET) - 0.02  # noqa: E731
    arrived.terminal = True
    settings = {"method": "DOP853", "events": arrived, "rtol": tolerance, "atol": tolerance, "dense_output": True}
    solved = solve_ivp(lambda t, c: descent(c, name, natural), (0, 200), COORDINATES[name][1](*start), **settings)
    return told(solved.sol(solved.t[-1] * np.linspace(0, 1, 400) ** 2).T, name)


def steps(start, name, natural, eta, time=1.0):
    """time/η finite steps."""
    points = [np.array(COORDINATES[name][1](*start))]
    for _ in range(round(time / eta)):
        points.append(points[-1] + eta * descent(points[-1], name, natural))
    return told(points, name)


def gap(path, other):
    """How far the points of one path are from the other, a chain of pieces, at most."""
    a, b = other[:-1], np.diff(other, axis=0)
    along = np.einsum("pkd,kd->pk", path[:, None] - a, b) / np.maximum(np.sum(b * b, 1), 1e-300)
    nearest = a + np.clip(along, 0, 1)[..., None] * b
    return np.linalg.norm(path[:, None] - nearest, axis=2).min(1).max()


# %% Pictures
def draw_paths(panel, natural, title):
    """Returns the largest gap between two coordinates' paths."""
    apart = 0.0
    for k, start in enumerate(STARTS):
        paths = {name: flow(start, name, natural) for name in COORDINATES}
        apart = max([apart, *(gap(path, paths["(μ, σ)"]) for path in paths.values())])
        for name, (_, _, colour, dashes) in COORDINATES.items():
            panel.plot(*paths[name].T, color=colour, lw=3, dashes=dashes, label=None if k else name)
    panel.plot(*STARTS.T, "o", color=INK, ms=7)
    panel.plot(*TARGET, "+", color=INK, ms=14, mew=2.5)
    slides.bare(panel, aspect="equal", xlim=(-3.2, 3.2), ylim=(0, 2.7), xlabel="μ", ylabel="σ", title=title)
    return apart


def draw_circles(panel, epsilon=0.012):
    """½ΔᵀFΔ = ε around a grid of points."""
    circle = np.stack([np.cos(turn := np.linspace(0, 2 * np.pi, 60)), np.sin(turn)])
    for centre in ((mu, sigma) for sigma in (0.25, 0.6, 1.1, 1.7, 2.4) for mu in np.arange(-3, 3.1, 0.75)):
        root = np.linalg.cholesky(np.linalg.inv(fisher(np.array(centre), "(μ, σ)")))
        panel.plot(*(np.array([centre]).T + np.sqrt(2 * epsilon) * root @ circle), color="#cccccc", lw=1.2, zorder=0)


def draw_gaps(panel, etas, name="(μ, log σ)", other="(μ, σ)"):
    for natural, colour, title in ((False, GREY, "gradient descent"), (True, INK, "natural gradient")):
        found = [gap(*(steps(STARTS[1], c, natural, eta) for c in (name, other))) for eta in etas]
        order = np.log(found[0] / found[-1]) / np.log(etas[0] / etas[-1])
        panel.loglog(etas, found, "o-", color=colour)
        panel.text(etas[0], found[0] * 1.25, f"{title}: order {order:.2f}", color=colour, ha="right", va="bottom")
    panel.set(xlabel="step η", title=f"Gap of {name} and {other}", ylim=(2e-4, 3))


@slides.slide
def main(quick, clock):
    figure = slides.figure("", "Fitting a Gaussian: flows, solved to 1e-8, on the left, finite steps on the right")
    planes, right = figure.subfigures(1, 2, width_ratios=(1.8, 1))
    upper, lower = planes.subplots(2, 1)
    far = draw_paths(upper, False, "Gradient descent, −∇")
    near = draw_paths(lower, True, "Natural gradient, −F⁻¹∇, and KL circles")
    draw_circles(lower)
    upper.legend(loc="lower center", ncols=3, handlelength=3.2)
    draw_gaps(right.subplots(), 2.0 ** -np.arange(2, 5 if quick else 9))
    finding = f"Other coordinates move gradient descent by {far:.1f}, the natural path by {near:.0e}"
    figure.suptitle(finding + "\n", **slides.TITLE)
    return figure


if __name__ == "__main__":
    main()
