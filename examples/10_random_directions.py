"""A random perturbation measures one directional derivative, and many of them average to the gradient [B].

½[R(θ + ΔW) − R(θ − ΔW)] ΔW / μ² is (∇Rᵀε) ε for ΔW = με: the derivative along ε, times ε. The arrows lie on every
side, but none against ∇R, and E[ε εᵀ] = I makes their mean ∇R. How near the mean ĝ of M of them comes: for Gaussian
ε, E[(∇Rᵀε)² εεᵀ] = ‖∇R‖² I + 2∇R∇Rᵀ, so E‖ĝ‖² = (1 + (d + 1)/M) ‖∇R‖² (d − 1 for signs), and the cosine with ∇R is
about E[ĝᵀ∇R]/√(‖∇R‖² E‖ĝ‖²) = √(M/(M + d)). A gradient's worth of information takes d directions.
"""

# %%
import numpy as np
import slides
from slides import BLUE, GREEN, INK, ORANGE, PINK, SKY

import minigrad as mg
import optim
from optim.lab.functions import Valley

VALLEY, THETA = Valley(kappa=3.0, angle=30.0), np.array([1.6, 1.3])  # where the fan is drawn
SHOWN, COUNTS = 60, (4, 16, 64, 256)
DIMENSIONS = {2: BLUE, 20: GREEN, 200: ORANGE, 2000: PINK}


# %% An arrow of the fan is the step of ES with one pair of perturbations
def arrows(f, M, rng=0):
    """−½[R(θ + ΔW) − R(θ − ΔW)] ΔW / μ² (M, d)."""
    method = optim.ES(lr=1.0, pairs=1, sigma=1e-3)
    state = method.init(f.params, rng)
    return np.array([method.update(f, {**state, "t": t}) for t in range(M)])


# %% How near to −∇R is the mean of M arrows?
def cosines(d, counts, repeats):
    """The mean cosine (len(counts),) between −∇R and the mean of M arrows, for a curved function in d dimensions."""
    rng, found = np.random.default_rng(d), []
    for k in range(repeats):
        f = mg.Objective(lambda p: mg.mean(mg.log(1.0 + p["theta"] ** 2)), mg.Params(theta=rng.standard_normal(d)))
        means = np.cumsum(arrows(f, counts[-1], k), 0)[np.array(counts) - 1]
        found.append(-means @ f.grad / np.linalg.norm(means, axis=1) / np.linalg.norm(f.grad))
    return np.mean(found, 0)


def theory(d, M):
    return np.sqrt(M / (M + d))


# %% The fan, its mean, and the cosines
def arrow(panel, step, colour, width):
    style = {"arrowstyle": "-|>", "color": colour, "lw": width, "shrinkA": 0, "shrinkB": 0}
    panel.annotate("", THETA + step, THETA, arrowprops=style)


def draw_level(panel, f, x, y):
    u, v = np.linspace(*x, 121), np.linspace(*y, 121)
    panel.contour(u, v, VALLEY.at(np.array(np.meshgrid(u, v))), levels=10, colors="#cccccc", linewidths=1)
    slides.bare(panel, aspect="equal", xlim=x, ylim=y)
    arrow(panel, -f.grad, INK, 4)
    panel.plot(*THETA, "o", color=INK, ms=7)


def draw_means(panel, fan):
    """The mean of M arrows, and the way of its tip."""
    tips = THETA + np.cumsum(fan, 0) / np.arange(1, len(fan) + 1)[:, None]
    panel.plot(*tips[COUNTS[0] - 1 :].T, color=SKY, lw=1.2)
    for M, colour in zip(COUNTS, (SKY, GREEN, ORANGE, PINK)):
        arrow(panel, tips[M - 1] - THETA, colour, 2.2)
        panel.text(*(tips[M - 1] - (0.03, 0.03)), f"M = {M}", color=colour, ha="right", va="top")


def draw_cosines(panel, counts, repeats):
    fine = np.geomspace(1, counts[-1], 100)
    for d, colour in DIMENSIONS.items():
        found = cosines(d, counts, repeats)
        panel.semilogx(counts, found, "o", color=colour, ms=6)
        panel.semilogx(fine, theory(d, fine), color=colour, lw=1.6)
        y = theory(d, counts[-1]) + (0.012 if d == 2 else -0.012)
        panel.text(counts[-1] * 1.25, y, f"d = {d}", color=colour, va="center")
    panel.set(xlabel="M", title="Cosine between −∇R and the mean of M;\nlines: √(M/(M + d))", ylim=(0, 1.03))


def angle(a, b):
    """Between two vectors, in degrees."""
    return np.degrees(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))


@slides.slide
def main(quick, clock):
    f = VALLEY.objective(THETA)
    fan = arrows(f, COUNTS[-1], 1)
    off, uphill = angle(fan.mean(0), -f.grad), np.sum(fan @ f.grad > 0)
    figure = slides.figure(
        f"Each perturbation is a directional derivative; {len(fan)} average to −∇R, {off:.0f}° off",
        f"An arrow: −½[R(θ + ΔW) − R(θ − ΔW)] ΔW / μ², ΔW random; {uphill} of {len(fan)} point uphill.  Black: −∇R",
    )
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.3))
    draw_level(left, f, (-0.3, 2.7), (-2.0, 2.3))
    for step in fan[:SHOWN]:
        arrow(left, step, SKY, 1.0)
    left.set_title(f"A fan of {SHOWN} perturbations")
    draw_level(middle, f, (0.7, 1.9), (-0.2, 1.52))
    draw_means(middle, fan)
    middle.set_title("The mean of M of them")
    draw_cosines(right, np.unique(np.geomspace(1, 100 if quick else 1000, 13).astype(int)), 4 if quick else 12)
    return figure


if __name__ == "__main__":
    main()
