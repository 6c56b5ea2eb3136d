"""What a run ran on: versions, the linear algebra library and its threads, the processor."""

from __future__ import annotations

import os
import platform
from importlib import metadata, util
from pathlib import Path

import numpy as np

import minigrad

THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def version(package: str) -> str | None:
    """The installed version of a distribution, None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str | None]:
    """{name: version} of what computes."""
    found = {"python": platform.python_version(), "minigrad": minigrad.__version__}
    return {**found, **{name: version(name) for name in ("numpy", "scipy", "matplotlib", "click")}}


def blas() -> str:
    """Name and version of the BLAS that NumPy was built with."""
    built = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    return f"{built.get('name', 'unknown')} {built.get('version', '')}".strip()


def threads() -> int:
    """Threads that the BLAS uses: as it says where threadpoolctl is installed, else as its variables say."""
    if util.find_spec("threadpoolctl"):
        from threadpoolctl import threadpool_info

        counts = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
        if counts:
            return max(counts)
    for name in THREAD_VARIABLES:
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return cores()


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The model of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def told() -> list[str]:
    """The same for people, a line each."""
    lines = [f"{name:<11} {found or 'not installed'}" for name, found in versions().items()]
    lines.append(f"{'BLAS':<11} {blas()}, {threads()} threads")
    return [*lines, f"{'processor':<11} {processor()}, {cores()} cores"]


def facts() -> dict:
    """All of it, for run.json."""
    return {"versions": versions(), "blas": blas(), "threads": threads(), "processor": processor()}
