"""Every way a case can end: its record, what is printed, the exit code. Executed through real workers."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sweeps.conftest import MODEL, SCRIPTED, Bench, environment, scripted


def test_a_sweep_leaves_a_record_of_every_case(bench: Bench) -> None:
    ended = bench(*scripted())
    assert ended.code == 0, ended.err
    assert ended.statuses == {"pp32": "unproven", "tg8": "unproven"}
    for record in ended.records:
        assert len(record.samples) == 5
        assert all(len(sample.step_s) == record.identity.workload.decode_steps for sample in record.samples)
        assert record.load is not None
        assert record.load.load_s is not None
        assert record.memory[0].anon_peak_bytes is not None
        assert (record.path.parent / "worker.log").exists()
        assert (record.path.parent / "events.jsonl").exists()


def test_json_is_the_records_and_nothing_else(bench: Bench) -> None:
    ended = bench(*scripted("step:print", "--json"))
    assert {line["record_id"] for line in ended.printed} == {record.record_id for record in ended.records}
    assert all("tg_tokens_per_s" in line["summary"] for line in ended.printed)


def test_what_a_runtime_prints_goes_to_the_log(bench: Bench) -> None:
    ended = bench(*scripted("step:print"))
    assert "prints what it likes" not in ended.out + ended.err
    assert "prints what it likes" in (ended.records[0].path.parent / "worker.log").read_text()


@pytest.mark.parametrize(
    ("script", "phase", "says"),
    [
        ("open:raise", "open", "the script raised"),
        ("open:bug", "open", "ValueError: the script has a bug"),
        ("open:oom", "open", "out of memory"),
        ("open:exit", "open", "exit code 7"),
        ("open:kill", "open", "SIGKILL"),
        ("step:segv", "first-step", "SIGSEGV"),
    ],
)
def test_what_fails_before_any_case_fails_them_all(bench: Bench, script: str, phase: str, says: str) -> None:
    ended = bench(*scripted(script))
    assert ended.code == 4
    assert ended.statuses == {"pp32": "failed", "tg8": "failed"}
    for record in ended.records:
        assert record.reason is not None
        assert (record.reason.phase, says in record.reason.what) == (phase, True)
    assert "Traceback" not in ended.err


def test_a_case_that_kills_its_worker_takes_no_other_with_it(bench: Bench) -> None:
    ended = bench(*scripted("rewind@9:kill", "--set", "cases=3", workload="pp32,tg8,tg4"))
    assert ended.code == 4
    assert sorted(ended.statuses.values()) == ["failed", "unproven", "unproven"]


def test_a_worker_that_dies_while_closing_leaves_its_samples_and_a_warning(bench: Bench) -> None:
    ended = bench(*scripted("close:segv"))
    assert sorted(ended.statuses.values()) == ["unproven", "unproven"]
    for record in ended.records:
        assert len(record.samples) == 5
        assert any("SIGSEGV" in said for said in record.warnings)


def test_a_worker_that_says_nothing_is_ended(bench: Bench) -> None:
    ended = bench(*scripted("step@3:hang", "--timeout", "3s", workload="pp32"))
    assert ended.code == 4
    assert "longer than 3 s" in ended.err


@pytest.fixture
def small_memory() -> Iterator[str]:
    """`BASH -c` words that limit a command to 600 MB by a control group of its own; skips where none can be made."""
    for folder, limit in (("memory", "memory.limit_in_bytes"), ("", "memory.max")):
        group = Path("/sys/fs/cgroup", folder, f"evenbench-test-{os.getpid()}")
        try:
            group.mkdir()
            (group / limit).write_text(str(600 << 20))
        except OSError:
            with contextlib.suppress(OSError):
                group.rmdir()
            continue
        yield f'echo $$ > {group}/cgroup.procs && exec "$0" "$@"'
        time.sleep(0.2)  # the kernel needs a moment to see the last process gone
        group.rmdir()
        return
    pytest.skip("no memory control group can be made here (not root, or no such controller)")


def test_a_worker_that_the_kernel_killed_for_memory_is_told_so(tmp_path: Path, small_memory: str) -> None:
    words = [sys.executable, "-m", "bench", *scripted("open:eat", workload="tg8"), "--results", str(tmp_path / "r")]
    done = subprocess.run(
        ["bash", "-c", small_memory, *words],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 4, done.stderr
    assert "killed by the kernel (SIGKILL): out of memory" in done.stderr
    assert "it had reached" in done.stderr and "take a smaller model" in done.stderr


@pytest.mark.parametrize(("script", "says"), [("logits:nan", "not finite"), ("step@2:invalid", "the script is")])
def test_what_must_not_be_believed_is_invalid(bench: Bench, script: str, says: str) -> None:
    ended = bench(*scripted(script, workload="tg8"))
    assert (ended.code, ended.statuses) == (5, {"tg8": "invalid"})
    assert says in ended.err


def test_unsupported_is_no_error(bench: Bench) -> None:
    ended = bench(*scripted("unsupported", workload="tg8"))
    assert (ended.code, ended.statuses) == (0, {"tg8": "unsupported"})


def test_the_most_serious_outcome_decides_the_exit_code(bench: Bench) -> None:
    ended = bench(*scripted("logits:nan+rewind@9:raise", workload="tg8,tg16"))
    assert set(ended.statuses.values()) == {"failed", "invalid"}
    assert ended.code == 5


def test_launches_are_processes(bench: Bench) -> None:
    ended = bench(*scripted("", "--launches", "3", workload="tg8"))
    assert len({record.launch_id for record in ended.records}) == 3
    assert [record.info.launch_index for record in ended.records] == [0, 1, 2]
    assert len({record.series_key for record in ended.records}) == 1


def test_plan_executes_nothing(bench: Bench) -> None:
    ended = bench("run", "--backend", "null", "--model", MODEL, "--plan")
    assert ended.code == 0
    assert "2 cases, 1 launches" in ended.out
    assert not ended.store.root.exists()


def test_a_plan_that_cannot_fit_is_refused(bench: Bench) -> None:
    ended = bench("run", "--backend", "onnx", "--model", "deepseek-70b-fp16", "--plan")
    assert ended.code == 3
    assert "memory" in ended.err or "disk" in ended.err


def test_a_foreign_adapter_is_found_by_path(bench: Bench) -> None:
    assert bench("run", "--backend", SCRIPTED, "--model", MODEL, "--plan").code == 0
