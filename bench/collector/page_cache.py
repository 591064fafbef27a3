"""Whether files lie in the page cache already: a warm load and a cold one are two measurements."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from bench.types import Prepared

PROBES = 64
WARM, COLD = 0.95, 0.05


def describe_cache(prepared: Prepared) -> str | None:
    """`warm`, `cold` or `partial` for the prepared files; None where the kernel does not tell."""
    share = cached_share(Path(prepared.path, name) for name in prepared.files)
    if share is None:
        return None
    return "warm" if share >= WARM else "cold" if share <= COLD else "partial"


def cached_share(files: Iterable[Path]) -> float | None:
    """Share of evenly spread pages that a read would not wait for (preadv2(2), RWF_NOWAIT); reads one byte of each."""
    if not hasattr(os, "RWF_NOWAIT"):
        return None
    hits, probes = 0, 0
    for file in files:
        size = file.stat().st_size
        if not size:
            continue
        descriptor = os.open(file, os.O_RDONLY)
        try:
            for index in range(PROBES):
                probes += 1
                hits += _is_cached(descriptor, size * index // PROBES)
        except OSError:  # a file system without RWF_NOWAIT
            return None
        finally:
            os.close(descriptor)
    return hits / probes if probes else None


def _is_cached(descriptor: int, offset: int) -> bool:
    try:
        return bool(os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT))
    except BlockingIOError:
        return False
