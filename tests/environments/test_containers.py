"""Containers are ended by their id: a fake engine starts what it is told detached, and a dead client ends nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.sweeps.conftest import SCRIPTED, Bench, scripted
from tests.sweeps.test_interrupts import start

ENGINE = """#!{python}
'''An engine: `run --rm --cidfile=FILE WORDS…` and `kill ID`. Its daemon is the worker's parent, in a session apart.'''
import os, signal, subprocess, sys

if sys.argv[1] == "daemon":
    worker = subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE)  # which stays open, whatever the client does
    job = b""
    while not job.endswith(b"\\n"):
        job += os.read(0, 1)
    worker.stdin.write(job)
    worker.stdin.flush()
    with open({pids!r}, "a") as pids:
        print(worker.pid, file=pids)
    code = worker.wait()
    sys.exit(code if code >= 0 else 128 - code)
if sys.argv[1] == "kill":
    with open({killed!r}, "a") as killed:
        print(sys.argv[2], file=killed)
    os.killpg(int(sys.argv[2], 16), signal.SIGKILL)
else:
    cidfile = sys.argv[3].partition("=")[2]
    command = [sys.executable, __file__, "daemon", *sys.argv[4:]]
    daemon = subprocess.Popen(command, start_new_session=True, pass_fds=[])
    with open(cidfile, "x") as file:
        file.write(f"{{daemon.pid:x}}")
    sys.exit(daemon.wait())
"""


class Engine:
    """The engine's script, the host file that names it, and what came of it."""

    def __init__(self, folder: Path, placeholder: str = "--cidfile={cidfile}"):
        self.folder = folder
        script = folder / "engine"
        script.write_text(
            ENGINE.format(python=sys.executable, pids=str(folder / "pids"), killed=str(folder / "killed"))
        )
        script.chmod(0o755)
        command = [str(script), "run", "--rm", placeholder]
        self.host = ("--host", str(folder / "host.toml"))
        Path(self.host[1]).write_text(
            f'[backends."{SCRIPTED}"]\ncommand = {command}\npython = "{sys.executable}"\n'.replace("'", '"')
        )

    def workers(self) -> list[int]:
        return [int(line) for line in (self.folder / "pids").read_text().splitlines()]

    def killed(self) -> list[str]:
        path = self.folder / "killed"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path)


def gone(pids: list[int]) -> bool:
    alive = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    return not psutil.wait_procs(alive, timeout=10)[1]


def test_a_container_that_ends_by_itself_is_left_alone(engine: Engine, bench: Bench) -> None:
    ended = bench(*scripted("", *engine.host, workload="tg4"))
    assert ended.code == 0, ended.err
    assert len(engine.workers()) == 2 and gone(engine.workers()), "the probe's and the launch's"
    assert not engine.killed()
    (record,) = ended.records
    assert record.memory[0].anon_peak_bytes, "the client's memory says nothing: the worker told its own"


def test_a_timeout_ends_the_container(engine: Engine, bench: Bench) -> None:
    ended = bench(*scripted("step@3:hang", *engine.host, "--timeout", "3s", workload="tg4"))
    (record,) = ended.records
    assert record.reason and "longer than 3 s" in record.reason.what
    assert len(engine.killed()) == 1 and gone(engine.workers())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_container(engine: Engine, tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path, *scripted("step@3:hang", *engine.host, workload="tg4"))
    events = "results/launches/*/*/.*.partial/events.jsonl"
    while not any(b"warm-up" in path.read_bytes() for path in tmp_path.glob(events)):
        assert process.poll() is None
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert len(engine.killed()) == 1 and gone(engine.workers())


def test_a_client_that_is_killed_leaves_no_container(engine: Engine, tmp_path: Path) -> None:
    """The id is there, the client's exit is no clean one: the container is ended."""
    process = start(tmp_path, *scripted("step@3:hang", *engine.host, workload="tg4"))
    events = "results/launches/*/*/.*.partial/events.jsonl"
    while not any(b"warm-up" in path.read_bytes() for path in tmp_path.glob(events)):
        assert process.poll() is None
    (client,) = psutil.Process(process.pid).children()
    os.kill(client.pid, signal.SIGKILL)
    with pytest.raises(subprocess.TimeoutExpired):  # the worker still holds the pipe: it is not known to be dead
        process.communicate(timeout=1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert gone(engine.workers())


def test_without_the_placeholder_nothing_is_killed_by_id(tmp_path: Path, bench: Bench) -> None:
    engine = Engine(tmp_path, placeholder=f"--cidfile={tmp_path}/mine")
    ended = bench(*scripted("open:bug", *engine.host, workload="tg4"))
    assert ended.code in (3, 4), "the probe's id is still there: this engine refuses a second one"
    assert not engine.killed()
