"""How far each preconditioned step agrees with the exact natural gradient, along a training run [T-3.2, T-6.4, T-6.5].

At points of one run every method is asked for its step from the same examples, with the same damping λ. Agreement is
the cosine to the exact step −(F + λI)⁻¹∇; what it is worth is how far the loss falls when all steps are as long in the
metric of the Fisher, ½ ΔᵀFΔ = κ, which is the KL divergence that they cause. Exact blocks only lose what couples the
layers. Kronecker factors lose more, the empirical Fisher another thing, the centred and the plain gradient most.
"""

# %%
import numpy as np
import slides
from slides import BLUE, GREEN, GREY, INK, ORANGE, PINK, SKY, YELLOW

import minigrad as mg
import optim
from minigrad import losses, nn
from optim import quantities

x, y = mg.data.digits8().train
x = x.astype("float64")
net = nn.mlp([64, 12, 12, 10], hidden="tanh")
DAMPING, KL = 1e-2, 1e-2
EXACT = optim.GaussNewton(1.0, DAMPING)
METHODS = {
    "plain gradient": (optim.Gradient(1.0), GREY),
    "centred gradient": (optim.Centred(1.0), YELLOW),
    "diagonal": (optim.Diagonal(1.0, DAMPING), PINK),
    "ACP": (optim.ACP(1.0, DAMPING, alpha=1.0), GREEN),
    "empirical Fisher": (optim.GaussNewton(1.0, DAMPING, curvature="empirical"), INK),
    "K-FAC": (optim.KFAC(1.0, DAMPING, curvature="fisher", solve="exact"), ORANGE),
    "EKFAC": (optim.EKFAC(1.0, DAMPING, curvature="fisher"), SKY),
    "exact blocks": (optim.GaussNewton(1.0, DAMPING, "block"), BLUE),
}


# %% Points of a training run
def points(times, n):
    """The objective on n examples after so many updates, for every time."""
    params, method, found = net.init(rng=0, dtype="float64"), optim.Adam(0.01), []
    state, batches = method.init(params), mg.data.batches(x, y, 200, rng=0)
    for t in range(max(times) + 1):
        if t in times:
            here = params.at(params.vector.copy())
            found.append(mg.Objective(net, losses.softmax_cross_entropy, here, x[:n], y[:n]))
        method.step(mg.Objective(net, losses.softmax_cross_entropy, params, *batches.at(t)), state)
    return found


# %% A step's agreement, and its worth
def fall(f, delta, kl=KL):
    """How far the loss falls along delta, scaled to ½ ΔᵀFΔ = kl."""
    scaled = delta * np.sqrt(2 * kl / quantities.output_norm(f, delta))
    return float(f.value - f.at(f.params.vector + scaled).value)


def measure(fs):
    """Cosines, and falls divided by the exact step's: {method: (points,)} each."""
    cosines, falls = ({name: [] for name in METHODS} for _ in range(2))
    for f in fs:
        exact = EXACT.update(f, EXACT.init(f.params))
        best = fall(f, exact)
        for name, (method, _) in METHODS.items():
            delta = method.update(f, method.init(f.params))
            cosines[name].append(float(delta @ exact / np.linalg.norm(delta) / np.linalg.norm(exact)))
            falls[name].append(fall(f, delta) / best)
    return cosines, falls


# %% Pictures
def spread(values, apart):
    """Heights for labels: the values, pushed down where they are closer than `apart`."""
    heights, last = {}, np.inf
    for k in np.argsort(values)[::-1]:
        heights[k] = last = min(values[k], last - apart)
    return heights


def draw_cosines(panel, times, cosines):
    end, heights = times[-1], spread([found[-1] for found in cosines.values()], 0.055)
    for k, (name, found) in enumerate(cosines.items()):
        colour, dashes = METHODS[name][1], (2, 1) if name == "EKFAC" else (None, None)
        panel.semilogx(times, found, "o-", ms=5, color=colour, lw=3, dashes=dashes)
        panel.plot([end, end * 1.25], [found[-1], heights[k]], color=colour, lw=1)
        panel.text(end * 1.35, heights[k], f"{name} {found[-1]:.2f}", color=colour, va="center")
    panel.set(xlim=(times[0], end * 40), ylim=(0, 1), xlabel="updates of Adam before", title="Cosine to the exact step")
    panel.set_xticks([t for t in (1, 10, 100, 1000) if t <= end])
    panel.minorticks_off()


def draw_falls(panel, falls):
    for place, (name, found) in enumerate(falls.items()):
        panel.barh(place, np.mean(found), color=METHODS[name][1], height=0.6)
        panel.text(np.mean(found) + 0.01, place, f"{np.mean(found):.2f}", va="center", color=METHODS[name][1])
    panel.axvline(1, color=GREY, lw=1.2, ls=(0, (4, 3)))
    panel.set_yticks(range(len(falls)), falls, fontsize=13)
    panel.grid(axis="y", visible=False)
    panel.set(xlim=(0, 1.1), title=f"Fall of the loss at KL = {KL:g}, exact = 1", xlabel="mean over the points")


@slides.slide
def main(quick, clock):
    times, n = ((1, 10, 100), 300) if quick else ((1, 3, 10, 30, 100, 300, 1000), 1000)
    cosines, falls = measure(clock.within(points(times, n), "points"))
    times = times[: len(falls["K-FAC"])]
    blocks, kfac, plain = (cosines[name][-1] for name in ("exact blocks", "K-FAC", "plain gradient"))
    figure = slides.figure(
        f"Cosine to the natural gradient: blocks {blocks:.2f}, K-FAC {kfac:.2f}, plain {plain:.2f}",
        f"After {times[-1]:,} updates; 8×8 digits, 64-12-12-10 tanh, N = {n:,}, every damping {DAMPING:g}",
    )
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    draw_cosines(left, times, cosines)
    draw_falls(right, falls)
    return figure


if __name__ == "__main__":
    main()
