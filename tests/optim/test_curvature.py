"""Curvature by name and structure: against Jacobians formed example by example, and structure against structure.

`references/curvature.json` holds matrices of curvlinops and nngeometry (made by `references/make_curvature.py`, which
says how each library's scale is undone).
"""

import json
from pathlib import Path

import numpy as np
import pytest
from cases import LOSSES, chain, host, linear_net, off, random_like, targets

import minigrad as mg
from minigrad import backend, losses, nn
from optim import Stopped
from optim.blocks import Block
from optim.curvature import KINDS, STRUCTURES, matrix

REFERENCES = json.loads(Path(__file__).with_name("references").joinpath("curvature.json").read_text(encoding="utf-8"))
ROWS = ("fisher", "mc", "empirical", "gn_prob")


def windows(params, vector):
    """Windows of a vector that may be a Tensor."""
    return {name: mg.reshape(vector[start:stop], shape) for name, (start, stop, shape) in params.layout.items()}


def objective(net, params, loss="softmax", n=5, inputs=4, outputs=3, device="cpu", seed=0, l2=0.0):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, inputs)), targets(loss, n, outputs, rng)
    params = params if isinstance(params, mg.Params) else net.init(rng=seed, dtype="float64")
    params.vector += 0.1 * rng.standard_normal(params.size)
    upload = backend.asarray
    return mg.Objective(net, LOSSES[loss], params.to(device), upload(x, device), upload(y, device), l2=l2)


def parameters(**shapes):
    rng = np.random.default_rng(4)
    return mg.Params({name.replace("_", "."): 0.5 * rng.standard_normal(shape) for name, shape in shapes.items()})


def gained(p, x, train=False):
    """A parameter without a layer, a layer without a bias, and windows in an order of their own (b before W)."""
    return mg.dense(mg.tanh(mg.dense(x, p["in.W"]) * p["gain"]), p["out.W"], p["out.b"])


def tied(p, x, train=False):
    """One window in two layers, another in a layer and outside it."""
    h = mg.tanh(mg.dense(x, p["a.W"], p["a.b"]))
    h = mg.tanh(mg.dense(h, p["a.W"], p["a.b"]))
    return mg.matmul(mg.tanh(mg.dense(h, p["c.W"])), p["c.W"])[:, :3]


def positions(p, x, train=False):
    """A layer on (N, T, in)."""
    h = mg.tanh(mg.dense(mg.reshape(x, (x.shape[0], 2, 2)), p["a.W"], p["a.b"]))
    return mg.dense(mg.sum(h, axis=1), p["c.W"], p["c.b"])


NETS = {
    "chain": lambda **kw: objective(nn.mlp([4, 5, 3]), None, **kw),
    "deep": lambda **kw: objective(nn.mlp([4, 3, 4, 3], hidden="sigmoid"), None, **kw),
    "no bias": lambda **kw: objective(
        nn.Sequential(nn.Dense(4, 5, bias=False), nn.Tanh(), nn.Dense(5, 3, bias=False)), None, **kw
    ),
    "residual": lambda **kw: objective(
        nn.Sequential(nn.Residual(nn.Sequential(nn.Dense(4, 4), nn.Tanh(), nn.Dense(4, 4))), nn.Dense(4, 3)), None, **kw
    ),
    "one example": lambda **kw: objective(nn.mlp([4, 5, 3]), None, n=1, **kw),
    "many examples": lambda **kw: objective(nn.mlp([4, 2, 3]), None, n=40, **kw),
    "one output": lambda **kw: objective(nn.mlp([4, 5, 1]), None, outputs=1, **kw),
    "gained": lambda **kw: objective(gained, parameters(out_b=3, out_W=(3, 5), gain=5, in_W=(5, 4)), **kw),
    "tied": lambda **kw: objective(tied, parameters(a_W=(4, 4), a_b=4, c_W=(4, 4)), **kw),
    "positions": lambda **kw: objective(positions, parameters(a_W=(4, 2), a_b=4, c_W=(3, 4), c_b=3), **kw),
}
FACTORED = ("chain", "deep", "no bias", "residual", "one example", "many examples", "one output")


