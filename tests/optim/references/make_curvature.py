"""Writes curvature.json: gradients of single examples and curvature matrices of other libraries, in float64.

    python tests/optim/references/make_curvature.py  # needs backpack, curvlinops, nngeometry; the tests read the file

The network is 4-3-3 with tanh; θ (a row of W after the other, then b; layer by layer), x and y are in the file. R is
the mean over the N examples of ℓ = ‖z − y‖², the softmax cross-entropy, or the sum over outputs of the sigmoid
cross-entropy. All three losses are given to the libraries as sums over examples, and what comes back as a sum is
divided by N here, so that every entry has this project's scale; nngeometry averages by itself, and its Fisher of a
regression belongs to a Gaussian of variance 1: twice that is ours (variance ½). Matrices are written as their lower
triangle, row by row.
"""

import importlib.metadata
import json
from pathlib import Path

import backpack
import numpy as np
import torch
from backpack import extensions
from curvlinops import EFLinearOperator, GGNLinearOperator, HessianLinearOperator
from nngeometry.metrics import FIM
from nngeometry.object import PMatBlockDiag, PMatDense, PMatDiag
from torch import nn

SIZES, N, SEED = (4, 3, 3), 7, 11
LIBRARIES = ("torch", "backpack-for-pytorch", "curvlinops-for-pytorch", "nngeometry")
LOSSES = {
    "squared_error": nn.MSELoss,
    "softmax_cross_entropy": nn.CrossEntropyLoss,
    "sigmoid_cross_entropy": nn.BCEWithLogitsLoss,
}
torch.set_default_dtype(torch.float64)


def inputs() -> dict:
    """θ, x, and targets for each loss."""
    rng = np.random.default_rng(SEED)
    d = sum((n + 1) * m for n, m in zip(SIZES, SIZES[1:]))
    return {
        "theta": (0.6 * rng.standard_normal(d)).tolist(),
        "x": rng.standard_normal((N, SIZES[0])).tolist(),
        "y": {
            "squared_error": rng.standard_normal((N, SIZES[-1])).tolist(),
            "softmax_cross_entropy": rng.integers(0, SIZES[-1], N).tolist(),
            "sigmoid_cross_entropy": rng.integers(0, 2, (N, SIZES[-1])).astype(float).tolist(),
        },
    }


def problem(given: dict, loss: str) -> tuple:
    """(model, loss summed over the examples, x, y)."""
    model = nn.Sequential(nn.Linear(SIZES[0], SIZES[1]), nn.Tanh(), nn.Linear(SIZES[1], SIZES[2]))
    nn.utils.vector_to_parameters(torch.tensor(given["theta"]), model.parameters())
    return model, LOSSES[loss](reduction="sum"), torch.tensor(given["x"]), torch.tensor(given["y"][loss])


def triangle(matrix: torch.Tensor) -> list:
    rows, columns = torch.tril_indices(*matrix.shape)
    return matrix[rows, columns].tolist()


def from_backpack(given: dict, loss: str) -> dict:
    model, function, x, y = problem(given, loss)
    backpack.extend(model), backpack.extend(function)
    asked = [extensions.BatchGrad(), extensions.BatchL2Grad(), extensions.SumGradSquared()]
    asked += [extensions.DiagGGNExact(), extensions.DiagHessian(), extensions.Variance()]
    with backpack.backpack(*asked):
        function(model(x), y).backward()

    def flat(field: str) -> torch.Tensor:
        return torch.cat([getattr(p, field).reshape(-1) for p in model.parameters()])

    return {
        "per-example gradients": torch.cat([p.grad_batch.reshape(N, -1) for p in model.parameters()], 1).tolist(),
        "per-example norms": sum(p.batch_l2 for p in model.parameters()).sqrt().tolist(),
        "second moment": (flat("sum_grad_squared") / N).tolist(),
        "variance": flat("variance").tolist(),
        "diagonal ggn": (flat("diag_ggn_exact") / N).tolist(),
        "diagonal hessian": (flat("diag_h") / N).tolist(),
    }


def from_curvlinops(given: dict, loss: str) -> dict:
    model, function, x, y = problem(given, loss)
    eye = torch.eye(len(given["theta"]))
    found = {}
    kinds = {"fisher": GGNLinearOperator, "empirical": EFLinearOperator, "hessian": HessianLinearOperator}
    for name, kind in kinds.items():
        operator = kind(model, function, list(model.parameters()), [(x, y)], check_deterministic=False)
        found[name] = triangle((operator @ eye) / N)
    return found


def from_nngeometry(given: dict, loss: str) -> dict:
    """Its dense matrix, its blocks of a layer each, and its diagonal."""
    model, _, x, y = problem(given, loss)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=N)
    variant, scale = {"squared_error": ("regression", 2.0), "softmax_cross_entropy": ("classif_logits", 1.0)}[loss]

    def matrix(kind: type) -> torch.Tensor:
        return scale * FIM(model, loader, kind, variant=variant).to_torch().detach()

    diagonal = matrix(PMatDiag).diagonal().tolist()
    return {"fisher": triangle(matrix(PMatDense)), "block": triangle(matrix(PMatBlockDiag)), "diagonal": diagonal}


def main() -> None:
    given = inputs()
    cases = [{"library": "curvlinops", "loss": loss, "values": from_curvlinops(given, loss)} for loss in LOSSES]
    for library, make in (("backpack", from_backpack), ("nngeometry", from_nngeometry)):
        for loss in ("squared_error", "softmax_cross_entropy"):  # neither has the sigmoid's with several outputs
            cases.append({"library": library, "loss": loss, "values": make(given, loss)})
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    head = {"versions": versions, "sizes": SIZES, "n": N, **given}
    lines = ",\n".join(json.dumps(case) for case in cases)
    text = json.dumps(head)[:-1] + ', "cases": [\n' + lines + "\n]}\n"
    Path(__file__).with_name("curvature.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
