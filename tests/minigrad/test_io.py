"""Files: what was saved comes back bit for bit, hostile files get one sentence, and no file is ever half written."""

from __future__ import annotations

import json
import os
import pickle
import re
import stat
import subprocess
import sys
import zipfile
from contextlib import contextmanager

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from cases import memory_below
from hypothesis import given, settings

import minigrad as mg
from minigrad import archive, backend, nn
from minigrad.archive import INDEX
from minigrad.io import read_npz, write_npz


@contextmanager
def refused(*words: str):
    """A LoadError of one sentence that names the file and a remedy and holds `words`."""
    with pytest.raises(mg.LoadError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message and ". " not in message and re.search(r"; \w+", message)
    assert re.match(r"\S+: ", message)
    said = re.sub(r"\S*/", "", message)
    for word in words:
        assert word in said


def bits(array) -> tuple:
    array = np.asarray(backend.to_host(array))
    return array.dtype.str, array.shape, array.tobytes()


def assert_same(a, b) -> None:
    """Equal in type, order and every bit."""
    assert list(a) == list(b)
    for key in a:
        if hasattr(a[key], "dtype"):
            assert bits(a[key]) == bits(b[key])
            assert isinstance(a[key], np.generic) == isinstance(b[key], np.generic)
        else:
            assert type(a[key]) is type(b[key]) and repr(a[key]) == repr(b[key])


def nets() -> dict[str, nn.Layer]:
    twice = nn.Dense(3, 3)
    block = nn.Residual(nn.Sequential(nn.Dense(3, 3), nn.Softplus()))
    return {
        "mlp": nn.mlp([3, 5, 4, 2], hidden="relu", linear=(1,), output="softmax"),
        "settings": nn.Sequential(nn.Dense(3, 4, bias=False), nn.LeakyReLU(0.2), nn.Dense(4, 2, name="head")),
        "sizes of NumPy": nn.Sequential(nn.Dense(np.int64(3), np.int64(2)), nn.Sigmoid()),
        "nested": nn.Sequential(nn.Sequential(nn.Dense(3, 3), nn.Tanh()), nn.Residual(nn.Dense(3, 3))),
        "shared": nn.Sequential(twice, nn.Tanh(), twice, nn.Dense(3, 2)),
        "shared block": nn.Sequential(block, nn.Dense(3, 3), block),
    }


@pytest.fixture
def saved(tmp_path):
    """A path where a small network was saved."""
    net = nn.mlp([3, 4, 2])
    mg.save(tmp_path / "net.npz", net, net.init(rng=0))
    return tmp_path / "net.npz"


def rewritten(path, change) -> None:
    """Replace the entries of a file by what `change` makes of them."""
    entries = read_npz(path)
    change(entries)
    write_npz(path, entries)


def members(path, arrays: dict, index: object = None, compression: int = zipfile.ZIP_STORED) -> None:
    """Write members as bytes or arrays, past everything that `write_npz` would refuse."""
    if index is not None:
        arrays = {**arrays, INDEX: np.array(json.dumps(index).encode())}
    with zipfile.ZipFile(path, "w", compression) as file:
        for key, value in arrays.items():
            with file.open(f"{key}.npy", "w") as stream:
                if isinstance(value, bytes):
                    stream.write(value)
                else:
                    np.lib.format.write_array(stream, value)


# ------------------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", nets())
def test_a_network_comes_back_bit_for_bit(tmp_path, name, dtype, device):
    net = nets()[name]
    params = net.init(rng=1, dtype=dtype, device=device)
    mg.save(tmp_path / "net.npz", net, params)
    other, loaded = mg.load(tmp_path / "net.npz", device=device)
    assert repr(other) == repr(net) and str(other) == str(net)
    assert loaded.layout == params.layout and loaded.device == device
    assert bits(loaded.vector) == bits(params.vector)
    x = backend.asarray(np.random.default_rng(0).standard_normal((5, 3)), device, dtype)
    assert bits(other(loaded, x)) == bits(net(params, x))
    assert [layer.activation for layer in other.leaves() if isinstance(layer, nn.Dense)] == [
        layer.activation for layer in net.leaves() if isinstance(layer, nn.Dense)
    ]


def test_from_one_device_to_the_other(tmp_path, device):
    net = nn.mlp([2, 3, 1])
    params = net.init(rng=0)
    params.buffers["bn0.mean"] = np.arange(3.0)
    mg.save(tmp_path / "net.npz", net, params.to(device))
    for target in {"cpu", device}:
        _, loaded = mg.load(tmp_path / "net.npz", device=target)
        assert loaded.device == backend.device_of(loaded.buffers["bn0.mean"]) == target
        assert bits(loaded.vector) == bits(params.vector)
        assert bits(loaded.buffers["bn0.mean"]) == bits(params.buffers["bn0.mean"])


def test_an_unusable_device_says_why(saved, monkeypatch):
    monkeypatch.setattr(backend, "gpu_status", lambda: (False, "no such card"))
    with pytest.raises(backend.DeviceError, match="no such card"):
        mg.load(saved, device="cuda")
    with pytest.raises(backend.DeviceError, match="unknown device 'tpu'"):
        mg.load(saved, device="tpu")


def test_tuples_among_the_settings_come_back(tmp_path, monkeypatch):
    class Window(nn.Layer):
        def __init__(self, size):
            self.size = size

        def settings(self):
            return {"size": self.size}

    monkeypatch.setattr(nn, "Window", Window, raising=False)
    monkeypatch.setattr(nn, "__all__", [*nn.__all__, "Window"])
    net = nn.Sequential(nn.Dense(2, 2), Window((2, 3)))
    mg.save(tmp_path / "net.npz", net, net.init())
    assert mg.load(tmp_path / "net.npz")[0].children[1].size == (2, 3)


def test_shared_layers_stay_shared(tmp_path):
    for name in ("shared", "shared block"):
        net = nets()[name]
        mg.save(tmp_path / "net.npz", net, net.init())
        other, params = mg.load(tmp_path / "net.npz")
        assert other.children[0] is other.children[2] and other.children[0] is not other.children[1]
        assert params.size == net.size()


def test_an_inner_network_keeps_the_names_that_the_outer_gave(tmp_path):
    inner = nn.Sequential(nn.Dense(2, 2), nn.Tanh())
    nn.Sequential(nn.Dense(2, 2), inner)
    params = inner.init()
    assert list(params) == ["1.W", "1.b"]
    mg.save(tmp_path / "net.npz", inner, params)
    other, loaded = mg.load(tmp_path / "net.npz")
    assert list(loaded) == ["1.W", "1.b"] and other.children[0].name == "1"
    other(loaded, np.ones((1, 2), "float32"))


def test_any_parameters_come_back(tmp_path):
    net = nn.mlp([2, 2])
    params = net.init(dtype="float64")
    params.vector = np.array([np.nan, -np.inf, -0.0, 5e-324, 1 / 3, 1e308])
    params.buffers = {"bn0.mean": np.array([np.nan, 1], "float32"), "bn0.count": np.array(3), "moved": True}
    mg.save(tmp_path / "net.npz", net, params)
    _, loaded = mg.load(tmp_path / "net.npz")
    assert bits(loaded.vector) == bits(params.vector)
    assert_same(loaded.buffers, params.buffers)


def test_windows_of_every_shape(tmp_path):
    params = mg.Params(scalar=1.5, empty=np.empty((0, 3)), cube=np.arange(8.0).reshape(2, 2, 2))
    mg.save(tmp_path / "f.npz", lambda p, x: x, params)
    _, loaded = mg.load(tmp_path / "f.npz", net=lambda p, x: x)
    assert loaded.layout == params.layout and bits(loaded.vector) == bits(params.vector)


class Scale(nn.Layer):
    """A layer of a user: h times a number."""

    prefix = "scale"

    def __call__(self, params, h, train=False):
        return h * params[f"{self.name}.s"]

    def shapes(self):
        return {"s": ()}

    def initial(self, rng, scheme, alpha):
        return {"s": np.asarray(2.0)}

    def settings(self):
        return {"of": object()}


def test_a_layer_of_ones_own(tmp_path):
    net = nn.Sequential(nn.Dense(2, 2), Scale())
    params = net.init()
    mg.save(tmp_path / "net.npz", net, params)
    with refused("net.npz", "'Scale'", "pass net="):
        mg.load(tmp_path / "net.npz")
    other, loaded = mg.load(tmp_path / "net.npz", net=net)
    assert other is net and bits(loaded.vector) == bits(params.vector)


def test_a_class_that_only_has_the_name_of_ours_is_not_ours(tmp_path):
    Dense = type("Dense", (nn.Dense,), {})
    net = nn.Sequential(Dense(2, 2))
    mg.save(tmp_path / "net.npz", net, net.init())
    with refused("'Dense'", "pass net="):
        mg.load(tmp_path / "net.npz")


def test_a_function_is_a_network(tmp_path):
    def curve(params, x, train=False):
        return params["a"] * x

    params = mg.Params(a=2.0)
    mg.save(tmp_path / "f.npz", curve, params)
    with refused("'curve'", "pass net="):
        mg.load(tmp_path / "f.npz")
    other, loaded = mg.load(tmp_path / "f.npz", net=curve)
    assert other is curve and float(curve(loaded, 3.0)) == 6.0


@pytest.mark.parametrize(
    "net, words",
    [
        (nn.mlp([3, 5, 2]), ("'0.W' is (5, 3) in the network but (4, 3)",)),
        (nn.mlp([3, 4, 2, 1]), ("the network has '2.W'",)),
        (nn.mlp([3, 4]), ("the parameters have '1.W'",)),
        (nn.Sequential(nn.Dense(3, 4, name="in"), nn.Dense(4, 2)), ("the network has 'in.W'",)),
    ],
)
def test_a_network_that_does_not_fit_the_file(saved, net, words):
    with refused(*words, "pass as net="):
        mg.load(saved, net=net)


def test_save_refuses_what_does_not_belong_together(tmp_path):
    net = nn.mlp([3, 2])
    path = tmp_path / "net.npz"
    with pytest.raises(ValueError, match="'0.W' is .* in the network but .* in the parameters"):
        mg.save(path, net, nn.mlp([2, 2]).init())
    for wrong in ((path, net.init(), net), (path, net, net.init().vector), (path, None, net.init())):
        with pytest.raises(TypeError, match=r"save takes \(path, net, params\)"):
            mg.save(*wrong)
    odd = nn.LeakyReLU(slope=object())
    with pytest.raises(TypeError, match=r"settings\(\) of a layer holds"):
        mg.save(path, nn.Sequential(nn.Dense(3, 2), odd), net.init())
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------------------------------- dictionaries

KEYS = st.text(st.characters(categories=("L", "N", "P", "S"), exclude_characters="\\"), min_size=1, max_size=12)
ARRAYS = hnp.arrays(
    st.sampled_from(["f4", "f8", ">f8", "i8", "u1", "i4", "?", "c16", "U3", "S2"]),
    hnp.array_shapes(min_dims=0, min_side=0),
)
NUMBERS = st.one_of(st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.none())


@settings(max_examples=60, deadline=None)
@given(entries=st.dictionaries(KEYS.filter(lambda k: k != INDEX), st.one_of(ARRAYS, NUMBERS), max_size=6))
def test_a_dictionary_comes_back_bit_for_bit(tmp_path_factory, entries):
    path = tmp_path_factory.getbasetemp() / "state.npz"
    write_npz(path, entries)
    assert_same(read_npz(path), entries)


def test_the_state_of_a_run(tmp_path, device):
    module = backend.module(device)
    state = {
        "t": 3,
        "rng": 2**63 - 1,
        "lr": 0.1,
        "warm": True,
        "mode": "gn",
        "3.P": module.eye(3, dtype="float32"),
        "3.alpha": module.asarray(0.5),
        "best": np.float32(0.25),
        "count": np.int64(7),
        "file": -0.0,
        "allow_pickle": float("inf"),
    }
    write_npz(tmp_path / "state.npz", state)
    loaded = read_npz(tmp_path / "state.npz")
    assert_same(loaded, {k: np.asarray(backend.to_host(v)) if hasattr(v, "get") else v for k, v in state.items()})
    assert type(loaded["3.P"]) is np.ndarray and loaded["3.P"].flags.writeable


def test_layouts_and_views_come_back(tmp_path):
    a = np.arange(12.0).reshape(3, 4)
    write_npz(tmp_path / "a.npz", {"f": np.asfortranarray(a), "view": a[::2, ::-1], "nothing": None})
    loaded = read_npz(tmp_path / "a.npz")
    assert (loaded["f"] == a).all() and loaded["f"].flags.f_contiguous and (loaded["view"] == a[::2, ::-1]).all()


def test_numpy_reads_the_file(saved):
    with np.load(saved, allow_pickle=False) as file:
        assert set(file.files) == {INDEX, "theta"}
        assert file["theta"].dtype == np.float32
        index = json.loads(file[INDEX].item())
    assert index["version"] == archive.VERSION and index["entries"]["network"]["value"].startswith("{")


def test_the_same_content_gives_the_same_bytes(tmp_path):
    net = nn.mlp([2, 3, 1])
    for name in ("a.npz", "b.npz"):
        mg.save(tmp_path / name, net, net.init(rng=0))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize(
    "value",
    [
        [1.0],
        (1,),
        {"a": 1},
        object(),
        mg.track(1.0),
        1j,
        b"x",
        np.array([object()]),
        np.zeros(2, "f4,i4"),
        np.ma.ones(2),
    ],
)
def test_other_values_are_refused_by_name(tmp_path, value):
    with pytest.raises(TypeError, match="'3.P' is a.*; a file takes arrays"):
        write_npz(tmp_path / "x.npz", {"3.P": value})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["", INDEX, "a\0b", "a\nb", "a\\b", "\ud800", 3])
