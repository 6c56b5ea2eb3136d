"""The editable backward pass: a Sweep yields one Site for every dense layer, from the output to the input.

    for site in (sweep := f.sweep()):
        site.gradient(-0.1)                     # ΔW, Δb of this layer, written into sweep.delta
    params.vector += sweep.delta                # plain gradient descent

An untouched loop is plain backprop: a site sends da @ W to its input unless `site.dh` was set.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from . import backend, ops
from .tensor import Tensor, raw
from .walk import accumulate, send

if TYPE_CHECKING:
    from .graph import Graph
    from .objective import Objective
    from .params import Layer

EXPLICIT_LIMIT = 1 << 31  # bytes of J that `site.J` makes at most


class Site:
    """One dense layer in the middle of a backward pass.

    Attributes
    ----------
    name : str
        The layer's windows are `name.W` and `name.b`.
    h : (N, in)
        Its input.
    a : (N, out)
        Its output, the pre-activation h Wᵀ + b.
    da : (N, out)
        ∂ℓ/∂a of every example (N times ∂R/∂a), under the signals that this sweep has sent so far.
    W, b : (out, in), (out,) or None
        Windows into θ.
    below : bool
        Whether something trainable lies below, so that what this site sends down matters.
    dh : (N, in) or None
        Set it to send another signal to the input than da @ W; other branches of the network add theirs.
    shared : bool
        Whether an earlier site of this sweep had the same windows.
    """

    __slots__ = (
        *("name", "h", "a", "da", "W", "b", "below", "dh", "shared"),
        *("objective", "_sweep", "_node", "_layer", "_version", "_wrote"),
    )

    def __init__(self, sweep: Sweep, node: Tensor, layer: Layer, da: Any):
        h, w, b = node.args
        self.name = layer.name
        self.h = backend.read_only(raw(h))  # other branches and memos hold these arrays too
        self.a = backend.read_only(node.value)
        self.da = backend.read_only(da)
        self.W = w.value
        self.b = None if b is None else b.value
        self.below = type(h) is Tensor and h.seq in sweep.graph.reach
        self.dh = None
        self.shared = layer.W in sweep.seen
        self.objective = sweep.objective
        self._sweep = sweep
        self._node = node
        self._layer = layer
        self._wrote = False
        self._version = sweep.objective.params.version

    def _check(self) -> None:
        if self._version != self.objective.params.version:
            raise RuntimeError(f"the parameters have moved since site {self.name!r} was made; start a new sweep")

    def _here(self, what: str, value: Any) -> Any:
        """An array that this site is given, refused where it is on another device."""
        if type(value) is not type(self.a):
            backend.check_place(f"{what} of site {self.name!r}", value, self.a)
        return value

    def gradient(self, scale: Any = 1.0, h: Any = None, da: Any = None) -> tuple[Any, Any]:
        """(ΔW, Δb) = scale·(daᵀ h / N, mean da), written straight into this layer's windows of `sweep.delta`.

        Parameters
        ----------
        scale : float or 0-d array
        h : (N, in), optional
            Another input than the layer's own (centred, preconditioned).
        da : (N, out), optional
            Another signal.

        Returns
        -------
        ΔW (out, in), Δb (out,) or None
            Windows: changing them in place changes the step. Sites that share their windows add up.
        """
        self._check()
        sweep, layer = self._sweep, self._layer
        if self.shared and self._wrote:
            raise RuntimeError(f"site {self.name!r} shares its windows: ask for its gradient once in a sweep")
        self._wrote = True
        scale = backend.scalar(scale, self.da) * (1.0 / self.objective.n)
        scaled = ops.multiply.forward(self.da if da is None else self._here("da", da), scale)
        others = sweep.seen & sweep.written  # asked again, a layer replaces what it wrote itself
        h = self.h if h is None else self._here("h", h)
        layer_gradient(scaled, h, sweep.windows, layer.W, layer.b, others)
        return self._own_windows()

    def _own_windows(self) -> tuple[Any, Any]:
        """This layer's windows of the step, which from now on count as written."""
        found = []
        for name in self._layer[1:]:
            if name is not None:
                self._sweep.written.add(name)
            found.append(None if name is None else self._sweep.windows[name])
        return tuple(found)

    def write(self, dW: Any, db: Any) -> None:
        """Put another ΔW, Δb into this layer's windows of `sweep.delta`; nothing to do for the windows themselves."""
        self._check()
        for window, value in zip(self._own_windows(), (dW, db)):
            if value is not None and value is not window:
                window[...] = self._here("the step", value)

    # ----------------------------------------------------------- the unedited network above this pre-activation

    @property
    def J(self) -> Any:
        """Jacobian of the network's output with respect to a: (C, N, out), every example's own."""
        self._check()
        n, c = self.objective.output.shape
        size = c * math.prod(self.a.shape) * self.a.dtype.itemsize
        if size > EXPLICIT_LIMIT:
            raise MemoryError(
                f"J of layer {self.name!r} would take {size / 2**30:.1f} GiB; "
                "use site.jacobian(chunk=…), or site.JtHJ(v), which never forms it"
            )
        return self.signals("jacobian")

    def jacobian(self, chunk: int) -> Iterator[Any]:
        """J in blocks of at most `chunk` outputs: (≤ chunk, N, out) each, from one walk a block."""
        self._check()
        f = self.objective
        if chunk < 1:
            raise ValueError(f"chunk must be at least 1, not {chunk}")
        n, c = f.output.shape
        module = backend.xp(self.a)
        eye = module.eye(c, dtype=self.a.dtype)[:, None, :]
        for start in range(0, c, chunk):
            self._check()
            rows = eye[start : start + chunk]
            yield f.pull_down(self._node, module.broadcast_to(rows, (len(rows), n, c)))

    def signals(self, kind: str) -> Any:
        """This layer's share (K, N, out) of `f.signals(kind)`."""
        self._check()
        return backend.read_only(self.objective.signals_at(kind)[self._node.seq])

    def sent(self, kind: str) -> Any:
        """What this layer sends below under the sampled signals: s W (K, N, in), already formed by their walk."""
        self._check()
        self.objective.signals_at(kind)
        return self.objective.memo["sent", kind][self._node.seq]

    def JtHJ(self, v: Any) -> Any:
        """Jᵀ H_z J v (N, out), the Gauss-Newton matrix of a times v, without J: one product up and one down."""
        self._check()
        f = self.objective
        _, curved = f.push_up(self._node, self._here("v", v))
        return f.pull_down(self._node, curved)

    def hessian_vp(self, v: Any) -> Any:
        """∂²ℓ/∂a² v (N, out), every example's own exact Hessian, by forward-over-reverse through the layers above."""
        self._check()
        f = self.objective
        moved, curved = f.push_up(self._node, self._here("v", v))
        return f.turn_down(self._node, moved, curved)

    def __repr__(self) -> str:
        n, out = self.a.shape[0], self.a.shape[-1]
        return f"Site({self.name!r}, N = {n}, {self.h.shape[-1]} → {out})"


