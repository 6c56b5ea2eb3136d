"""The spectrum of the Hessian: a bulk near zero, and after training C − 1 eigenvalues far from it [P, T-3.1.2].

Stochastic Lanczos quadrature reads the whole density off products Hv: each probe gives a few points and weights, and
their mean is the density. The network is small, so that all exact eigenvalues can stand beside it. The Gauss-Newton
matrix has no negative eigenvalues; where residuals are small after training, its large ones are the Hessian's. That
there are about as many large ones as classes was found by Sagun et al. 2016 and Papyan 2018.
"""

# %%
import numpy as np
import slides
from slides import BLUE, GREY, INK, ORANGE

import minigrad as mg
import optim
from minigrad import losses, nn
from optim import curvature, spectrum

data = mg.data.digits8()
x, y = data.train[0].astype("float64"), data.train[1]
net = nn.mlp([64, 12, 10], hidden="relu")
NAMES = {"hessian": "Hessian", "fisher": "Gauss-Newton"}


def objectives(updates, n):
    """The objective on n examples at random weights, and after some updates of Adam."""
    params, method = net.init(rng=0, dtype="float64"), optim.Adam(0.01)
    state, batches = method.init(params), mg.data.batches(x, y, 200, rng=0)
    first = mg.Objective(net, losses.softmax_cross_entropy, params.at(params.vector.copy()), x[:n], y[:n])
    for t in range(updates):
        method.step(mg.Objective(net, losses.softmax_cross_entropy, params, *batches.at(t)), state)
    return first, mg.Objective(net, losses.softmax_cross_entropy, params, x[:n], y[:n])


# %% Exact eigenvalues, and the density from products alone
def exact(f, kind):
    """All eigenvalues, from the largest."""
    return curvature.matrix(f, kind, "dense").eigenvalues()[::-1]


def density(f, kind, probes, steps):
    return spectrum.density(f.hvp if kind == "hessian" else f.ggnvp, f.params.vector, probes, steps)


def smooth(values, grid, width):
    """The exact eigenvalues as a density, each a Gaussian of this width."""
    return spectrum.Density([values], [np.full(len(values), 1 / len(values))]).at(grid, width)


def distance(p, q, grid):
    """½ ∫ |p − q|: 0 for the same, 1 for disjoint densities."""
    return 0.5 * np.sum(np.abs(p - q)) * (grid[1] - grid[0])


def outliers(values, most=30):
    """(how many stand before the largest drop among the first, as a quotient; that quotient)."""
    drops = values[:most] / values[1 : most + 1]
    return int(np.argmax(drops)) + 1, drops.max()


# %% One panel a matrix
def told(value):
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def draw(panel, values, grid, true, found):
    """Both densities, and the eigenvalues under them."""
    count, drop = outliers(values)
    count = count if drop > 3 else 0
    panel.fill_between(grid, 1e-9, true, color="#cfcfcf", lw=0)
    panel.semilogy(grid, found, color=BLUE, lw=2)
    for part, colour, size in ((values[count:], INK, 1.0), (values[:count], ORANGE, 2.5)):
        panel.plot(part, np.full(len(part), 1.8e-4), "|", color=colour, ms=8 + 2 * size, mew=size)
    panel.set(xlim=grid[[0, -1]], ylim=(1e-4, 200), yticks=[1e-3, 1e-1, 1e1])
    panel.minorticks_off()
    if count:
        note = f"{count} eigenvalues, the least\n{drop:.1f} times the next one"
        panel.text(values[:count].mean(), 1.0, note, color=ORANGE, ha="center")


@slides.slide
def main(quick, clock):
    (probes, steps), n = ((2, 40), 300) if quick else ((10, 60), 1000)
    cases = [(f, kind) for f in objectives(400, n) for kind in NAMES]
    values = [exact(*case) for case in cases]
    top = max(v[0] for v in values)
    grid, width = np.linspace(-0.15 * top, 1.1 * top, 1500), top / 120
    true = [smooth(v, grid, width) for v in values]
    found = [density(*case, probes, steps).at(grid, width) for case in cases]
    apart = max(distance(p, q, grid) for p, q in zip(true, found))
    figure = slides.figure(
        f"After training {outliers(values[2])[0]} eigenvalues stand apart, and there are 10 classes",
        f"Density of eigenvalues, 64-12-10 ReLU, {n:,} digits; grey and blue are {100 * apart:.1f} % of the mass apart",
    )
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    for k, (panel, (_, kind)) in enumerate(zip(panels.flat, cases)):
        draw(panel, values[k], grid, true[k], found[k])
        when = "random weights" if k < 2 else "trained"
        panel.set_title(f"{NAMES[kind]}, {when}: {told(values[k][-1])} to {told(values[k][0])}")
    panels[0, 0].text(0.33 * top, 12.0, f"exact, {len(values[0])} eigenvalues", color=GREY)
    panels[0, 0].text(0.33 * top, 2.0, f"Lanczos, {probes} probes × {steps} products Hv", color=BLUE)
    return figure


if __name__ == "__main__":
    main()
