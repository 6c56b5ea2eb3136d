"""PRONG whitens what a layer reads, and leaves the network the function it is [T-6.4.2; Desjardins et al. 2015].

A layer a = W h + b is written as a = V U (h − μ) + d with U = (cov(h) + εI)^{-½} and μ = E[h]; V = W U⁻¹ and
d = b + W μ keep the function. Gradient descent on (V, d) then sees white inputs: taking off the mean removes the one
huge eigenvalue of E[h hᵀ], U evens out those above ε. In (W, b) the step is −λ mean[da (h − μ)ᵀ] U², so nothing else
in the network has to know of it.
"""

# %%
import numpy as np
import slides
from slides import BLUE, GREEN, GREY, ORANGE

import minigrad as mg
import optim
from minigrad import losses, nn

x, y = mg.data.digits8().train
net = nn.mlp([64, 30, 30, 30, 10], hidden="sigmoid")
LAYER, EPS = "2", 1e-3
KINDS = {"E[h hᵀ]: plain": GREY, "cov(h): centred": GREEN, "U cov(h) U: PRONG": BLUE}
METHODS = {"SGD": optim.SGD, "PRONG": lambda lr: optim.PRONG(lr, EPS, every=1)}
RATES = ((0.3, 1.0, 3.0, 10.0), (0.1, 0.3, 1.0, 3.0))


# %% U and μ of one hidden layer, from PRONG's own state
def whitening(layer=LAYER, n=2000):
    """(site, U (in, in), μ (in,)) at random weights."""
    params = net.init(rng=0, dtype="float64")
    f = mg.Objective(net, losses.softmax_cross_entropy, params, x[:n].astype("float64"), y[:n])
    method = optim.PRONG(eps=EPS)
    method.update(f, state := method.init(params))
    return next(s for s in f.sweep() if s.name == layer), state[f"{layer}.U"], state[f"{layer}.mu"]


def function_error(site, U, mu):
    """‖V U (h − μ) + d − a‖ / ‖a‖."""
    V, d = np.linalg.solve(U, site.W.T).T, site.b + site.W @ mu
    return np.linalg.norm((site.h - mu) @ U.T @ V.T + d - site.a) / np.linalg.norm(site.a)


def moments(site, U, mu):
    """E[h hᵀ], cov(h) and the covariance of U (h − μ)."""
    centred = site.h - mu
    white = centred @ U.T
    return [rows.T @ rows / len(rows) for rows in (site.h, centred, white)]


def condition(matrix):
    values = np.linalg.eigvalsh(matrix)
    return values[-1] / values[0]


def told(kappa):
    """One digit and zeros."""
    return f"{float(f'{kappa:.0e}'):,.0f}"


# %% Does it pay? The same number of updates, every rate the best of as many
def train(method, updates):
    """The loss of every batch, averaged over 15."""
    params, curve = net.init(rng=0), []
    state, batches = method.init(params), mg.data.batches(x, y, 200, rng=0)
    for t in range(updates):
        f = mg.Objective(net, losses.softmax_cross_entropy, params, *batches.at(t))
        curve.append(float(method.step(f, state).loss))
    return np.convolve(curve, np.ones(15) / 15, "valid")


def best_of(make, rates, updates):
    """(rate, curve) with the lowest last loss."""
    curves = [(lr, train(make(lr), updates)) for lr in rates]
    return min(curves, key=lambda found: np.nan_to_num(found[1][-1], nan=np.inf))


# %% Pictures
def picture(panel, matrix, title, colour):
    top = np.abs(matrix).max()
    panel.imshow(matrix, cmap="RdBu_r", vmin=-top, vmax=top)
    slides.bare(panel).set_title(title, color=colour)
    panel.spines[["top", "right"]].set_visible(True)


def draw_eigenvalues(panel, found):
    for (name, colour), matrix in zip(KINDS.items(), found):
        values, label = np.linalg.eigvalsh(matrix)[::-1], f"{name}, κ = {told(condition(matrix))}"
        panel.semilogy(range(1, len(values) + 1), values, "o-", color=colour, ms=5, lw=1.4, label=label)
    panel.axhline(EPS, color=ORANGE, lw=1.2, ls=(0, (4, 3)))
    panel.text(1, EPS, "ε", color=ORANGE, va="bottom")
    panel.set(xlabel="number", title="Eigenvalues")
    panel.legend(labelcolor="linecolor", handlelength=0, loc="lower left")


def draw_curves(panel, updates, quick):
    for (name, make), rates, colour in zip(METHODS.items(), RATES, (GREY, BLUE)):
        lr, curve = best_of(make, rates[1:3] if quick else rates, updates)
        panel.semilogy(curve, color=colour)
        top = curve[2 * len(curve) // 3 :].max()
        panel.text(len(curve), top * 1.1, f"{name}, λ = {lr:g}", color=colour, ha="right", va="bottom")
    panel.set(xlabel="updates, each with a new U", title=f"Training loss, best of {2 if quick else len(rates)} rates")


@slides.slide
def main(quick, clock):
    found = moments(*(layer := whitening()))
    figure = slides.figure(
        f"PRONG takes κ of a layer's input from {told(condition(found[0]))} to {told(condition(found[2]))}",
        "Third layer of 64-30-30-30-10, sigmoid, at random weights; "
        f"the function stays the same to {function_error(*layer):.0e}",
    )
    pictures, eigenvalues, curves = figure.subfigures(1, 3, width_ratios=(0.75, 1.2, 1.2))
    for panel, (name, colour), matrix in zip(pictures.subplots(2, 1), list(KINDS.items())[1:], found[1:]):
        picture(panel, matrix, name, colour)
    draw_eigenvalues(eigenvalues.subplots(), found)
    draw_curves(curves.subplots(), 60 if quick else 400, quick)
    return figure


if __name__ == "__main__":
    main()
