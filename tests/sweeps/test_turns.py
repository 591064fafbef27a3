"""`bench ab` and `bench nightly` as processes: in which order, what is confirmed, what is gone on with."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from bench.interleaving import abba
from bench.results.journal import Journal
from bench.results.store import Store
from tests.sweeps.conftest import MODEL, SCRIPTED, Bench, environment

QUICK, SLOW = f"{SCRIPTED} step_ms=4", f"{SCRIPTED} step_ms=6"


def ab(bench: Bench, a: str, b: str, *words: str):
    return bench("ab", "--a", a, "--b", b, "--model", MODEL, "--workload", "tg4", "--repetitions", "2", *words)


def test_pairs_are_executed_in_the_order_that_was_drawn(bench: Bench) -> None:
    ended = ab(bench, QUICK, SLOW, "--pairs", "3", "--seed", "5", "--json")
    assert ended.code == 0, ended.err
    (told,) = ended.printed
    assert told["order"] == abba(3, 5) and sorted(told["order"][:2]) == ["AB", "BA"]
    records = sorted(ended.records, key=lambda record: record.launch_id)
    executed = [(record.info.launch_index, record.info.ab_side) for record in records]
    assert executed == [(pair, side.lower()) for pair, sides in enumerate(told["order"]) for side in sides]
    assert {record.info.ab_id for record in records} == {told["ab_id"]}
    assert len({record.info.sweep_id for record in records}) == 2, "each side is a sweep"
    (row,) = told["rows"]
    assert (row["verdict"], row["n"]) == ("worse", [3, 3]) and row["ratio"] == pytest.approx(4 / 6, rel=0.1)


def test_looks_end_where_it_is_decided_and_nothing_is_left_to_resume(bench: Bench, tmp_path: Path) -> None:
    ended = ab(bench, QUICK, SLOW)
    assert ended.code == 0 and len(ended.records) == 16, "eight pairs were enough"
    assert "8 pairs: smollm2-135m-int8 tg4: worse" in ended.err and ended.out.splitlines()[-1]
    assert Journal.open_latest_unfinished(ended.store) is None


def test_a_side_that_fails_is_told_and_no_verdict(bench: Bench) -> None:
    ended = ab(bench, QUICK, f"{SCRIPTED} script=open:raise", "--pairs", "2")
    assert ended.code == 4 and "the script raised" in ended.err


def test_interrupted_it_keeps_what_was_measured_and_nobody_resumes_half_of_it(bench: Bench, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    words = ["ab", "--a", QUICK, "--b", SLOW, "--model", MODEL, "--workload", "tg4", "--results", str(store.root)]
    command = [sys.executable, "-m", "bench", *words]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path), stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while len(list(store.records())) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and f"interrupted; what is measured is kept in {store.root}" in said
    assert len(list(store.records())) >= 2
    resumed = bench("run", "--resume", results=store.root)
    assert resumed.code == 2 and "nothing to resume" in resumed.err


def test_a_killed_night_is_not_resumed_as_a_sweep(bench: Bench, plan: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    command = [sys.executable, "-m", "bench", "nightly", str(plan), "--results", str(store.root)]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(tmp_path), stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not list(store.records()) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert Journal.open_latest_unfinished(store) is not None
    resumed = bench("run", "--resume", results=store.root)
    assert resumed.code == 2 and "nothing to resume" in resumed.err


@pytest.mark.parametrize(
    ("side", "said"),
    [
        ("", "--b"),
        ("'onnx", "No closing quotation"),
        ("onnx threads", "'threads' is not KEY=VALUE"),
        ("null thread=2", "unknown option 'thread'"),
        ("nul", "unknown backend 'nul'"),
    ],
)
def test_a_side_that_is_not_understood(bench: Bench, side: str, said: str) -> None:
    ended = ab(bench, "null", side)
    assert ended.code == 2 and said in ended.err and len(ended.err.splitlines()) == 1
    assert ended.records == []


PLAN = f"""
[defaults]
backend = "{SCRIPTED}"
model = "{MODEL}"
launches = 2
repetitions = 2

[[case]]
workload = "tg4"
set = {{ step_ms = 10 }}

[alert]
least_nights = 3
"""
SECOND_CASE = """
[[case]]
workload = "tg8"
set = { step_ms = 10 }
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    return path


def host_file(tmp_path: Path, slower_ms: int) -> Path:
    """Today's runtime: another one than that of the host file with another number, and so much slower."""
    path = tmp_path / f"host{slower_ms}.toml"
    command = f'["env", "SCRIPTED_SLOWER_MS={slower_ms}"]'
    path.write_text(f'[backends."{SCRIPTED}"]\npython = "{sys.executable}"\ncommand = {command}\n')
    return path


def test_a_runtime_that_became_slower_is_confirmed(bench: Bench, plan: Path, tmp_path: Path) -> None:
    good, bad = (str(host_file(tmp_path, slower_ms)) for slower_ms in (0, 3))
    for _ in range(3):
        assert bench("nightly", str(plan), "--host", good).code == 0
    quiet = bench("nightly", str(plan), "--host", good, "--json")
    assert quiet.code == 0 and {each["verdict"] for each in quiet.printed[0]["series"]} <= {"quiet", "improved"}
    ended = bench("nightly", str(plan), "--host", bad, "--summary", str(tmp_path / "s.md"))
    assert ended.code == 10, ended.out + ended.err
    summary = (tmp_path / "s.md").read_text()
    assert "Confirmed regressions (1)" in summary and "MS=0 → env SCRIPTED" in summary, "what differs stands beside it"
    pairs = [record for record in ended.records if record.info.ab_id]
    assert Counter(record.info.ab_side for record in pairs)["a"] >= 8
    assert {tuple(record.info.interpreter.prefix)[1] for record in pairs if record.info.interpreter} == {
        "SCRIPTED_SLOWER_MS=0",
        "SCRIPTED_SLOWER_MS=3",
    }
    again = bench("nightly", str(plan), "--host", good, "--json")
    assert again.code == 0, "neither the slow night nor its pairs are what the next is held against"


def test_a_regression_whose_old_runtime_is_gone_is_suspected(bench: Bench, plan: Path, tmp_path: Path) -> None:
    for _ in range(3):
        assert bench("nightly", str(plan)).code == 0
    slower = {"SCRIPTED_SLOWER_MS": "3"}
    assert bench("nightly", str(plan), env=slower).code == 0
    ended = bench("nightly", str(plan), "--strict", env=slower)
    assert ended.code == 11 and "not there any more" in ended.out


def test_a_killed_night_goes_on_with_the_rest(bench: Bench, plan: Path, tmp_path: Path) -> None:
    plan.write_text(PLAN + SECOND_CASE)
    store = Store(tmp_path / "results")
    command = [sys.executable, "-m", "bench", "nightly", str(plan), "--results", str(store.root)]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(tmp_path), stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while len(list(store.records())) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    before = {record.record_id for record in store.records()}
    assert 3 <= len(before) < 5
    ended = bench("nightly", str(plan), "--json")
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert len(told["series"]) == 2, "also what the killed one had measured is judged"
    launches = Counter(record.identity.workload.name for record in ended.records)
    assert launches == {"tg4": 2, "tg8": 2} and before <= {record.record_id for record in ended.records}
    assert len(list((store.root / "nights").iterdir())) == 1
    assert bench("nightly", str(plan)).code == 0 and len(list((store.root / "nights").iterdir())) == 2
