"""How many threads compute where nobody says, and the pool that holds them; both as llama-bench does it."""

from __future__ import annotations

import os
from pathlib import Path

from bench.errors import UsageError

MOST_CORES = 512
"""ggml's GGML_MAX_N_THREADS: cores of a mask and threads of a pool; beyond it the library reads what is not there."""
CPUS = Path("/sys/devices/system/cpu")
FAST_CORES = Path("/sys/devices/cpu_core/cpus")
"""Linux lists the cores of a hybrid processor that are no efficiency cores here."""


def default_threads(cpus: Path = CPUS, fast: Path = FAST_CORES) -> int:
    """Physical cores among those that this process may use, efficiency cores left out; at least 1.

    llama-bench counts the same, but all of the machine: in a container of 2 cores of 64 it starts 64 threads.
    """
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    chosen = usable & _listed(fast) or usable
    cores = {_siblings(cpus, cpu) for cpu in chosen}
    return max(1, len(cores))


def cpu_mask(text: str) -> list[bool]:
    """`0x3` as one truth value a core, lowest first; UsageError for what is no hexadecimal number of so many cores."""
    try:
        number = int(text, 16)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << MOST_CORES:
        shown = text if len(text) <= 20 else f"{text[:20]}…"
        cause = f"a hexadecimal number of at most {MOST_CORES} cores"
        raise UsageError(f"{shown!r} names no cores", where="--set cpu_mask", cause=cause, remedy="write 0x3")
    return [digit == "1" for digit in reversed(f"{number:b}")]


def _siblings(cpus: Path, cpu: int) -> str:
    """A name of the core that `cpu` is a hyperthread of."""
    try:
        return (cpus / f"cpu{cpu}" / "topology" / "thread_siblings").read_text().strip()
    except OSError:
        return str(cpu)


def _listed(path: Path) -> set[int]:
    """`0-3,8` as numbers; nothing where the file is not there."""
    try:
        ranges = [part.partition("-") for part in path.read_text().strip().split(",") if part]
        return {cpu for first, _, last in ranges for cpu in range(int(first), int(last or first) + 1)}
    except (OSError, ValueError):
        return set()
