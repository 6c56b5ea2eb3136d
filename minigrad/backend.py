"""Where arrays live: NumPy by default, CuPy on request. The only file that knows CuPy.

Code elsewhere asks `xp(array)` for the module of an array and never branches on the device. What differs
between the two libraries is met here: uploads, guarded factorisations, reused buffers, random streams.
"""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from .pool import Pool

DEVICES = ("cpu", "cuda")
INSTALL = "pip install 'minigrad[cuda13]' or 'minigrad[cuda12]'"
LARGE = 1 << 15  # bytes; below this the C library's own free lists are as fast as the pool
MIXED = (  # what CuPy says of an operation on arrays of both sides
    "Unsupported type <class 'numpy.ndarray'>",
    "got numpy.ndarray)",
    "non-scalar numpy.ndarray cannot be used for fill",
    "Implicit conversion to a NumPy array is not allowed",
)

ndarray = np.ndarray
_MODULES: dict[type, ModuleType] = {np.ndarray: np}


class DeviceError(RuntimeError):
    """A device that is not there or cannot be used; the sentence says why and what to do."""


def xp(array: Any) -> ModuleType:
    """The array module (numpy or cupy) that `array` belongs to; Python and NumPy scalars belong to numpy."""
    kind = type(array)
    module = _MODULES.get(kind)
    if module is None:
        module = _MODULES[kind] = _cupy() if kind.__module__.partition(".")[0] == "cupy" else np
    return module


def _cupy() -> ModuleType:
    import cupy

    return cupy


def gpu_status() -> tuple[bool, str]:
    """(usable, what was found): whether CuPy can compute here, and otherwise the reason with its remedy."""
    try:
        import cupy
    except ImportError as error:
        if error.name == "cupy":
            return False, f"CuPy is not installed ({error}); {INSTALL}"
        return False, f"CuPy is installed but cannot be imported ({error.__cause__ or error}); uninstall it, {INSTALL}"
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        found = f"CuPy {cupy.__version__} is installed but finds no usable GPU: {error}"
        return False, f"{found}; {_driver_remedy(runtime, str(error))}"
    if count == 0:
        return False, f"CuPy {cupy.__version__} is installed but sees 0 GPUs; look at CUDA_VISIBLE_DEVICES"
    try:
        ones = cupy.ones((2, 2), dtype=cupy.float32)
        float((ones @ ones).sum())
    except Exception as error:  # whatever the driver or the compiler says is the reason to report
        found = f"a GPU is there but CuPy cannot compute on it: {type(error).__name__}: {error}"
        full = isinstance(error, MemoryError)
        return False, f"{found}; {'end what fills its memory' if full else f'for the CUDA libraries, {INSTALL}'}"
    name = runtime.getDeviceProperties(0)["name"]
    return True, name.decode() if isinstance(name, bytes) else str(name)


def _driver_remedy(runtime: Any, said: str) -> str:
    """What to do where CUDA finds no GPU: a driver that is missing or too old says so, with its version."""
    if "InsufficientDriver" not in said:
        return "look at nvidia-smi and CUDA_VISIBLE_DEVICES"
    driver, built = runtime.driverGetVersion() // 1000, runtime.runtimeGetVersion() // 1000
    if not driver:
        return "there is no NVIDIA driver; install one, nvidia-smi then shows it"
    other = ", or uninstall this CuPy and pip install 'minigrad[cuda12]'" if driver == 12 < built else ""
    return f"the driver is for CUDA {driver} and CuPy for CUDA {built}; install a newer driver{other}"


def module(device: str) -> ModuleType:
    """The array module of a device name; raises DeviceError with the reason when the device is not usable."""
    if device == "cpu":
        return np
    if device != "cuda":
        raise DeviceError(f"unknown device {device!r}; the devices are {', '.join(DEVICES)}")
    usable, reason = gpu_status()
    if not usable:
        raise DeviceError(f"device 'cuda' cannot be used: {reason}")
    return _cupy()


def gpu_facts() -> dict[str, str]:
    """{what: value} of the GPU, of CUDA and of CuPy, for reports."""
    cupy = module("cuda")
    runtime = cupy.cuda.runtime
    found = runtime.getDeviceProperties(0)
    versions = [f"{v // 1000}.{v % 1000 // 10}" for v in (runtime.driverGetVersion(), runtime.runtimeGetVersion())]
    return {
        "GPU": gpu_status()[1],
        "memory": f"{found['totalGlobalMem'] / 2**30:.1f} GiB",
        "capability": f"{found['major']}.{found['minor']}",
        "CUDA": "{} (driver), {} (runtime)".format(*versions),
        "CuPy": cupy.__version__,
    }


