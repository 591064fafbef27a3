"""Host memory of a worker, read from /proc by the parent so that the measured process is left alone.

A worker behind a command prefix is another process than the one that the parent started: it reads its own.

Anonymous and file-backed pages are kept apart: a memory-mapped model counts in the second and can be dropped by the
kernel, the first cannot (proc(5): RssAnon, RssFile).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.collector.contention import TIMED

PERIOD_S = 0.05
SOON_NS = 1_000_000_000
"""What is read later than this after a moment is not that moment's."""
LOADING = "open"
COUNTED = (LOADING, "first-step", "warm-up", TIMED)
"""Phases in which the process holds the model and what a workload needs, and no buffers of gate or probe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """Resident bytes at one moment, or peaks; None where /proc does not tell."""

    anon_bytes: int | None
    file_bytes: int | None

    @property
    def total_bytes(self) -> int:
        """What is known of both, for showing progress."""
        return (self.anon_bytes or 0) + (self.file_bytes or 0)


NOTHING = Resident(anon_bytes=None, file_bytes=None)


class HostMemory:
    """Memory of the watched process: once it has loaded, after moments of its timed phases, and the peaks.

    Peaks are over its `COUNTED` phases, those of each case apart. `loaded_ns` is when it had loaded.
    """

    def __init__(self, root: Path = Path("/proc")):
        self._root = root
        self._status: Path | None = None
        self._next_s = 0.0
        self._phase, self._case = "start", -1
        self._peaks: dict[int, Resident] = {}
        self._timed: dict[int, list[tuple[int, Resident]]] = {}
        self.last = self.loaded = NOTHING
        self.loaded_ns: int | None = None

    def watch(self, pid: int) -> None:
        self._status = self._root / str(pid) / "status"

    def sample(self) -> None:
        """Read once if the last reading is older than 50 ms."""
        now = time.monotonic()
        if self._status is None or now < self._next_s:
            return
        self._next_s = now + PERIOD_S
        self._read()

    def told(self, resident: Resident) -> None:
        """What the worker read of itself; it belongs to the phase that goes on or ends now."""
        self.last = resident
        if self._phase in COUNTED:
            self._peaks[self._case] = _higher(self._peaks.get(self._case), resident)
        if self._phase == TIMED:
            self._timed.setdefault(self._case, []).append((time.monotonic_ns(), resident))

    def mark(self, phase: str, case: int | None = None) -> None:
        """A phase begins, of one case where it is given."""
        self._read()
        if self._phase == LOADING:
            self.loaded, self.loaded_ns = self.last, time.monotonic_ns()
        self._phase, self._case = phase, -1 if case is None else case

    def peak_of(self, case: int) -> Resident:
        """The highest of loading and of this case."""
        return _higher(self._peaks.get(-1), self._peaks.get(case))

    def right_after(self, case: int, moments_ns: Iterable[int]) -> Resident:
        """The highest of what was read first after each of these moments; nothing where no reading is near."""
        found = NOTHING
        for moment_ns in moments_ns:
            until_ns = moment_ns + SOON_NS
            near = (each for at_ns, each in self._timed.get(case, ()) if moment_ns <= at_ns <= until_ns)
            found = _higher(found, next(near, None))
        return found

    def _read(self) -> None:
        if self._status is not None and (resident := read_resident(self._status)) is not None:
            self.told(resident)


def read_resident(status: Path = Path("/proc/self/status")) -> Resident | None:
    """Of this process, or the one whose `status` is named; None where it ended or there is no /proc."""
    found: dict[str, int] = {}
    try:
        text = status.read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(("RssAnon:", "RssFile:")):
            key, value, _ = line.split()
            found[key] = int(value) * 1024
    if not found:
        return None
    return Resident(anon_bytes=found.get("RssAnon:"), file_bytes=found.get("RssFile:"))


def _higher(one: Resident | None, other: Resident | None) -> Resident:
    """Peaks of both, kind by kind."""
    known = [each for each in (one, other) if each is not None]
    anon = [each.anon_bytes for each in known if each.anon_bytes is not None]
    file = [each.file_bytes for each in known if each.file_bytes is not None]
    return Resident(anon_bytes=max(anon, default=None), file_bytes=max(file, default=None))


def oom_kills(root: Path = Path("/proc")) -> int:
    """How many processes the kernel has killed for memory since boot (/proc/vmstat oom_kill); 0 where untold."""
    try:
        for line in (root / "vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except OSError:
        pass
    return 0
