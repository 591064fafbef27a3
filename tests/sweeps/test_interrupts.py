"""Ctrl-C, kills and resuming: nothing measured is lost, and a resumed sweep executes only what is missing."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bench.results.store import Store
from tests.sweeps.conftest import ROOT, Bench, environment, scripted

WORKLOADS = "pp32,tg8"


def start(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    """A sweep in a process of its own, so that it can be interrupted."""
    return subprocess.Popen(
        [sys.executable, "-m", "bench", *words],
        cwd=tmp_path,
        env={**environment(tmp_path), "BENCH_RESULTS": str(tmp_path / "results")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def workers(process: subprocess.Popen[str], depth: bool) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children(recursive=depth):
        with contextlib.suppress(psutil.Error):  # it may be ending right now
            if child.cmdline()[-1:] == ["bench.worker"] and "python" in child.cmdline()[0]:
                found.append(child)
    return found


def wait_for(tmp_path: Path, process: subprocess.Popen[str], said: bytes, depth: bool = False) -> psutil.Process:
    """The measuring worker, once the launch's events contain `said`; `depth`: it is no child of `process`."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        events = list(tmp_path.glob("results/launches/*/*/.*.partial/events.jsonl"))
        if events and said in events[0].read_bytes() and (found := workers(process, depth)):
            return found[0]
        time.sleep(0.02)
    raise AssertionError("the worker never got so far")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_worker_and_keeps_what_is_measured(
    tmp_path: Path, bench: Bench, number: signal.Signals
) -> None:
    words = scripted("rewind@9:hang", workload="tg4,tg8")
    process = start(tmp_path, *words)
    worker = wait_for(tmp_path, process, b"case-done")
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "bench run --resume" in err
    assert "Traceback" not in err
    assert not worker.is_running()
    store = Store(tmp_path / "results")
    assert [record.status for record in store.records()] == ["unproven"]
    assert not store.leftovers()


def test_resume_executes_only_what_is_missing(tmp_path: Path, bench: Bench) -> None:
    process = start(tmp_path, *scripted("rewind@9:hang", workload="tg4,tg8"))
    wait_for(tmp_path, process, b"case-done")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    kept = [record.record_id for record in Store(tmp_path / "results").records()]
    resumed = bench("run", "--resume", "--json")
    assert len(resumed.printed) == 1
    assert resumed.code == 0
    assert sorted(resumed.statuses) == ["tg4", "tg8"]
    assert set(kept) < {record.record_id for record in resumed.records}
    again = bench("run", "--resume")
    assert (again.code, "nothing to resume" in again.err) == (2, True)


def test_a_worker_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    process = start(tmp_path, *scripted("step@3:hang", workload="tg8"))
    worker = wait_for(tmp_path, process, b"warm-up")
    process.kill()
    process.communicate()
    gone, alive = psutil.wait_procs([worker], timeout=20)
    assert (len(gone), alive) == (1, [])


WORKER_WRITES = 30
"""More than a worker's events after its load, for two cases of one repetition."""


@pytest.mark.parametrize(("after", "stride"), [(False, 1), (True, 4)])
def test_a_worker_killed_at_any_write_loses_no_finished_case(
    bench: Bench, tmp_path: Path, after: bool, stride: int
) -> None:
    """The state after a write is the state before the next: every fourth is enough to show it."""
    outcomes = []
    for at in range(1, WORKER_WRITES + 1, stride):
        words = scripted("", "--repetitions", "1", "--set", f"kill_at_write={at}", "--set", f"kill_after={after}")
        ended = bench(*words, "--set", "cases=2", results=tmp_path / str(at))
        assert ended.code in (0, 4), ended.err
        assert sorted(ended.statuses) == ["pp32", "tg8"], "every case has its record"
        assert not ended.store.leftovers()
        for record in ended.records:
            if record.status == "unproven":
                assert len(record.samples) == 1
        outcomes.append(sorted(ended.statuses.values()))
    assert outcomes[0] == ["failed", "failed"], "before any case it is everybody's failure"
    assert ["failed", "unproven"] in outcomes
    assert outcomes[-1] == ["unproven", "unproven"], "the last kill came after the last write"


SWEEP = """
import os, signal, sys
from pathlib import Path
at, how = int(sys.argv[1]), sys.argv[2]
count = 0

def watched(call):
    def counted(*args, **kwargs):
        global count
        count += 1
        if count == at and how == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*args, **kwargs)
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return counted

for owner, name in ((os, "write"), (os, "fsync"), (Path, "rename"), (Path, "mkdir"), (Path, "unlink")):
    setattr(owner, name, watched(getattr(owner, name)))
from bench.cli import cli
cli.main(sys.argv[3:], standalone_mode=False)
print("calls", count)
"""


def kill_sweep(tmp_path: Path, results: Path, at: int, how: str) -> subprocess.CompletedProcess[str]:
    words = scripted("", "--repetitions", "1", "--json", workload="tg2,tg4")
    return subprocess.run(
        [sys.executable, "-c", SWEEP, str(at), how, *words, "--results", str(results)],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_parent_killed_at_any_write_rename_or_fsync_loses_no_committed_record(tmp_path: Path, bench: Bench) -> None:
    """Before each call; the state after a call is the state before the next, and after the last nothing is left."""
    whole = kill_sweep(tmp_path, tmp_path / "whole", 0, "before")
    calls = int(whole.stdout.splitlines()[-1].split()[1])
    assert calls > 15
    for at in range(1, calls + 1):
        results = tmp_path / str(at)
        killed = kill_sweep(tmp_path, results, at, "before" if at < calls else "after")
        assert killed.returncode == -signal.SIGKILL
        kept = {record.record_id for record in Store(results).records()}
        printed = [line for line in killed.stdout.splitlines() if line.startswith("{")]
        assert all(any(record_id in line for record_id in kept) for line in printed), f"call {at}: a record is lost"
        resumed = bench("run", "--resume", results=results)
        if "nothing to resume" in resumed.err or "before anything was planned" in resumed.err:
            assert len(kept) in (0, 2), f"call {at}: {resumed.err}"
            continue
        assert resumed.code == 0, f"call {at}: {resumed.err}"
        assert len(resumed.records) == 2, f"call {at}: a case is missing or was executed twice"
        assert kept <= {record.record_id for record in resumed.records}


def test_leftovers_are_seen_by_doctor(tmp_path: Path, bench: Bench) -> None:
    process = start(tmp_path, *scripted("step@3:hang", workload="tg8"))
    wait_for(tmp_path, process, b"warm-up")
    process.kill()
    process.communicate()
    assert "unfinished" in bench("doctor").out
