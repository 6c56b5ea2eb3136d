"""K-FAC and EKFAC: natural gradient with a Kronecker product for every layer's curvature."""

from __future__ import annotations

from dataclasses import dataclass

from minigrad import backend, ops

from .base import check_setting
from .factored import Factored, memories, step_in_eigenbasis
from .factors import (
    check_choice,
    damped_inverse,
    eigen_scales,
    eigenbasis,
    homogeneous,
    moving_average,
    split_damping,
)

SOLVES = ("pi", "exact")


@dataclass
class KFAC(Factored):
    """Δ = −λ G⁻¹ ∇ A⁻¹ at every layer, ∇ = [dW db] [T-6.4.1; Martens & Grosse 2015].

    A = E[h̄ h̄ᵀ] and G = E[s sᵀ] are moving averages over batches (see `optim.factors`); with `solve="pi"` they are
    damped by π√λ_d and √λ_d/π before they are inverted. The inverses are applied to h and da, or to dW, whichever is
    less work. With L2, c·W is part of dW.

    Parameters
    ----------
    lr : float
        λ.
    damping : float
        λ_d; 0 is allowed where both factors are regular.
    curvature : {"mc", "fisher", "empirical", "gn_prob"}
        Whose signals s: those of sampled targets; the model's own expectation, exactly (one signal for every output,
        in blocks of bounded memory: give it a large `stats_every`); those of the true targets, the thesis's K-FAC for
        Gauss-Newton [T-6.5.3.4]; Gauss-Newton on probabilities.
    samples : int
        Draws of "mc".
    bias : {"joint", "separate"}
        h̄ = [h; 1]; or A of h for W, and (G + λ_d I)⁻¹ for b.
    rho : float
        Decay of the averages, at most 1 − 1/k at the k-th update.
    every : int or "auto"
        Steps between two inverses; "auto" renews a layer's when A or G has `moved` since.
    stats_every : int
        Steps between two updates of the averages, and between two looks of "auto".
    moved : float
        τ of "auto": renew where ‖A − A₀‖_F > τ ‖A₀‖_F, the same for G, and for λ_d under `lm`.
    clip : float, optional
        κ: the step is scaled by min(1, √(κ/(λ²|⟨Δ̂, ∇⟩|))), Δ = −λ Δ̂.
    lm : bool
        Every 5 steps λ_d is multiplied by .95⁵ if the loss falls by more than ¾ of what the quadratic model says, on
        the same batch, and divided by it if by less than ¼. It counts from the next refresh on.
    momentum : bool
        Δ = α Δ̂ + μ Δ_previous with the α and μ that minimise the exact quadratic model on this batch; λ drops out.
    rest_lr : float, optional
        Rate of the parameters without a site; lr unless set.
    solve : {"pi", "exact"}
        "pi" damps the factors; "exact" solves with kron(G, A) + λ_d I through their eigendecompositions.

    Notes
    -----
    Where a factor is zero, because a layer did not fire or no signal reached it, π is 1.
    state["3.inverses"] counts how often layer 3 was factorised. A refresh waits on the device at every guarded
    factorisation: 2 a layer, 3 with `solve="pi", bias="separate"`. Further waits, for all layers together: 1 each
    `stats_every` steps with `every="auto"`, 1 each 5 steps with `lm`, 1 a step with `momentum`. Nothing else waits.
    """

    solve: str = "pi"

    def __post_init__(self):
        super().__post_init__()
        check_choice("KFAC", "solve", self.solve, SOLVES)

    def factorise(self, memory, name, damping):
        A, G = memory["A"], memory["G"]
        if self.solve == "pi":
            a, g = split_damping(A, G, damping)
            memory["A_inv"] = damped_inverse(A, a, name, memory.get("A_inv"))
            memory["G_inv"] = damped_inverse(G, g, name, memory.get("G_inv"))
            if self.bias == "separate":
                memory["b_inv"] = damped_inverse(G, damping, name, memory.get("b_inv"))
            return
        a, memory["Q_A"] = eigenbasis(A, name, regular=not damping)
        g, memory["Q_G"] = eigenbasis(G, name, regular=not damping)
        memory["scales"] = g[:, None] * a + damping
        memory["b_scales"] = g + damping

    def rule(self, site, memory, t):
        if self.solve == "exact":
            return step_in_eigenbasis(site, memory, -self.lr)
        n, l2, rate = site.objective.n, site.objective.l2, -self.lr
        A_inv, G_inv = memory["A_inv"], memory["G_inv"]
        outputs, inputs = site.W.shape
        joint = len(A_inv) > inputs
        on_h, on_da = n < outputs and not l2, n < inputs and not l2  # N × in × in is then less than out × in × in
        da = ops.product(site.da, G_inv) if on_da else site.da
        if on_h:
            h = ops.product(homogeneous(site.h) if joint else site.h, A_inv)
            dW, db = site.gradient(rate, h=h[:, :inputs], da=da)
            if joint:
                db[...] = h[:, inputs].dot(da) * (rate / n)
        else:
            dW, db = site.gradient(rate, da=da)
            if l2:
                dW += (rate * l2) * site.W
            step = ops.product(homogeneous(dW, db) if joint else dW, A_inv)
            dW[...] = step[:, :inputs]
            if joint:
                db[...] = step[:, inputs]
        if not on_da:
            dW[...] = ops.product(G_inv, dW)
        if db is not None and not joint:
            db[...] = memory["b_inv"].dot(backend.ones(n, da).dot(site.da)) * (rate / n)
        elif db is not None and not on_da:
            db[...] = G_inv.dot(db)
        return dW, db


@dataclass
class EKFAC(Factored):
    """Δ = −λ Q_G [(Q_Gᵀ ∇ Q_A) ÷ (Λ + λ_d)] Q_Aᵀ at every layer, ∇ = [dW db] [George et al. 2018].

    Q_A and Q_G are the eigenvectors of K-FAC's A and G, renewed every `every` steps. In their basis the diagonal
    Λ_ga = (1/N) Σ_n Σ_k (Q_Gᵀ s_k)_g² (Q_Aᵀ h̄)_a² is a moving average over batches, which starts anew with the basis.
    The settings are those of `KFAC`, which has `solve` besides; here `damping` must be positive.

    Notes
    -----
    Waits as `KFAC` does, 2 a layer at a refresh. Bases that are renewed between two updates of the statistics take
    their Λ from the batch of that step.
    """

    damping: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        check_setting(self, "damping", 0, open_low=True)

    def factorise(self, memory, name, damping):
        _, memory["Q_A"] = eigenbasis(memory["A"], name)
        g, memory["Q_G"] = eigenbasis(memory["G"], name)
        memory["b_scales"] = g + damping  # of a separate bias: there (1/N) Σ_n Σ_k (Q_Gᵀ s_k)_g² is g itself
        memory["age"] = 0  # updates of Λ in this basis

    def after_refresh(self, f, state, due, observed):
        if not (due or observed):
            return
        layers = memories(f, state)
        bases = {name: (memory["Q_A"], memory["Q_G"]) for name, memory in layers.items()}
        found = eigen_scales(f, bases, self.curvature, self.samples, self.stream(state), self.bias == "joint")
        for name, memory in layers.items():
            age = memory["age"] = memory["age"] + 1
            memory["L"] = moving_average(memory.get("L"), found[name], age, self.rho)
            memory["scales"] = memory["L"] + self.damping_of(state)

    def rule(self, site, memory, t):
        return step_in_eigenbasis(site, memory, -self.lr)
