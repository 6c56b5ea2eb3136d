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
RATES = {"SGD": (0.3, 1.0, 3.0, 10.0), "PRONG": (0.03, 0.1, 0.3, 1.0)}


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


# %% Does it pay? The same number of updates, every rate the best of as many
def train(method, updates):
    params = net.init(rng=0)
    state, batches = method.init(params), mg.data.batches(x, y, 200, rng=0)
    curve = [
        method.step(mg.Objective(net, losses.softmax_cross_entropy, params, *batches.at(t)), state).loss
        for t in range(updates)
    ]
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
        values = np.linalg.eigvalsh(matrix)[::-1]
        panel.semilogy(
            range(1, len(values) + 1),
            values,
            "o-",
            color=colour,
            ms=5,
            lw=1.4,
            label=f"{name}, κ = {condition(matrix):.0e}",
        )
    panel.axhline(EPS, color=ORANGE, lw=1.2, ls=(0, (4, 3)))
    panel.text(1, EPS, "ε", color=ORANGE, va="bottom")
    panel.set(xlabel="number", title="Eigenvalues")
    panel.legend(labelcolor="linecolor", handlelength=0, loc="lower left")


@slides.slide
def main(quick, clock):
    updates = 60 if quick else 400
    found = moments(*(layer := whitening()))
    figure = slides.figure(
        f"PRONG takes κ of a layer's input from {condition(found[0]):.0e} to {condition(found[2]):.0e}",
        f"Third layer of 64-30-30-30-10, sigmoid, at random weights; the function stays the same to {function_error(*layer):.0e}",
    )
    pictures, eigenvalues, curves = figure.subfigures(1, 3, width_ratios=(0.75, 1.2, 1.2))
    for panel, k in zip(pictures.subplots(2, 1), (1, 2)):
        name, colour = list(KINDS.items())[k]
        picture(panel, found[k], name, colour)
    draw_eigenvalues(eigenvalues.subplots(), found)
    panel = curves.subplots()
    for (name, rates), make, colour in zip(
        RATES.items(), (optim.SGD, lambda lr: optim.PRONG(lr, EPS, every=1)), (GREY, BLUE)
    ):
        lr, curve = best_of(make, rates[1:3] if quick else rates, updates)
        panel.semilogy(curve, color=colour)
        panel.text(len(curve) * 0.98, curve[-1] * 1.3, f"{name}, λ = {lr:g}", color=colour, ha="right")
    panel.set(xlabel="updates", title=f"Training loss, best of {len(rates)} rates")
    return figure


if __name__ == "__main__":
    main()