def test_keys_that_cannot_name_a_member(tmp_path, key):
    with pytest.raises(ValueError, match="cannot name an entry"):
        write_npz(tmp_path / "x.npz", {key: 1})


# --------------------------------------------------------------------------------------------- hostile files


def test_not_there_and_not_an_npz(tmp_path):
    with refused("none.npz", "no such file"):
        mg.load(tmp_path / "none.npz")
    with refused("no such file"):
        mg.load(tmp_path)
    for content in (b"", b"hello", pickle.dumps({"theta": 1}), np.zeros(3).tobytes()):
        (tmp_path / "x.npz").write_bytes(content)
        with refused("x.npz", "not an .npz file"):
            mg.load(tmp_path / "x.npz")


def test_a_file_cut_anywhere(saved):
    whole = saved.read_bytes()
    for length in range(4, len(whole), 97):
        saved.write_bytes(whole[:length])
        with refused("net.npz", "damaged or cut short"):
            mg.load(saved)


def test_a_flipped_bit_is_seen_or_harmless(saved):
    whole = saved.read_bytes()
    net, params = mg.load(saved)
    seen = 0
    for at in range(0, len(whole), 3):
        saved.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            other, loaded = mg.load(saved)
        except mg.LoadError as error:
            seen += "\n" not in str(error)
        else:
            assert repr(other) == repr(net) and loaded.layout == params.layout
            assert bits(loaded.vector) == bits(params.vector)
    assert seen > len(whole) / 3 / 2  # what is not seen are dates and the like