def explained(error: Exception) -> str | None:
    """What two of CuPy's errors mean and what to do, in a sentence; None for any other error."""
    if isinstance(error, MemoryError) and type(error).__module__.partition(".")[0] == "cupy":
        said = str(error).rstrip(".")
        return f"the device's memory does not suffice: {said}; take less data or a smaller network, or device 'cpu'"
    if isinstance(error, (TypeError, ValueError)) and any(words in str(error) for words in MIXED):
        return "arrays of the host and of the device meet; bring them to one side with backend.asarray(array, device)"
    return None


def device_of(array: Any) -> str:
    """The device name of an array: "cpu" or "cuda"."""
    return "cpu" if xp(array) is np else "cuda"


def asarray(value: Any, device: str = "cpu", dtype: Any = None) -> Any:
    """`value` as an array on `device`: one copy up or down when it lives elsewhere, none when it is there."""
    if device == "cpu":
        return np.asarray(to_host(value), dtype=dtype)
    cupy = module(device)
    if xp(value) is np and dtype is not None:
        value = np.asarray(value, dtype=dtype)  # convert on the host: half the bytes cross when float64 becomes float32
    return cupy.asarray(value, dtype=dtype)


def check_place(what: str, value: Any, reference: Any) -> None:
    """Refuse an array, called `what`, that is on another device than the parameters, of which `reference` is one.

    Raises
    ------
    ValueError
        With the remedy: nothing is brought over in silence.
    """
    if xp(value) is not xp(reference) and not isinstance(value, (int, float, np.generic)):
        there = device_of(reference)
        remedy = f"bring it over with backend.asarray(array, {there!r})"
        raise ValueError(f"{what} is on {device_of(value)}, but the parameters are on {there}; {remedy}")


def like(value: Any, reference: Any, dtype: Any = None) -> Any:
    """A host array on the device of `reference` (uploaded once, or as it is)."""
    target = xp(reference)
    return target.asarray(value, dtype=dtype) if xp(value) is not target or dtype is not None else value


def to_host(array: Any) -> Any:
    """The array as NumPy (a wait and a copy when it is on the device)."""
    return array if xp(array) is np else array.get()


def numbers(*scalars: Any) -> list[float]:
    """0-d arrays of one device as Python numbers: one wait and one copy for all of them."""
    return to_host(xp(scalars[0]).stack(scalars)).tolist()


def wait(array: Any) -> None:
    """Block until the device of `array` has finished what was asked of it (for clocks)."""
    if xp(array) is not np:
        _cupy().cuda.get_current_stream().synchronize()


class Waited(RuntimeError):
    """The host waited for the device where it was not to."""


@contextmanager
def no_waits() -> Iterator[None]:
    """Refuse to wait for the device: float(), int() and bool() of its arrays, copies to the host, masks as indices.

    CuPy's own detector: it does not see a wait inside a library. On the host nothing waits.

    Raises
    ------
    Waited
        Something did.
    """
    import cupyx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "it is not possible to reliably detect synchronizations"
        trap = cupyx.allow_synchronize(False)
        trap.__enter__()
    try:
        yield
    except cupyx.DeviceSynchronized as error:
        raise Waited("the host waits for the device") from error
    finally:
        trap.__exit__(None, None, None)


# ---------------------------------------------------------------------------------------------- buffers


pool = Pool()


def empty(shape: tuple[int, ...], dtype: Any, reference: Any) -> Any:
    """An uninitialised array on the device of `reference`; large host arrays come from the pool."""
    if type(reference) is ndarray:
        dtype = np.dtype(dtype)
        if math.prod(shape) * dtype.itemsize >= LARGE:
            return pool.take(shape, dtype)
        return np.empty(shape, dtype)
    return xp(reference).empty(shape, dtype)


def empty_like(array: Any) -> Any:
    """An uninitialised array of the same shape, dtype and device."""
    if type(array) is ndarray and array.nbytes < LARGE:
        return np.empty(array.shape, array.dtype)
    return empty(array.shape, array.dtype, array)


def zeros_like(array: Any) -> Any:
    """Zeros of the same shape, dtype and device, never from the pool: for what a state keeps."""
    return xp(array).zeros(array.shape, array.dtype)


_ones: dict[tuple, Any] = {}


def ones(size: int, reference: Any) -> Any:
    """A vector of ones with the dtype and device of `reference`, kept for the next time; read only."""
    key = (size, reference.dtype, type(reference))
    found = _ones.get(key)
    if found is None:
        if len(_ones) > 64:
            _ones.clear()
        found = _ones[key] = xp(reference).ones(size, reference.dtype)
    return found


