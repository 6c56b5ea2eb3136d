"""Random search trains a network too, and backprop has the same result before its first step is over [B].

[B]'s comparison on MNIST digits: 784-512-512-10 (tanh, 670,000 weights), batches of 128, and the antithetic search with
M = 1,600 and 5,000 random directions a step against backprop with SGD. Directions are of rank one, the cheapest kind.
The mean of M of them has a cosine of about √(M/d) with the gradient, so a rate must be small, and a step takes 2M
forward passes where backprop takes one and a backward pass (counted as 2).

Every search shows what it reaches in its share of the budget. The seconds are in the picture, so it differs from run to
run. Dashed is a longer run on one core, from records/, written by
python -c "import runpy; runpy.run_path('12_random_search.py')['record'](140)".
"""

# %%
import json
import time
from pathlib import Path

import numpy as np
import slides
from slides import BLUE, INK, ORANGE

import minigrad as mg
import optim
from minigrad import losses, nn

RECORD = Path(__file__).parent / "records" / "12_random_search.json"
NET = nn.mlp([784, 512, 512, 10], hidden="tanh")
BATCH, MEASURED = 128, 1000  # examples of a step, and those that the loss is measured on
RATES = {1600: 0.1, 5000: 0.15, 16: 0.002, 50: 0.005}  # for M; the last two with --quick


def search(M):
    return optim.ES(RATES[M], pairs=M, sigma=0.01, directions="rank1")


def backprop():
    return optim.SGD(0.3)


# %% Training until the time is spent
def objective(params, x, y):
    return mg.Objective(NET, losses.softmax_cross_entropy, params, x, y)


def train(method, seconds, clock=time.perf_counter):
    """[[seconds, forward passes, training loss], …], a row a step; a step that would end too late is not begun."""
    x, y = mg.data.digits().train
    params, rng = NET.init(0, dtype="float32"), np.random.default_rng(0)
    state, spent, passes, last, rows = method.init(params), 0.0, 0, 0.0, []
    while True:
        loss = float(objective(params, x[:MEASURED], y[:MEASURED]).value)
        rows.append([round(spent, 4), passes, round(loss, 4)])
        if len(rows) > 1 and spent + last > seconds:
            return rows
        chosen = rng.choice(len(x), BATCH, replace=False)
        f, before = objective(params, x[chosen], y[chosen]), clock()
        method.step(f, state)
        last = clock() - before
        spent, passes = spent + last, passes + f.cost.forwards + 2 * f.cost.backwards


def record(seconds):
    """Write a longer run of both searches, timed on one core."""
    runs = {f"{M}": train(search(M), seconds, time.process_time) for M in (1600, 5000)}
    RECORD.write_text(json.dumps(runs) + "\n")


# %% The loss against seconds and against forward passes
def catches_up(rows, loss):
    """Seconds until the loss is as low, infinity if it never is."""
    return next((row[0] for row in rows if row[2] <= loss), np.inf)


def draw(panels, rows, colour, style, width=2.4):
    for k, panel in enumerate(panels):
        panel.loglog([row[k] for row in rows[1:]], [row[2] for row in rows[1:]], style, color=colour, ms=6, lw=width)


def name(panels, rows, text, colour):
    """Write it at the end of the curve."""
    for k, panel in enumerate(panels):
        panel.text(rows[-1][k] * 1.3, rows[-1][2], text, color=colour, va="center")


@slides.slide
def main(quick, clock):
    sizes, seconds = ((16, 50), min(2.0, clock.seconds)) if quick else ((1600, 5000), clock.seconds)
    kept = json.loads(RECORD.read_text())
    gradient = train(backprop(), 0.04 * seconds)
    searches = {M: train(search(M), 0.44 * seconds) for M in clock.within(sizes, "searches")}
    longest = {M: max(rows, kept.get(f"{M}", rows), key=len) for M, rows in searches.items()}
    spent, _, lowest = min((row for rows in longest.values() for row in rows), key=lambda row: row[2])
    figure = slides.figure(
        f"What random search reaches in {spent:.0f} s, backprop reaches in {catches_up(gradient, lowest):.2f} s",
        "Digits, 784-512-512-10, batches of 128; M random directions a step.  "
        + ("" if quick else f"Dashed: a longer run, recorded on one core; solid: {seconds:g} s, now"),
    )
    panels = figure.subplots(1, 2, sharey=True)
    draw(panels, gradient, INK, "-", 1.4)
    name(panels, gradient, "backprop", INK)
    for (M, rows), colour in zip(searches.items(), (BLUE, ORANGE)):
        draw(panels, longest[M], colour, "--", 1.6)
        draw(panels, rows, colour, "o-")
        name(panels, longest[M], f"M = {M:,}", colour)
    panels[0].set_yticks(ticks := [0.3, 0.5, 1.0, 2.0], ticks)
    panels[0].minorticks_off()
    panels[0].set(xlabel="seconds", ylabel="training loss", xlim=(None, 25 * longest[sizes[0]][-1][0]))
    panels[1].set(xlabel="forward passes (a backward pass counts as 2)", xlim=(None, 25 * longest[sizes[0]][-1][1]))
    return figure


if __name__ == "__main__":
    main()
