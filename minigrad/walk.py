"""The three walks over a recorded graph: reverse, forward, and forward-over-reverse.

All are plain loops over a list of nodes in the order of their creation; cotangents and tangents live in a
dictionary per call, under each node's `seq`. With `record=False` rules see arrays; with `record=True` they see
Tensors, so the walk itself can be differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Set
from operator import attrgetter
from typing import Any

from .tensor import Elementwise, Linear, Multilinear, Tensor, add, alias, align, multiply, sum_to, watched, watching

_by_creation = attrgetter("seq")


def between(output: Tensor, inputs: Iterable[Tensor]) -> tuple[list[Tensor], Set[int]]:
    """The nodes that lead from the inputs to the output.

    Returns
    -------
    order : list of Tensor
        In order of creation, without the inputs themselves unless they depend on one another.
    reach : set of int
        `seq` of the inputs and of every node in `order`: what a cotangent is sent to.
    """
    return between_seqs(output, {t.seq for t in inputs})


def between_seqs(output: Tensor, reach: Set[int]) -> tuple[list[Tensor], Set[int]]:
    """`between` for inputs given by their `seq`."""
    first = min(reach)
    seen, stack, found, foreign = {output.seq}, [output], [], not output.args
    while stack:
        node = stack.pop()
        found.append(node)
        for a in node.args:
            if type(a) is Tensor:
                seq = a.seq
                if seq in seen or seq in reach and not a.args:
                    continue
                if seq > first and a.args:
                    seen.add(seq)
                    stack.append(a)
                else:
                    foreign = True  # a Tensor that does not come from the inputs
    found.sort(key=_by_creation)
    if not foreign:
        return found, seen | reach
    order, reach = [], set(reach)
    for node in found:
        for a in node.args:
            if type(a) is Tensor and a.seq in reach:
                reach.add(node.seq)
                order.append(node)
                break
    return order, reach


def is_nested(output: Tensor, order: list[Tensor], reach: set[int], inputs: Iterable[Tensor]) -> bool:
    """Whether the output depends on a Tensor older than the inputs: it belongs to an outer trace.

    A younger Tensor that does not come from the inputs is the variable of an inner trace, which has ended.
    """
    first = min(t.seq for t in inputs)
    stack = [a for node in order for a in node.args if type(a) is Tensor and a.seq not in reach]
    if output.seq not in reach:
        stack.append(output)
    seen = set()
    while stack:
        node = stack.pop()
        if node.seq < first:
            return True
        if node.seq not in seen:
            seen.add(node.seq)
            stack.extend(a for a in node.args if type(a) is Tensor)
    return False


def raw_args(node: Tensor) -> list:
    """The arguments of a node as arrays."""
    return [a.value if type(a) is Tensor else a for a in node.args]


def send(node: Tensor, g: Any, reach: set[int], cotangents: dict[int, Any], record: bool = False) -> None:
    """Send the cotangent g of a node to those of its arguments that lead to the inputs: one step of backprop."""
    if record:
        ans, args, memo = node, node.args, None
    else:
        args = node.args
        args = (args[0].value,) if len(args) == 1 else [a.value if type(a) is Tensor else a for a in args]
        ans, memo = node.value, node
    op, kw = node.op, node.kw
    for i, a in enumerate(node.args):
        if type(a) is Tensor:
            seq = a.seq
            if seq in reach:
                pull = watched(node, "backward", op.pull) if watching else op.pull
                part = pull(i, g, ans, args, kw, memo)
                if part is None:
                    continue
                held = cotangents.get(seq)
                cotangents[seq] = part if held is None else add(held, part)


def reverse(
    order: list[Tensor], reach: set[int], cotangents: dict[int, Any], record: bool = False, keep: Collection[int] = ()
) -> dict[int, Any]:
    """Reverse mode: send cotangents from the last node of `order` to the first.

    Parameters
    ----------
    cotangents : dict
        {seq: cotangent}, seeded at the output; changed in place, and returned.
    keep : collection of int
        Nodes inside `order` whose cotangent is asked for too; all others are freed as soon as they are spent.
    """
    for node in reversed(order):
        seq = node.seq
        g = cotangents.get(seq) if seq in keep else cotangents.pop(seq, None)
        if g is not None:
            send(node, g, reach, cotangents, record)
    return cotangents


def forward(order: list[Tensor], tangents: dict[int, Any], record: bool = False) -> dict[int, Any]:
    """Forward mode: push tangents {seq: tangent} of the inputs through the nodes; all of them are kept."""
    for node in order:
        ts = [tangents.get(a.seq) if type(a) is Tensor else None for a in node.args]
        if any(t is not None for t in ts):
            ans, args, memo = (node, node.args, None) if record else (node.value, raw_args(node), node)
            push = watched(node, "tangent", node.op.push) if watching else node.op.push
            t = push(ts, ans, args, node.kw, memo)
            if t is not None:
                tangents[node.seq] = t
    return tangents


def forward_over_reverse(
    order: list[Tensor],
    reach: set[int],
    tangents: dict[int, Any],
    cotangents: dict[int, Any],
    turned: dict[int, Any],
    record: bool = False,
    keep: Collection[int] = (),
    frozen: bool = False,
) -> dict[int, Any]:
    """The reverse walk together with its derivative along the tangents.

    Parameters
    ----------
    tangents : dict
        What `forward` returned for tangents of the inputs' own shapes: only cotangents may have a lead here.
    cotangents : dict
        Seeded at the output, as for `reverse`; or, with `frozen`, those of every node, only read.
    turned : dict
        Derivatives of the cotangents, seeded at the output; returned. For a scalar output seeded with 1 and
        nothing here, what arrives at the inputs is the Hessian times their tangents.
    """
    for node in reversed(order):
        seq = node.seq
        hold = seq in keep
        g = cotangents.get(seq) if hold or frozen else cotangents.pop(seq, None)
        dg = turned.get(seq) if hold else turned.pop(seq, None)
        if g is not None and not frozen:
            send(node, g, reach, cotangents, record)
        if dg is not None:
            send(node, dg, reach, turned, record)
        if g is not None:
            for i, part in turns(node, g, reach, tangents, record):
                accumulate(turned, node.args[i].seq, part)
    return turned


def accumulate(table: dict[int, Any], seq: int, part: Any) -> None:
    """Add a contribution to an entry, never in place: the entry may be somebody's array."""
    held = table.get(seq)
    table[seq] = part if held is None else add(held, part)


