"""G⁻¹ ∇ A⁻¹ of every layer from h and da: on dW, on (h, da), and as `optim.KFAC` chooses by shape."""

from __future__ import annotations

from typing import Any

import numpy as np

import optim
from minigrad import ops
from optim.factors import homogeneous

from .cases import Case

ON_GRADIENT, ON_SIGNALS, CHOSEN = "G⁻¹∇A⁻¹, on dW", "G⁻¹∇A⁻¹, on (h, da)", "G⁻¹∇A⁻¹, as K-FAC chooses"
WAYS = (ON_GRADIENT, ON_SIGNALS, CHOSEN)
CHEAPER = "the cheaper of both ways"


class Preconditioning:
    """h and da of every layer, and inverses of its factors, all known before: ∇ = [dW db] is formed each time."""

    def __init__(self, case: Case):
        self.params = case.params()
        self.method = optim.KFAC(lr=1.0)
        state = self.method.init(self.params)
        f = case.objective(self.params)
        self.method.begin(f, state)
        self.n = f.n
        self.sweep = f.sweep()
        self.layers = [(site, {key: state[f"{site.name}.{key}"] for key in ("A_inv", "G_inv")}) for site in self.sweep]

    def run(self, way: str) -> list[Any]:
        """−[dW db] of every layer, preconditioned."""
        self.sweep.written.clear()  # or each run would add its gradients to the last one's
        step = {ON_GRADIENT: self._on_gradient, ON_SIGNALS: self._on_signals, CHOSEN: self._chosen}[way]
        return [step(site, **memory) for site, memory in self.layers]

    def _on_gradient(self, site: Any, A_inv: Any, G_inv: Any) -> Any:
        dW, db = site.gradient(-1.0)
        return ops.product(G_inv, ops.product(homogeneous(dW, db), A_inv))

    def _on_signals(self, site: Any, A_inv: Any, G_inv: Any) -> Any:
        da, h = ops.product(site.da, G_inv), ops.product(homogeneous(site.h), A_inv)
        da *= -1.0 / self.n
        return ops.product(da.T, h)

    def _chosen(self, site: Any, A_inv: Any, G_inv: Any) -> tuple[Any, Any]:
        return self.method.rule(site, {"A_inv": A_inv, "G_inv": G_inv}, 1)

    def check(self) -> None:
        """All ways give the same."""
        expected = self.run(ON_GRADIENT)
        for way in WAYS[1:]:
            for own, (found, (site, _)) in zip(expected, zip(self.run(way), self.layers)):
                found = np.column_stack(found) if way == CHOSEN else found
                if not np.abs(found - own).max() <= 1e-3 * np.abs(own).max():
                    raise ValueError(f"{way} in layer {site.name} is not {ON_GRADIENT}")