class Sweep:
    """One backward pass: iterate over it, then read `delta` and `rest`.

    Attributes
    ----------
    delta : (d,)
        What `site.gradient` wrote; zero elsewhere.
    rest : (d,)
        After the loop: the gradient of the parameters without a site, and of what a window does outside its site,
        under the same signals; zero elsewhere.
    """

    def __init__(self, objective: Objective):
        self.objective = objective
        self.graph: Graph = objective.graph()
        self._version = objective.params.version
        self._begun = False
        self._start()

    def _start(self) -> None:
        params = self.objective.params
        self._delta = backend.empty_like(params.vector)
        self.windows = params.windows(self._delta)
        self.written: set[str] = set()  # windows of the step that hold something
        self.seen: set[str] = set()  # windows of the sites that the loop has left
        self._cotangents: dict[int, Any] | None = None

    def __iter__(self) -> Iterator[Site]:
        if self._begun:
            self._start()
        self._begun = True
        f, graph = self.objective, self.graph
        f.cost.backwards += 1
        cotangents = {graph.out.seq: f.view().gradient()}
        for node in reversed(graph.order):
            da = cotangents.pop(node.seq, None)
            if da is None:
                continue
            layer = graph.sites.get(node.seq)
            if layer is None:
                send(node, da, graph.reach, cotangents)
                continue
            site = Site(self, node, layer, da)
            yield site
            if self._version != f.params.version:
                raise RuntimeError(f"the parameters moved during a sweep, at site {site.name!r}; move them after it")
            self.seen.update(name for name in layer[1:] if name is not None)
            if site.below:
                sent = ops.product(site.da, site.W) if site.dh is None else site._here("dh", site.dh)
                accumulate(cotangents, node.args[0].seq, sent)
        self._cotangents = cotangents

    @property
    def delta(self) -> Any:
        for name in self.graph.leaves:
            if name not in self.written:
                self.windows[name][...] = 0.0
        return self._delta

    @property
    def rest(self) -> Any:
        if self._cotangents is None:
            raise RuntimeError("the gradient of the parameters without a site is known when the sweep has ended")
        out = backend.xp(self._delta).zeros_like(self._delta)
        windows = self.objective.params.windows(out)
        for name, leaf in self.graph.leaves.items():
            found = self._cotangents.get(leaf.seq)
            if found is not None:
                windows[name][...] = found * (1.0 / self.objective.n)
        return out

    @property
    def strays(self) -> list[str]:
        """After the loop: windows of sites that the network also uses elsewhere; `rest` holds that share."""
        held = {window for layer in self.graph.sites.values() for window in layer[1:]}
        return [name for name in held if name and self.graph.leaves[name].seq in (self._cotangents or ())]