def read_only(array: Any) -> Any:
    """The same array, refusing to be written to (on the host; CuPy has no such flag)."""
    if type(array) is not ndarray:
        return array
    view = array.view()
    view.flags.writeable = False
    return view


def scalar(value: Any, reference: Any) -> Any:
    """A number that keeps the dtype of `reference` when multiplied with it; 0-d arrays stay on their device."""
    if isinstance(value, (int, float, np.generic)):
        return float(value)
    return value if value.dtype == reference.dtype else value.astype(reference.dtype)


def unary(name: str):
    """The elementwise function `name` of one array, writing large floating results into pooled buffers."""
    host = getattr(np, name)
    take = pool.take

    def forward(a):
        if type(a) is ndarray:
            if a.nbytes >= LARGE and a.dtype.kind in "fc":
                return host(a, out=take(a.shape, a.dtype))
            return host(a)
        return getattr(xp(a), name)(a)

    forward.__name__ = name
    return forward


def binary(name: str):
    """The elementwise function `name` of two arrays, writing large results of equal shape into pooled buffers."""
    host = getattr(np, name)
    take = pool.take
    modules = _MODULES

    def forward(a, b):
        if type(a) is ndarray:
            if a.nbytes >= LARGE and (
                (type(b) is float and a.dtype.kind == "f")
                or (type(b) is ndarray and a.dtype == b.dtype and a.shape == b.shape and a.dtype.kind in "fc")
            ):
                return host(a, b, out=take(a.shape, a.dtype))
            return host(a, b)
        library = modules.get(type(a)) or xp(a)
        if library is np:  # a scalar first: the second operand decides
            library = modules.get(type(b)) or xp(b)
            if library is np:
                return host(a, b)
        return getattr(library, name)(a, b)

    forward.__name__ = name
    return forward


def matmul(a: Any, b: Any) -> Any:
    """a @ b; leading axes of `a` over a two-dimensional `b` become one product, large results use the pool."""
    if b.ndim == 2:
        if a.ndim > 2:
            rows = math.prod(a.shape[:-1])
            return matmul(a.reshape(rows, a.shape[-1]), b).reshape(*a.shape[:-1], b.shape[-1])
        if type(a) is ndarray and a.ndim == 2:
            if a.shape[0] * b.shape[1] * a.itemsize >= LARGE and a.dtype == b.dtype:
                return a.dot(b, pool.take((a.shape[0], b.shape[1]), a.dtype))
            return a.dot(b)  # the same product as matmul, started a microsecond sooner
    return xp(a).matmul(a, b)


def row_max(a: Any) -> Any:
    """Largest element of every row of a (N, C), as a column."""
    if type(a) is ndarray and a.nbytes < LARGE:
        return np.maximum.reduce(a.T.copy(), 0)[:, None]  # twice as fast as along short rows
    return a.max(-1, keepdims=True)


def row_sum(a: Any) -> Any:
    """Sum of every row of a (N, C), as a column: a product with ones."""
    return a.dot(ones(a.shape[-1], a))[:, None]


def row_dot(a: Any, b: Any) -> Any:
    """Σ over the last axis of a·b: one pass on the host, one product and one reduction on the device."""
    if type(a) is ndarray:
        if a.nbytes < LARGE and a.ndim == 2:
            return (a * b).dot(ones(a.shape[1], a))
        return np.einsum("...i,...i->...", a, b)
    return (a * b).sum(-1)


def scatter_add(target: Any, index: Any, values: Any) -> None:
    """target[index] += values where repeated indices add up, in place."""
    xp(target).add.at(target, index, values)


def kernel(name: str, inputs: str, outputs: str, body: str) -> Any:
    """An elementwise kernel for the device."""
    return _cupy().ElementwiseKernel(inputs, outputs, body, name)


# ---------------------------------------------------------------------------------- guarded linear algebra


class FactorisationError(np.linalg.LinAlgError):
    """A matrix that should be positive definite is not, or holds NaN."""


def spd_inverse(matrix: Any) -> Any:
    """Inverse of a symmetric positive definite matrix through its Cholesky factor, on either device.

    Costs one wait on the device: without it CuPy returns garbage for a matrix that is not positive definite.

    Raises
    ------
    FactorisationError
        The matrix is not positive definite, or holds NaN.
    """
    return _spd_inverse_host(matrix) if xp(matrix) is np else _spd_inverse_device(matrix)


INDEFINITE = "the matrix is not positive definite or holds NaN; raise the damping"


