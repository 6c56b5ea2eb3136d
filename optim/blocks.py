"""Dense and block-diagonal curvature [T-3.1.5], solved in the smaller of two spaces."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from minigrad import Objective, backend
from minigrad.params import Windows

from .rows import Rows
from .structures import Curvature, add_to_diagonal, check_damping, check_size, decay_of, decays, scatter_blocks


class Block:
    """One diagonal block: an array (p, p), or fewer rows than p whose Gram matrix is solved instead.

    With B = damping + L2's diagonal and R the rows, (B + RᵀR/N)⁻¹ = B⁻¹ − B⁻¹Rᵀ(N I + R B⁻¹Rᵀ)⁻¹R B⁻¹ (Woodbury).

    Parameters
    ----------
    label : str
        What the block belongs to, for messages.
    layout : dict
        Windows of the block's own vectors.
    rows : Rows, optional
    array : (p, p) array, optional
        With L2 inside; formed from the rows when it is first needed, unless given.
    """

    def __init__(self, label: str, layout: dict[str, tuple], l2: float, rows: Rows | None = None, array: Any = None):
        self.label, self.layout, self.l2, self.rows = label, layout, l2, rows
        self.size = max(stop for _, stop, _ in layout.values())
        self._array = array
        self._spectrum: tuple[Any, Any] | None = None
        self.by_rows = array is None and rows.k * rows.n < self.size

    @property
    def array(self) -> Any:
        if self._array is None:
            check_size(self.size, self.label)
            array = self.rows.outer()
            self._array = add_to_diagonal(array, decays(self.layout, self.l2, array))
        return self._array

    def product(self, v: Any) -> Any:
        return self.row_product(v) if self.by_rows and self._array is None else self.array.dot(v)

    def row_product(self, v: Any) -> Any:
        """(RᵀR/N + L2) v, without the array."""
        out = self.rows.pull(self.rows.push(v))
        out *= 1.0 / self.rows.n
        return out + decays(self.layout, self.l2, v) * v if self.l2 else out

    def solve(self, v: Any, damping: float) -> Any:
        try:
            if self.by_rows:
                return self._solve_rows(v, damping)
            if damping == 0.0:
                return self._solve_undamped(v)
            matrix = add_to_diagonal(self.array.copy(), damping)
            return _spd_solve(matrix, v)
        except backend.FactorisationError as error:
            raise backend.FactorisationError(
                f"{self.label} + {damping:g}·I is singular, indefinite or holds NaN: raise the damping"
            ) from error

    def _solve_undamped(self, v: Any) -> Any:
        """Through the eigenvalues, which tell a singular matrix where a Cholesky factor may not."""
        values, vectors = self.spectrum()
        if not float(values[0]) > len(values) * float(backend.xp(v).finfo(v.dtype).eps) * float(values[-1]):
            raise backend.FactorisationError("an eigenvalue is zero or negative")
        return vectors.dot(vectors.T.dot(v) / values)

    def _solve_rows(self, v: Any, damping: float) -> Any:
        inverse = self._inverse_diagonal(damping)
        scaled = v / (damping + decays(self.layout, self.l2, v)) if self.l2 else v * (1.0 / damping)
        gram = add_to_diagonal(self.rows.gram(inverse), float(self.rows.n))
        u = _spd_solve(gram, self.rows.push(scaled).reshape(-1)).reshape(self.rows.k, self.rows.n)
        back = self.rows.pull(u)
        windows = Windows(self.layout, back)
        for name in self.layout:
            windows[name][...] *= inverse(name)
        return scaled - back

    def _inverse_diagonal(self, damping: float) -> Callable[[str], float]:
        """window → 1/(damping + L2's share)."""
        if any(damping + decay_of(name, self.l2) == 0.0 for name in self.layout):
            raise backend.FactorisationError(f"{self.rows.k * self.rows.n} rows for {self.size} parameters")
        return lambda name: 1.0 / (damping + decay_of(name, self.l2))

    def spectrum(self) -> tuple[Any, Any]:
        if self._spectrum is None:
            self._spectrum = backend.eigh(self.array)
        return self._spectrum

    def eigenvalues(self) -> list[Any]:
        """In parts, unsorted."""
        if self.by_rows and not self.l2:
            rows = self.rows
            values = backend.eigh(rows.gram(lambda name: 1.0 / rows.n))[0]
            return [backend.xp(values).zeros(self.size - len(values), values.dtype), values]
        return [self.spectrum()[0]]

    def trace(self) -> Any:
        if not self.by_rows:
            return backend.xp(self.array).trace(self.array)
        decayed = sum(stop - start for name, (start, stop, _) in self.layout.items() if decay_of(name, self.l2))
        return self.rows.squares().sum() * (1.0 / self.rows.n) + self.l2 * decayed

    def logdet(self, damping: float, log_sum: Callable[[Any, float], Any]) -> Any:
        if not self.by_rows:
            return log_sum(self.spectrum()[0], damping)
        try:
            inverse = self._inverse_diagonal(damping)
        except backend.FactorisationError:
            return log_sum(backend.xp(self.rows.array).zeros(1, self.rows.array.dtype), 0.0)
        values = backend.eigh(self.rows.gram(inverse))[0] * (1.0 / self.rows.n)
        shares = ((stop - start) * math.log(inverse(name)) for name, (start, stop, _) in self.layout.items())
        return log_sum(values, 1.0) - math.fsum(shares)


def _spd_solve(matrix: Any, rhs: Any) -> Any:
    """`backend.spd_solve`; a failure in float32 is tried again in float64."""
    try:
        return backend.spd_solve(matrix, rhs)
    except backend.FactorisationError:
        if matrix.dtype == "float64":
            raise
        return backend.spd_solve(matrix.astype("float64"), rhs.astype("float64")).astype(rhs.dtype)


class Blocks(Curvature):
    """Diagonal blocks over disjoint windows that make up θ; "dense" is one block of all of them."""

    def __init__(self, f: Objective, kind: str, structure: str, blocks: list[Block]):
        super().__init__(f, kind)
        self.structure = structure
        self.blocks = blocks

    def _places(self, block: Block) -> list[slice]:
        """Where the block's windows are in θ; neighbours as one slice."""
        found: list[slice] = []
        for name in block.layout:
            start, stop, _ = self.layout[name]
            if found and found[-1].stop == start:
                found[-1] = slice(found[-1].start, stop)
            else:
                found.append(slice(start, stop))
        return found

    def _each(self, v: Any, apply: Callable[[Block, Any], Any]) -> Any:
        out = backend.empty_like(v)
        for block in self.blocks:
            places = self._places(block)
            own = v[places[0]] if len(places) == 1 else backend.xp(v).concatenate([v[p] for p in places])
            result, at = apply(block, own), 0
            for place in places:
                out[place] = result[at : at + place.stop - place.start]
                at += place.stop - place.start
        return out

    def _product(self, v):
        return self._each(v, Block.product)

    def _solve(self, v, damping):
        return self._each(v, lambda block, own: block.solve(own, damping))

    def _dense(self):
        return scatter_blocks(self, [(list(block.layout), block.array) for block in self.blocks])

    def trace(self):
        return sum(block.trace() for block in self.blocks)

    def logdet(self, damping):
        damping = check_damping(damping)
        return sum(block.logdet(damping, self._log_sum) for block in self.blocks)

    def eigenvalues(self):
        return self._sorted([values for block in self.blocks for values in block.eigenvalues()])
