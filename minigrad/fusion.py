"""Elementwise formulas that are declared once and run in two forms.

    @fused
    def sigmoid(m, x):
        return 0.5 * m.tanh(0.5 * x) + 0.5

`m` stands for the array module. On the host a large array takes one pass an operation, each written over what is
no longer needed, so that no memory is fetched for what lies between; on the device the whole formula is one kernel.
Small arrays, integers and complex numbers take the formula as it stands.

The formula is recorded once, with symbols in place of arrays: it may use +, −, ·, /, and the functions in CODE.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from . import backend

CODE = {  # operation: the same in a kernel; comparisons let NaN through as NumPy's do
    "add": "({} + {})",
    "subtract": "({} - {})",
    "multiply": "({} * {})",
    "divide": "({} / {})",
    "negative": "(-{})",
    "absolute": "fabs({})",
    "exp": "exp({})",
    "log1p": "log1p({})",
    "maximum": "(({0} != {0} || {0} > {1}) ? {0} : {1})",
    "sqrt": "sqrt({})",
    "tanh": "tanh({})",
}


class Symbol:
    """One value of a recorded formula: an operation on symbols and numbers, or an input."""

    __slots__ = ("op", "args")

    def __init__(self, op: str, *args: Any):
        self.op, self.args = op, args

    def __add__(self, other):
        return Symbol("add", self, other)

    def __radd__(self, other):
        return Symbol("add", other, self)

    def __sub__(self, other):
        return Symbol("subtract", self, other)

    def __rsub__(self, other):
        return Symbol("subtract", other, self)

    def __mul__(self, other):
        return Symbol("multiply", self, other)

    def __rmul__(self, other):
        return Symbol("multiply", other, self)

    def __truediv__(self, other):
        return Symbol("divide", self, other)

    def __rtruediv__(self, other):
        return Symbol("divide", other, self)

    def __neg__(self):
        return Symbol("negative", self)


class Recorder:
    """Stands for the array module while a formula is recorded."""

    def __getattr__(self, name: str) -> Callable[..., Symbol]:
        if name not in CODE:
            raise AttributeError(f"a fused formula has {', '.join(CODE)}; not {name}")
        return lambda *args: Symbol(name, *args)


class Fused:
    """A formula in both forms.

    Parameters
    ----------
    formula : function (m, *arrays) → one value or a tuple of values
    over : tuple of int
        For each result the number of the input that it overwrites; the inputs may then not be needed afterwards.
        Empty: results are fresh.
    """

    def __init__(self, formula: Callable, over: tuple[int, ...] = ()):
        self.formula = formula
        self.over = over
        self.__name__, self.__doc__ = formula.__name__, formula.__doc__
        self.names = list(inspect.signature(formula).parameters)[1:]
        self.inputs = [Symbol("input") for _ in self.names]
        found = formula(Recorder(), *self.inputs)
        self.single = type(found) is Symbol
        self.results = (found,) if self.single else found
        self.order = _order(self.results)
        self._kernel = None
        self.steps, self.constants, self.temporaries, self.places = self._allocate()

    # ----------------------------------------------------------------------------------------------- on the host

    def _allocate(self) -> tuple[list, list[float], int, list[int]]:
        """Passes (ufunc, operands, target) over registers: inputs first, then constants, then temporaries."""
        last = {id(s): k for k, node in enumerate(self.order) for s in node.args}
        for result in self.results:
            last[id(result)] = len(self.order)  # never free
        constants = [a for node in self.order for a in node.args if type(a) is not Symbol]
        base = len(self.inputs) + len(constants)
        place = {id(s): k for k, s in enumerate(self.inputs)}
        free: list[int] = []
        used, at = 0, len(self.inputs)
        steps = []
        for k, node in enumerate(self.order):
            operands = []
            for a in node.args:
                if type(a) is Symbol:
                    operands.append(place[id(a)])
                else:
                    operands.append(at)
                    at += 1
            for register in dict.fromkeys(operands):
                owner = next((a for a in node.args if type(a) is Symbol and place[id(a)] == register), None)
                ours = register >= base or register in self.over
                if owner is not None and ours and last[id(owner)] == k:
                    free.append(register)
            target = self._wanted(node)
            if target is None:
                own = [r for r in free if r in operands]
                target = own[0] if own else free[0] if free else None
            if target is None:
                target = base + used
                used += 1
            elif target in free:
                free.remove(target)
            elif any(last[id(s)] > k for s in self.inputs if place[id(s)] == target):
                raise ValueError(f"{self.__name__}: input {self.names[target]!r} is overwritten before its last use")
            place[id(node)] = target
            steps.append((getattr(np, node.op), tuple(operands), target))
        return steps, constants, used, [place[id(r)] for r in self.results]

    def _wanted(self, node: Symbol) -> int | None:
        for k, result in enumerate(self.results):
            if node is result and k < len(self.over):
                return self.over[k]
        return None

    def _passes(self, arrays: tuple) -> Any:
        like = arrays[0]
        registers = [*arrays, *self.constants, *(backend.empty_like(like) for _ in range(self.temporaries))]
        for ufunc, operands, target in self.steps:
            ufunc(*[registers[k] for k in operands], out=registers[target])
        return registers[self.places[0]] if self.single else tuple(registers[k] for k in self.places)

    def __call__(self, *arrays: Any) -> Any:
        first = arrays[0]
        if type(first) is backend.ndarray:
            if self.over or (first.nbytes >= backend.LARGE and first.dtype.kind == "f"):
                return self._passes(arrays)
            return self.formula(np, *arrays)
        module = backend.xp(first)
        if module is np or first.dtype.kind != "f":
            return self.formula(module, *arrays)
        return self._launch(arrays)

    # --------------------------------------------------------------------------------------------- on the device

    def source(self) -> tuple[str, str, str]:
        """Inputs, outputs and body of the kernel."""
        names = [f"x{k}" for k in range(len(self.inputs))]  # the formula's own might be words of C++
        text = {id(s): name for s, name in zip(self.inputs, names)}
        lines = []
        for k, node in enumerate(self.order):
            operands = [text[id(a)] if type(a) is Symbol else f"T({a!r})" for a in node.args]
            text[id(node)] = f"t{k}"
            lines.append(f"const T t{k} = {CODE[node.op].format(*operands)};")
        lines += [f"out{k} = {text[id(r)]};" for k, r in enumerate(self.results)]
        inputs = ", ".join(f"T {name}" for name in names)
        return inputs, ", ".join(f"T out{k}" for k in range(len(self.results))), "\n".join(lines)

    def _launch(self, arrays: tuple) -> Any:
        if self._kernel is None:
            name = "".join(c for c in self.__name__ if c.isalnum())
            self._kernel = backend.kernel(f"minigrad_{name}", *self.source())
        return self._kernel(*arrays, *(arrays[k] for k in self.over))


def _order(results: tuple[Symbol, ...]) -> list[Symbol]:
    """The operations, each after its operands."""
    found: dict[int, Symbol] = {}

    def visit(node: Symbol) -> None:
        if node.op == "input" or id(node) in found:
            return
        for a in node.args:
            if type(a) is Symbol:
                visit(a)
        found[id(node)] = node

    for result in results:
        visit(result)
    return list(found.values())


def fused(formula: Callable | None = None, *, over: tuple[int, ...] = ()) -> Any:
    """`@fused` or `@fused(over=(0, 1))`: see the module and `Fused`."""
    return Fused(formula, over) if formula else lambda f: Fused(f, over)
