"""What goes wrong on a device ends in one sentence with the remedy: no CuPy, no driver, no memory, arrays mixed.

The sentences of a device that cannot be used are CuPy's own under a CUDA wheel on a machine without a GPU.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

import minigrad as mg
import optim
from minigrad import backend, losses, nn
from minigrad.backend import DeviceError
from optim.lab.cli import explain

NET = nn.mlp([4, 5, 3], hidden="tanh")


def needs_a_device(device):
    if device == "cpu":
        pytest.skip("needs a device beside the host")


# ------------------------------------------------------------------------------------------- a device that is not there


def cupy_with(failure, driver=13000, built=13020):
    """A CuPy that fails as `failure` says, with its driver's and its own CUDA version."""
    error = type("CUDARuntimeError", (RuntimeError,), {})

    def count():
        if failure == "insufficient":
            raise error("cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version")
        if failure == "no device":
            raise error("cudaErrorNoDevice: no CUDA-capable device is detected")
        return 1

    def ones(shape, dtype):
        if failure == "full":
            raise MemoryError("Out of memory allocating 512 bytes (allocated so far: 0 bytes).")
        raise RuntimeError('Failure finding "libnvrtc.so.13 or libnvrtc.so.12": No such file: libnvrtc.so.13\n')

    runtime = SimpleNamespace(
        CUDARuntimeError=error, getDeviceCount=count, driverGetVersion=lambda: driver, runtimeGetVersion=lambda: built
    )
    return SimpleNamespace(__version__="14.2.0", cuda=SimpleNamespace(runtime=runtime), ones=ones, float32=np.float32)


INSTALL = "pip install 'minigrad[cuda13]' or 'minigrad[cuda12]'"


@pytest.mark.parametrize(
    "cupy, words",
    [
        (cupy_with("insufficient", driver=0), "there is no NVIDIA driver; install one, nvidia-smi then shows it"),
        (
            cupy_with("insufficient", driver=12040),
            "the driver is for CUDA 12 and CuPy for CUDA 13; install a newer driver, or uninstall this CuPy and pip "
            "install 'minigrad[cuda12]'",
        ),
        (
            cupy_with("insufficient", driver=11080, built=12090),
            "the driver is for CUDA 11 and CuPy for CUDA 12; install a newer driver",
        ),
        (cupy_with("no device"), "no CUDA-capable device is detected; look at nvidia-smi and CUDA_VISIBLE_DEVICES"),
        (cupy_with("no libraries"), f"No such file: libnvrtc.so.13 ; for the CUDA libraries, {INSTALL}"),
        (cupy_with("full"), "(allocated so far: 0 bytes).; end what fills its memory"),
    ],
    ids=["no driver", "an old driver", "an older one", "no GPU", "no libraries", "a full GPU"],
)
def test_a_device_that_cannot_be_used_says_why_and_what_to_do(cupy, words, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(DeviceError, match="device 'cuda' cannot be used") as refused:
        backend.module("cuda")
    told, code = explain(refused.value)
    assert code == 1 and " ".join(told.split()).endswith(words)


class Broken:
    """Finds a CuPy whose import fails as that of a wheel without its libraries does."""

    def find_spec(self, name, path=None, target=None):
        if name == "cupy":
            cause = ImportError("libcublas.so.12: cannot open shared object file")
            raise ImportError("\n=====\nFailed to import CuPy.\n=====\n") from cause


def test_a_cupy_that_cannot_be_imported_is_not_called_missing(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "cupy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    usable, told = backend.gpu_status()
    assert not usable and told == (
        "CuPy is installed but cannot be imported (libcublas.so.12: cannot open shared object file); uninstall it, "
        + INSTALL
    )


# ------------------------------------------------------------------------------------------------------ no memory there


@contextmanager
def memory_of(size):
    """A device with this many bytes; nothing to limit on the host."""
    pool = backend.module("cuda").get_default_memory_pool()
    pool.set_limit(size=size)
    try:
        yield
    finally:
        pool.set_limit(size=0)


def test_no_device_memory_says_how_much_and_what_to_do(device):
    needs_a_device(device)
    x = np.ones((1 << 20, 4))
    with memory_of(1 << 20), pytest.raises(MemoryError) as refused:
        backend.asarray(x, device)
    told, code = explain(refused.value)
    assert code == 1 and told.startswith(
        "the device's memory does not suffice: Out of memory allocating 33,554,432 bytes (allocated so far: "
    )
    assert told.endswith("; take less data or a smaller network, or device 'cpu'")


def test_no_host_memory_is_another_sentence():
    assert explain(MemoryError()) == ("the memory does not suffice; take less data or a smaller network", 1)
    told = explain(MemoryError("Unable to allocate 8.00 EiB."))[0]
    assert told == "the memory does not suffice: Unable to allocate 8.00 EiB; take less data or a smaller network"


# -------------------------------------------------------------------------------------- arrays of both sides that meet


def batch(device):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, 4)).astype("float32"), rng.integers(0, 3, 6)
    return backend.asarray(x, device), backend.asarray(y, device)


def objective(device):
    return mg.Objective(NET, losses.softmax_cross_entropy, NET.init(rng=0, device=device), *batch(device))


@pytest.fixture
def sides(device):
    """(where the parameters are, where the other array is): both ways round."""
    needs_a_device(device)
    return [("cuda", "cpu"), ("cpu", "cuda")]


def refused(what, use, there, here):
    remedy = rf"is on {there}, but the parameters are on {here}; bring it over with backend.asarray\(array, '{here}'\)"
    with pytest.raises(ValueError, match=f"^{what} {remedy}$"):
        use()


