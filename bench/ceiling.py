"""What the memory can deliver: the read bandwidth against which every decode rate stands.

Standard library and numpy only: it is measured in the worker, on the same cores and in the same launch.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.api import Mover

REPETITIONS = 5
SWEEPS = 4
"""Times that one pass reads the buffer: shorter passes than some 20 ms measure the scheduler."""
LEAST_BYTES = 256 << 20
HOST = "cpu"
"""Kind of the devices that compute from the host's memory."""

Part = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """What one probe found: the bandwidth of each of its passes, and what they read.

    `kind` is that of the devices whose limit it is; `threads` None for a device with memory of its own.
    """

    kind: str
    read_bytes_per_s: tuple[float, ...]
    threads: int | None
    buffer_bytes: int
    llc_bytes: int | None


def usable_cpus() -> set[int]:
    """Logical processors that this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def llc_bytes(cpus: Iterable[int], root: Path = Path("/sys/devices/system/cpu")) -> int | None:
    """Size of all last-level caches of these processors together, None where unknown.

    Documentation/ABI/testing/sysfs-devices-system-cpu; large processors have one such cache for every few cores.
    """
    levels: dict[int, dict[str, int]] = {}
    for cpu in cpus:
        for index in (root / f"cpu{cpu}" / "cache").glob("index*"):
            try:
                text = (index / "size").read_text().strip()
                level = int((index / "level").read_text())
                shared = (index / "shared_cpu_list").read_text().strip()
                size = int(text[:-1]) * {"K": 2**10, "M": 2**20}[text[-1]]
            except (OSError, ValueError, KeyError):
                continue
            levels.setdefault(level, {})[shared] = size
    return sum(levels[max(levels)].values()) if levels else None


class ReadProbe:
    """Measures with all cores of this process.

    Each thread, on a processor of its own, fills and later reads its own part of a buffer of at least four times the
    last-level caches, as the dot product of the part's two halves: two streams, vectorized by numpy's BLAS, the
    interpreter lock released. Of eleven reductions tried it came closest to what decoding kernels reach
    (docs/performance.md).

    The buffer is kept until the process ends: a virtual machine hands freed memory back to its host two seconds later,
    in the middle of what is timed then. It is shared memory, which no figure of the model's counts.
    """

    def __init__(self) -> None:
        self._cpus = sorted(usable_cpus())
        self.threads = len(self._cpus)
        self.llc_bytes = llc_bytes(self._cpus)
        self.buffer_bytes = max(LEAST_BYTES, 4 * (self.llc_bytes or 0))
        self._parts: list[Part] = []

    def measure(self) -> Ceiling:
        """Five passes over the buffer, after one that is not counted."""
        if not self._parts:
            self._parts = np.array_split(np.frombuffer(mmap.mmap(-1, self.buffer_bytes), np.float32), self.threads)
            self._together(_fill)
        self._together(_read)  # the first pass is slower by a quarter: cores that just woke up
        times_ns = [self._together(_read) for _ in range(REPETITIONS)]
        return Ceiling(
            kind=HOST,
            read_bytes_per_s=tuple(SWEEPS * self.buffer_bytes * 1e9 / time_ns for time_ns in times_ns),
            threads=self.threads,
            buffer_bytes=self.buffer_bytes,
            llc_bytes=self.llc_bytes,
        )

    def _together(self, work: Callable[[Part], None]) -> int:
        """Nanoseconds from the common start until the last thread has done its part."""
        barrier = threading.Barrier(self.threads + 1)

        def execute(cpu: int, part: Part) -> None:
            _stay_on(cpu)
            barrier.wait()
            work(part)

        workers = [threading.Thread(target=execute, args=each) for each in zip(self._cpus, self._parts, strict=True)]
        for worker in workers:
            worker.start()
        barrier.wait()
        started = time.monotonic_ns()
        for worker in workers:
            worker.join()
        return time.monotonic_ns() - started


def measure_device(mover: Mover, clock: Callable[[], int]) -> Ceiling:
    """Five passes over the memory of a device, then it is released. A copy's writes count as its reads do."""
    try:
        mover.move()  # the first may compile, and wakes the device up
        times_ns = []
        for _ in range(REPETITIONS):
            started = clock()
            for _ in range(SWEEPS):
                mover.move()
            times_ns.append(clock() - started)
    finally:
        mover.close()
    return Ceiling(
        kind=mover.kind,
        read_bytes_per_s=tuple(SWEEPS * mover.moved_bytes * 1e9 / time_ns for time_ns in times_ns),
        threads=None,
        buffer_bytes=mover.moved_bytes,
        llc_bytes=None,
    )


def _stay_on(cpu: int) -> None:
    """The calling thread alone, where the system can tell threads apart (Linux): its part is near this processor."""
    if hasattr(os, "sched_setaffinity"):
        with suppress(OSError):  # the processor may have been taken away since
            os.sched_setaffinity(0, {cpu})


def _fill(part: Part) -> None:
    part.fill(1.0)


def _read(part: Part) -> None:
    half = len(part) // 2
    first, second = part[:half], part[half : 2 * half]
    for _ in range(SWEEPS):
        np.dot(first, second)
