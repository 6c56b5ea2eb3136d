"""Objective: a lazy, memoised view of one loss on one batch.

R(θ) = (1/N) Σᵢ ℓᵢ + (l2/2) Σ ‖W‖². Black-box methods read `value`, `grad`, products; white-box methods sweep over
the layers (`sites`). Nothing is computed before it is asked for, and what was computed is kept until θ moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import backend, ops
from .graph import Graph
from .losses import View, as_loss
from .params import Params, Windows
from .sites import Sweep, layer_gradient, signal_walk
from .tensor import Tensor, raw
from .walk import accumulate, between, forward, forward_over_reverse, reverse, send, turns

KINDS = ("jacobian", "fisher", "mc", "empirical", "gn_prob")


class Cost:
    """What an objective, and every view of it at another point, was asked to compute."""

    __slots__ = ("forwards", "backwards", "products")

    def __init__(self) -> None:
        self.forwards = 0
        self.backwards = 0
        self.products = 0

    def __repr__(self) -> str:
        return f"Cost(forwards={self.forwards}, backwards={self.backwards}, products={self.products})"


class Objective:
    """One loss on one batch as a function of θ.

    Two forms: `Objective(net, loss, params, x, y)` for a network, and `Objective(fn, params, *args)` for any
    function fn(params, \\*args) that returns one number. What only a network has (signals, sweeps, ggnvp) refuses
    on the second.

    Parameters
    ----------
    net : callable
        net(params, x) → (N, C); called with `train=True` where `train` is set.
    loss : one of `minigrad.losses`, or a function (z, y) → (N,)
    params : Params
    x : (N, …) array
    y : (N,) or (N, C) array
    l2 : float
        c adds (c/2) Σ‖W‖² over the windows NAME.W to value, grad, pullback and hvp.
    train : bool
        Passed to the network (batch normalisation reads it).

    Raises
    ------
    ValueError
        Arrays that do not fit in shape, dtype or device; a loss on logits after a sigmoid or softmax.

    Examples
    --------
    >>> import minigrad as mg
    >>> f = mg.Objective(lambda p: (1 - p["x"])**2 + 100*(p["y"] - p["x"]**2)**2, mg.Params(x=-1.0, y=2.0))
    >>> float(f.value), f.grad.tolist()
    (104.0, [396.0, 200.0])
    """

    def __init__(self, net: Callable, *given: Any, l2: float = 0.0, train: bool = False):
        self.net = net
        self.l2 = l2
        self.train = train
        self.cost = Cost()
        self._memo: dict = {}
        if len(given) == 4 and isinstance(given[1], Params) and type(given[0]) is not Params:
            loss, self.params, x, y = given
            self.loss, self.args = as_loss(loss), (x,)
            self.targets = y
            self._check_batch(x, y)
            self.n = len(x)
        elif given and isinstance(given[0], Params):
            self.loss, self.params, self.args = None, given[0], given[1:]
            self.n = 1
        else:
            raise TypeError("an Objective takes (net, loss, params, x, y) for a network, or (fn, params, *args)")
        if not l2 >= 0:
            raise ValueError(f"l2 must not be negative, not {l2}")
        self._version = self.params.version

    def _check_batch(self, x: Any, y: Any) -> None:
        theta = self.params.vector
        if type(x) is type(theta) is type(y) and x.dtype == theta.dtype and x.ndim and len(x) == len(y) > 0:
            return
        if not getattr(x, "ndim", 0):
            raise ValueError(f"x must be an array with one row for each example, not {type(x).__name__}")
        backend.check_place("x", x, theta)
        if hasattr(y, "dtype"):
            backend.check_place("y", raw(y), theta)
        if x.dtype.kind == "f" and x.dtype != theta.dtype:
            kinds = f"x is {x.dtype}, but the parameters are {theta.dtype}"
            raise ValueError(f"{kinds}; convert with x.astype({str(theta.dtype)!r})")
        if len(x) != len(y):
            raise ValueError(f"x has {len(x)} examples, but y has {len(y)}")
        if not len(x):
            raise ValueError("a batch needs at least one example")

    # ------------------------------------------------------------------------------------------------ the memo

    @property
    def memo(self) -> dict:
        """What was computed at the present θ; emptied when θ has moved."""
        if self._version != self.params.version:
            self._memo = {}
            self._version = self.params.version
        return self._memo

    def graph(self) -> Graph:
        """The recorded forward pass at the present θ."""
        memo = self.memo
        graph = memo.get("graph")
        if graph is None:
            self.cost.forwards += 1
            tracked = self.params.track()
            out = self.net(tracked, *self.args, **({"train": True} if self.train else {}))
            if type(out) is not Tensor:
                raise TypeError("the function does not use its parameters: its result depends on none of them")
            self._check_output(out)
            graph = memo["graph"] = Graph(out, tracked)
        return graph

    def _check_output(self, out: Tensor) -> None:
        if self.loss is None:
            if out.ndim:
                raise ValueError(f"an objective is one number, but the function returned shape {tuple(out.shape)}")
            return
        z = out.value
        if z.dtype != self.params.dtype:
            kinds = f"the network's output is {z.dtype}, but the parameters are {self.params.dtype}"
            raise ValueError(f"{kinds}; give x and all constants as {self.params.dtype}")
        if z.ndim != 2 or len(z) != self.n:
            raise ValueError(f"the network must return (N, C) with N = {self.n}, not shape {tuple(z.shape)}")
        if self.loss.on_logits and out.op in (ops.sigmoid, ops.normalised):
            raise ValueError(
                f"{self.loss.name} takes logits, but the network ends in {out.op.name}; leave that last layer out"
            )

    def view(self) -> View:
        """The loss at the network's output."""
        memo = self.memo
        view = memo.get("view")
        if view is None:
            self._need_network("view")
            view = memo["view"] = self.loss.at(self.graph().out.value, self.targets)
        return view

    @property
    def statistics(self) -> dict[str, Any]:
        """{buffer: array}: where this batch moves the running statistics in train mode; `Method.step` moves them."""
        return self.graph().moved

    def need_separate_examples(self) -> None:
        """Refuse, by the layer's name, what is not defined where a layer in train mode mixes the examples of a batch.

        Then no example has Jacobians, signals, gradients or a curvature of its own; R, ∇R and ∂R/∂a are defined.
        """
        for name in self.graph().moved:
            layer = name.rpartition(".")[0]
            raise ValueError(
                f"layer {layer!r} mixes the examples of a batch in train mode, so Jacobians, signals, curvature and "
                "gradients of single examples are not defined; use Objective(..., train=False)"
            )

    def _need_network(self, what: str) -> None:
        if self.loss is None:
            raise TypeError(f"{what} needs a network and its loss: Objective(net, loss, params, x, y)")

    # -------------------------------------------------------------------------------------- value and gradient

    @property
    def value(self) -> Any:
        """R(θ), a 0-d array on θ's device."""
        memo = self.memo
        if "value" not in memo:
            if self.loss is None:
                value = self.graph().out.value.copy()  # it may be a view of θ, which moves
            else:
                value = _mean(self.view(), self.n)
            if self.l2:
                value = value + (0.5 * self.l2) * sum((w * w).sum() for w in self._decayed(self.params))
            memo["value"] = backend.xp(self.params.vector).asarray(value, dtype=self.params.dtype)
        return memo["value"]

    def value_later(self) -> Callable[[], Any]:
        """A function that gives R at the present θ when it is called, also once θ has moved.

        Where that is possible it keeps the network's output alone, and computes the loss when somebody asks.
        """
        view, n = None if self.loss is None else self.view(), self.n
        if view is None or self.l2 or "value" in self.memo or view.z.base is not None:
            value = self.value
            return lambda: value
        return lambda: backend.xp(view.z).asarray(_mean(view, n), dtype=view.z.dtype)

    @property
    def output(self) -> Any:
        """The network's output z (N, C)."""
        self._need_network("output")
        return self.graph().out.value

    @property
    def grad(self) -> Any:
        """∇R(θ) (d,), a fresh vector."""
        return self.pullback(1.0)

    def grad_of(self, name: str) -> Any:
        """The window of ∇R(θ) that belongs to one parameter."""
        return self.params.windows(self.grad)[name]

    def pullback(self, scale: Any = 1.0) -> Any:
        """scale·∇R(θ) (d,), a fresh vector; the scale goes into the signal at the top, not into d numbers.

        Parameters
        ----------
        scale : float or 0-d array
        """
        graph = self.graph()
        self.cost.backwards += 1
        scale = backend.scalar(scale, self.params.vector)
        out = backend.empty_like(self.params.vector)
        into = self.params.windows(out)
        self._pull(graph, self._top_gradient(scale), into)
        self._decay(self.params, scale, into)
        return out

    def _top_gradient(self, scale: Any) -> Any:
        if self.loss is None:
            value = self.graph().out.value
            return backend.xp(value).asarray(1.0 * scale, dtype=value.dtype)
        return ops.multiply.forward(self.view().gradient(), scale * (1.0 / self.n))

    def _pull(self, graph: Graph, signal: Any, into: Windows) -> None:
        """Write Jᵀ signal into windows: backprop, with every dense layer's product going straight to its place."""
        sites, reach, windows = graph.sites, graph.reach, into.all()
        cotangents = {graph.out.seq: signal}
        written: set[str] = set()
        for node in reversed(graph.order):
            seq = node.seq
            g = cotangents.pop(seq, None)
            if g is None:
                continue
            layer = sites.get(seq)
            if layer is None:
                send(node, g, reach, cotangents)
                continue
            h, w, _ = node.args
            layer_gradient(g, raw(h), windows, layer.W, layer.b, written)
            if type(h) is Tensor and h.seq in reach:
                accumulate(cotangents, h.seq, backend.matmul(g, w.value))
        self._collect(graph, cotangents, written, into)

    def _collect(self, graph: Graph, cotangents: dict, written: set[str], into: Windows) -> None:
        """Bring the cotangents of the parameters themselves to their windows; zero what nothing reached."""
        if len(written) == len(graph.leaves) and not cotangents:
            return  # the layers wrote every window
        for name, leaf in graph.leaves.items():
            found = cotangents.get(leaf.seq)
            if name not in written:
                into[name][...] = 0.0 if found is None else found
            elif found is not None:  # used by a dense layer and elsewhere too
                into[name][...] += found

    def _decayed(self, windows: Windows) -> list:
        return [windows[name] for name in windows if name.endswith(".W")]

    def _decay(self, source: Windows, scale: Any, into: Windows) -> None:
        if self.l2:
            for w, g in zip(self._decayed(source), self._decayed(into)):
                g += (self.l2 * scale) * w

    # ---------------------------------------------------------------------------------------- products with v

    def _windows_of(self, v: Any) -> Windows:
        theta = self.params.vector
        if tuple(getattr(v, "shape", ())) != tuple(theta.shape):
            raise ValueError(f"the vector has shape {tuple(getattr(v, 'shape', ()))}, but θ has {tuple(theta.shape)}")
        backend.check_place("the vector v", v, theta)
        return self.params.windows(v if v.dtype == theta.dtype else v.astype(theta.dtype))

    def hvp(self, v: Any) -> Any:
        """∇²R(θ) v (d,), by the forward-over-reverse walk."""
        along = self._windows_of(v)
        graph = self.graph()
        self.cost.products += 1
        moved = forward(graph.order, graph.tangents(along))
        g = self._top_gradient(1.0)
        dg = None
        if self.loss is not None and graph.out.seq in moved:
            dg = ops.multiply(self.view().curvature(moved[graph.out.seq]), 1.0 / self.n)
        out = backend.empty_like(self.params.vector)
        into = self.params.windows(out)
        self._turn(graph, moved, g, dg, into)
        self._decay(along, 1.0, into)
        return out

    def _turn(self, graph: Graph, moved: dict, g: Any, dg: Any, into: Windows) -> None:
        """`_pull` of dg, together with the derivative of `_pull` of g along the tangents `moved`."""
        cotangents, turned = {graph.out.seq: g}, {} if dg is None else {graph.out.seq: dg}
        written: set[str] = set()
        for node in reversed(graph.order):
            g, dg = cotangents.pop(node.seq, None), turned.pop(node.seq, None)
            if g is None:
                continue
            layer = graph.sites.get(node.seq)
            if layer is None:
                send(node, g, graph.reach, cotangents)
                if dg is not None:
                    send(node, dg, graph.reach, turned)
                for i, part in turns(node, g, graph.reach, moved):
                    accumulate(turned, node.args[i].seq, part)
                continue
            h, w, _ = node.args
            dh = moved.get(h.seq) if type(h) is Tensor else None
            _stacked_gradient([(dg, raw(h)), (g, dh)], into, layer.W, layer.b, written)
            if type(h) is Tensor and h.seq in graph.reach:
                accumulate(cotangents, h.seq, ops.product(g, w.value))
                accumulate(turned, h.seq, ops.product(g, moved[w.seq]))
                if dg is not None:
                    accumulate(turned, h.seq, ops.product(dg, w.value))
        self._collect(graph, turned, written, into)

    def ggnvp(self, v: Any) -> Any:
        """Gauss-Newton times v, (1/N) Σ Jᵀ H_z J v (d,), with H_z the loss's curvature at the output (and l2)."""
        self._need_network("ggnvp")
        along = self._windows_of(v)
        graph = self.graph()
        self.cost.products += 1
        moved = forward(graph.order, graph.tangents(along)).get(graph.out.seq)
        curved = backend.zeros_like(self.output) if moved is None else self.view().curvature(moved)
        out = backend.empty_like(self.params.vector)
        into = self.params.windows(out)
        self._pull(graph, ops.multiply(curved, 1.0 / self.n), into)
        self._decay(along, 1.0, into)
        return out

    # ---------------------------------------------------------------------------------------------- white box

    def at(self, vector: Any) -> Objective:
        """The same objective on the same batch at another point; `vector` is not copied."""
        other = object.__new__(Objective)
        other.__dict__.update(self.__dict__)
        other.params = self.params.at(vector)
        other._memo, other._version = {}, other.params.version
        return other

    def sweep(self) -> Sweep:
        """The backward pass as a loop over the layers, from the output to the input, that the reader can edit."""
        self._need_network("a sweep")
        return Sweep(self)

    def signals(
        self, kind: str, samples: int = 1, rng: Any = None, chunk: int | None = None
    ) -> dict[str, Any] | Iterator[dict[str, Any]]:
        """Signals s (K, N, out) at every layer, from one walk through the unedited network; memoised.

        Parameters
        ----------
        kind : {"jacobian", "fisher", "mc", "empirical", "gn_prob"}
            What is sent at the output: the unit vectors (K = C), a root of H_z (K = C), sampled gradients divided
            by √samples (K = samples), the gradient at the true targets (K = 1), the root of [T-3.4.1]'s curvature.
        samples : int
            Draws for "mc".
        rng
            Whatever `numpy.random.default_rng` accepts; needed for "mc" unless it was drawn before.
        chunk : int, optional
            Yield blocks of at most this many signals instead of all at once.

        Returns
        -------
        dict
            {layer: (K, N, out)}, or an iterator of such dicts with `chunk`. A layer that shares the window of an
            earlier one is called NAME@2, NAME@3, …
        """
        self._need_network("signals")
        graph = self.graph()
        if chunk is not None:
            return self._signal_blocks(graph, self.output_signals(kind, samples, rng), chunk)
        return graph.by_name(self.signals_at(kind, samples, rng))

    def signals_at(self, kind: str, samples: int = 1, rng: Any = None) -> dict[int, Any]:
        """`signals` under the nodes' `seq` instead of names."""
        memo = self.memo
        key = ("signals", kind)
        if kind == "mc" and rng is None and samples != 1 and key in memo:
            raise ValueError(f"to draw another {samples} samples, call f.signals('mc', samples={samples}, rng=…)")
        if key not in memo or (kind == "mc" and rng is not None):
            graph = self.graph()
            self.cost.backwards += 1
            memo[key], memo["sent", kind] = signal_walk(graph, self.output_signals(kind, samples, rng), kind == "mc")
        return memo[key]

    def _signal_blocks(self, graph: Graph, seed: Any, chunk: int) -> Iterator[dict[str, Any]]:
        if chunk < 1:
            raise ValueError(f"chunk must be at least 1, not {chunk}")
        version = self.params.version
        for start in range(0, len(seed), chunk):
            if self.params.version != version:
                raise RuntimeError("the parameters have moved since these signals were asked for; ask again")
            self.cost.backwards += 1
            yield graph.by_name(signal_walk(graph, seed[start : start + chunk])[0])

    def output_signals(self, kind: str, samples: int, rng: Any) -> Any:
        """The signals (K, N, C) at the output."""
        self.need_separate_examples()
        view = self.view()
        module = backend.xp(view.z)
        n, c = view.z.shape
        if kind == "jacobian":
            return module.broadcast_to(module.eye(c, dtype=view.z.dtype)[:, None, :], (c, n, c))
        if kind in ("fisher", "gn_prob"):
            return view.root(kind)
        if kind == "empirical":
            return view.gradient()[None]
        if kind != "mc":
            raise ValueError(f"unknown signals {kind!r}; the kinds are {', '.join(KINDS)}")
        if rng is None:
            raise ValueError("signals of kind 'mc' are sampled: call f.signals('mc', rng=…) once before reading them")
        if samples < 1:
            raise ValueError(f"samples must be at least 1, not {samples}")
        generator = np.random.default_rng(rng)
        drawn = module.stack([view.sample(generator) for _ in range(samples)])
        return drawn if samples == 1 else drawn * samples**-0.5

    def plain_cotangents(self) -> dict[int, Any]:
        """The unedited ∂ℓ/∂(node) of every node above the lowest layer; memoised."""
        memo = self.memo
        if "plain" not in memo:
            graph = self.graph()
            self.cost.backwards += 1
            seed = {graph.out.seq: self.view().gradient()}
            memo["plain"] = reverse(graph.order, graph.inner, seed, keep=graph.inner)
        return memo["plain"]

    def above(self, node: Tensor) -> tuple[list[Tensor], set[int]]:
        """The nodes between one layer's pre-activation and the output."""
        self.need_separate_examples()
        graph = self.graph()
        found = graph.above.get(node.seq)
        if found is None:
            found = graph.above[node.seq] = between(graph.out, [node])
        return found

    def push_up(self, node: Tensor, v: Any) -> tuple[dict[int, Any], Any]:
        """Tangents of the nodes above for the tangent v of `node`, and the curvature times the output's tangent."""
        graph = self.graph()
        order, _ = self.above(node)
        moved = forward(order, {node.seq: v})
        return moved, self.view().curvature(moved[graph.out.seq])

    def pull_down(self, node: Tensor, g: Any) -> Any:
        """Cotangent of `node` for the cotangent g of the output, through the unedited network."""
        graph = self.graph()
        order, reach = self.above(node)
        return reverse(order, reach, {graph.out.seq: g}, keep=(node.seq,))[node.seq]

    def turn_down(self, node: Tensor, moved: dict[int, Any], dg: Any) -> Any:
        """How the cotangent of `node` turns when the nodes above move along `moved` and the output's turns by dg."""
        graph = self.graph()
        order, reach = self.above(node)
        turned = {graph.out.seq: dg}
        forward_over_reverse(order, reach, moved, self.plain_cotangents(), turned, keep=(node.seq,), frozen=True)
        return turned[node.seq]

    def __repr__(self) -> str:
        what = getattr(self.net, "__name__", type(self.net).__name__)
        batch = f", {self.loss!r}, N = {self.n}" if self.loss else ""
        return f"Objective({what}{batch}, {self.params!r})"


def _mean(view: View, n: int) -> Any:
    return view.value().sum() * (1.0 / n)


def _stacked_gradient(pairs: list, into: Windows, weights: str, bias: str | None, written: set[str]) -> None:
    """Σ daᵀ h over pairs (da, h), as one product of stacked rows; b sums the first da alone."""
    known = [(da, h) for da, h in pairs if da is not None and h is not None]
    if not known:
        known = [(backend.zeros_like(pairs[1][0]), backend.zeros_like(pairs[0][1]))]
    da, h = known[0] if len(known) == 1 else (backend.xp(side[0]).concatenate(side) for side in zip(*known))
    layer_gradient(da, h, into, weights, None, written)
    if bias is not None:
        first = pairs[0][0]
        rows = 0.0 if first is None else first.sum(tuple(range(first.ndim - 1)))
        into[bias][...] = into[bias] + rows if bias in written else rows
        written.add(bias)
