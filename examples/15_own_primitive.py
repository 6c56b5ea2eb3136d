"""Your own primitive in ten lines: declare its derivative once, check it, differentiate it twice, train with it.

minigrad has no error function. One line declares it, erf with its slope 2/√π exp(−x²) written in minigrad's own
operations, so that the slope can be differentiated too; GELU, x Φ(x), is then an ordinary function. `mg.check` compares
every mode at first and second order with differences of the function, and a slope that is wrong by 0.1 % fails.
"""

# %%
import math
from pathlib import Path

import click
import numpy as np
import slides
from scipy import special
from slides import BLUE, GREEN, GREY, INK, ORANGE

import minigrad as mg
import optim
from minigrad import backend, losses, nn

# %% The primitive, the function and the layer
SLOPE = 2 / math.sqrt(math.pi)  # a Python number, so that float32 stays float32
erf = mg.elementwise(special.erf, lambda y, x: SLOPE * mg.exp(-(x**2)), name="erf")


def gelu(x):
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


class GELU(nn.Layer):
    def __call__(self, params, h, train=False):
        return gelu(h)


# %% The check, of the right slope and of a wrong one
def verdict(fn):
    """What the gradient checker says."""
    try:
        mg.check(fn, np.linspace(-3, 3, 13))
    except mg.CheckFailed as failed:
        return str(failed)
    return "passed at first and second order"


wrong = mg.elementwise(special.erf, lambda y, x: 1.001 * SLOPE * mg.exp(-(x**2)), name="erf")


# %% A small network with it
def train(activation, steps, device="cpu"):
    """Training loss at each step, 8×8 digits, Adam; on a GPU the losses are read when all steps are made."""
    x, y = (backend.asarray(part, device) for part in mg.data.digits8().train)
    net = nn.Sequential(nn.Dense(64, 32), activation(), nn.Dense(32, 32), activation(), nn.Dense(32, 10))
    params, method = net.init(rng=0, device=device, alpha=4.0), optim.Adam(0.003)
    state, batches = method.init(params), mg.data.batches(x, mg.one_hot(y, 10, x), 100, rng=0)
    seen = []
    for t in range(steps):
        f = mg.Objective(net, losses.softmax_cross_entropy, params, *batches.at(t))
        seen.append(method.step(f, state).loss)
    return np.array([float(loss) for loss in seen])


# %% The code, the curves, the training
def draw_curves(panel):
    grid, curve = np.linspace(-4, 4, 401), gelu
    looks = (("GELU", INK, (1.1, 1.55, "right")), ("mg.grad(GELU)", BLUE, (4, 1.1, "right")))
    for name, colour, (x, y, side) in (*looks, ("mg.grad of that", ORANGE, (4, 0.06, "right"))):
        panel.plot(grid, [curve(t) for t in grid], color=colour)
        panel.text(x, y, name, color=colour, ha=side)
        curve = mg.grad(curve)
    panel.set(title="Every order follows", ylim=(-0.3, 2), xlabel="x")


@slides.slide
def main(quick, clock, device):
    said = {"slope right": (verdict(erf), GREEN), "slope 0.1 % off": (verdict(wrong), ORANGE)}
    figure = slides.figure("One line declares a derivative, and a slope that is 0.1 % off is caught")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.25))
    code = (
        Path(__file__)
        .read_text(encoding="utf-8")
        .split("\n# %% ")[1]
        .split("\n", 1)[1]
        .strip()
        .replace("\n\n\n", "\n\n")
    )
    above.text(0.02, 0.93, code, family="monospace", fontsize=12.5, va="top")
    for k, (name, (sentence, colour)) in enumerate(said.items()):
        click.echo(f"{name}: {sentence}")
        above.text(0.62, 0.66 - 0.28 * k, f"mg.check, {name}:", color=colour, va="top", fontweight="bold")
        above.text(
            0.62, 0.57 - 0.28 * k, sentence.replace(": ", ":\n").replace(", tol", ",\ntol"), color=colour, va="top"
        )
    left, right = below.subplots(1, 2)
    draw_curves(left)
    epochs = 10 if quick else 60
    for name, activation, colour in (("with ReLU", nn.ReLU, GREY), ("with GELU", GELU, INK)):
        losses_seen = train(activation, 36 * epochs, device).reshape(epochs, 36).mean(1)
        right.semilogy(range(1, epochs + 1), losses_seen, color=colour)
        right.text(epochs * 1.02, losses_seen[-1], name, color=colour, va="top" if activation is nn.ReLU else "bottom")
    right.set(title="Training loss, 8×8 digits, 64-32-32-10", xlabel="epochs", ylim=0.06, xlim=(0, 1.25 * epochs))
    return figure


if __name__ == "__main__":
    main()
