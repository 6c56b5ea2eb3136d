"""Writes first_order.json: 20 steps of PyTorch's and optax's first-order methods on a small objective, in float64.

    python tests/optim/references/make_first_order.py      # needs torch and optax; the tests only read the file

R(θ) = Σ log(1 + (Aθ − y)²). Every run is stored as library, call, settings and the 20 points after the start.
"""

import json
from pathlib import Path

import jax
import numpy as np
import optax
import torch

jax.config.update("jax_enable_x64", True)

STEPS = 20
START = [0.7, -0.4, 1.1]
A = [[2.0, 0.5, -0.3], [0.1, -1.5, 0.4], [0.6, 0.2, 0.9], [-0.8, 1.1, 0.25], [0.3, 0.7, -1.2]]
Y = [1.0, 0.3, -0.6, 0.9, 0.2]

TORCH = {
    "sgd": ("SGD", {"lr": 0.05}),
    "momentum": ("SGD", {"lr": 0.05, "momentum": 0.8}),
    "momentum, lr/√(t+1)": ("SGD", {"lr": 0.05, "momentum": 0.8}),
    "dampening": ("SGD", {"lr": 0.2, "momentum": 0.8, "dampening": 0.8}),
    "nesterov": ("SGD", {"lr": 0.05, "momentum": 0.8, "nesterov": True}),
    "adagrad": ("Adagrad", {"lr": 0.3, "eps": 1e-3}),
    "adagrad, lr_decay": ("Adagrad", {"lr": 0.3, "eps": 1e-3, "lr_decay": 1.0}),
    "rmsprop": ("RMSprop", {"lr": 0.05, "alpha": 0.9, "eps": 1e-3}),
    "rmsprop, centred": ("RMSprop", {"lr": 0.02, "alpha": 0.9, "eps": 1e-3, "centered": True}),
    "adadelta": ("Adadelta", {"lr": 0.7, "rho": 0.9, "eps": 1e-3}),
    "adam": ("Adam", {"lr": 0.1, "betas": [0.8, 0.95], "eps": 1e-3}),
    "adamw": ("AdamW", {"lr": 0.1, "betas": [0.8, 0.95], "eps": 1e-3, "weight_decay": 0.2}),
}
OPTAX = {
    "sgd": ("sgd", {"learning_rate": 0.05}),
    "momentum": ("sgd", {"learning_rate": 0.05, "momentum": 0.8}),
    "average": ("average", {"learning_rate": 0.2, "decay": 0.8}),
    "nesterov": ("sgd", {"learning_rate": 0.05, "momentum": 0.8, "nesterov": True}),
    "adagrad": ("adagrad", {"learning_rate": 0.3, "initial_accumulator_value": 0.1, "eps": 1e-3}),
    "rmsprop": ("rmsprop", {"learning_rate": 0.05, "decay": 0.9, "eps": 1e-3, "eps_in_sqrt": True}),
    "rmsprop, ε outside": ("rmsprop", {"learning_rate": 0.05, "decay": 0.9, "eps": 1e-3, "eps_in_sqrt": False}),
    "rmsprop, centred, ε outside": (
        "rmsprop",
        {"learning_rate": 0.02, "decay": 0.9, "eps": 1e-3, "eps_in_sqrt": False, "centered": True},
    ),
    "adadelta": ("adadelta", {"learning_rate": 0.7, "rho": 0.9, "eps": 1e-3}),
    "adam": ("adam", {"learning_rate": 0.1, "b1": 0.8, "b2": 0.95, "eps": 1e-3}),
    "adamw": ("adamw", {"learning_rate": 0.1, "b1": 0.8, "b2": 0.95, "eps": 1e-3, "weight_decay": 0.2}),
}


def run_torch(call: str, settings: dict, falling: bool) -> list:
    """The points that a torch optimizer visits; with `falling` at the rates lr/√(t + 1)."""
    theta = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    matrix, y = torch.tensor(A, dtype=torch.float64), torch.tensor(Y, dtype=torch.float64)
    optimizer = getattr(torch.optim, call)([theta], **settings)
    points = []
    for t in range(STEPS):
        optimizer.param_groups[0]["lr"] = settings["lr"] / np.sqrt(t + 1) if falling else settings["lr"]
        optimizer.zero_grad()
        torch.log(1 + (matrix @ theta - y) ** 2).sum().backward()
        optimizer.step()
        points.append(theta.detach().tolist())
    return points


def average(learning_rate: float, decay: float) -> optax.GradientTransformation:
    """Momentum as a moving average without bias correction."""
    return optax.chain(optax.ema(decay, debias=False), optax.scale_by_learning_rate(learning_rate))


def run_optax(call: str, settings: dict) -> list:
    """The points that an optax transformation visits."""
    theta, matrix, y = (jax.numpy.asarray(np.array(a)) for a in (START, A, Y))
    gradient = jax.grad(lambda t: jax.numpy.log(1 + (matrix @ t - y) ** 2).sum())
    method = average(**settings) if call == "average" else getattr(optax, call)(**settings)
    state, points = method.init(theta), []
    for _ in range(STEPS):
        update, state = method.update(gradient(theta), state, theta)
        theta = optax.apply_updates(theta, update)
        points.append(theta.tolist())
    return points


def plain(value: object) -> str:
    """JSON with its letters as they are."""
    return json.dumps(value, ensure_ascii=False)


def main() -> None:
    runs = {}
    for name, (call, settings) in TORCH.items():
        points = run_torch(call, settings, falling="√" in name)
        runs[f"torch {name}"] = {"call": f"torch.optim.{call}", "settings": settings, "points": points}
    for name, (call, settings) in OPTAX.items():
        called = "optax.chain(optax.ema(debias=False), …)" if call == "average" else f"optax.{call}"
        runs[f"optax {name}"] = {"call": called, "settings": settings, "points": run_optax(call, settings)}
    versions = {"torch": torch.__version__, "optax": optax.__version__, "jax": jax.__version__}
    problem = {"objective": "Σ log(1 + (Aθ − y)²)", "A": A, "y": Y, "start": START}
    lines = ",\n".join(
        f"{json.dumps(k, ensure_ascii=False)}: {json.dumps(v, ensure_ascii=False)}" for k, v in runs.items()
    )
    text = f'{{"versions": {plain(versions)},\n"problem": {plain(problem)},\n"runs": {{\n{lines}\n}}}}\n'
    Path(__file__).with_name("first_order.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