def turns(node: Tensor, g: Any, reach: set[int], tangents: dict[int, Any], record: bool = False):
    """Yield (i, derivative of `pull(i, g)` along the tangents), where it is not zero."""
    op = node.op
    if isinstance(op, Linear):
        return
    args = node.args if record else raw_args(node)
    ans = node if record else node.value
    along = [tangents.get(a.seq) if type(a) is Tensor else None for a in node.args]
    if all(t is None for t in along):
        return
    for i, a in enumerate(node.args):
        if type(a) is Tensor and a.seq in reach:
            if isinstance(op, Elementwise):
                part = _turn_elementwise(op, i, g, ans, tangents.get(node.seq), args, along, node.kw, record)
            elif isinstance(op, Multilinear) or hasattr(op, "turn"):
                part = op.turn(i, g, args, along, node.kw)
            else:
                part = directional(
                    lambda ans, *args, i=i: op.pull(i, g, ans, args, node.kw),
                    (ans, *args), (tangents.get(node.seq), *along), record,
                )  # fmt: skip
            if part is not None:
                yield i, part


def _turn_elementwise(op, i, g, ans, t_ans, args, along, kw, record):
    """g · ∂(partialᵢ): the only part of an elementwise pull that depends on the point."""
    if type(op.partials[i]) is float:
        return None
    primals = (ans, *args)
    shapes = []

    def partial(ans, *args):
        p = op.partials[i](ans, *args, **kw)
        shapes.append(getattr(p, "shape", ()))
        return p

    dp = directional(partial, primals, (t_ans, *along), record)
    if dp is None:
        return None
    old, new = ans.shape, args[i].shape
    c = multiply(g, align(dp, shapes[0], len(old)))
    return c if c.shape[c.ndim - len(old) :] == new else sum_to(c, old=old, new=new)


def enter(value: Any) -> Tensor:
    """A fresh Tensor that stands for `value` within one transform: linked to it if it is itself a Tensor."""
    return alias(value) if type(value) is Tensor else Tensor(value)


def directional(fn: Callable, primals: tuple, tangents: tuple, record: bool = False) -> Any:
    """Derivative of fn(\\*primals) along the tangents (None where zero); None where it is zero as a whole."""
    entered = [p if t is None else enter(p) for p, t in zip(primals, tangents)]
    inputs = {p.seq: t for p, t in zip(entered, tangents) if t is not None}
    if not inputs:
        return None
    out = fn(*entered)
    if type(out) is not Tensor:
        return None
    if out.seq in inputs:
        return inputs[out.seq]
    order, _ = between_seqs(out, inputs.keys())
    return forward(order, inputs, record).get(out.seq)