def test_an_npz_of_somebody_else(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.ones(3))
    with refused("not written by minigrad", "numpy.load"):
        read_npz(tmp_path / "x.npz")


def test_another_version(tmp_path):
    members(tmp_path / "x.npz", {}, {"version": 2, "entries": {}})
    with refused("format version 2", "reads version 1"):
        read_npz(tmp_path / "x.npz")


@pytest.mark.parametrize("key", ["theta", "windows", "network"])
def test_a_missing_entry(saved, key):
    rewritten(saved, lambda entries: entries.pop(key))
    with refused(f"it has no {key}", "minigrad.save"):
        mg.load(saved)


def test_a_missing_member(tmp_path):
    members(tmp_path / "x.npz", {}, {"version": 1, "entries": {"theta": "array"}})
    with refused("no 'theta'"):
        read_npz(tmp_path / "x.npz")


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


def test_objects_are_never_unpickled(tmp_path):
    members(tmp_path / "x.npz", {"a": np.array([Bomb()])}, {"version": 1, "entries": {"a": "array"}})
    with refused("'a' holds pickled objects", "never loaded"):
        read_npz(tmp_path / "x.npz")
    members(tmp_path / "x.npz", {"a": pickle.dumps(Bomb())}, {"version": 1, "entries": {"a": "array"}})
    with refused("damaged"):
        read_npz(tmp_path / "x.npz")


