"""A saddle attracts Newton's method; with |H| in place of H it repels [P, L; Dauphin et al. 2014].

Newton's step −H⁻¹∇R makes the gradient zero, whatever the kind of point where it is: it goes uphill along every
eigenvector of negative curvature. |H| keeps the eigenvectors and takes the moduli of the eigenvalues, so that every
step goes downhill, and as far as the curvature allows. On x² − y² both curvatures are as large, and −|H|⁻¹∇R points
where −∇R does. The Hessian of x²y + xy³ has det H = −4x² − 9y⁴: it is indefinite everywhere but in the saddle, where
it vanishes. There the gradient fades, gradient descent all but stops, and |H| goes on at its pace.
"""

# %%
import numpy as np
import slides
from slides import BLUE, GREEN, INK, ORANGE

import optim
from optim.lab.functions import cubic, saddle

STARTS = np.array([(0.9 * np.cos(t), 0.9 * np.sin(t)) for t in np.pi / 8 + np.pi / 4 * np.arange(8)])
NEAR, FAR = 0.01, 1.4  # distances at which a path has ended in the saddle, and has left it
NEARBY = 0.1
STEP = 0.2
METHODS = {
    "Newton, −H⁻¹∇R": (optim.Newton(STEP, indefinite="keep", line_search="none"), ORANGE),
    "|H|-Newton, −|H|⁻¹∇R": (optim.Newton(STEP, indefinite="abs", line_search="none"), BLUE),
    "Gradient descent, −∇R": (optim.GD(STEP / 2), GREEN),  # the step of |H|-Newton on x² − y²
}


# %% Paths, from where they start until they end in the saddle or leave it
def walk(function, method, start, steps=100):
    """The points (n, 2), n ≤ steps + 1."""
    f = function.objective(start)
    state, path = method.init(f.params), [np.array(start)]
    while len(path) <= steps and NEAR < np.linalg.norm(path[-1]) < FAR:
        method.step(f, state)
        path.append(f.params.vector.copy())
    return np.array(path)


def ends(function, method, starts=STARTS):
    """How many paths end in the saddle, and how many leave it."""
    distances = [np.linalg.norm(walk(function, method, start)[-1]) for start in starts]
    return sum(r <= NEAR for r in distances), sum(r >= FAR for r in distances)


def steps_to_leave(function, method, distance, most):
    """Steps from (distance, distance) until a path has left the saddle."""
    return len(walk(function, method, (distance, distance), most)) - 1


# %% The field of steps
def field(function, method, x, y):
    """Δθ (2, ny, nx) at the points of a grid."""
    f = function.objective()
    state = method.init(f.params)
    return np.moveaxis([[method.update(f.at(np.array([a, b])), state) for a in x] for b in y], -1, 0)


def draw(panel, title, method, colour, function, nodes):
    x, y = np.linspace(-2.2, 2.2, nodes), np.linspace(-1.4, 1.4, nodes)  # even: H = 0 in the saddle itself
    fine = np.linspace(-2.2, 2.2, 161), np.linspace(-1.4, 1.4, 101)
    R = function.at(np.array(np.meshgrid(*fine)))
    panel.contourf(*fine, R, levels=np.linspace(-4, 4, 17), cmap="Greys", alpha=0.3, extend="both")
    panel.streamplot(x, y, *field(function, method, x, y), color="#999999", linewidth=0.9, density=0.7)
    for start in STARTS:
        panel.plot(*walk(function, method, start).T, "o-", color=colour, ms=4, lw=1.8)
        panel.plot(*start, "o", color=INK, ms=5, zorder=4)
    panel.plot(0, 0, "*", color=INK, ms=15, mec="white", zorder=5)
    slides.bare(panel, aspect="equal", xlim=(-2.15, 2.15), ylim=(-1.38, 1.38))
    inside, outside = ends(function, method)
    panel.set_title(f"{title}{inside} of {len(STARTS)} end in the saddle, {outside} leave", color=colour)


@slides.slide
def main(quick, clock):
    newton, modulus, gd = (method for method, _ in METHODS.values())
    ended = sum(ends(function, newton)[0] for function in (saddle, cubic))
    left = sum(ends(function, modulus)[1] for function in (saddle, cubic))
    steps = [steps_to_leave(cubic, method, NEARBY, 20_000) for method in (modulus, gd)]
    figure = slides.figure(
        f"Newton ends in the saddle {ended} times of {2 * len(STARTS)}; with |H| it leaves {left} times",
        f"From ({NEARBY:g}, {NEARBY:g}) |H| takes {steps[0]} steps to leave the saddle of {cubic.formula}, "
        f"gradient descent {steps[1]:,}",
    )
    for row, function in zip(figure.subfigures(2, 1, height_ratios=(1.1, 1)), (saddle, cubic)):
        row.supylabel(f"R = {function.formula}", fontsize=15)
        for panel, (name, (method, colour)) in zip(row.subplots(1, 3), METHODS.items()):
            title = f"{name}\n" if function is saddle else ""
            draw(panel, title, method, colour, function, 10 if quick else 24)
    return figure


if __name__ == "__main__":
    main()