def jacobians(f):
    """∂z_n/∂θ of every example by itself (N, C, d), through the transforms and not through signals."""
    theta = host(f.params.vector)
    found = []
    for x in host(f.args[0]):
        of_one = mg.jacobian(lambda vector, x=x: f.net(windows(f.params, vector), x[None])[0])
        found.append(of_one(theta))
    return np.stack(found)


def middle(f, kind):
    """What stands between Jᵀ and J for every example (N, C, C) [T-3.3.1, table 3.III]."""
    z, y = host(f.output), host(f.view().y)
    loss, eye = f.loss, np.eye(z.shape[1])
    if loss is losses.softmax_cross_entropy:
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        slope, fisher = p - y, p[:, :, None] * eye - p[:, :, None] * p[:, None, :]
        prob = np.einsum("nk,nkc,nke->nce", y, p[:, None] - eye, p[:, None] - eye)
    elif loss is losses.sigmoid_cross_entropy:
        p = 1 / (1 + np.exp(-z))
        slope, fisher = p - y, (p * (1 - p))[:, :, None] * eye
        prob = (y * (1 - p) ** 2 + (1 - y) * p**2)[:, :, None] * eye
    else:
        slope, fisher = 2 * (z - y), np.broadcast_to(2 * eye, (len(z), *eye.shape))
        prob = fisher
    return {"fisher": fisher, "gn_prob": prob, "empirical": slope[:, :, None] * slope[:, None, :]}[kind]


def decay(f):
    """What L2 adds to the diagonal."""
    out = np.zeros(f.params.size)
    for name, (start, stop, _) in f.params.layout.items():
        out[start:stop] = f.l2 * name.endswith(".W")
    return np.diag(out)


def reference(f, kind, seed=7):
    """The dense matrix, by another way than the one under test."""
    if kind == "hessian":
        theta = host(f.params.vector)
        x, y = host(f.args[0]), host(f.targets)
        mean = lambda vector: mg.mean(f.loss(f.net(windows(f.params, vector), x), y))  # noqa: E731
        return mg.hessian(mean)(theta) + decay(f)
    J = jacobians(f)
    if kind == "mc":
        s = sampled(f, seed, 3)
        g = np.einsum("knc,ncd->knd", s, J)
        return np.einsum("knd,kne->de", g, g) / f.n + decay(f)
    return np.einsum("nid,nij,nje->de", J, middle(f, kind), J) / f.n + decay(f)


def sampled(f, seed, samples):
    """The sampled gradients at the output, with 1/√samples."""
    rng = np.random.default_rng(seed)
    return np.stack([host(f.view().sample(rng)) for _ in range(samples)]) / np.sqrt(samples)


def made(f, kind, structure, seed=7):
    return matrix(f, kind, structure, samples=3 if kind == "mc" else 1, rng=seed if kind == "mc" else None)


def groups(f, net):
    """The windows of every block."""
    if net in ("tied", "positions"):
        layers = [["c.W", "c.b"]] if net == "positions" else []
    else:
        layers = [[w for w in (f"{s.name}.W", f"{s.name}.b") if w in f.params.layout] for s in f.sweep()]
    held = {name for layer in layers for name in layer}
    return layers + [[name] for name in f.params.layout if name not in held]


def block_mask(f, net):
    """1 where two parameters are in one block."""
    owner = np.zeros(f.params.size)
    for k, names in enumerate(groups(f, net)):
        for name in names:
            owner[slice(*f.params.layout[name][:2])] = k
    return owner[:, None] == owner


# ----------------------------------------------------------------------------------- structures against a Jacobian