def _lapack(name: str, dtype: Any) -> Any:
    """LAPACK's routine of this name, for float64 or float32."""
    from scipy.linalg import lapack

    return getattr(lapack, ("d" if dtype == np.float64 else "s") + name)


def _cholesky_host(matrix: np.ndarray) -> np.ndarray:
    """The upper Cholesky factor, as LAPACK stores it.

    It stores by columns: given the transposed view, which is the same matrix, it needs no copy by rows.
    """
    if np.isfinite(matrix).all():
        factor, info = _lapack("potrf", matrix.dtype)(matrix.T, lower=0, clean=0)
        if info == 0:
            return factor
    raise FactorisationError(INDEFINITE)


def _spd_inverse_host(matrix: np.ndarray) -> np.ndarray:
    inverse, info = _lapack("potri", matrix.dtype)(_cholesky_host(matrix), lower=0, overwrite_c=1)
    if info != 0 or not np.isfinite(inverse[0, -1]):
        raise FactorisationError(INDEFINITE)
    return _mirrored(inverse.T)


def _mirrored(lower: np.ndarray, block: int = 128) -> np.ndarray:
    """The symmetric matrix of a lower triangle, in place; block by block, so that what is read stays in the cache."""
    for start in range(0, len(lower), block):
        stop = start + block
        lower[start:stop, stop:] = lower[stop:, start:stop].T
        corner = lower[start:stop, start:stop]
        corner[...] = np.tril(corner) + np.tril(corner, -1).T
    return lower


def _cholesky_device(matrix: Any) -> Any:
    """The lower Cholesky factor; one wait."""
    cupy = _cupy()
    import cupyx

    bad = ~cupy.isfinite(matrix).all()  # the factorisation lets NaN pass; all −1 it refuses, in the same wait
    try:
        with cupyx.errstate(linalg="raise"):
            return cupy.linalg.cholesky(cupy.where(bad, cupy.asarray(-1, matrix.dtype), matrix))
    except np.linalg.LinAlgError as error:
        raise FactorisationError(INDEFINITE) from error


def _spd_inverse_device(matrix: Any) -> Any:
    cupy = _cupy()
    from cupyx.scipy.linalg import solve_triangular

    factor = _cholesky_device(matrix)
    half = solve_triangular(factor, cupy.eye(len(matrix), dtype=matrix.dtype), lower=True)
    return half.T @ half


def spd_solve(matrix: Any, rhs: Any) -> Any:
    """x with matrix x = rhs (d,) or (d, k), for a symmetric positive definite matrix, on either device.

    Costs one wait on the device.

    Raises
    ------
    FactorisationError
        The matrix is not positive definite, or holds NaN.
    """
    if xp(matrix) is np:
        return _lapack("potrs", matrix.dtype)(_cholesky_host(matrix), rhs, lower=0)[0]
    from cupyx.scipy.linalg import solve_triangular

    factor = _cholesky_device(matrix)
    return solve_triangular(factor, solve_triangular(factor, rhs, lower=True), lower=True, trans=1)


def eigh(matrix: Any) -> tuple[Any, Any]:
    """Eigenvalues (d,) from the smallest and eigenvectors (d, d), in columns, of a symmetric matrix.

    Costs one wait on the device.

    Raises
    ------
    FactorisationError
        The matrix holds NaN or infinity.
    """
    module = xp(matrix)
    if not bool(module.isfinite(matrix).all()):
        raise FactorisationError("the matrix holds NaN or infinity")
    if module is np:
        from scipy.linalg import eigh as host_eigh

        return host_eigh(matrix, driver="evd", check_finite=False)
    values, vectors = module.linalg.eigh(matrix)
    return values, vectors


# ---------------------------------------------------------------------------------------------- randomness


def random_key(rng: Any) -> int:
    """One integer that stands for `rng`, which is whatever `numpy.random.default_rng` accepts.

    A non-negative integer is its own key; anything else is drawn from once.
    """
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool):
        if not 0 <= rng < 1 << 63:
            raise ValueError(f"a seed is an integer from 0 to 2**63 - 1, not {rng}")
        return int(rng)
    return int(np.random.default_rng(rng).integers(1 << 63))


def stream(key: int, purpose: str, *counters: int) -> np.random.Generator:
    """The random stream named by a key, a purpose and counters (epoch, step, …), drawn on the host.

    Both devices see the same numbers, and nothing but the key needs saving.
    """
    spawn = (zlib.crc32(purpose.encode()), *counters)
    return np.random.default_rng(np.random.SeedSequence(key, spawn_key=spawn))
