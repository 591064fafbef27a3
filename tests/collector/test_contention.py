"""Who else computed, from trees as proc(5) describes /proc/stat and /proc/PID/stat."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.collector.contention import Beside, Contention

TICKS = os.sysconf("SC_CLK_TCK")
PID, SAMPLER = 4711, 4712


class Proc:
    """/proc with a worker called `a) b`, a clock, and who has used how much of the processors, in seconds."""

    def __init__(self, root: Path):
        self.root, self.now_s = root, 100.0
        self.worker_s = self.parent_s = self.sampler_s = self.others_s = self.steal_s = 0.0
        for pid in (str(PID), "self", str(SAMPLER)):
            (root / pid).mkdir()
        self.write()

    def write(self) -> None:
        busy = self.worker_s + self.parent_s + self.sampler_s + self.others_s
        ticks = [round(each * TICKS) for each in (busy * 0.7, 0, busy * 0.3, 9000, 5, 0, 0, self.steal_s)]
        (self.root / "stat").write_text(f"cpu  {' '.join(map(str, ticks))} 0 0\ncpu0 1 2 3\n")
        for pid, used in ((str(PID), self.worker_s), ("self", self.parent_s), (str(SAMPLER), self.sampler_s)):
            times = [round(used * TICKS * share) for share in (0.5, 0.25, 0.125, 0.125)]
            (self.root / pid / "stat").write_text(f"{PID} (a) b) S {'0 ' * 10}{' '.join(map(str, times))} 20 0 2\n")

    def passes(
        self,
        seconds: float,
        *,
        worker: float = 0,
        parent: float = 0,
        sampler: float = 0,
        others: float = 0,
        steal: float = 0,
    ) -> None:
        self.now_s += seconds
        self.worker_s += worker
        self.parent_s += parent
        self.sampler_s += sampler
        self.others_s += others
        self.steal_s += steal
        self.write()


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


@pytest.fixture
def watched(proc: Proc) -> Contention:
    contention = Contention(proc.root, clock=lambda: proc.now_s)
    contention.watch(PID)
    return contention


def test_what_is_neither_the_workers_nor_ours_is_others(proc: Proc, watched: Contention) -> None:
    watched.mark("warm-up", 0)
    proc.passes(5, others=5)
    watched.mark("measure", 0)
    proc.passes(10, worker=16, parent=0.4, others=4)
    watched.mark("measure", 1)
    proc.passes(10, worker=20)
    watched.mark("ceiling")
    proc.passes(10, others=10)
    assert watched.of(0).others_cores == pytest.approx(0.4, abs=0.01)
    assert watched.of(1).others_cores == pytest.approx(0, abs=0.01)
    assert watched.of(2) == Beside()


@pytest.mark.parametrize(("ours", "others_cores"), [(True, 0.1), (False, 0.4)])
def test_the_sampler_and_the_tools_that_it_called_are_ours(
    proc: Proc, watched: Contention, ours: bool, others_cores: float
) -> None:
    if ours:
        watched.count_as_ours(SAMPLER)
    watched.mark("measure", 0)
    proc.passes(10, worker=16, sampler=3, others=1)
    watched.mark("done")
    assert watched.of(0).others_cores == pytest.approx(others_cores, abs=0.01)


def test_what_the_host_took_back_is_a_share_of_what_was_wanted(proc: Proc, watched: Contention) -> None:
    watched.mark("measure", 0)
    proc.passes(10, worker=15, steal=5)
    watched.mark("done")
    assert watched.of(0).steal_ratio == pytest.approx(0.25, abs=0.01)


def test_of_too_short_a_time_nothing_is_said(proc: Proc, watched: Contention) -> None:
    watched.mark("measure", 0)
    proc.passes(0.4, others=0.4)
    watched.mark("done")
    assert watched.of(0) == Beside()


@pytest.mark.parametrize("damage", ["gone", "garbage", "short", "backwards"])
def test_what_proc_does_not_tell_is_not_known(proc: Proc, watched: Contention, damage: str) -> None:
    proc.passes(5, worker=5)
    watched.mark("measure", 0)
    proc.passes(5, worker=5)
    if damage == "gone":
        (proc.root / str(PID) / "stat").unlink()
    elif damage == "backwards":
        proc.worker_s = 1
        proc.write()
    else:
        (proc.root / "stat").write_text({"garbage": "cpu one two\n", "short": "cpu 1 2\n"}[damage])
    watched.mark("done")
    assert watched.of(0) == Beside()


def test_a_worker_behind_a_prefix_is_not_told_apart_from_others(proc: Proc) -> None:
    contention = Contention(proc.root)
    contention.mark("measure", 0)
    contention.mark("done")
    assert contention.of(0) == Beside()
