"""Fisher, empirical Fisher, Gauss-Newton: which are the same, and what the wrong one does [T-3.4.1].

The Fisher takes the expectation over the model's own targets, the empirical Fisher puts the true ones in. For linear
regression the Fisher is the Hessian, and every natural gradient −F⁻¹∇ points at the minimum. The empirical Fisher
weighs examples by their residuals: its field bends, also where model and noise are right, so that both agree at the
minimum [after Kunstner, Hennig & Balles 2019]. What [T] calls Gauss-Newton, on probabilities, is the empirical Fisher
for a softmax, and not for several sigmoids.
"""

# %%
import numpy as np
import slides
from slides import BLUE, GREY, INK, ORANGE

import minigrad as mg
from minigrad import losses, nn
from optim import curvature

rng = np.random.default_rng(0)
inputs = rng.lognormal(0.0, 0.75, (1000, 1))
targets = 2.0 * inputs + 2.0 + np.sqrt(0.5) * rng.standard_normal((1000, 1))  # the variance that ‖f − y‖² stands for
line = nn.mlp([1, 1])
LINE = mg.Objective(line, losses.squared_error, line.init(rng=0, dtype="float64"), inputs, targets)  # θ = (slope, bias)
MINIMUM = np.linalg.lstsq(np.hstack([inputs, np.ones_like(inputs)]), targets, rcond=None)[0].ravel()
HALF = np.array([3.0, 3.0])  # of the picture's sides
STARTS = MINIMUM + HALF * np.array([(-0.6, -0.8), (-0.75, 0.8), (0.2, 0.9), (0.55, 0.5), (0.8, -0.75), (0.0, -0.9)])
FIELDS = {"plain gradient": (None, GREY), "Fisher": ("fisher", BLUE), "empirical Fisher": ("empirical", ORANGE)}


# %% The three fields, and the paths that follow them
def direction(theta, kind):
    """−∇, −F⁻¹∇ or −(empirical F)⁻¹∇ at θ, of length 1."""
    f = LINE.at(theta)
    step = -f.grad if kind is None else -curvature.matrix(f, kind, "dense").solve(f.grad, 0.0)
    return step / np.linalg.norm(step)


def misses(theta, kind):
    """The angle, in degrees, between the field and the way to the minimum."""
    way = MINIMUM - theta
    return np.degrees(np.arccos(np.clip(direction(theta, kind) @ way / np.linalg.norm(way), -1, 1)))


def path(start, kind, pace=0.04, most=200):
    """Steps of the same length along the field, by the midpoint rule, until the minimum is near."""
    points = [start]
    while np.linalg.norm(points[-1] - MINIMUM) > 2 * pace and len(points) < most:
        middle = points[-1] + 0.5 * pace * direction(points[-1], kind)
        points.append(points[-1] + pace * direction(middle, kind))
    return np.array(points)


def ratio_at_minimum():
    """Eigenvalues of F⁻¹ times the empirical Fisher at the minimum: near 1 where the model is right."""
    F, E = (curvature.matrix(LINE.at(MINIMUM), kind, "dense").dense() for kind in ("fisher", "empirical"))
    return np.sort(np.linalg.eigvals(np.linalg.solve(F, E)).real)


# %% Gauss-Newton on probabilities against the empirical Fisher
FLOOR = 1e-17  # where the axis of the differences begins
CASES = (("softmax", 5), ("sigmoid", 1), ("sigmoid", 5))


def difference(name, outputs, n=60):
    """‖GN on probabilities − empirical Fisher‖ / ‖empirical Fisher‖ of a small random network."""
    random = np.random.default_rng(1)
    net, loss = nn.mlp([6, 5, outputs], hidden="tanh"), getattr(losses, f"{name}_cross_entropy")
    x, labels = random.standard_normal((n, 6)), random.integers(0, 5, n)
    y = labels if name == "softmax" else (random.random((n, outputs)) < 0.5).astype(float)
    f = mg.Objective(net, loss, net.init(rng=1, dtype="float64"), x, y)
    G, E = (curvature.matrix(f, kind, "dense").dense() for kind in ("gn_prob", "empirical"))
    return np.linalg.norm(G - E) / np.linalg.norm(E)


# %% Pictures
def draw_field(panel, name, kind, colour, count):
    """The field and its paths; returns the largest angle that an arrow misses the minimum by."""
    x, y = (np.linspace(c - h, c + h, 120) for c, h in zip(MINIMUM, HALF))
    offsets = np.stack(np.meshgrid(x, y), -1) - MINIMUM
    rise = np.sum(offsets @ curvature.matrix(LINE, "hessian", "dense").dense() * offsets, -1)
    panel.contour(x, y, np.sqrt(rise), 9, colors="#d5d5d5", linewidths=1)
    grid = MINIMUM + HALF * np.stack(np.meshgrid(*[np.linspace(-0.93, 0.93, count)] * 2), -1).reshape(-1, 2)
    arrows = np.array([direction(theta, kind) for theta in grid])
    panel.quiver(*grid.T, *arrows.T, color=colour, alpha=0.45, angles="xy", scale=19, width=0.006, pivot="mid")
    for start in STARTS:
        panel.plot(*path(start, kind).T, "o-", color=colour, lw=2.6, ms=7, markevery=[0])
    panel.plot(*MINIMUM, "+", color=INK, ms=13, mew=2.5)
    angle = max(misses(theta, kind) for theta in grid)
    slides.bare(panel, xlabel="slope", ylabel="bias", aspect="equal", xlim=x[[0, -1]], ylim=y[[0, -1]])
    panel.set_title(f"{name}: misses by ≤ {angle:.0f}°", color=colour)
    return angle


def draw_identity(panel):
    for place, case in enumerate(CASES):
        end = max(found := difference(*case), FLOOR)
        panel.plot([FLOOR, end], [place, place], color=BLUE if found < 1e-12 else ORANGE, lw=6)
        panel.text(end * 2, place, f"{found:.2g}", va="center")
    panel.set(xscale="log", xlim=(FLOOR, 30), ylim=(2.6, -0.6))
    panel.set_title("Gauss-Newton on probabilities against the empirical Fisher: relative difference")
    panel.set_yticks(range(len(CASES)), [f"{name}, C = {c}" for name, c in CASES], fontsize=13)
    panel.grid(axis="y", visible=False)


@slides.slide
def main(quick, clock):
    low, high = ratio_at_minimum()
    note = f"At the minimum the two are near: eigenvalues of F⁻¹ · (empirical F) {low:.2f}, {high:.2f}"
    figure = slides.figure("", f"Linear regression, N = {len(inputs):,}. {note}")
    fields, bars = figure.subfigures(2, 1, height_ratios=(3.4, 1))
    for panel, (name, (kind, colour)) in zip(fields.subplots(1, 3), FIELDS.items()):
        angle = draw_field(panel, name, kind, colour, 8 if quick else 12)
    draw_identity(bars.subplots())
    title = f"The Fisher points at the minimum, the empirical Fisher up to {angle:.0f}° beside it\n"
    figure.suptitle(title, **slides.TITLE)
    return figure


if __name__ == "__main__":
    main()
