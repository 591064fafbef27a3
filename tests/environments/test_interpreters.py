"""Cases executed where the runtime is and the command line is not: by --python, by the host file, behind a prefix."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from bench.results.record import Record, encode
from bench.results.redact import redact
from bench.results.store import Store
from tests.cli.conftest import NULL_SWEEP, TINY_SWEEP
from tests.sweeps.conftest import ROOT, SCRIPTED, Bench, environment, scripted
from tests.sweeps.test_interrupts import start, wait_for

NOTING = """#!{python}
'''Notes its words and the job; hands both on, and a standard input that never ends.'''
import os, sys

job = b""
while not job.endswith(b"\\n"):
    job += os.read(0, 1)
with open({notes!r}, "ab") as notes:
    notes.write(repr(sys.argv[1:]).encode() + b"\\n" + job)
read, write = os.pipe()
os.set_inheritable(write, True)
os.write(write, job)
os.dup2(read, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


def execute(python: str, tmp_path: Path, *words: str) -> tuple[Record, str]:
    """The one record that `bench`, executed by `python`, leaves, and what it said."""
    variables = {**environment(tmp_path), "BENCH_RESULTS": str(tmp_path / "results")}
    done = subprocess.run(
        [python, "-m", "bench", *words], cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=120
    )
    (record,) = Store(tmp_path / "results").records()
    return record, done.stderr


def host_file(tmp_path: Path, text: str) -> tuple[str, str]:
    (tmp_path / "host.toml").write_text(text)
    return "--host", str(tmp_path / "host.toml")


def test_the_first_interpreter_alone_has_no_runtime(without_runtime: str, tmp_path: Path) -> None:
    record, _ = execute(without_runtime, tmp_path, *TINY_SWEEP)
    assert record.status == "failed" and record.reason and record.reason.code == "prerequisite"
    assert record.reason.remedy and record.reason.remedy.endswith(", or bench setup onnx")
    assert record.info.interpreter is None


def test_a_second_interpreter_has_it(without_runtime: str, with_runtime: str, tmp_path: Path) -> None:
    record, said = execute(without_runtime, tmp_path, *TINY_SWEEP, "--python", with_runtime)
    assert record.status == "ok", said
    there = record.info.interpreter
    assert there and (there.origin, there.python, there.prefix) == ("--python", with_runtime, [])
    assert there.memory_read == "outside"
    assert there.version == ".".join(map(str, sys.version_info[:3]))
    for package in ("onnxruntime", "onnx", "numpy", "protobuf"):
        assert there.packages[package] == metadata.version(package)
    assert not {"click", "msgspec", "rich", "psutil", "pytest"} & set(there.packages)


def test_a_worker_needs_numpy_alone(without_runtime: str, with_numpy: str, tmp_path: Path) -> None:
    record, said = execute(without_runtime, tmp_path, *NULL_SWEEP, "--python", with_numpy)
    assert record.status == "unproven", said
    assert record.info.interpreter and set(record.info.interpreter.packages) - {"evenbench"} == {"numpy"}


def test_a_prefix_from_the_host_file(without_runtime: str, with_runtime: str, tmp_path: Path) -> None:
    host = host_file(
        tmp_path,
        f'[backends.onnx]\ncommand = ["env", "-i", "OMP_NUM_THREADS=1"]\npython = "{with_runtime}"\n'
        'environment = { OMP_NUM_THREADS = "2" }\n',
    )
    record, said = execute(without_runtime, tmp_path, *TINY_SWEEP, *host)
    assert record.status == "ok", said
    there = record.info.interpreter
    assert there and (there.origin, there.python) == ("host file", with_runtime)
    assert (there.prefix, there.memory_read) == (["env", "-i", "OMP_NUM_THREADS=1"], "inside")
    host_memory = record.memory[0]
    assert host_memory.anon_peak_bytes and host_memory.file_peak_bytes
    clean = json.loads(encode(redact(record)))["info"]["interpreter"]
    assert clean["prefix"] == ["env", "-i", "OMP_NUM_THREADS=[redacted]"]


def test_paths_are_translated_by_the_mapping(
    without_runtime: str, with_runtime: str, tmp_path: Path, bench: Bench
) -> None:
    """A folder seen through another name, as a container shows it; `[backends.null]` shows nothing of the cache."""
    noting, notes, seen = tmp_path / "noting", tmp_path / "notes", tmp_path / "seen"
    noting.write_text(NOTING.format(python=sys.executable, notes=str(notes)))
    noting.chmod(0o755)
    seen.mkdir()
    (seen / "code").symlink_to(ROOT)
    (seen / "data").symlink_to(tmp_path)
    paths = f'{{ "{ROOT}" = "{seen}/code", "{tmp_path}" = "{seen}/data" }}'
    text = f'[backends.onnx]\ncommand = ["{noting}"]\npython = "{with_runtime}"\npaths = '
    record, said = execute(without_runtime, tmp_path, *TINY_SWEEP, *host_file(tmp_path, text + paths))
    assert record.status == "ok", said
    words, *jobs = notes.read_text().splitlines()
    assert f"PYTHONPATH={seen}/code" in words
    told = [job for job in map(json.loads, [line for line in jobs if line.startswith("{")]) if job["artifact"]]
    assert [job["task"] for job in told] == ["prepare", "certify", "measure"]
    for job in told:
        given = [job["artifact"], job["reference"], job["prepared_folder"], (job["prepared"] or {}).get("path")]
        assert all(path.startswith(f"{seen}/data/cache/") for path in given if path)
    unmapped = bench(*TINY_SWEEP, *host_file(tmp_path, text + f'{{ "{ROOT}" = "{seen}/code" }}'))
    assert unmapped.code == 3
    assert f'add "{tmp_path}/cache" = "/where/it/is/inside" to `paths`' in unmapped.err
    assert "host.toml:1" in unmapped.err


def test_resume_keeps_the_host_file(with_numpy: str, tmp_path: Path, bench: Bench) -> None:
    host = host_file(tmp_path, f'[backends."{SCRIPTED}"]\npython = "{with_numpy}"\n')
    process = start(tmp_path, *scripted("rewind@9:hang", *host, workload="tg4,tg8"))
    wait_for(tmp_path, process, b"case-done")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert bench("run", "--resume").code == 0
    told = [record.info.interpreter for record in Store(tmp_path / "results").records()]
    assert [(there.origin, there.python) for there in told if there] == [("host file", with_numpy)] * 2


def test_a_worker_behind_a_prefix_ends_with_its_parent(tmp_path: Path) -> None:
    """Nothing but the closed standard input reaches it: it has a session of its own and another parent."""
    detached = tmp_path / "detached"
    detached.write_text('#!/bin/sh\necho $$ >"$0.pid"\nsetsid --wait sh -c \'"$@"; exit $?\' sh "$@"\n')
    detached.chmod(0o755)
    host = host_file(tmp_path, f'[backends."{SCRIPTED}"]\ncommand = ["{detached}"]\npython = "{sys.executable}"\n')
    process = start(tmp_path, *scripted("step@3:hang", *host, workload="tg8"))
    worker = wait_for(tmp_path, process, b"warm-up", depth=True)
    process.kill()
    process.communicate()
    worker.wait(timeout=20)


@pytest.mark.parametrize(
    ("script", "says", "cause", "remedy"),
    [
        ("open:print+step:segv", "SIGSEGV", "a runtime prints what it likes", "log"),
        ("step:ill", "SIGILL", "compiled for another processor", "bench setup scripted"),
        ("step:kill", "SIGKILL", "killed from outside", "log"),
    ],
)
def test_what_a_prefix_says_of_a_signal(
    tmp_path: Path, bench: Bench, script: str, says: str, cause: str, remedy: str
) -> None:
    """A shell or an engine ends with 128 and the number of the signal that ended what it started."""
    host = host_file(
        tmp_path,
        f'[backends."{SCRIPTED}"]\ncommand = ["sh", "-c", \'"$@"; exit $?\', "sh"]\npython = "{sys.executable}"\n',
    )
    for words in ((), host):
        ended = bench(*scripted(script, *words, workload="tg4"), results=tmp_path / f"results{len(words)}")
        (record,) = ended.records
        assert record.reason and record.reason.what == f"the worker died of {says}"
        assert cause in (record.reason.cause or "") and remedy in (record.reason.remedy or "")


def test_this_interpreter_is_not_asked_where_another_is_named(tmp_path: Path, bench: Bench) -> None:
    ended = bench(*NULL_SWEEP, *host_file(tmp_path, '[backends.null]\ncommand = ["/no/such/engine"]\n'))
    assert ended.code == 3
    assert "/no/such/engine: cannot start the worker: No such file" in ended.err and "host.toml:1" in ended.err
    listed = bench("list", "backends", env={"BENCH_HOST": str(tmp_path / "host.toml")})
    assert listed.code == 0 and "cannot start the worker" in listed.out
    named = bench(*NULL_SWEEP, *host_file(tmp_path, f'[backends.null]\npython = "{sys.executable}"\n'))
    assert named.code == 0
