"""Writes kfac.json: K-FAC and EKFAC of other libraries on a small network, in float64.

    python tests/optim/references/make_kfac.py     # needs curvlinops, nngeometry and backpack; the tests read the file

The network is 4-5-3 with tanh. θ, x, y and v come from the seed in the file, in this order: θ = ½ N(0, 1),
x = N(0, 1), y = N(0, 1) or class numbers, v = N(0, 1). R = (1/N) Σ ℓ with ℓ = ‖z − y‖² or the
softmax cross-entropy. Every entry is a vector in the order of θ (a row of W after the other, then b; layer by layer),
or BackPACK's factors.
"""

import importlib.metadata
import json
from pathlib import Path

import backpack
import numpy as np
import torch
from backpack.extensions import KFLR
from curvlinops import EKFACLinearOperator, KFACInverseLinearOperator, KFACLinearOperator
from nngeometry.metrics import FIM
from nngeometry.object import PMatKFAC, PVector
from torch import nn

SIZES, N, SEED, DAMPING = (4, 5, 3), 12, 3, 0.1
LIBRARIES = ("torch", "curvlinops-for-pytorch", "nngeometry", "backpack-for-pytorch")
torch.set_default_dtype(torch.float64)


def problem(loss: str) -> tuple:
    """(model, loss function, x, y, v)."""
    rng = np.random.default_rng(SEED)
    model = nn.Sequential(nn.Linear(SIZES[0], SIZES[1]), nn.Tanh(), nn.Linear(SIZES[1], SIZES[2]))
    d = sum(p.numel() for p in model.parameters())
    theta = torch.from_numpy(0.5 * rng.standard_normal(d))
    nn.utils.vector_to_parameters(theta, model.parameters())
    x = rng.standard_normal((N, SIZES[0]))
    y = rng.standard_normal((N, SIZES[-1])) if loss == "squared_error" else rng.integers(0, SIZES[-1], N)
    v = rng.standard_normal(d)
    function = nn.MSELoss() if loss == "squared_error" else nn.CrossEntropyLoss()
    return model, function, torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(v)


def gradient(model: nn.Module, function: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    found = torch.autograd.grad(function(model(x), y), list(model.parameters()))
    return nn.utils.parameters_to_vector(found)


def from_curvlinops(loss: str, curvature: str, joint: bool) -> dict:
    """Products, and solves of the gradient.

    MSELoss averages over the outputs too, and curvlinops over N · outputs terms: c = outputs undoes that. With a
    separate bias its π damps G for the bias too, where ours is G + λI, so that solve is left out.
    """
    model, function, x, y, v = problem(loss)
    c = SIZES[-1] if loss == "squared_error" else 1
    settings = {"fisher_type": {"fisher": "type-2", "empirical": "empirical"}[curvature]}
    settings |= {"separate_weight_and_bias": not joint, "check_deterministic": False}
    given = (model, function, list(model.parameters()), [(x, y)])
    kfac, ekfac = (kind(*given, **settings) for kind in (KFACLinearOperator, EKFACLinearOperator))
    g = c * gradient(model, function, x, y)
    pi = KFACInverseLinearOperator(kfac, damping=DAMPING / c, use_heuristic_damping=True)
    exact = KFACInverseLinearOperator(kfac, damping=DAMPING / c, use_exact_damping=True)
    scaled = KFACInverseLinearOperator(ekfac, damping=DAMPING / c, use_exact_damping=True)
    return {
        "kfac product": (c * (kfac @ v)).tolist(),
        "ekfac product": (c * (ekfac @ v)).tolist(),
        **({"kfac pi solve": ((pi @ g) / c).tolist()} if joint else {}),
        "kfac exact solve": ((exact @ g) / c).tolist(),
        "ekfac solve": ((scaled @ g) / c).tolist(),
    }


def from_nngeometry() -> dict:
    model, function, x, y, v = problem("softmax_cross_entropy")
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=N)
    matrix = FIM(model, loader, PMatKFAC, variant="classif_logits")
    collection = matrix.generator.layer_collection

    def vector(flat):
        return PVector(collection, vector_repr=flat)

    g = gradient(model, function, x, y)
    return {
        "kfac product": matrix.mv(vector(v)).to_torch().tolist(),
        "kfac pi solve": matrix.solvePVec(vector(g), regul=DAMPING).to_torch().tolist(),
    }


def from_backpack() -> dict:
    """{layer: factors G and A of W, G of b} from KFLR, which keeps W and b apart."""
    model, function, x, y, _ = problem("softmax_cross_entropy")
    backpack.extend(model)
    loss = backpack.extend(function)(model(x), y)
    with backpack.backpack(KFLR()):
        loss.backward()
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    return {
        str(k): {"W": [m.tolist() for m in layer.weight.kflr], "b": layer.bias.kflr[0].tolist()}
        for k, layer in enumerate(layers)
    }


def main() -> None:
    cases = []
    for loss in ("squared_error", "softmax_cross_entropy"):
        for curvature in ("fisher", "empirical"):
            for joint in (True, False):
                case = {"library": "curvlinops", "loss": loss, "curvature": curvature, "joint": joint}
                cases.append({**case, "values": from_curvlinops(loss, curvature, joint)})
    case = {"library": "nngeometry", "loss": "softmax_cross_entropy", "curvature": "fisher", "joint": True}
    cases.append({**case, "values": from_nngeometry()})
    case = {"library": "backpack", "loss": "softmax_cross_entropy", "curvature": "fisher", "joint": False}
    cases.append({**case, "factors": from_backpack()})
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    head = {"versions": versions, "sizes": SIZES, "n": N, "seed": SEED, "damping": DAMPING}
    lines = ",\n".join(json.dumps(case) for case in cases)
    text = json.dumps(head)[:-1] + f', "cases": [\n{lines}\n]}}\n'
    Path(__file__).with_name("kfac.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
