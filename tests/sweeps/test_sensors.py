"""Sensors beside real workers: an external meter as the host file names one, and one bench at a time."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.sweeps.conftest import Bench, environment, scripted

SENSORS = {"BENCH_SENSORS": "on"}
WATTS = 42


@pytest.fixture
def host_file(tmp_path: Path) -> str:
    path = tmp_path / "host.toml"
    path.write_text(f'meter = ["sh", "-c", "while echo {WATTS}; do sleep 0.05; done"]\n')
    return str(path)


def test_an_external_meter_becomes_joules(bench: Bench, host_file: str) -> None:
    ended = bench(*scripted("", "--set", "step_ms=1", "--host", host_file, "--idle", "8s", workload="tg8"), env=SENSORS)
    assert ended.code == 0, ended.err
    [record] = ended.records
    uses = {(use.part, use.phase): use for use in record.energy.uses}
    use = uses["wall", "decode"]
    assert use.own_pass and use.method == "integral" and not use.counted, use
    assert use.joules == pytest.approx(WATTS * use.seconds, rel=1e-6)
    assert use.net_j == pytest.approx(0, abs=1e-6)
    assert use.seconds >= 5 and use.tokens > 100
    [idle] = [each for each in record.energy.idle if each.part == "wall"]
    assert idle.mean_w == pytest.approx(WATTS) and idle.sd_w == pytest.approx(0, abs=1e-6)
    assert record.energy.reason is not None, "a meter of the whole machine is not the device's energy"
    assert record.collector.cpu_s < record.collector.wall_s
    folder = record.path.parent
    assert (folder / "sensors.jsonl").exists() and (folder / "idle.jsonl").exists()
    table = bench("table", "--format", "csv").out
    assert "wall_decode_j_per_token" in table.splitlines()[0]


def test_without_a_sensor_the_reasons_stand_in_the_record(bench: Bench) -> None:
    ended = bench(*scripted(), env={"BENCH_SENSORS": "off"})
    assert ended.code == 0
    for record in ended.records:
        assert record.energy.uses == [] and "BENCH_SENSORS=off" in record.energy.reason
        assert not list(record.path.parent.glob("*.jsonl.log"))


def popen(folder: Path, *words: str) -> subprocess.Popen[str]:
    variables = {**environment(folder), "BENCH_RESULTS": str(folder / "results")}
    command = [sys.executable, "-m", "bench", *words]
    return subprocess.Popen(command, cwd=folder, env=variables, stderr=subprocess.PIPE, text=True)


def measuring(process: subprocess.Popen[str]) -> None:
    assert process.stderr
    assert any("measure" in line for line in process.stderr), "it never measured"


ENDLESS = scripted("", "--set", "step_ms=5", "--repetitions", "100000", workload="tg8")


def test_a_second_bench_is_told_who_measures(tmp_path: Path, bench: Bench) -> None:
    (tmp_path / "first").mkdir()
    first = popen(tmp_path / "first", *ENDLESS)
    try:
        measuring(first)
        second = bench(*scripted("", "--max-wait", "0"))
        assert second.code == 75, second.err
        assert str(first.pid) in second.err and "being measured" in second.err
        assert second.records == []
    finally:
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=30)
    assert first.returncode == 130
    assert bench("run", "--resume").code == 0, "what was not measured for being busy is, now"


def test_measuring_windows_never_overlap_whoever_is_killed(tmp_path: Path) -> None:
    """Two benches, killed and started again at random; windows as their workers' events tell them."""
    chance = random.Random(6)
    folders = [tmp_path / name for name in "ab"]
    running: dict[Path, subprocess.Popen[str]] = {}
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        for folder in folders:
            folder.mkdir(exist_ok=True)
            if folder in running and running[folder].poll() is not None:
                running.pop(folder).communicate()
            if folder not in running:
                running[folder] = popen(
                    folder, *scripted("", "--set", "step_ms=5", "--max-wait", "60s", workload="tg64")
                )
        time.sleep(chance.uniform(0.3, 2.5))
        chance.choice(list(running.values())).kill()
    for process in running.values():
        process.kill()
        process.communicate(timeout=30)
    windows = sorted(window for folder in folders for window in windows_of(folder))
    assert len(windows) >= 3, "a slow machine starts few"
    assert all(one[1] <= other[0] for one, other in pairwise(windows)), windows


def windows_of(folder: Path) -> list[tuple[int, int]]:
    """From the first to the last event of each worker, as monotonic times: the clock of the whole machine."""
    found = []
    for path in folder.glob("results/**/events.jsonl"):
        times = [json.loads(line)["at_ns"] for line in path.read_bytes().split(b"\n") if line.endswith(b"}")]
        if times:
            found.append((times[0], times[-1]))
    return found
