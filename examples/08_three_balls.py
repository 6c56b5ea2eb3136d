"""Steepest descent is steepest in a ball: change the ball, and −∇ turns into −F⁻¹∇ or −P⁻¹∇ [B, P, L, T-3.2].

Minimise the linear model ∇ᵀΔ over a small ball around θ. The Euclidean ball ‖Δ‖² ≤ 2ε gives gradient descent, the
ball KL(θ ‖ θ + Δ) ≤ ε the natural gradient, and ΔᵀPΔ ≤ 2ε with the metric P = (mean of ∇∇ᵀ)^½ over a walk [B]
a preconditioned step. Here θ = (μ, σ) is a Gaussian that is fitted to data. Its KL balls are drawn exactly; they
shrink where σ is small, since there the same Δ changes the distribution more. Near θ they are the ellipses ½ΔᵀFΔ = ε.
"""

# %%
import numpy as np
import slides
from scipy.linalg import sqrtm
from slides import BLUE, GREEN, INK, ORANGE

import minigrad as mg

RADIUS = 0.08  # ε
CIRCLE = np.stack([np.cos(t := np.linspace(0, 2 * np.pi, 181)), np.sin(t)])
POINTS = np.array([(-2.0, 0.7), (0.0, 1.9), (2.1, 1.4), (1.7, 0.45), (-1.8, 1.75)])


# %% The family, the loss on data with mean 0 and variance ½, and the Fisher as the Hessian of the KL
def loss(theta):
    """−mean log p(x) up to a constant."""
    return mg.log(theta[1]) + (0.5 + theta[0] ** 2) / (2 * theta[1] ** 2)


def kl(theta, delta):
    """KL(N(μ, σ²) ‖ N(μ + Δ₁, (σ + Δ₂)²))."""
    wide = theta[1] + delta[1]
    return mg.log(wide / theta[1]) + (theta[1] ** 2 + delta[0] ** 2) / (2 * wide**2) - 0.5


def fisher(theta):
    return mg.hessian(lambda delta: kl(theta, delta))(np.zeros(2))


def adagrad_metric(start=(-2.0, 0.7), steps=60, lr=0.05):
    """((1/T) Σ ∇∇ᵀ)^½ over a walk of gradient descent [B]."""
    theta, total = np.array(start), np.zeros((2, 2))
    for _ in range(steps):
        g = mg.grad(loss)(theta)
        total += np.outer(g, g) / steps
        theta = theta - lr * g
    return sqrtm(total)


# %% The steepest step in the ball ΔᵀMΔ = 2ε, and the balls' boundaries
def steepest(theta, metric, radius=RADIUS):
    """argmin ∇ᵀΔ: −M⁻¹∇, as long as the ball allows."""
    g = mg.grad(loss)(theta)
    direction = -np.linalg.solve(metric, g)
    return direction * np.sqrt(2 * radius / (direction @ metric @ direction))


def ellipse(metric, radius=RADIUS):
    """Points (2, n) with ΔᵀMΔ = 2ε."""
    return CIRCLE * np.sqrt(2 * radius / np.sum(CIRCLE * (metric @ CIRCLE), 0))


def kl_ball(theta, radius=RADIUS):
    """Points (2, n) with KL(θ ‖ θ + Δ) = ε: bisection along each ray."""
    low, high = np.zeros(CIRCLE.shape[1]), np.full(CIRCLE.shape[1], 0.95 * theta[1])
    for _ in range(50):
        inside = kl(theta, CIRCLE * (middle := (low + high) / 2)) < radius
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return CIRCLE * low


def kl_error(theta, sizes):
    """|KL − ½ΔᵀFΔ| along one direction: it falls as ‖Δ‖³."""
    delta = np.array([[0.6], [0.8]]) * sizes
    return np.abs(kl(theta, delta) - np.sum(delta * (fisher(theta) @ delta), 0) / 2)


# %% One panel a ball
def draw(panel, title, metric, colour, ball=None):
    mu, sigma = np.meshgrid(np.linspace(-3, 3, 160), np.linspace(0.12, 2.6, 120))
    levels = loss((0.0, np.sqrt(0.5))) + np.geomspace(0.03, 40, 14)
    panel.contour(mu, sigma, loss((mu, sigma)), levels=levels, colors="#cccccc", linewidths=1)
    for theta in POINTS:
        M = metric(theta)
        panel.fill(*(theta[:, None] + (ball(theta) if ball else ellipse(M))), color=colour, alpha=0.3, lw=0)
        panel.plot(*(theta[:, None] + ellipse(M)), color=colour, lw=1.4)
        style = {"arrowstyle": "-|>", "color": colour, "lw": 2.4, "shrinkA": 0, "shrinkB": 0}
        panel.annotate("", theta + steepest(theta, M), theta, arrowprops=style)
        panel.plot(*theta, "o", color=INK, ms=4)
    panel.plot(0, np.sqrt(0.5), "+", color=INK, ms=11, mew=2)
    slides.bare(panel, aspect="equal", xlim=(-3, 3), ylim=(0, 2.6), xlabel="μ", ylabel="σ")
    panel.set_title(title, color=colour)


@slides.slide
def main(quick, clock):
    figure = slides.figure(
        "Another ball, another steepest descent",
        "Fitting a Gaussian (μ, σ); balls filled, their ellipses drawn; arrows: where the linear model is lowest",
    )
    panels = figure.subplots(2, 2)
    draw(panels[0, 0], "‖Δ‖² ≤ 2ε: gradient, −∇", lambda theta: np.eye(2), BLUE)
    draw(panels[0, 1], "KL(θ ‖ θ + Δ) ≤ ε: natural gradient, −F⁻¹∇", fisher, ORANGE, kl_ball)
    P = adagrad_metric()
    draw(panels[1, 0], "ΔᵀPΔ ≤ 2ε: preconditioned, −P⁻¹∇", lambda theta: P, GREEN)
    sizes = 2.0 ** -np.arange(1, 8 if quick else 11)
    panels[1, 1].loglog(sizes, error := kl_error(POINTS[0], sizes), "o-", color=ORANGE)
    panels[1, 1].set(title=f"|KL − ½ΔᵀFΔ| falls with order {np.log2(error[-2] / error[-1]):.2f}", xlabel="‖Δ‖")
    return figure


if __name__ == "__main__":
    main()
