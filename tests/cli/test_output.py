"""Where the output goes: pipes that close, files, terminals of 80 columns; Ctrl-C in every phase."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bench.results.store import Store
from tests.cli.conftest import NULL_SWEEP, TINY_SWEEP
from tests.sweeps.conftest import Bench, environment, scripted

STOPS = """
import importlib, sys, time
module, name, *words = sys.argv[1:]

def stop(*args, **kwargs):
    print("REACHED", file=sys.stderr, flush=True)
    time.sleep(60)

found = importlib.import_module(module)
setattr(found, name, stop)
sys.argv[1:] = words
from bench.cli import main
main()
"""
"""`bench` with one function that takes a minute, so that it can be interrupted there."""


@pytest.mark.parametrize("words", ["list models --json", "list workloads", "--help", "table"])
def test_a_reader_that_had_enough(bench: Bench, tmp_path: Path, words: str) -> None:
    command = f"{shlex.quote(sys.executable)} -m bench {words} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr and "Broken" not in done.stderr
    assert done.stdout.strip() == "0"


def test_a_file_gets_no_control_characters(bench: Bench) -> None:
    ended = bench(*NULL_SWEEP, env={"TERM": "xterm-256color"})
    for text in (ended.out, ended.err, bench("table").out, bench("list", "models").out):
        assert not re.search(r"[\x00-\x09\x0b-\x1f]", text)
    assert max(map(len, ended.out.splitlines())) <= 80
    assert "measure tiny-int8 null tg4" in ended.err, "plain lines say what happens"


def on_terminal(tmp_path: Path, words: tuple[str, ...]) -> tuple[int, str]:
    """Exit code and all that a terminal of 80 columns was sent."""
    pid, terminal = pty.fork()
    if pid == 0:
        env = {**environment(tmp_path), "BENCH_RESULTS": str(tmp_path / "results"), "TERM": "xterm-256color"}
        os.chdir(tmp_path)
        os.execve(sys.executable, [sys.executable, "-m", "bench", *words], env)
    sent = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                piece = os.read(terminal, 1 << 16)
            except OSError:  # Linux's way to say that the other end is closed
                break
            sent += piece
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), sent.decode()


def test_a_terminal_gets_a_live_line_and_a_table(tmp_path: Path) -> None:
    code, sent = on_terminal(tmp_path, NULL_SWEEP)
    assert code == 0
    assert "\x1b[" in sent and "tiny-int8" in sent
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sent).replace("\r", "\n")
    assert max(len(line) for line in plain.splitlines() if str(tmp_path) not in line) <= 80
    assert sent.count("\x1b[?25h") >= sent.count("\x1b[?25l"), "the cursor is shown again"


def interrupted(tmp_path: Path, process: subprocess.Popen[str], reached: str) -> str:
    """Ctrl-C once standard error says `reached`; what it said afterwards. Nothing of it may be left running."""
    assert process.stderr is not None
    for line in process.stderr:
        if reached in line:
            break
    else:
        raise AssertionError(f"it never said {reached}")
    time.sleep(0.2)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert psutil.wait_procs(children, timeout=10)[1] == []
    assert not list(tmp_path.glob("**/*.partial"))
    assert not list(tmp_path.glob("**/record-*.json"))
    return said


def popen(tmp_path: Path, *command: str) -> subprocess.Popen[str]:
    env = {**environment(tmp_path), "BENCH_RESULTS": str(tmp_path / "results")}
    return subprocess.Popen([sys.executable, *command], cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("module", "function"),
    [
        ("bench.artifacts.cache", "synthesize"),
        ("bench.artifacts.reference", "compute_reference"),
        ("bench.artifacts.cache", "seal"),
    ],
)
def test_an_interrupt_while_weights_and_reference_are_made(
    tmp_path: Path, bench: Bench, module: str, function: str
) -> None:
    process = popen(tmp_path, "-c", STOPS, module, function, *TINY_SWEEP)
    assert "bench run --resume" in interrupted(tmp_path, process, "REACHED")
    resumed = bench("run", "--resume")
    assert (resumed.code, resumed.statuses) == (0, {"tg4": "ok"}), resumed.err
    assert "resumes `bench " in resumed.err


@pytest.mark.parametrize("phase", ["prepare tiny-int8", "certify: ", "probe read bandwidth", "load"])
def test_an_interrupt_while_a_worker_prepares_certifies_or_loads(tmp_path: Path, bench: Bench, phase: str) -> None:
    process = popen(tmp_path, "-m", "bench", *TINY_SWEEP, "--repetitions", "100000")
    assert "bench run --resume" in interrupted(tmp_path, process, phase)
    assert not Store(tmp_path / "results").leftovers()


def test_an_interrupt_of_prepare(tmp_path: Path) -> None:
    words = ("prepare", "tiny-int8", "--models", "tiny.toml")
    interrupted(tmp_path, popen(tmp_path, "-c", STOPS, "bench.artifacts.cache", "synthesize", *words), "REACHED")


def test_a_failed_case_names_its_log(bench: Bench) -> None:
    ended = bench(*scripted("step@2:raise", workload="tg8"))
    (log,) = re.findall(r"^  log: (.+)$", ended.err, re.MULTILINE)
    assert Path(log).is_file() and f"log     {log}" in bench("show", ended.records[0].record_id).out