def signal_walk(graph: Graph, seed: Any, keep_sent: bool = False) -> tuple[dict[int, Any], dict[int, Any]]:
    """Send signals (K, N, C) from the output through the unedited network.

    Returns
    -------
    at, sent : dict
        {seq of a site: its s (K, N, out)}; and, with `keep_sent`, {seq: s W (K, N, in)}.
    """
    at: dict[int, Any] = {}
    sent: dict[int, Any] = {}
    cotangents = {graph.out.seq: seed}
    for node in reversed(graph.order):
        s = cotangents.pop(node.seq, None)
        if s is None:
            continue
        if node.seq not in graph.sites:
            send(node, s, graph.inner, cotangents)
            continue
        at[node.seq] = s
        h, w, _ = node.args
        if type(h) is Tensor and h.seq in graph.inner:
            part = ops.product(s, w.value)
            if keep_sent:
                sent[node.seq] = part
            accumulate(cotangents, h.seq, part)
    return at, sent


def layer_gradient(
    da: Any, h: Any, windows: Mapping[str, Any], weights: str, bias: str | None, written: set[str]
) -> None:
    """Write daᵀ h and Σ da into the windows of a layer, or add them where another layer has `written` before."""
    if da.ndim > 2:
        rows = math.prod(da.shape[:-1])
        da, h = da.reshape(rows, da.shape[-1]), h.reshape(rows, h.shape[-1])
    if weights in written or bias in written:
        _add_gradient(da, h, windows, weights, bias, written)
        return
    da.T.dot(h, windows[weights])
    written.add(weights)
    if bias is not None:
        backend.ones(len(da), da).dot(da, windows[bias])  # a third of the time of da.sum(0)
        written.add(bias)


def _add_gradient(da, h, windows, weights, bias, written):
    """`layer_gradient` where one of the windows holds another layer's share."""
    for name, a, b in ((weights, da.T, h), (bias, backend.ones(len(da), da), da)):
        if name in written:
            windows[name][...] += a.dot(b)
        elif name is not None:
            a.dot(b, windows[name])
            written.add(name)
