"""Host memory of another process, read from /proc by the parent so that the measured process is left alone.

Anonymous and file-backed pages are kept apart: a memory-mapped model counts in the second and can be dropped by the
kernel, the first cannot (proc(5): RssAnon, RssFile).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from bench.units import render_bytes

PERIOD_S = 0.05
NOT_COUNTED = ("start", "ceiling")
"""Phases that hold buffers of the harness's own, which are no memory of the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """Resident bytes at one moment, or peaks; None where /proc does not tell."""

    anon_bytes: int | None
    file_bytes: int | None

    @property
    def total_bytes(self) -> int:
        """What is known of both, for showing progress."""
        return (self.anon_bytes or 0) + (self.file_bytes or 0)


class HostMemory:
    """Peaks over the watched process's phases but `NOT_COUNTED`, and the values when each phase began."""

    def __init__(self, root: Path = Path("/proc")):
        self._root = root
        self._status: Path | None = None
        self._next_s = 0.0
        self._phase = "start"
        self._anon_peak: int | None = None
        self._file_peak: int | None = None
        self.last = Resident(anon_bytes=None, file_bytes=None)
        self.marks: dict[str, Resident] = {}

    def watch(self, pid: int) -> None:
        self._status = self._root / str(pid) / "status"

    def sample(self) -> None:
        """Read once if the last reading is older than 50 ms."""
        now = time.monotonic()
        if self._status is None or now < self._next_s:
            return
        self._next_s = now + PERIOD_S
        self._read()

    def mark(self, phase: str) -> None:
        """A phase begins: keep what is resident now under its name; the first of a name stays."""
        self._read()
        self._phase = phase
        self.marks.setdefault(phase, self.last)

    @property
    def peak(self) -> Resident:
        return Resident(anon_bytes=self._anon_peak, file_bytes=self._file_peak)

    def peak_text(self) -> str:
        """For messages: `9.70 GB of its own and 0.96 GB of mapped files`."""
        return f"{render_bytes(self._anon_peak)} of its own and {render_bytes(self._file_peak)} of mapped files"

    def _read(self) -> None:
        found: dict[str, int] = {}
        if self._status is not None:
            try:
                text = self._status.read_text()
            except OSError:  # it ended, or there is no /proc
                return
            for line in text.splitlines():
                if line.startswith(("RssAnon:", "RssFile:")):
                    key, value, _ = line.split()
                    found[key] = int(value) * 1024
        if found:
            self.last = Resident(anon_bytes=found.get("RssAnon:"), file_bytes=found.get("RssFile:"))
        if found and self._phase not in NOT_COUNTED:
            self._anon_peak = max(self._anon_peak or 0, found.get("RssAnon:", 0))
            self._file_peak = max(self._file_peak or 0, found.get("RssFile:", 0))


def oom_kills(root: Path = Path("/proc")) -> int:
    """How many processes the kernel has killed for memory since boot (/proc/vmstat oom_kill); 0 where untold."""
    try:
        for line in (root / "vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except OSError:
        pass
    return 0