def header(shape: str, descr: str = "'<f8'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        header("(10**13,)") + bytes(8),
        header("(1000000000000,)") + bytes(8),
        header("(2,)") + bytes(8),
        header("(-1, -1)") + bytes(8),
        header("(1000000000000,)", "'|S0'"),
        header("(1,)", "'<M8[s]'") + bytes(8),
        header("(1,)", "[('a', '<f8')]") + bytes(8),
        header("(1,)").replace(b"\x01\x00", b"\x09\x00", 1) + bytes(8),
        header("__import__('os').getpid()") + bytes(8),
        b"",
    ],
)
def test_headers_that_lie_reserve_nothing(tmp_path, content):
    members(tmp_path / "x.npz", {"a": content}, {"version": 1, "entries": {"a": "array"}})
    with memory_below(1 << 20), refused("x.npz"):
        read_npz(tmp_path / "x.npz")


def test_a_directory_that_lies_reserves_nothing(tmp_path):
    path = tmp_path / "x.npz"
    members(path, {"a": header("(250000000,)") + bytes(8)}, {"version": 1, "entries": {"a": "array"}})
    with zipfile.ZipFile(path, "a") as file:
        file.comment = b"rewrites the directory"
        info = file.getinfo("a.npy")
        info.file_size = info.compress_size = len(header("(250000000,)")) + 2_000_000_000
    with memory_below(1 << 20), refused("promise more bytes than the file has"):
        read_npz(path)


