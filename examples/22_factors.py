"""K-FAC's factors and the block they stand for: kron(G, A) is close to it where G does not depend on h [T-6.4.1].

The Fisher block of a softmax layer is F = E[H ⊗ h hᵀ] with H = diag(p) − ppᵀ. For 784 pixels and 10 classes it has
61 million entries; A = E[h hᵀ] and G = E[H] have 614,756 together. kron(G, A) drops the dependence of H on h: exact
for one example, near at random weights, where all p are alike, farther once the layer tells the classes apart.
Structures of a whole network lose in this order: blocks, EKFAC's rescaled eigenvectors, the Kronecker product, and
last the diagonal.
"""

# %%
import numpy as np
import slides
from slides import BLUE, GREEN, GREY, ORANGE

import minigrad as mg
import optim
from minigrad import losses, nn
from optim import curvature
from optim.factors import kronecker_factors

LAYER = nn.mlp([784, 10])
DEEP = nn.mlp([64, 12, 12, 10], hidden="tanh")
PIXELS = [28 * row + column for row in (9, 14, 19) for column in range(6, 23, 2)]  # three rows of the image
STRUCTURES = {"block": GREEN, "ekfac": BLUE, "kronecker": ORANGE, "diagonal": GREY}
NAMES = ("block", "EKFAC", "Kronecker", "diagonal")


def trained(net, data, updates, n):
    """The objective on n examples, after some updates of Adam on the training part."""
    x, y = data.train[0].astype("float64"), data.train[1]
    params, method = net.init(rng=0, dtype="float64"), optim.Adam(0.003)
    state, batches = method.init(params), mg.data.batches(x, y, 200, rng=0)
    for t in range(updates):
        method.step(mg.Objective(net, losses.softmax_cross_entropy, params, *batches.at(t)), state)
    return mg.Objective(net, losses.softmax_cross_entropy, params, x[:n], y[:n])


# %% The 784 × 10 layer: factors, a part of the block, and the error over all 61 million entries
def factors(f):
    """A (784, 784), G (10, 10), h (N, 784), H (N, 10, 10)."""
    (A, G), s = kronecker_factors(f, "fisher", joint=False)["0"], f.signals("fisher")["0"]
    return A, G, f.args[0], np.einsum("kno,knp->nop", s, s)


def part(h, H, pixels):
    """E[H ⊗ h hᵀ] for some pixels and all classes, class by class."""
    rows, n = h[:, pixels], len(h)
    block = np.stack([np.stack([(rows.T * H[:, o, p]) @ rows for p in range(10)]) for o in range(10)]) / n
    return block.transpose(0, 2, 1, 3).reshape(10 * len(pixels), -1)


def whole_error(A, G, h, H):
    """‖F − kron(G, A)‖ / ‖F‖ without F: the scalar products of Kronecker products are products of scalar products."""
    n = len(h)
    flat = H.reshape(n, -1)
    square = np.sum((h @ h.T) ** 2 * (flat @ flat.T)) / n**2
    cross = np.sum(np.sum((h @ A) * h, 1) * (flat @ G.ravel())) / n
    return np.sqrt((square - 2 * cross + np.sum(A * A) * np.sum(G * G)) / square)


# %% A whole network: relative errors by structure
def structure_errors(f, structures=tuple(STRUCTURES)):
    """{structure: ‖F_structure − F‖ / ‖F‖}."""
    true = curvature.matrix(f, "fisher", "dense").dense()
    gap = lambda name: np.linalg.norm(curvature.matrix(f, "fisher", name).dense() - true)  # noqa: E731
    return {name: gap(name) / np.linalg.norm(true) for name in structures}


# %% Pictures
def picture(panel, matrix, top, title, xlabel):
    panel.imshow(np.sign(matrix) * np.sqrt(np.abs(matrix) / top), cmap="RdBu_r", vmin=-1, vmax=1)
    slides.bare(panel, xlabel=xlabel, title=title)
    panel.spines[["top", "right"]].set_visible(True)


def draw_bars(panel, found):
    for place, (name, colour) in enumerate(STRUCTURES.items()):
        panel.barh(place, found[name], color=colour, height=0.6)
        panel.text(found[name] + 0.01, place, f"{100 * found[name]:.0f} %", va="center", color=colour)
    panel.set_yticks(range(len(found)), NAMES, fontsize=13)
    panel.set(xlim=(0, 1.15 * max(found.values())), xticks=[])
    panel.set_title("‖F − structure‖ ÷ ‖F‖ of all of 64-12-12-10")
    panel.invert_yaxis()
    panel.grid(axis="y", visible=False)


@slides.slide
def main(quick, clock):
    n, updates = (400, 40) if quick else (3000, 300)
    fresh, after = (trained(LAYER, mg.data.digits(), t, n) for t in (0, updates))
    A, G, h, H = factors(after)
    error, before = whole_error(A, G, h, H), whole_error(*factors(fresh))
    true, near = part(h, H, PIXELS), np.kron(G, A[np.ix_(PIXELS, PIXELS)])
    figure = slides.figure(
        f"kron(G, A) misses {100 * error:.0f} % of a trained layer's Fisher",
        f"Softmax layer 784×10 after {updates} updates; {n:,} digits. At random weights {100 * before:.0f} %. "
        "Colours: signed square roots",
    )
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.55, 1))
    top, label = np.abs(true).max(), f"10 classes × {len(PIXELS)} of {len(A)} pixels"
    pictures = {"F = E[H ⊗ h hᵀ]": true, "kron(G, A)": near, "F − kron(G, A)": true - near}
    for panel, (title, matrix) in zip(upper.subplots(1, 3), pictures.items()):
        picture(panel, matrix, top, title, label)
    one, two, bars = lower.subplots(1, 3, width_ratios=(1, 1, 1.6))
    picture(one, A, np.abs(A).max(), "A = E[h hᵀ]", f"{len(A)} × {len(A)}")
    picture(two, G, np.abs(G).max(), "G = E[H]", f"{len(G)} × {len(G)}")
    draw_bars(bars, structure_errors(trained(DEEP, mg.data.digits8(), updates, 300 if quick else 1000)))
    return figure


if __name__ == "__main__":
    main()
