"""The gradient of a layer is an outer product for one example, and a mean of N of them for a batch [T-3.3.1, B].

A layer a = h Wᵀ + b reads h and gets ∂ℓ/∂a back. For one example dW = ∂ℓ/∂a hᵀ: every row is h, scaled, and
flattened row by row it is the Kronecker product ∂ℓ/∂a ⊗ h. A batch averages N such matrices, so that the rank grows by
one with every example until the layer is full; the values are small where the C − 1 free numbers of ∂ℓ/∂z, a softmax's
sum to 0, do not reach. Whoever has h and ∂ℓ/∂a has the gradients of all examples.
"""

# %%
import numpy as np
import slides
from slides import BLUE, GREY, INK, ORANGE, SKY

import minigrad as mg
from minigrad import losses, nn

data = mg.data.digits8()
x, y = data.train[0].astype("float64"), data.train[1]
net = nn.mlp([64, 24, 10], hidden="tanh")
params = net.init(rng=0, dtype="float64")


# %% h, ∂ℓ/∂a and dW of the first layer, for the first N examples
def layer(n):
    """(h (N, 64), ∂ℓ/∂a (N, 24), dW (24, 64))."""
    f = mg.Objective(net, losses.softmax_cross_entropy, params, x[:n], y[:n])
    *_, site = f.sweep()
    return site.h, site.da, site.gradient()[0]


def kronecker_error(n):
    """‖dW − mean of ∂ℓ/∂a ⊗ h‖ / ‖dW‖, the products formed one by one."""
    h, da, dW = layer(n)
    mean = sum(np.kron(s, row) for s, row in zip(da, h)) / n
    return np.linalg.norm(dW.ravel() - mean) / np.linalg.norm(dW)


def singular_values(n):
    return np.linalg.svd(layer(n)[2], compute_uv=False)


def rank(values):
    return int(np.sum(values > 1e-10 * values[0]))


def directions_for(share, values):
    """How many singular values hold this share of ‖dW‖²."""
    held = np.cumsum(values**2) / np.sum(values**2)
    return int(np.searchsorted(held, share)) + 1


# %% Pictures
def picture(panel, matrix, title="", title_colour=INK):
    top = np.abs(matrix).max()
    panel.imshow(matrix, cmap="RdBu_r", vmin=-top, vmax=top, aspect="auto", interpolation="nearest")
    slides.bare(panel)
    panel.set_title(title, color=title_colour)
    panel.spines[["top", "right"]].set_visible(True)


def draw_one(figure):
    """h on top, ∂ℓ/∂a on the left, their product between."""
    h, da, dW = layer(1)
    panels = figure.subplots(2, 2, width_ratios=(1, 10), height_ratios=(1, 8), squeeze=False)
    panels[0, 0].imshow(h.reshape(8, 8), cmap="gray_r")
    slides.bare(panels[0, 0]).spines[:].set_visible(False)
    picture(panels[0, 1], h, "h, what the layer reads (64 pixels)", BLUE)
    picture(panels[1, 0], da.T)
    panels[1, 0].set_ylabel("∂ℓ/∂a (24 units)", color=ORANGE, fontsize=14)
    picture(panels[1, 1], dW, "dW = ∂ℓ/∂a hᵀ: every row is h, scaled")


def draw_many(figure, sizes):
    for panel, n in zip(figure.subplots(len(sizes), 1), sizes):
        picture(panel, layer(n)[2], f"mean of {n:,}: rank {rank(singular_values(n))}")


def draw_spectra(panel, sizes):
    for n, colour in zip(sizes, [ORANGE, *[SKY] * (len(sizes) - 2), BLUE]):
        values = singular_values(n)
        values = values[: rank(values)] / values[0]
        panel.semilogy(range(1, len(values) + 1), values, "o-", color=colour, ms=6, lw=1.6)
        offset, ha, va = ((6, 6), "left", "bottom") if n == 1 else ((-4, -9), "right", "top")
        last = len(values), values[-1]
        panel.annotate(f"N = {n:,}", last, offset, textcoords="offset points", color=colour, ha=ha, va=va)
    panel.axvline(24, color=GREY, lw=1, ls=(0, (4, 3)))
    panel.text(23.6, 1.2, "full rank", color=GREY, ha="right", va="bottom")
    panel.set(xlabel="number", title="Singular values of dW ÷ the first", xlim=(-1.5, 26), ylim=(2e-4, 2))


@slides.slide
def main(quick, clock):
    sizes = (1, 4, 16, 1000) if quick else (1, 4, 8, 16, 3000)
    values = singular_values(sizes[-1])
    figure = slides.figure(
        f"One example: rank {rank(singular_values(1))}. {sizes[-1]:,} examples: rank {rank(values)}, "
        f"but {directions_for(0.9, values)} directions hold 90 %",
        f"First layer of 64-24-10 on 8×8 digits. mean(∂ℓ/∂a ⊗ h) and backprop's dW differ by {kronecker_error(64):.0e}",
    )
    one, many, spectra = figure.subfigures(1, 3, width_ratios=(1.25, 0.9, 1.05))
    draw_one(one)
    draw_many(many, [2, 16, sizes[-1]])
    draw_spectra(spectra.subplots(), sizes)
    return figure


if __name__ == "__main__":
    main()
