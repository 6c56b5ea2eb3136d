"""θ as one vector: windows, moves, versions, devices."""

import numpy as np
import pytest
from cases import host

import minigrad as mg


def example():
    return mg.Params({"0.W": np.arange(6.0).reshape(2, 3), "0.b": np.array([7.0, 8.0])})


def test_windows_are_views_in_order():
    p = example()
    assert list(p) == list(p.keys()) == ["0.W", "0.b"] and p.size == 8
    assert p.vector.tolist() == [0, 1, 2, 3, 4, 5, 7, 8]
    p.vector[0] = 9.0
    assert p["0.W"][0, 0] == 9.0 and np.shares_memory(p["0.b"], p.vector)


def test_every_way_to_move_raises_the_version():
    p = example()
    vector = p.vector
    p.vector += 1.0
    p["0.W"] += 1.0
    p["0.b"] = np.zeros(2)
    p.vector = np.ones(8)
    p.vector = p.vector * 2.0
    assert p.version == 5
    assert p.vector is vector and p["0.W"].tolist() == [[2.0] * 3] * 2  # always in place


def test_moves_keep_the_dtype():
    p = mg.Params(w=np.ones(3, "float32"))
    p.vector += np.ones(3) * 0.5
    p["w"] = np.arange(3.0)
    assert p.vector.dtype == np.float32


def test_at_shares_the_vector_and_copy_does_not():
    p = example()
    v = p.vector + 1
    q = p.at(v)
    v[0] = 100.0
    assert q["0.W"][0, 0] == 100.0 and p["0.W"][0, 0] == 0.0
    c = p.copy()
    c.vector += 1
    assert p.vector[0] == 0.0 and p.version == 0


def test_numbers_become_float64_and_arrays_keep_their_dtype():
    assert mg.Params(x=1).dtype == np.float64 and mg.Params(x=np.float32(1)).dtype == np.float32
    assert mg.Params(x=1.0)["x"].shape == ()


def test_buffers_travel_with_the_parameters(device):
    p = example()
    p.buffers["bn0.mean"] = np.arange(3.0)
    q = p.to(device)
    assert q.device == device and host(q.buffers["bn0.mean"]).tolist() == [0, 1, 2]
    assert host(q.to("cpu").vector).tolist() == p.vector.tolist()
    q.vector += 1
    assert p.vector[0] == 0.0


def test_tracked_windows_are_leaves():
    tracked = example().track()
    assert all(type(t) is mg.Tensor and t.op is None for t in tracked.values()) and len(tracked) == 2


def test_bad_input_is_one_sentence():
    p = example()
    with pytest.raises(KeyError, match="no parameter is called '1.W'; there are 0.W, 0.b"):
        p["1.W"]
    with pytest.raises(KeyError, match="no parameter is called"):
        p.track()["1.W"]
    with pytest.raises(ValueError, match=r"'0.b' has shape \(2,\), not \(3,\)"):
        p["0.b"] = np.zeros(3)
    with pytest.raises(ValueError, match="the vector is float64"):
        p.at(np.zeros(7))
    with pytest.raises(ValueError, match="at least one"):
        mg.Params()
    with pytest.raises(TypeError, match="must be a floating array, not int64"):
        mg.Params(x=np.arange(3))
    with pytest.raises(ValueError, match="share a dtype and a device"):
        mg.Params(x=np.ones(2, "float32"), y=1.0)
    with pytest.raises(mg.backend.DeviceError, match="unknown device 'gpu'; the devices are cpu, cuda"):
        p.to("gpu")
