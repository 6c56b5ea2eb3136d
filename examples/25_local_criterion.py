"""From the local criterion to ACP and the centred gradient [T-6.1, T-alg 3, T-alg 4].

Every layer is asked to move its pre-activations against their gradient: minimise ‖ΔW h + Δb + λ ∂ℓ/∂a‖² + ε ‖ΔW‖²
over the batch. The answer is a ridge regression, ACP. With much damping its ΔW turns into the centred gradient; with
little it whitens the layer's input, and the loss falls faster for the same number of steps.
"""

# %%
import numpy as np
import slides
from slides import BLUE, GREY, ORANGE

import minigrad as mg
import optim
from minigrad import backend, losses, nn

data = mg.data.digits8()
x, y = data.train
net = nn.mlp([64, 40, 40, 10], hidden="sigmoid")


def cosine(a, b):
    return float((a * b).sum() / ((a * a).sum() * (b * b).sum()) ** 0.5)


# %% One layer, many dampings: ACP between whitening and centring
def against_damping(dampings, device="cpu"):
    """Cosine of ACP's ΔW to the centred and to the plain gradient, layer 1 at the start of training."""
    params = net.init(rng=0, dtype="float64", device=device)
    some = backend.asarray(x[:1000], device, "float64"), backend.asarray(y[:1000], device)
    f = mg.Objective(net, losses.softmax_cross_entropy, params, *some)
    one = lambda method: params.windows(method.update(f, method.init(params)))["1.W"].copy()  # noqa: E731
    centred, plain = one(optim.Centred(1.0)), one(optim.Gradient(1.0))
    steps = [one(optim.ACP(1.0, eps, alpha=1.0)) for eps in dampings]
    return [cosine(s, centred) for s in steps], [cosine(s, plain) for s in steps]


# %% The same number of steps for each rule, every rate the best of a few
def train(make, rates, steps, device="cpu"):
    """Loss curve of the rate with the lowest last loss; on a GPU a curve is read when all its steps are made."""
    curves, inputs = [], backend.asarray(x, device)
    labels = mg.one_hot(y, 10, inputs)
    for lr in rates:
        params = net.init(rng=0, device=device)
        method = make(lr)
        state = method.init(params)
        batches = mg.data.batches(inputs, labels, 200, rng=0)
        losses_seen = []
        for t in range(steps):
            f = mg.Objective(net, losses.softmax_cross_entropy, params, *batches.at(t))
            losses_seen.append(method.step(f, state).loss)
        losses_seen = [float(loss) for loss in losses_seen]
        curves.append((np.mean(losses_seen[-10:]), lr, losses_seen))
    return min(curves, key=lambda c: c[0] if np.isfinite(c[0]) else np.inf)


RULES = {
    "plain gradient": (optim.Gradient, [0.3, 1.0, 3.0, 10.0], GREY),
    "centred gradient": (optim.Centred, [0.3, 1.0, 3.0, 10.0], ORANGE),
    "ACP, α = 1, ε = 0.03": (lambda lr: optim.ACP(lr, 0.03, alpha=1.0, every=20), [0.3, 1.0, 3.0, 10.0], BLUE),
}


@slides.slide
def main(quick, clock, device):
    runs = {}
    for name, (make, rates, _) in clock.within(RULES.items(), "rules"):
        runs[name] = train(make, rates, 30 if quick else 300, device)
    ends = {name: last for name, (last, *_) in runs.items()}
    good, bad = min(ends, key=ends.get), max(ends, key=ends.get)
    figure = slides.figure(
        f"After as many steps: loss {ends[good]:.2g} with {good.split(',')[0]}, {ends[bad]:.2g} with the {bad}",
        f"8×8 digits, 64-40-40-10 sigmoid, the best of {len(rates)} rates λ each",
    )
    left, right = figure.subplots(1, 2)
    dampings = np.logspace(-4, 3, 8 if quick else 29)
    for found, colour, name in zip(against_damping(dampings, device), (ORANGE, GREY), ("centred", "plain")):
        left.semilogx(dampings, found, color=colour)
        left.text(dampings[-1], found[-1] - 0.03, f"to the {name} gradient", color=colour, ha="right", va="top")
    left.set(xlabel="damping ε", title="Much damping: cosine of ACP's ΔW, layer 1", ylim=(0, 1.05))
    for name, (last, lr, curve) in runs.items():
        right.semilogy(np.convolve(curve, np.ones(9) / 9, "valid"), color=RULES[name][2])
        right.text(len(curve), last, f"{name}\nλ = {lr:g}", color=RULES[name][2], va="center")
    right.set(xlabel="updates, batch 200", title="Training loss", xlim=(0, 1.4 * len(curve)))
    return figure


if __name__ == "__main__":
    main()
