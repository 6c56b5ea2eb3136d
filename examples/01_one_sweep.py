"""One sweep through a network, in numbers: forward leaves h and a, backward ∂ℓ/∂a, and each gradient is their product
[T-2.1.2, T-fig 2.1].

Black: the forward pass, a = W h + b, h = tanh(a). Orange: the signal of every example goes down, ∂ℓ/∂h = Wᵀ ∂ℓ/∂a,
∂ℓ/∂a = h′(a) ∂ℓ/∂h. Green: the gradient of a layer, ∇W = mean (∂ℓ/∂a) hᵀ. J_a is the Jacobian of the outputs in a;
Jᵀ ∂ℓ/∂z is the signal again. A row is a digit: where the network is right, hardly anything is sent down.
"""

# %%
import numpy as np
import slides
from matplotlib.patches import FancyArrowPatch
from slides import GREEN, GREY, INK, ORANGE

import minigrad as mg
import optim
from minigrad import backend, losses, nn

SHOWN = [0, 2, 3, 4, 6, 7]  # the mini-batch: some digits that the network has learnt, some that it has not
data = mg.data.digits8()
x, y = data.train[0].astype("float64"), data.train[1]
net = nn.mlp([64, 16, 12, 10], hidden="tanh")


# %% A network that is half trained, so that some digits are right and some are wrong
def trained(updates, device="cpu"):
    params, method = net.init(rng=0, dtype="float64", device=device), optim.Adam(0.01)
    state, batches = method.init(params), mg.data.batches(*(backend.asarray(a, device) for a in (x, y)), 100, rng=0)
    for t in range(updates):
        method.step(mg.Objective(net, losses.softmax_cross_entropy, params, *batches.at(t)), state)
    return params


# %% One sweep: everything that the picture shows
def sweep(params):
    """The losses (N,), per layer from below the pictures by name, and how exact the two identities are."""
    shown = (backend.like(a[SHOWN], params.vector) for a in (x, y))
    f = mg.Objective(net, losses.softmax_cross_entropy, params, *shown)
    layers, off, dz = [], 0.0, f.view().gradient()
    for site in (walk := f.sweep()):
        dW, _ = site.gradient()
        off = max(off, float(abs(mg.einsum("cno,nc->no", site.J, dz) - site.da).max()))  # J_aᵀ ∂ℓ/∂z = ∂ℓ/∂a
        found = {"h": site.h, "a": site.a, "da": site.da, "dh": site.da @ site.W, "J": site.J, "dW": dW}
        layers.insert(0, {name: backend.to_host(array) for name, array in found.items()})
    return backend.to_host(f.view().value()), layers, off, float(abs(walk.delta - f.grad).max())


# %% The drawing: places in inches on a slide of 12.8 × 7.2
UNIT, ROW, GAP, TOP, MIDDLE, LOW = 0.094, 0.27, 0.72, 4.3, 2.33, 0.3
TALL = ROW * len(SHOWN)


def place(figure, left, bottom, width, height):
    return slides.bare(figure.add_axes([left / 12.8, bottom / 7.2, width / 12.8, height / 7.2]))


def show(figure, values, left, bottom, title, colour, width, height=TALL):
    """A matrix as a picture: red above zero, blue below, as strong as its own largest number, which is named."""
    panel, top = place(figure, left, bottom, width, height), np.abs(values).max()
    panel.imshow(values, cmap="RdBu_r", vmin=-top, vmax=top, aspect="auto", interpolation="nearest")
    panel.set_title(title, color=colour, fontsize=14, pad=3)
    panel.text(1, -0.03, f"±{top:.2g}", transform=panel.transAxes, ha="right", va="top", fontsize=10, color=GREY)


def step(figure, left, bottom, colour, label="", back=False, fall=0.0):
    """An arrow across the gap that begins at `left`, beside the middle of a picture; it ends lower by `fall`."""
    y = bottom + TALL / 2
    ends = [((left + 0.08) / 12.8, y / 7.2), ((left + GAP - 0.08) / 12.8, (y - fall) / 7.2)]
    style = {"arrowstyle": "<|-" if back else "-|>", "mutation_scale": 18, "shrinkA": 0, "shrinkB": 0}
    figure.add_artist(FancyArrowPatch(*ends, transform=figure.transFigure, color=colour, lw=2.2, **style))
    figure.text((left + GAP / 2) / 12.8, y / 7.2 + 0.012, label, ha="center", color=colour)


@slides.slide
def main(quick, clock, device):
    values, layers, off, gradient_off = sweep(trained(100, device))
    worst = int(values.argmax())
    figure = slides.figure(
        "Forward leaves h and a, backward ∂ℓ/∂a; each gradient is their product",
        f"64-16-12-10, tanh; a row for each of {len(SHOWN)} digits; J = ∂z/∂a of the one with the largest ℓ.\n"
        f"Largest deviations: mean (∂ℓ/∂a) hᵀ from ∇R {gradient_off:.0e}, Jᵀ ∂ℓ/∂z from ∂ℓ/∂a {off:.0e}",
    )
    figure.set_layout_engine("none")  # the places are given
    place(figure, 0.4, TOP, ROW, TALL).imshow(np.sqrt(x[SHOWN]).reshape(-1, 8), cmap="Greys", aspect="auto")
    figure.text((0.4 + ROW / 2) / 12.8, (TOP + TALL + 0.07) / 7.2, "x", ha="center", fontsize=14)
    right = 0.4 + ROW
    for k, layer in enumerate(layers, 1):
        a, da, h, dh, W = (f"{name}{'₀₁₂₃'[k]}" for name in ("a", "∂ℓ/∂a", "h", "∂ℓ/∂h", "W"))
        last, left, wide = k == len(layers), right + GAP, UNIT * layer["a"].shape[1]
        step(figure, right, TOP, INK, W)
        show(figure, layer["a"], left, TOP, f"{a} = z" if last else a, INK, wide)
        show(figure, layer["da"], left, MIDDLE, "∂ℓ/∂z" if last else da, ORANGE, wide)
        show(figure, layer["J"][:, worst], left, LOW, "J = I" if last else f"J of {a}", INK, wide, 1.3)
        right = left + wide
        show(figure, layer["dW"], right + GAP, LOW, f"∇{W}", GREEN, 1.0 if last else wide, 1.3)
        step(figure, right, MIDDLE - TALL / 2 + 0.3, GREEN, fall=1.6)
        if last:
            break
        step(figure, right, TOP, INK, "tanh")
        step(figure, right, MIDDLE, ORANGE, "tanh′", back=True)
        left, right = right + GAP, right + GAP + wide
        show(figure, layers[k]["h"], left, TOP, h, INK, wide)
        show(figure, layers[k]["dh"], left, MIDDLE, dh, ORANGE, wide)
        step(figure, right, MIDDLE, ORANGE, f"W{'₀₁₂₃'[k + 1]}ᵀ", back=True)
    bars = place(figure, right + GAP, TOP, 1.0, TALL)
    bars.barh(range(len(SHOWN)), values, color=INK, height=0.7)
    bars.set(ylim=(len(SHOWN) - 0.5, -0.5), title="ℓ")
    step(figure, right, TOP, INK)
    return figure


if __name__ == "__main__":
    main()