def test_compressed_files_are_not_unpacked(tmp_path):
    zeros = {"a": np.zeros(1 << 16)}
    members(tmp_path / "x.npz", zeros, {"version": 1, "entries": {"a": "array"}}, zipfile.ZIP_DEFLATED)
    with refused("compressed"):
        read_npz(tmp_path / "x.npz")


@pytest.mark.parametrize(
    "index",
    [
        [],
        {},
        3,
        {"version": 1},
        {"version": 1, "entries": []},
        {"version": 1, "entries": {"a": {"value": [1]}}},
        {"version": 1, "entries": {"a": {}}},
        {"version": 1, "entries": {"a": 1}},
        {"version": [[[0] * 100]], "entries": {}},
    ],
)
def test_an_index_of_other_things(tmp_path, index):
    members(tmp_path / "x.npz", {}, index)
    with refused("x.npz"):
        read_npz(tmp_path / "x.npz")


def test_an_index_that_is_no_json(tmp_path):
    for index in (np.array(b"{"), np.array(b"[" * 100_000), np.zeros(3), np.array("ä")):
        members(tmp_path / "x.npz", {INDEX: index})
        with refused("x.npz"):
            read_npz(tmp_path / "x.npz")


@pytest.mark.parametrize(
    "changes",
    [
        {"theta": np.zeros(5, "float32")},
        {"theta": np.zeros((2, 13), "float32")},
        {"theta": np.zeros(26, int)},
        {"theta": 3},
        {"windows": "[]"},
        {"windows": "{}"},
        {"windows": "{"},
        {"windows": '{"0.W": 3}'},
        {"windows": '{"0.W": [-26]}'},
        {"windows": '{"0.W": [26.0]}'},
        {"windows": '{"0.W": [true, 26]}'},
        {"windows": '{"0.W": [26]}'},
        {"windows": 1.5},
        {"network": np.zeros(2)},
        {"network": "[" * 100_000},
    ],
)
def test_parts_that_do_not_fit_together(saved, changes):
    rewritten(saved, lambda entries: entries.update(changes))
    with refused("net.npz"):
        mg.load(saved)


@pytest.mark.parametrize("shape", ["[-2, -13]", "[26.0]", "[true, 26]", '["26"]', "26", "[[26]]", "null"])
def test_shapes_that_are_none(saved, shape):
    rewritten(saved, lambda entries: entries.update(windows=f'{{"a": {shape}}}'))
    with refused("net.npz", "not what minigrad.save writes"):
        mg.load(saved, net=lambda params, x: x)


DENSE = {"class": "Dense", "name": "0", "settings": {"inputs": 3, "outputs": 2, "bias": True}, "children": []}


