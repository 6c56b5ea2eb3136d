"""Fixtures that every test may use: the devices on which arrays can live.

`device` runs a test on "cpu", and on "cuda" too where CuPy can compute: on a GPU, or on the CPU device that stands
in for one (`CPU_DEVICE=1`). A test that needs what the CPU device does not emulate calls `not_emulated(reason)`.
"""

from __future__ import annotations

import functools
import os

import pytest

EMULATED = os.environ.get("CPU_DEVICE") == "1"


@functools.cache
def devices() -> tuple[str, ...]:
    from minigrad import backend

    return ("cpu", "cuda") if EMULATED or backend.gpu_status()[0] else ("cpu",)


def pytest_generate_tests(metafunc):
    if "device" in metafunc.fixturenames:
        metafunc.parametrize("device", devices())


@pytest.fixture
def not_emulated(request):
    """Skip, by its name and with the reason, a test that the CPU device cannot run; a real GPU runs it."""

    def skip(reason: str | None) -> None:
        if EMULATED and reason:
            pytest.skip(f"{request.node.name}: {reason}")

    return skip
