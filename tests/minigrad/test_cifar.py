"""CIFAR-10's binary archive: small files in the official format, and damaged and hostile ones."""

from __future__ import annotations

import gzip
import io
import pickle
import re
import shutil
import tarfile
from contextlib import contextmanager

import numpy as np
import pytest
from cases import memory_below

from minigrad import data
from minigrad.data import cifar
from minigrad.data.cifar import FILES, INSIDE, RECORD

PER_FILE = 20


def records(file: int) -> bytes:
    """Twenty records, two of each class; every pixel says which file and record it is of."""
    rows = np.empty((PER_FILE, RECORD), np.uint8)
    rows[:, 0] = np.arange(PER_FILE) % 10
    rows[:, 1:] = (file * PER_FILE + np.arange(PER_FILE))[:, None]
    rows[:, -1] = 255
    return rows.tobytes()


CONTENT = {name: records(k) for k, name in enumerate(FILES)}
META = b"airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n"


def tar_bytes(content: dict[str, bytes], folder: str = INSIDE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, values in {"batches.meta.txt": META, **content}.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(values)
            archive.addfile(member, io.BytesIO(values))
    return buffer.getvalue()


@pytest.fixture
def archive(tmp_path):
    """Write an archive with some files in place of the right ones; None leaves one out."""

    def write(**changed: bytes | None):
        content = {name: changed.get(name.removesuffix(".bin"), values) for name, values in CONTENT.items()}
        path = tmp_path / "cifar-10-binary.tar.gz"
        path.write_bytes(gzip.compress(tar_bytes({n: v for n, v in content.items() if v is not None})))
        return path

    return write


@contextmanager
def refused(*words: str):
    """A DataError of one sentence with a remedy."""
    with pytest.raises(data.DataError) as caught:
        yield
    said = str(caught.value)
    assert "\n" not in said and ". " not in said and re.search(r"; \w+", said)
    for word in words:
        assert word in said


def test_the_archive_and_its_folder_give_the_same_parts(archive, tmp_path):
    found = data.load(archive())
    assert repr(found) == "<Dataset cifar-10: 10 classes, 3x32x32, 90 train, 10 valid, 20 test>"
    folder = tmp_path / "data" / INSIDE
    folder.mkdir(parents=True)
    for name, values in CONTENT.items():
        (folder / name).write_bytes(values)
    plain = tmp_path / "plain.tar"
    plain.write_bytes(tar_bytes(CONTENT))
    for other in (folder, folder.parent, str(plain)):
        again = data.load(other)
        for part in ("train", "valid", "test"):
            for one, two in zip(getattr(found, part), getattr(again, part)):
                np.testing.assert_array_equal(one, two)


def test_pixels_are_scaled_and_stay_with_their_labels(archive):
    found = data.load(archive())
    seen = []
    for part in ("train", "valid", "test"):
        x, y = getattr(found, part)
        assert x.dtype == np.float32 and y.dtype == np.int64 and x.shape == (len(y), 3072)
        number = np.rint(255 * x[:, 0]).astype(int)
        np.testing.assert_allclose(x[:, :-1], np.broadcast_to(number[:, None] / 255, (len(x), 3071)), rtol=1e-7)
        assert (x[:, -1] == 1.0).all()
        np.testing.assert_array_equal(y, number % 10)
        seen += [set(number)]
    assert seen[0] | seen[1] == set(range(100)) and seen[2] == set(range(100, 120))
    assert sorted(found.valid[1]) == list(range(10))  # one in ten of every class


def test_a_missing_file_is_named(archive, tmp_path):
    with refused("data_batch_3.bin missing", "take cifar-10-binary.tar.gz"):
        data.load(archive(data_batch_3=None))
    with refused("no-such.tar.gz: there is no such file"):
        data.load(tmp_path / "no-such.tar.gz")
    shutil.rmtree(tmp_path / INSIDE, ignore_errors=True)
    (tmp_path / INSIDE).mkdir()
    with refused("data_batch_1.bin, data_batch_2.bin"):
        data.load(tmp_path)


def test_pickles_are_not_read(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(Trap()))
    with refused("the Python version, whose pickles are never read"):
        data.load(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_a_wrong_size_or_label(archive):
    whole = CONTENT["data_batch_2.bin"]
    for values in (b"", whole[:-1], whole + b"\0", bytes((cifar.MOST_RECORDS + 1) * RECORD)):
        with refused(f"data_batch_2.bin has {len(values):,} bytes", f"records of {RECORD}"):
            data.load(archive(data_batch_2=values))
    wrong = bytearray(whole)
    wrong[3 * RECORD] = 10
    with refused("data_batch_2.bin has the label 10 in record 4"):
        data.load(archive(data_batch_2=bytes(wrong)))


def test_damage_anywhere_is_one_sentence(archive):
    path = archive()
    good = path.read_bytes()
    for cut in (0, 1, 10, len(good) // 2, len(good) - 5):
        path.write_bytes(good[:cut])
        with refused(str(path)):
            data.load(path)
    for at in range(20, len(good), len(good) // 40):
        bad = bytearray(good)
        bad[at] ^= 0xFF
        path.write_bytes(bytes(bad))
        with refused(str(path)):
            data.load(path)
    path.write_bytes(b"no archive at all, but long enough for a header" * 30)
    with refused("it cannot be read"):
        data.load(path)


def test_links_and_paths_in_an_archive_lead_nowhere(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT["data_batch_1.bin"])
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, values in CONTENT.items():
            member = tarfile.TarInfo(f"../../{name}")
            member.size = len(values)
            if name == "data_batch_1.bin":
                member.type, member.linkname, member.size = tarfile.SYMTYPE, str(secret), 0
            archive.addfile(member, io.BytesIO(values))
    path = tmp_path / "deep" / "down" / "x.tgz"
    path.parent.mkdir(parents=True)
    path.write_bytes(buffer.getvalue())
    with refused("data_batch_1.bin missing"):
        data.load(path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["deep", "down", "secret", "x.tgz"]


def test_a_small_archive_that_unpacks_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "MOST_BYTES", 1 << 22)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("readme.html")
        member.size = 1 << 25
        archive.addfile(member, io.BytesIO(bytes(1 << 25)))
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(buffer.getvalue())
    assert path.stat().st_size < 1 << 19
    with memory_below(1 << 25), refused("it holds more than 4,194,304 bytes"):
        data.load(path)


def test_a_file_that_is_in_it_twice(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in (*FILES, "data_batch_1.bin"):
            member = tarfile.TarInfo(name)
            member.size = len(CONTENT[name])
            archive.addfile(member, io.BytesIO(CONTENT[name]))
    path = tmp_path / "twice.tar"
    path.write_bytes(buffer.getvalue())
    with refused("data_batch_1.bin is in it twice"):
        data.load(path)