@pytest.mark.parametrize(
    "network",
    [
        None,
        3,
        "Dense",
        [],
        {},
        {"same": 0},
        {"same": []},
        {**DENSE, "class": []},
        {**DENSE, "class": "os.system"},
        {**DENSE, "class": "mlp"},
        {**DENSE, "class": "__class__"},
        {**DENSE, "settings": {"inputs": -3, "outputs": 2}},
        {**DENSE, "settings": {"inputs": "3", "outputs": 2}},
        {**DENSE, "settings": {"self": 3}},
        {**DENSE, "settings": []},
        {**DENSE, "children": 3},
        {**DENSE, "children": [DENSE]},
        {"class": "Sequential", "name": "", "settings": {}, "children": []},
        {"class": "Sequential", "name": "", "settings": {}, "children": [{"same": 0}]},
        {"class": "Sequential", "name": "", "settings": {}, "children": [{"same": 7}]},
    ],
)
def test_descriptions_of_no_network(saved, network):
    rewritten(saved, lambda entries: entries.update(network=json.dumps(network)))
    with refused("net.npz", "pass net="):
        mg.load(saved)


def test_a_description_that_unfolds_without_end(saved):
    network = {"class": "Sequential", "name": "", "settings": {}, "children": [DENSE]}
    for depth in range(60, 0, -1):  # every Sequential holds the next one twice; the number is where it is met first
        network = {"class": "Sequential", "name": "", "settings": {}, "children": [network, {"same": depth}]}
    rewritten(saved, lambda entries: entries.update(network=json.dumps(network)))
    with refused("more than 100,000 layers"):
        mg.load(saved)


def test_a_description_deeper_than_the_stack(saved):
    deep = '{"class": "Residual", "name": "", "settings": {}, "children": [' * 3000 + json.dumps(DENSE) + "]}" * 3000
    rewritten(saved, lambda entries: entries.update(network=deep))
    with refused("net.npz"):
        mg.load(saved)


# --------------------------------------------------------------------------------------------- atomic writes


class Killed(BaseException):
    """What a signal raises in the middle of things."""


def killed(*args, **kwargs):
    raise Killed


@pytest.mark.parametrize("where", ["os.replace", "os.fsync", "numpy.lib.format.write_array"])
def test_killed_in_the_middle_the_old_file_is_whole(saved, monkeypatch, where):
    before = saved.read_bytes()
    net = nn.mlp([3, 9, 2])
    with monkeypatch.context() as patch:
        patch.setattr(where, killed)
        with pytest.raises(Killed):
            mg.save(saved, net, net.init())
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == ["net.npz"]


def test_killed_after_the_first_array(saved, monkeypatch):
    before, write, written = saved.read_bytes(), np.lib.format.write_array, []

    def second_fails(stream, array, **kwargs):
        if written:
            raise Killed
        written.append(write(stream, array, **kwargs))

    monkeypatch.setattr(np.lib.format, "write_array", second_fails)
    with pytest.raises(Killed):
        mg.save(saved, nn.mlp([3, 9, 2]), nn.mlp([3, 9, 2]).init())
    assert written and saved.read_bytes() == before and os.listdir(saved.parent) == ["net.npz"]


def test_the_temporary_file_starts_with_a_dot(saved, monkeypatch):
    seen = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append(os.path.basename(a)), replace(a, b)))
    net, params = mg.load(saved)
    mg.save(saved, net, params)
    assert len(seen) == 1 and seen[0].startswith(".net.npz.")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none/net.npz: its folder does not exist; create it first"):
        mg.save(tmp_path / "none" / "net.npz", nn.mlp([1, 1]), nn.mlp([1, 1]).init())


@pytest.mark.skipif(os.name != "posix", reason="links and modes of POSIX")
def test_links_and_modes_are_kept(saved):
    link = saved.with_name("latest.npz")
    link.symlink_to(saved.name)
    net, params = mg.load(link)
    mask = os.umask(0o022)
    try:
        mg.save(link, net, params)
    finally:
        os.umask(mask)
    assert link.is_symlink() and stat.S_IMODE(saved.stat().st_mode) == 0o644


def test_importing_minigrad_stays_cheap():
    code = "import sys, minigrad; print([m for m in ('scipy', 'matplotlib', 'cupy', 'click') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
