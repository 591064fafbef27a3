"""What the memory can deliver: the read bandwidth against which every decode rate stands.

Standard library and numpy only: it is measured in the worker, on the same cores and in the same launch.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

REPETITIONS = 5
SWEEPS = 4
"""Times that one pass reads the buffer: shorter passes than some 20 ms measure the scheduler."""
LEAST_BYTES = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """Best of the probe's passes; `spread_ratio` is (best − worst) / best over all of them."""

    read_bytes_per_s: float
    spread_ratio: float
    threads: int
    buffer_bytes: int
    llc_bytes: int | None


def llc_bytes(root: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int | None:
    """Size of cpu0's last-level cache (Documentation/ABI/testing/sysfs-devices-system-cpu), None where unknown."""
    sizes = {}
    for index in root.glob("index*"):
        try:
            text = (index / "size").read_text().strip()
            level = int((index / "level").read_text())
            sizes[level] = int(text[:-1]) * {"K": 2**10, "M": 2**20}[text[-1]]
        except (OSError, ValueError, KeyError):
            continue
    return sizes[max(sizes)] if sizes else None


class ReadProbe:
    """Measures with all cores of this process; the best over all calls of one launch counts.

    Each thread reads its own part of a buffer of at least four times the last-level cache as the dot product of its two
    halves: two streams, vectorized by numpy's BLAS, the interpreter lock released. Of eleven reductions tried it came
    closest to what decoding kernels reach (docs/performance.md).
    """

    def __init__(self) -> None:
        self.threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.llc_bytes = llc_bytes()
        self.buffer_bytes = max(LEAST_BYTES, 4 * (self.llc_bytes or 0))
        self.rates: list[float] = []

    def measure(self) -> None:
        """Five passes over a fresh buffer, which is released again."""
        buffer = np.ones(self.buffer_bytes // 4, np.float32)
        parts = np.array_split(buffer, self.threads)
        for _ in range(REPETITIONS):
            barrier = threading.Barrier(self.threads + 1)
            workers = [threading.Thread(target=_read, args=(part, barrier)) for part in parts]
            for worker in workers:
                worker.start()
            barrier.wait()
            started = time.monotonic_ns()
            for worker in workers:
                worker.join()
            self.rates.append(SWEEPS * self.buffer_bytes * 1e9 / (time.monotonic_ns() - started))

    def result(self) -> Ceiling:
        best = max(self.rates)
        return Ceiling(
            read_bytes_per_s=best,
            spread_ratio=(best - min(self.rates)) / best,
            threads=self.threads,
            buffer_bytes=self.buffer_bytes,
            llc_bytes=self.llc_bytes,
        )


def _read(part: np.ndarray[tuple[int, ...], np.dtype[np.float32]], barrier: threading.Barrier) -> None:
    half = len(part) // 2
    first, second = part[:half], part[half : 2 * half]
    barrier.wait()
    for _ in range(SWEEPS):
        np.dot(first, second)
