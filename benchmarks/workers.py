"""Every contender in a process of its own, which runs only when it is asked to.

In one process they would share the C library's heap: the arrays that one keeps alive spare another the page faults
that it has on its own (HIPS autograd on AE: 1.2 of the floor in company, 1.7 alone).
"""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

CLOCKS = {"cpu": time.process_time, "wall": time.perf_counter}
TUNED = ", tuned allocator"  # the end of the name of a contender whose C library keeps freed memory
ALLOCATOR = {
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30), "MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TOP_PAD_": str(1 << 26)
}  # fmt: skip


class Worker:
    """A contender by suite, case and name."""

    def __init__(self, suite: str, case: str, name: str, threads: int, clock: str):
        command = [sys.executable, "-m", "benchmarks", "worker", "--threads", str(threads), "--clock", clock]
        self.process = subprocess.Popen(
            [*command, suite, case, name.removesuffix(TUNED)],
            env={**os.environ, **(ALLOCATOR if name.endswith(TUNED) else {})},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, count: int, warm: int = 1) -> float:
        """Seconds per step, of `count` steps after `warm` unmeasured ones."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{count} {warm}\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"a contender ended with exit code {self.process.wait()}: see its message above")
        return float(answer)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


class Team:
    """Workers of one contender that take turns."""

    def __init__(self, workers: list[Worker]):
        self.workers = workers
        self.turn = -1

    def run(self, count: int, warm: int = 1) -> float:
        self.turn += 1
        return self.workers[self.turn % len(self.workers)].run(count, warm)


def serve(step: Callable[[], Any], clock: str) -> None:
    """The other end: answer every line that holds two counts.

    The unmeasured steps of a turn bring the contender's own data and code back into the caches.
    """
    now = CLOCKS[clock]
    gc.collect()
    gc.freeze()
    gc.disable()
    for line in sys.stdin:
        count, warm = map(int, line.split())
        for _ in range(warm):
            step()
        start = now()
        for _ in range(count):
            step()
        print((now() - start) / count, flush=True)
        gc.collect()