@pytest.mark.parametrize("l2", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("net", NETS)
def test_dense_is_the_sum_over_examples(net, kind, l2, device):
    f = NETS[net](device=device, l2=l2)
    assert off(made(f, kind, "dense").dense(), reference(f, kind)) < 1e-12


@pytest.mark.parametrize("loss", ["squared", "sigmoid"])
@pytest.mark.parametrize("kind", KINDS)
def test_dense_with_other_losses(loss, kind):
    f = NETS["deep"](loss=loss)
    assert off(made(f, kind, "dense").dense(), reference(f, kind)) < 1e-12


@pytest.mark.parametrize("l2", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("net", NETS)
def test_block_and_diagonal_are_parts_of_dense(net, kind, l2, device):
    f = NETS[net](device=device, l2=l2)
    dense = host(made(f, kind, "dense").dense())
    assert off(made(f, kind, "block").dense(), dense * block_mask(f, net)) < 1e-12
    assert off(made(f, kind, "diagonal").dense(), np.diag(np.diag(dense))) < 1e-12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("net", NETS)
def test_explicit_is_implicit(net, kind, device):
    f = NETS[net](device=device, l2=0.2)
    dense, v = host(made(f, kind, "dense").dense()), random_like(f.params.vector)
    for structure in ("dense", "matrix-free"):
        assert off(made(f, kind, structure) @ v, dense @ host(v)) < 1e-12
    assert off(made(f, kind, "matrix-free").dense(), dense) < 1e-12
    for structure in STRUCTURES:
        if (structure in ("kronecker", "ekfac") and (kind == "hessian" or net not in FACTORED)) or structure == "dense":
            continue
        C = made(f, kind, structure)
        assert off(C @ v, host(C.dense()) @ host(v)) < 1e-12, structure


@pytest.mark.parametrize("l2", [0.0, 0.3])
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("net", NETS)
def test_solve_trace_logdet_and_eigenvalues_are_those_of_the_array(net, structure, l2, device):
    f = NETS[net](device=device, l2=l2)
    v = random_like(f.params.vector)
    for kind in KINDS:
        if structure in ("kronecker", "ekfac") and (kind == "hessian" or net not in FACTORED):
            continue
        C, damping = made(f, kind, structure), 0.1
        array = host(C.dense())
        eigenvalues = np.linalg.eigvalsh(array)
        damping = max(damping, 0.1 - 2 * eigenvalues[0])
        x = host(C.solve(v, damping))
        iterative = structure in ("matrix-free", "ekfac")
        assert off((array + damping * np.eye(len(array))) @ x, v) < (1e-9 if iterative else 1e-12)
        if structure == "matrix-free":
            continue
        assert off(C.trace(), np.trace(array)) < 1e-12
        assert off(C.eigenvalues(), eigenvalues) < 1e-12
        assert off(C.logdet(damping), np.linalg.slogdet(array + damping * np.eye(len(array)))[1]) < 1e-11


def referenced(case, device="cpu"):
    """The objective of a stored case."""
    net = nn.mlp(REFERENCES["sizes"], hidden="tanh")
    params = net.init(dtype="float64", device=device)
    params.vector = backend.asarray(np.array(REFERENCES["theta"]), device)
    x, y = np.array(REFERENCES["x"]), np.array(REFERENCES["y"][case["loss"]])
    return mg.Objective(net, getattr(losses, case["loss"]), params, *(backend.asarray(a, device) for a in (x, y)))


def stored(library):
    cases = [case for case in REFERENCES["cases"] if case["library"] == library]
    assert cases
    return pytest.mark.parametrize("case", cases, ids=lambda case: case["loss"])


def lower(array):
    return host(array)[np.tril_indices(len(array))]


@stored("curvlinops")
def test_matrices_are_those_of_curvlinops(case, device):
    f = referenced(case, device)
    assert set(case["values"]) == {"fisher", "empirical", "hessian"}
    for kind, values in case["values"].items():
        for structure in ("dense", "matrix-free"):
            assert off(lower(matrix(f, kind, structure).dense()), values) < 1e-10


@stored("nngeometry")
def test_matrices_are_those_of_nngeometry(case, device):
    f, values = referenced(case, device), case["values"]
    assert off(lower(matrix(f, "fisher", "dense").dense()), values["fisher"]) < 1e-10
    assert off(lower(matrix(f, "fisher", "block").dense()), values["block"]) < 1e-10
    assert off(matrix(f, "fisher", "diagonal").vector, values["diagonal"]) < 1e-10


# ------------------------------------------------------------------------------------------------------ Kronecker


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("net", FACTORED)
def test_kronecker_is_kron_of_the_factors_in_thetas_order(net, kind, device):
    f = NETS[net](device=device, l2=0.2)
    found = host(made(f, kind, "kronecker").dense())
    signals = f.signals(kind)
    for site in f.sweep():
        h, s = host(site.h), host(signals[site.name]).reshape(-1, site.W.shape[0])
        h = h if site.b is None else np.hstack([h, np.ones((f.n, 1))])
        K = np.kron(s.T @ s, h.T @ h) / f.n**2
        out, wide = site.W.shape[0], h.shape[1]
        W, b = f.params.layout[f"{site.name}.W"], f.params.layout.get(f"{site.name}.b")
        place = np.empty((out, wide), int)  # where (o, i) of [W b] is in θ
        place[:, : site.W.shape[1]] = np.arange(*W[:2]).reshape(out, -1)
        if b is not None:
            place[:, -1] = np.arange(*b[:2])
        own = place.reshape(-1)
        assert off(found[np.ix_(own, own)] - decay(f)[np.ix_(own, own)], K) < 1e-12
        found[np.ix_(own, own)] = 0
    assert not found.any()


@pytest.mark.parametrize("kind", ROWS)
def test_ekfac_has_the_trace_of_the_block_and_is_nearer_to_it(kind):
    f = NETS["deep"](l2=0.2)
    block, kfac, ekfac = (host(made(f, kind, s).dense()) for s in ("block", "kronecker", "ekfac"))
    assert off(np.trace(ekfac), np.trace(block)) < 1e-12
    assert np.linalg.norm(ekfac - block) < np.linalg.norm(kfac - block)


def test_ekfac_scales_are_the_diagonal_of_the_block_in_its_basis():
    f = NETS["chain"]()
    E, block = made(f, "fisher", "ekfac"), host(made(f, "fisher", "block").dense())
    for layer, (Q_A, Q_G) in E.factors.items():
        size = len(Q_A) * len(Q_G)
        place = np.concatenate([np.arange(*f.params.layout[w][:2]) for w in layer])
        order = np.arange(size).reshape(len(Q_G), -1)
        to_theta = np.concatenate([order[:, :-1].reshape(-1), order[:, -1]])
        Q = np.kron(Q_G, Q_A)[to_theta]
        assert off(E.scales[layer].reshape(-1), np.diag(Q.T @ block[np.ix_(place, place)] @ Q)) < 1e-12


def test_identity_6_kronecker_is_the_block_for_one_example(device):
    f = NETS["one example"](device=device)
    for kind in ROWS:
        assert off(made(f, kind, "kronecker").dense(), made(f, kind, "block").dense()) < 1e-12


def test_identity_6_kronecker_is_the_block_on_linear_networks_with_squared_error():
    f = chain("squared", hidden=None, sizes=(4, 3, 4, 2), n=7)
    assert off(made(f, "fisher", "kronecker").dense(), made(f, "fisher", "block").dense()) < 1e-12
    nonlinear = chain("squared", sizes=(4, 3, 4, 2), n=7)
    assert off(made(nonlinear, "fisher", "kronecker").dense(), made(nonlinear, "fisher", "block").dense()) > 1e-3


# ----------------------------------------------------------------------------------------------------- identities


@pytest.mark.parametrize("loss", LOSSES)
def test_identity_2_matrix_free_is_explicit(loss):  # JtHJ, seen through the block of W
    f = NETS["deep"](loss=loss)
    array = host(made(f, "fisher", "block").dense())
    v = np.random.default_rng(0).standard_normal(f.params.size)
    moved = f.params.windows(v)
    expected = np.zeros_like(v)
    into = f.params.windows(expected)
    for site in f.sweep():
        curved = site.JtHJ(site.h @ moved[f"{site.name}.W"].T + moved[f"{site.name}.b"])
        into[f"{site.name}.W"][...] = curved.T @ site.h / f.n
        into[f"{site.name}.b"][...] = curved.mean(0)
    assert off(array @ v, expected) < 1e-12


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("hidden", ["linear", "relu"])
def test_identity_3_gauss_newton_and_hessian_agree_in_the_layers_blocks(loss, hidden, device):
    net = linear_net((4, 5, 4, 3)) if hidden == "linear" else nn.mlp([4, 5, 4, 3], hidden="relu")
    f = objective(net, None, loss=loss, n=8, device=device)
    gauss, hessian = host(made(f, "fisher", "dense").dense()), host(made(f, "hessian", "dense").dense())
    mask = block_mask(f, "deep")
    assert off(gauss * mask, hessian * mask) < 1e-12
    assert off(gauss, hessian) > 1e-3  # across layers they differ


def test_identity_3_fails_on_smooth_networks():
    f = NETS["deep"]()
    gauss, hessian = host(made(f, "fisher", "block").dense()), host(made(f, "hessian", "block").dense())
    assert off(gauss, hessian) > 1e-3


@pytest.mark.parametrize("structure", STRUCTURES)
def test_identity_4_empirical_is_gn_prob_for_softmax_with_one_hot_targets(structure, device):  # T-3.4.1
    f = NETS["deep"](device=device)
    a, b = (made(f, kind, structure) for kind in ("empirical", "gn_prob"))
    assert off(a.dense(), b.dense()) < 1e-13
    many, one = NETS["chain"](loss="sigmoid"), NETS["one output"](loss="sigmoid")
    a, b = ([made(f, kind, structure).dense() for f in (many, one)] for kind in ("empirical", "gn_prob"))
    assert off(a[0], b[0]) > 1e-3 and off(a[1], b[1]) < 1e-13


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_identity_5_the_expectation_of_mc_is_fisher(loss, device):
    f = objective(nn.mlp([4, 3, 2]), None, loss=loss, n=3, outputs=2, device=device)
    fisher = host(made(f, "fisher", "dense").dense())
    p = np.exp(host(f.output)) / np.exp(host(f.output)).sum(1, keepdims=True)
    labels = [0, 1] if loss == "softmax" else [[a, b] for a in (0.0, 1.0) for b in (0.0, 1.0)]
    q = 1 / (1 + np.exp(-host(f.output)))
    expected = np.zeros_like(fisher)
    for n in range(f.n):  # over the exact distribution of every example's label
        for label in labels:
            weight = p[n, label] if loss == "softmax" else np.prod(np.where(np.array(label), q[n], 1 - q[n]))
            x, y = host(f.args[0])[n : n + 1], np.array([label])
            one = mg.Objective(f.net, f.loss, f.params.to("cpu"), x, y)
            expected += weight * host(matrix(one, "empirical", "dense").dense()) / f.n
    assert off(expected, fisher) < 1e-12


@pytest.mark.parametrize("structure", ["dense", "diagonal", "kronecker"])
def test_identity_5_the_error_of_mc_falls_with_the_root_of_the_samples(structure):
    f = NETS["chain"]()
    exact = host(made(f, "fisher", structure).dense())

    def error(samples):
        found = [host(matrix(f, "mc", structure, samples=samples, rng=seed).dense()) for seed in range(30)]
        return np.sqrt(np.mean([np.linalg.norm(m - exact) ** 2 for m in found]))

    assert 3.2 < error(4) / error(64) < 5.0  # 4, within the noise of 30 draws


def test_a_user_s_loss_has_gauss_newton_by_products():
    f = NETS["deep"]()
    x, y = f.args[0], f.view().y
    own = mg.Objective(f.net, lambda z, y: 3.0 * mg.softmax_cross_entropy(z, y), f.params, x, y, l2=0.1)
    dense = 3.0 * host(made(f, "fisher", "dense").dense()) + decay(own)
    assert off(made(own, "fisher", "dense").dense(), dense) < 1e-12
    assert off(made(own, "fisher", "block").dense(), dense * block_mask(f, "deep")) < 1e-12
    assert off(made(own, "fisher", "diagonal").dense(), np.diag(np.diag(dense))) < 1e-12
    with pytest.raises(TypeError, match="no square root of its curvature"):
        made(own, "fisher", "kronecker")


def test_a_function_without_a_network_has_a_hessian(device):
    rosenbrock = mg.Objective(
        lambda p: (1 - p["x"]) ** 2 + 100 * (p["y"] - p["x"] ** 2) ** 2, mg.Params(x=-1.0, y=2.0).to(device)
    )
    expected = np.array([[1200.0 - 400 * 2.0 + 2, 400.0], [400.0, 200.0]])
    for structure in ("dense", "matrix-free"):
        assert off(matrix(rosenbrock, "hessian", structure).dense(), expected) < 1e-14
    for structure in ("block", "diagonal"):
        assert off(matrix(rosenbrock, "hessian", structure).dense(), np.diag(np.diag(expected))) < 1e-14


# --------------------------------------------------------------------------------------- sizes, chunks, bad input


def test_signals_in_blocks_give_the_same_matrices(monkeypatch, device):
    f = NETS["gained"](device=device, l2=0.1)
    whole = {s: made(f, "fisher", s).dense() for s in ("dense", "block", "diagonal")}
    monkeypatch.setattr("optim.factors.SIGNAL_BYTES", 1)
    monkeypatch.setattr("optim.rows.SLICE_BYTES", 1)
    for structure, expected in whole.items():
        assert off(made(f, "fisher", structure).dense(), expected) < 1e-13


def test_more_rows_than_the_limit_are_summed_up(monkeypatch, device):
    f = NETS["gained"](device=device, l2=0.1)
    few = made(f, "fisher", "block")
    monkeypatch.setattr("optim.curvature.LIMIT", 14)
    many = made(f, "fisher", "block")  # 15 rows
    assert few.blocks[0].rows is not None and many.blocks[0].rows is None
    assert off(many.dense(), few.dense()) < 1e-13


def test_both_spaces_of_a_solve_agree(device):
    f = NETS["chain"](device=device, l2=0.3)
    (few,) = made(f, "fisher", "dense").blocks
    explicit = Block("x", few.layout, f.l2, array=few.array)
    v = random_like(f.params.vector)
    assert few.by_rows and not explicit.by_rows
    assert off(few.solve(v, 0.01), explicit.solve(v, 0.01)) < 1e-11


def test_few_rows_solve_a_large_problem_without_its_matrix():
    f = objective(nn.mlp([200, 100, 3]), None, n=4, inputs=200)
    assert f.params.size > 20_000
    F = matrix(f, "fisher", "dense")
    x = F.solve(f.grad, 0.1)
    assert off(F @ x + 0.1 * x, f.grad) < 1e-12
    assert off(F.trace(), matrix(f, "fisher", "diagonal").trace()) < 1e-12
    assert len(F.eigenvalues()) == f.params.size
    with pytest.raises(ValueError, match="the dense fisher matrix as an array would be 20,403 × 20,403"):
        F.dense()


def test_the_hessians_block_takes_a_product_a_unit():
    f = NETS["chain"]()
    f.cost.backwards = f.cost.products = 0
    made(f, "hessian", "block")
    assert f.cost.products == 0 and f.cost.backwards <= 2


def test_sizes_above_the_limit_are_refused_with_the_alternative():
    f = objective(nn.mlp([80, 60, 3]), None, n=1400, inputs=80)
    with pytest.raises(ValueError, match="5,043 parameters and 4,200 rows .*: use structure 'block', 'kron"):
        matrix(f, "fisher", "dense")
    with pytest.raises(ValueError, match="layer '0' has 4,860 parameters, and a matrix may have 4,000.*'kronecker'"):
        matrix(f, "fisher", "block")
    with pytest.raises(ValueError, match="the dense hessian matrix has 5,043 parameters"):
        matrix(f, "hessian", "dense")
    with pytest.raises(ValueError, match="layer '0' has 4,860 parameters"):
        matrix(f, "hessian", "block")
    assert matrix(f, "empirical", "dense").blocks[0].by_rows


def test_unknown_names_are_refused():
    f = NETS["chain"]()
    with pytest.raises(ValueError, match="unknown curvature 'gn'; the kinds are fisher, mc, empirical,"):
        matrix(f, "gn")
    with pytest.raises(ValueError, match="unknown structure 'full'; the structures are dense, block"):
        matrix(f, "fisher", "full")
    with pytest.raises(ValueError, match="sampled: call f.signals"):
        matrix(f, "mc", "dense")
    with pytest.raises(
        TypeError, match="curvature 'fisher' needs a network and its loss; another function has a 'hessian' only"
    ):
        matrix(mg.Objective(lambda p: p["x"] ** 2, mg.Params(x=1.0)), "fisher")
    with pytest.raises(ValueError, match="the hessian has no structure 'kronecker'"):
        matrix(f, "hessian", "kronecker")
    with pytest.raises(ValueError, match="structure 'ekfac' has no factors for gain"):
        matrix(NETS["gained"](), "fisher", "ekfac")
    with pytest.raises(ValueError, match="sampled gradients of gain are drawn example by example: give rng="):
        matrix(NETS["gained"](), "mc", "dense")


def test_bad_vectors_and_dampings_are_refused():
    F = made(NETS["chain"](), "fisher", "dense")
    with pytest.raises(ValueError, match=r"takes vectors of shape \(43,\), not \(3,\)"):
        F @ np.ones(3)
    for damping in (-1.0, np.nan, True, "1"):
        with pytest.raises(ValueError, match="the damping must be a number of at least 0"):
            F.solve(np.ones(43), damping)


@pytest.mark.parametrize("net", ["chain", "many examples"])  # fewer rows than parameters, and more
@pytest.mark.parametrize("structure", ["dense", "block", "kronecker", "ekfac"])
def test_a_singular_matrix_needs_a_damping(net, structure, device):
    f = NETS[net](device=device)  # softmax: shifting all logits changes nothing
    v = random_like(f.params.vector)
    with pytest.raises(backend.FactorisationError, match="singular"):
        made(f, "fisher", structure).solve(v, 0.0)


def test_a_regular_matrix_is_solved_without_a_damping(device):
    f = objective(nn.mlp([3, 2, 2]), None, loss="squared", n=30, inputs=3, outputs=2, device=device)
    v = random_like(f.params.vector)
    for structure in STRUCTURES:
        C = made(f, "fisher", structure)
        assert off(C @ C.solve(v, 0.0), v) < 1e-8


def test_an_indefinite_hessian_is_refused_by_every_solve(device):
    f = NETS["deep"](device=device)
    v = random_like(f.params.vector)
    for structure in ("dense", "block", "diagonal"):
        with pytest.raises(backend.FactorisationError, match="raise the damping"):
            made(f, "hessian", structure).solve(v, 1e-6)
    with pytest.raises(Stopped, match="the matrix-free hessian matrix .* is not positive definite"):
        made(f, "hessian", "matrix-free").solve(v, 1e-6)


def test_matrix_free_names_who_knows_traces_and_eigenvalues():
    C = made(NETS["chain"](), "fisher", "matrix-free")
    for ask in (C.trace, C.eigenvalues, lambda: C.logdet(0.1)):
        with pytest.raises(ValueError, match="the matrix-free fisher matrix does not know its"):
            ask()
    assert repr(C) == "Curvature(fisher, matrix-free, 43 × 43)"


@pytest.mark.parametrize("structure", STRUCTURES)
def test_float32_stays_float32(structure, device):
    net = nn.mlp([4, 5, 3])
    rng = np.random.default_rng(0)
    x, y = rng.random((6, 4), dtype=np.float32), rng.integers(0, 3, 6)
    x, y = backend.asarray(x, device), backend.asarray(y, device)
    f = mg.Objective(net, losses.softmax_cross_entropy, net.init(rng=0, device=device), x, y, l2=0.1)
    for kind in KINDS if structure not in ("kronecker", "ekfac") else ROWS:
        C = made(f, kind, structure)
        damping = 5.0 if kind == "hessian" else 0.1
        found = [C @ f.grad, C.solve(f.grad, damping), C.dense()]
        if structure != "matrix-free":
            found += [C.trace(), C.logdet(damping), C.eigenvalues()]
        assert all(value.dtype == np.float32 for value in found)
