"""Updated backpropagation in ten lines, and how right the signal is that it sends down [T-5.2, T-alg 2].

When a layer moves by (ΔW, Δb), the signal that it will send to the layer below changes. Plain backprop sends the
old one. UBP sends a first-order estimate of the new one. Halve the rate: an estimate with the exact Hessian is four
times better, Gauss-Newton on a smooth net and plain backprop twice.
"""

# %%
import numpy as np
import slides
from slides import BLUE, GREY, ORANGE, YELLOW

import minigrad as mg
from minigrad import backend, losses, nn

# %% A small chain on real digits, in float64 so that small errors can be seen
data = mg.data.digits8()
x, y = data.train[0][:200].astype("float64"), data.train[1][:200]
net = nn.mlp([64, 20, 20, 20, 10], hidden="tanh")


# %% The edited backward pass: in "mode" lies all the difference
def signals(params, lr, mode):
    """{layer: what it sends below} in one sweep, and the step Δθ."""
    f = mg.Objective(net, losses.softmax_cross_entropy, params, *(backend.like(a, params.vector) for a in (x, y)))
    sent = {}
    for site in (sweep := f.sweep()):
        dW, db = site.gradient(-lr)
        if site.below:
            moved = site.h @ dW.T + db
            curvature = {"plain": None, "none": 0 * moved, "gn": site.JtHJ(moved), "hessian": site.hessian_vp(moved)}[
                mode
            ]
            site.dh = site.da @ site.W if mode == "plain" else site.da @ (site.W + dW) + curvature @ site.W
            sent[site.name] = site.dh
    return sent, sweep.delta


# %% The truth: differentiate the layers above after they have really moved
def truth(params, delta, name):
    """∂ℓ/∂h at the old input of a layer, with this layer and all above moved by delta."""
    moved = params.at(params.vector + delta)
    start = [k for k, layer in enumerate(net.children) if isinstance(layer, nn.Dense)][int(name)]
    h, labels = (backend.like(a, params.vector) for a in (x, y))
    for layer in net.children[:start]:
        h = layer(params, h)

    def above(h):
        for layer in net.children[start:]:
            h = layer(moved, h)
        return mg.sum(mg.softmax_cross_entropy(h, labels))

    return mg.grad(above)(h)


# %% Errors against the rate
NAMES = {
    "plain": ("plain backprop: da W", GREY),
    "none": ("da (W + ΔW)", YELLOW),
    "gn": ("… + [Jᵀ H J (ΔW h + Δb)] W: UBP, mode gn", BLUE),
    "hessian": ("… with the exact ∂²ℓ/∂a²: mode hessian", ORANGE),
}


def errors(layer, rates, device="cpu"):
    """{mode: relative error of the signal that `layer` sends, for every rate}."""
    params = net.init(rng=3, dtype="float64", device=device)
    found = {}
    for mode in NAMES:
        found[mode] = []
        for lr in rates:
            sent, delta = signals(params, lr, mode)
            true = truth(params, delta, layer)
            found[mode].append(float(mg.norm(sent[layer] - true) / mg.norm(true)))
    return found


@slides.slide
def main(quick, clock, device):
    rates = 2.0 ** -np.arange(0, 12, 3 if quick else 1)
    figure = slides.figure(
        "Updated backpropagation sends the signal that the moved layers would send",
        "Against ∂ℓ/∂h of the network whose layers above have really moved; the order is the slope at small rates",
    )
    panels = figure.subplots(1, 2, sharey=True)
    layers = (("3", "output layer"), ("1", "second layer from below"))
    for panel, (layer, title) in clock.within(zip(panels, layers), "layers"):
        found = errors(layer, rates, device)
        for mode, (label, colour) in NAMES.items():
            slope = np.log(found[mode][-2] / found[mode][-1]) / np.log(rates[-2] / rates[-1])
            wide = {"lw": 6, "alpha": 0.5} if mode == "gn" else {}  # in the left panel another line lies on it
            panel.loglog(rates, found[mode], "o-", color=colour, ms=4, **wide, label=f"{label}  (order {slope:.2f})")
        panel.set(xlabel="rate λ", ylim=(1e-12, 1), title=f"Sent by the {title}")
        panel.legend(loc="lower right")
    panels[0].set_ylabel("relative error of the signal ∂ℓ/∂h")
    return figure


if __name__ == "__main__":
    main()
