"""Small batches learn more from each example, large ones from each update; the noise falls as 1/√B [T-2.2, P, B, L].

Gradient descent reads all examples for one update, stochastic gradient descent a single one, mini-batches a few.
Counted in updates the exact gradient wins; counted in examples, which is what costs, it loses by far. A batch of B
examples estimates ∇R with an error of σ/√B, σ² the variance of the per-example gradients: four times the work for
half the noise. The norms of those gradients need no gradient each: ‖∇ℓᵢ‖² = ‖∂ℓ/∂aᵢ‖² (‖hᵢ‖² + 1), layer by layer.
"""

# %%
import numpy as np
import slides
from slides import BLUE, GREEN, GREY, INK, ORANGE

import minigrad as mg
import optim
from minigrad import backend, losses, nn

x, y = mg.data.digits8().train
net = nn.mlp([64, 32, 10], hidden="tanh")
METHODS = {  # batch, updates, rates to choose from, colour
    "SGD": (1, 10000, (0.01, 0.03, 0.1), ORANGE),
    "mini-batch": (60, 1500, (0.3, 1.0, 3.0), GREEN),
    "GD": (len(x), 400, (0.3, 1.0, 3.0), BLUE),
}


def objective(params, inputs=x, labels=y):
    return mg.Objective(net, losses.softmax_cross_entropy, params, inputs, labels)


def digits(device):
    """x and the labels as rows of zeros and a one, uploaded once."""
    inputs = backend.asarray(x, device)
    return inputs, mg.one_hot(y, 10, inputs)


# %% Training: the loss on all examples at more and more updates
def train(batch, lr, updates, device="cpu"):
    """(updates made, R on the whole training part) at the checkpoints."""
    params, method, whole = net.init(rng=0, device=device), optim.SGD(lr), digits(device)
    state, batches = method.init(params), mg.data.batches(*whole, batch, rng=0)
    checkpoints = set(np.unique(np.geomspace(1, updates, 40).astype(int)))
    found = []
    for t in range(1, updates + 1):
        method.step(objective(params, *batches.at(t - 1)), state)
        if t in checkpoints:
            found.append((t, float(objective(params, *whole).value)))
    return np.array(found)


def best_of(batch, updates, rates, device):
    """The curve of the rate with the lowest last loss."""
    return min((train(batch, lr, updates, device) for lr in rates), key=lambda curve: curve[-1, 1])


# %% The noise of the gradient: measured, and from the sweep
def noise(params, sizes, draws, rng=0):
    """√E‖g_B − ∇R‖² / ‖∇R‖ for batches of B examples drawn with replacement."""
    inputs, labels = digits(params.device)
    true = objective(params, inputs, labels).grad
    rng, found = np.random.default_rng(rng), []
    for size in sizes:
        picks = (backend.like(rng.integers(0, len(x), size), inputs) for _ in range(draws))
        errors = (((objective(params, inputs[rows], labels[rows]).grad - true) ** 2).sum() for rows in picks)
        found.append(np.sqrt(float(sum(errors) / draws / (true**2).sum())))
    return np.array(found)


def noise_of_one(f):
    """The same for B = 1, exact: (mean ‖∇ℓᵢ‖² − ‖∇R‖²)^½ / ‖∇R‖."""
    squares = sum((site.da**2).sum(1) * ((site.h**2).sum(1) + 1) for site in f.sweep())
    length = (f.grad**2).sum()
    return float((squares.mean() - length) / length) ** 0.5


# %% Three panels
@slides.slide
def main(quick, clock, device):
    runs = {}
    for name, (batch, updates, rates, colour) in clock.within(METHODS.items(), "methods"):
        rates, updates = (rates[1:2], updates // 8) if quick else (rates, updates)
        runs[name] = batch, colour, best_of(batch, updates, rates, device)
    sizes = 2 ** np.arange(0, 11, 2 if quick else 1)
    found = noise(params := net.init(rng=1, device=device), sizes, 40 if quick else 150)
    level = max(curve[-1, 1] for *_, curve in runs.values())
    work = {name: batch * curve[np.argmax(curve[:, 1] <= level), 0] for name, (batch, _, curve) in runs.items()}
    few, many = min(work, key=work.get), max(work, key=work.get)
    figure = slides.figure(
        f"{many} reads {work[many] / work[few]:.0f} times the examples of {few} for the same loss"
        if few != many
        else few,
        f"8×8 digits, N = {len(x)}, network 64-32-10, the best of {len(rates)} rates each; the same loss: {level:.2g}",
    )
    updates, examples, panel = figure.subplots(1, 3)
    for name, (batch, colour, curve) in runs.items():
        for place, cost in ((updates, 1), (examples, batch)):
            place.loglog(curve[:, 0] * cost, curve[:, 1], color=colour)
            side = "center" if (batch > 1) == (place is examples) else "right"
            place.text(
                curve[-1, 0] * cost, curve[:, 1].min() * 0.97, f"{name}, B = {batch}", color=colour, va="top", ha=side
            )
    for place, title in ((updates, "updates"), (examples, "examples seen")):
        place.axhline(level, color=GREY, lw=1, ls=(0, (4, 3)))
        place.set(xlabel=title, title=f"Loss by {title}", ylim=(0.15, 3))
        place.set_yticks([0.2, 0.5, 1, 2], [0.2, 0.5, 1, 2])
        place.margins(x=0.2)
    panel.loglog(sizes, noise_of_one(objective(params, *digits(device))) / np.sqrt(sizes), color=INK)
    panel.loglog(sizes, found, "o", color=ORANGE, ms=8)
    panel.set(xlabel="batch size B", title="Noise of the gradient ÷ its length")
    panel.set_yticks([0.3, 1, 3], [0.3, 1, 3])
    note = f"measured,\nslope {np.polyfit(np.log(sizes), np.log(found), 1)[0]:.2f}".replace("-", "−")
    panel.text(0.95, 0.85, note, color=ORANGE, transform=panel.transAxes, ha="right")
    panel.text(0.05, 0.1, "σ/√B, from one sweep", color=INK, transform=panel.transAxes)
    for place in figure.axes:
        place.minorticks_off()
    return figure


if __name__ == "__main__":
    main()