def test_an_objective_refuses_data_from_the_other_side(sides):
    for here, there in sides:
        params, near, far = NET.init(rng=0, device=here), batch(here), batch(there)
        loss = losses.softmax_cross_entropy
        refused("x", lambda: mg.Objective(NET, loss, params, far[0], near[1]), there, here)  # noqa: B023
        refused("y", lambda: mg.Objective(NET, loss, params, near[0], far[1]), there, here)  # noqa: B023


def test_products_refuse_a_vector_from_the_other_side(sides):
    for here, there in sides:
        f = objective(here)
        v = objective(there).grad
        for product in (f.hvp, f.ggnvp):
            refused("the vector v", lambda: product(v), there, here)  # noqa: B023


def test_parameters_refuse_values_from_the_other_side(sides):
    for here, there in sides:
        params, vector = NET.init(rng=0, device=here), NET.init(rng=1, device=there).vector
        version = params.version
        refused("the new vector", lambda: setattr(params, "vector", vector), there, here)  # noqa: B023
        refused("the new parameter '0.b'", lambda: params.__setitem__("0.b", vector[:5]), there, here)  # noqa: B023
        assert params.version == version
        params["0.b"] = [1.0, 2.0, 3.0, 4.0, 5.0]  # a list is of no side
        params["1.b"] = 0.5
        assert backend.to_host(params["0.b"]).tolist() == [1, 2, 3, 4, 5] and float(params["1.b"][2]) == 0.5


def test_adding_a_vector_from_the_other_side_is_explained(sides):
    for here, there in sides:
        params, vector = NET.init(rng=0, device=here), NET.init(rng=1, device=there).vector
        with pytest.raises(TypeError) as error:
            params.vector += vector  # CuPy's own refusal: the package never sees it
        assert explain(error.value)[0] == (
            "arrays of the host and of the device meet; bring them to one side with backend.asarray(array, device)"
        )


@pytest.mark.parametrize("what", ["h", "da", "the step", "v", "dh"])
def test_a_site_refuses_arrays_from_the_other_side(what, sides):
    for here, there in sides:
        far = {site.name: site for site in objective(there).sweep()}

        def sweep(here=here, far=far):
            for site in objective(here).sweep():
                other = far[site.name]
                if what in ("h", "da"):
                    site.gradient(**{what: getattr(other, what)})
                elif what == "the step":
                    site.write(*other.gradient())
                elif what == "v":
                    site.JtHJ(other.a)
                else:
                    site.dh = other.h

        refused(f"{what} of site '1'", sweep, there, here)


def test_hessian_products_of_a_site_refuse_too(sides):
    for here, there in sides:
        (far, *_), (site, *_) = objective(there).sweep(), objective(here).sweep()
        refused("v of site '1'", lambda: site.hessian_vp(far.a), there, here)  # noqa: B023


def test_a_method_whose_update_is_on_the_other_side_is_named(sides):
    class Mine(optim.SGD):
        def update(self, f, state):
            return backend.asarray(super().update(f, state), {"cpu": "cuda", "cuda": "cpu"}[f.params.device])

    for here, there in sides:
        f = objective(here)
        before = f.params.vector.copy()
        refused("the update of Mine", lambda: Mine(0.1).step(f, Mine(0.1).init(f.params)), there, here)  # noqa: B023
        assert bool((f.params.vector == before).all())


def test_batches_refuse_answers_from_the_other_side(sides):
    for here, there in sides:
        told = rf"x is on {here}, but y is on {there}; bring it over with backend.asarray\(y, '{here}'\)"
        with pytest.raises(ValueError, match=told):
            mg.data.batches(batch(here)[0], batch(there)[1], 2)


@pytest.mark.parametrize("use", [lambda a, b: a + b, lambda a, b: b * a, lambda a, b: a @ b.T, np.add, np.dot])
def test_operations_on_both_sides_are_explained(use, sides):
    for here, there in sides[:1]:
        with pytest.raises(TypeError) as error:
            use(batch(here)[0], batch(there)[0])
        assert explain(error.value)[0].startswith("arrays of the host and of the device meet; bring them to one side")


def test_other_errors_are_not_taken_for_these():
    for error in (TypeError("unsupported operand"), ValueError("Unsupported type"), MemoryError("x"), KeyError("y")):
        assert backend.explained(error) is None


# ------------------------------------------------------------------------------------------------------ labels, waits


@pytest.mark.parametrize("wrong, told", [(3, "from 0 to 3"), (-1, "from -1 to 2"), (250, "from 0 to 250")])
def test_labels_out_of_range_are_refused_on_the_device(wrong, told, device):
    x, _ = batch(device)
    y = backend.asarray(np.array([0, 1, 2, 1, 2, wrong]), device)
    params = NET.init(rng=0, device=device)
    expected = f"^labels run {told}, but the network has 3 outputs; number the classes from 0 to 2$"
    for use in (
        lambda: float(mg.Objective(NET, losses.softmax_cross_entropy, params, x, y).value),
        lambda: mg.softmax_cross_entropy(NET(params, x), y),
        lambda: mg.one_hot(y, 3, x),
        lambda: losses.softmax_cross_entropy.encode(y, NET(params, x)),
    ):
        with pytest.raises(ValueError, match=expected):
            use()


@pytest.mark.parametrize("use", [float, bool, backend.to_host, lambda a: a[a > 0], lambda a: a.item()])
def test_a_wait_inside_no_waits_is_refused(use, device):
    needs_a_device(device)
    a = backend.asarray(np.ones(()), device)
    with pytest.raises(backend.Waited, match="the host waits for the device"), backend.no_waits():
        use(a)
    assert backend.to_host(use(a)) == 1  # afterwards it may


def test_what_does_not_wait_passes(device):
    needs_a_device(device)
    f = objective(device)
    f.view()  # labels are encoded, and looked at
    with backend.no_waits():
        f.hvp(f.grad)
