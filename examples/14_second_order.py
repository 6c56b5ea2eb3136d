"""Second-order methods win by far in iterations; in cost, those that take no products with the Hessian do [L, P].

A Newton step takes d products with the Hessian, a step of Hessian-free as many as its CG has iterations, BFGS and
L-BFGS about one gradient: they learn the curvature from gradients that they have anyway. The cost is what the
objective counted: a forward pass is 1, a backward pass 2, a product with a curvature 4, a gradient 3 (forward and
backward). Gradient descent and Nesterov, for scale, run at the best of their rates, Hessian-free at the best first λ.
"""

# %%
import numpy as np
import slides
from slides import BLUE, GREEN, GREY, ORANGE, PINK, YELLOW

import minigrad as mg
import optim
from minigrad import losses, nn
from optim.lab.functions import rosenbrock

GOAL = 1e-8  # R − R* that counts as solved
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
METHODS = {  # colour, and the methods to choose from
    "gradient descent": (GREY, [optim.GD(lr) for lr in RATES]),
    "Nesterov": (YELLOW, [optim.Nesterov(lr, mu) for mu in (0.9, 0.98) for lr in RATES]),
    "Hessian-free": (GREEN, [optim.HessianFree(10.0**-k, curvature="hessian") for k in range(4)]),
    "BFGS": (PINK, [optim.BFGS()]),
    "L-BFGS": (BLUE, [optim.LBFGS()]),
    "Newton": (ORANGE, [optim.Newton(indefinite="abs")]),
}


# %% Two problems: a bent valley in ten dimensions, and logistic regression on 8 × 8 digits
def bent_valley():
    return rosenbrock.objective(np.zeros(10), dim=10)


def digits(examples=1000):
    """Is the digit 5 or more? Pixels to one logit, l2 = 10⁻³."""
    x, y = (part[:examples].astype(float) for part in mg.data.digits8().train)
    net = nn.mlp([64, 1])
    return mg.Objective(net, losses.sigmoid_cross_entropy, net.init(0, dtype="float64"), x, y[:, None] >= 5.0, l2=1e-3)


LOGISTIC = "Logistic regression on digits, d = 65"
PROBLEMS = {"Rosenbrock, d = 10": bent_valley, LOGISTIC: digits}


# %% Runs, and what they cost in gradients
def gradients(cost):
    return (cost.forwards + 2 * cost.backwards + 4 * cost.products) / 3


def run(method, make, most):
    """R (n,) and the cost (n,) at the points 0, 1, …, until `most` gradients are spent or the method stops."""
    f = make()
    state, seen = method.init(f.params), [(float(f.value), gradients(f.cost))]
    with np.errstate(all="ignore"):  # a rate that is too large overflows
        while max(seen[-1][1], len(seen)) < most and np.isfinite(seen[-1][0]):  # a step at the minimum is free
            try:
                method.step(f, state)
            except optim.Stopped:  # at the minimum, to rounding
                break
            seen.append((float(f.value), gradients(f.cost)))
    return np.array(seen).T


def solved(gaps):
    """The iteration from which on R − R* ≤ GOAL; infinity if there is none."""
    last = np.flatnonzero(~(gaps <= GOAL))[-1]
    return last + 1 if last + 1 < len(gaps) else np.inf


def race(make, most, every=1):
    """{method: (R − R*, cost)} at the best of its settings; R* is the lowest value of all."""
    runs = {name: [run(method, make, most) for method in choices[::every]] for name, (_, choices) in METHODS.items()}
    lowest = min(np.nanmin(values) for tried in runs.values() for values, _ in tried)
    best = {name: min(tried, key=lambda r: (solved(r[0] - lowest), r[0][-1])) for name, tried in runs.items()}
    return {name: (values - lowest, costs) for name, (values, costs) in best.items()}


def needed(runs):
    """{method: (iterations, gradients)} of those that come to GOAL."""
    return {name: (k, costs[k]) for name, (gaps, costs) in runs.items() if (k := solved(gaps)) < np.inf}


# %% A row of panels a problem, with a table that is the legend
def draw(panels, name, runs, most):
    for method, (gaps, costs) in runs.items():
        for panel, x in zip(panels, (np.arange(len(gaps)), costs)):
            panel.loglog(x + 1, np.maximum(gaps, 1e-30), color=METHODS[method][0])
    for panel, label in zip(panels, ("1 + iterations", "1 + cost in gradients")):
        panel.axhline(GOAL, color=GREY, lw=1.2, ls=(0, (4, 3)))
        panel.set(xlabel=label, xlim=(1, most), ylim=(1e-14, 30), yticks=10.0 ** np.arange(-12, 1, 4))
    panels[0].set(ylabel="R − R*", title=name)
    panels[2].axis("off")
    table = [("", GREY, ("iterations", "cost"))]
    for method in reversed(METHODS):
        found = needed(runs).get(method)
        table.append((method, METHODS[method][0], [f"{number:.0f}" for number in found] if found else ("–", "–")))
    for k, (method, colour, numbers) in enumerate(table):
        for x, text in zip((0.47, 0.76, 1.05), (method, *numbers)):
            panels[2].text(x, 1 - 0.145 * k, text, color=colour, va="top", ha="right", fontsize=13)


@slides.slide
def main(quick, clock):
    most = 500 if quick else 1000
    races = {name: race(make, most, every=3 if quick else 1) for name, make in PROBLEMS.items()}
    ends = needed(races[LOGISTIC])
    numbers = (*ends["Newton"], *ends["L-BFGS"])
    figure = slides.figure(
        "Newton takes {:.0f} iterations that cost {:.0f} gradients; L-BFGS {:.0f} that cost {:.0f}".format(*numbers),
        "To R − R* = 10⁻⁸ (dashed) on logistic regression.  A forward pass costs ⅓ gradient, a product 4/3",
    )
    for panels, (name, runs) in zip(figure.subplots(2, 3, width_ratios=(1, 1, 0.72)), races.items()):
        draw(panels, name, runs, most)
    return figure


if __name__ == "__main__":
    main()
