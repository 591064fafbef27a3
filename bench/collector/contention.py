"""Who else computed on this machine while a case was measured: processor time of others, and what a host took back.

Read from /proc by the parent where a phase begins and ends, so that the measured process is left alone (proc(5): stat).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TIMED = "measure"
LEAST_S = 0.5
"""The kernel counts in hundredths of a second: of less it tells too little."""
_OWN_FIELDS = slice(11, 15)
"""utime, stime, cutime and cstime, behind the command's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """`others_cores`: processors that others kept busy on average. `steal_ratio`: of the time in which a processor was
    wanted, the share that the machine under this virtual one gave to others. None where /proc does not tell.
    """

    others_cores: float | None = None
    steal_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class _Moment:
    at_s: float
    busy_s: float
    steal_s: float
    own_s: float


class Contention:
    """Watches one worker; what was beside each case of its group is known once the case's timed phase has ended.

    What this process and those of `count_as_ours` do is nobody else's.
    """

    def __init__(self, root: Path = Path("/proc"), clock: Callable[[], float] = time.monotonic):
        self._root, self._clock = root, clock
        self._tick_s = 1 / os.sysconf("SC_CLK_TCK")
        self._pid: int | None = None
        self._ours = ["self"]
        self._began: tuple[int, _Moment] | None = None
        self._beside: dict[int, Beside] = {}

    def watch(self, pid: int) -> None:
        self._pid = pid

    def count_as_ours(self, pid: int) -> None:
        """A process that computes for this one beside the worker, with its children that ended: the sampler."""
        self._ours.append(str(pid))

    def mark(self, phase: str, case: int | None = None) -> None:
        """A phase begins, and the one before it ends."""
        now = self._read()
        if self._began and now:
            self._beside[self._began[0]] = _between(self._began[1], now)
        self._began = (case, now) if phase == TIMED and case is not None and now else None

    def of(self, case: int) -> Beside:
        return self._beside.get(case, Beside())

    def _read(self) -> _Moment | None:
        """None where the worker is behind a prefix or ended, or there is no /proc."""
        if self._pid is None:
            return None
        try:
            user, nice, system, _, _, irq, softirq, steal = map(int, (self._root / "stat").read_text().split()[1:9])
            own = sum(self._of(pid) for pid in (str(self._pid), *self._ours))
        except (OSError, ValueError):
            return None
        busy = user + nice + system + irq + softirq
        return _Moment(self._clock(), busy * self._tick_s, steal * self._tick_s, own * self._tick_s)

    def _of(self, pid: str) -> int:
        """Ticks of a process and of its children that ended."""
        behind_name = (self._root / pid / "stat").read_text().rpartition(")")[2]
        return sum(map(int, behind_name.split()[_OWN_FIELDS]))


def _between(began: _Moment, ended: _Moment) -> Beside:
    lasted_s, busy_s = ended.at_s - began.at_s, ended.busy_s - began.busy_s
    if lasted_s < LEAST_S or busy_s < 0:
        return Beside()
    others_s, steal_s = busy_s - (ended.own_s - began.own_s), max(0.0, ended.steal_s - began.steal_s)
    wanted_s = busy_s + steal_s
    return Beside(others_cores=max(0.0, others_s) / lasted_s, steal_ratio=steal_s / wanted_s if wanted_s else None)
